//! A bar on standard error for work that takes long, where someone sees it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Short work needs no bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows itself only on a terminal, and only after a while.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

impl Progress {
    /// `total` is in the unit of the positions, where it is known.
    pub fn new(total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => "{bar:32} {percent:>3}%  {msg}, {eta} left",
            None => "{spinner} {msg}, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar, started: Instant::now(), shown: false }
    }

    /// As [`Progress::new`], but nothing where results appear on a terminal: they show how far the work is.
    pub fn beside_results(total: Option<u64>) -> Self {
        match std::io::stdout().is_terminal() {
            true => Self { bar: ProgressBar::hidden(), started: Instant::now(), shown: true },
            false => Self::new(total),
        }
    }

    /// `position` of the total, which is so many texts.
    pub fn set(&mut self, position: u64, texts: u64) {
        let elapsed = self.started.elapsed();
        if !self.shown && texts > 0 && elapsed > PATIENCE {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        let rate = texts as f64 / elapsed.as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{} texts, {rate:.0} a second", HumanCount(texts)));
        self.bar.set_position(position);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
