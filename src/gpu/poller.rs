//! A thread that waits for submissions, so that futures over their callbacks wake up. It starts with the first asynchronous call and
//! ends with the `Gpu`; blocking calls wait for themselves.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

pub(super) struct Poller {
    device: wgpu::Device,
    submissions: OnceLock<Option<Sender<wgpu::SubmissionIndex>>>,
}

impl Poller {
    pub(super) fn new(device: wgpu::Device) -> Self {
        Self { device, submissions: OnceLock::new() }
    }

    pub(super) fn wait(&self, submission: wgpu::SubmissionIndex) {
        let sender = self.submissions.get_or_init(|| {
            let (sender, receiver) = channel();
            let device = self.device.clone();
            let work = move || {
                for submission in receiver {
                    // An error is a lost device: the callbacks of the work under way tell its callers.
                    _ = device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
                }
            };
            std::thread::Builder::new().name("minilm-poll".into()).spawn(work).map(|_| sender).ok()
        });
        // Without a thread the caller itself waits: late for other tasks on its executor, but never for ever.
        let handed_over = sender.as_ref().is_some_and(|sender| sender.send(submission.clone()).is_ok());
        if !handed_over {
            _ = self.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
        }
    }
}
