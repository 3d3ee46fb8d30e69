//! Items in chunks, read and made into tokens on a thread of their own while the GPU works on the chunk before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use minilm::{Encoding, Error, Result, Sequence};

use super::input::{Item, Reader};
use super::progress::Progress;

/// A chunk should take about this long: long enough to keep a GPU busy, short enough to show where one is and to lose little.
const CHUNK_TIME: Duration = Duration::from_millis(500);

/// Texts of the first chunk, and of the largest.
const FIRST_CHUNK: usize = 32;
const LARGEST_CHUNK: usize = 8192;

/// Bytes of text after which a chunk is closed, however few texts it has.
const CHUNK_BYTES: usize = 1 << 20;

/// Items with their tokens.
pub struct Chunk {
    pub items: Vec<Item>,
    pub encodings: Vec<Encoding>,
    position: u64,
}

impl Chunk {
    pub fn sequences(&self) -> Vec<Sequence<'_>> {
        sequences(&self.encodings)
    }
}

pub fn sequences(encodings: &[Encoding]) -> Vec<Sequence<'_>> {
    encodings.iter().map(Encoding::sequence).collect()
}

/// All chunks of an input, in order.
pub struct Stream {
    chunks: Receiver<Result<Chunk>>,
    /// How many texts the next chunk should have.
    wanted: Arc<AtomicUsize>,
    handed_out: Option<Instant>,
    progress: Progress,
    position: u64,
    source: String,
    texts: u64,
    truncated: u64,
}

impl Stream {
    /// The thread is never joined: at an early end it may be waiting for input that does not come.
    pub fn start(mut reader: Reader, progress: Progress, encode: impl Fn(&Item) -> Result<Encoding> + Send + Sync + 'static) -> Self {
        let wanted = Arc::new(AtomicUsize::new(FIRST_CHUNK));
        let (sender, chunks) = sync_channel(1);
        let source = reader.source().to_owned();
        let texts = wanted.clone();
        thread::spawn(move || while produce(&mut reader, &sender, texts.load(Ordering::Relaxed), &encode) {});
        Self { chunks, wanted, handed_out: None, progress, position: 0, source, texts: 0, truncated: 0 }
    }

    /// The next chunk, or `None` at the end.
    ///
    /// # Errors
    /// Something is wrong with the input; chunks of what comes before it have been handed out. There is no input at all.
    pub fn next(&mut self) -> Result<Option<Chunk>> {
        self.progress.set(self.position, self.texts);
        if let Some(handed_out) = self.handed_out {
            self.pace(handed_out.elapsed());
        }
        let Ok(chunk) = self.chunks.recv() else {
            self.progress.finish();
            return match self.texts {
                0 => Err(Error::Input { problem: format!("no texts were given: {} is empty", self.source) }),
                _ => Ok(None),
            };
        };
        let chunk = chunk.inspect_err(|_| self.progress.finish())?;
        self.texts += chunk.items.len() as u64;
        self.truncated += chunk.encodings.iter().filter(|encoding| encoding.truncated).count() as u64;
        self.position = chunk.position;
        self.handed_out = Some(Instant::now());
        Ok(Some(chunk))
    }

    fn pace(&self, taken: Duration) {
        let texts = self.wanted.load(Ordering::Relaxed);
        let texts = match taken {
            _ if taken < CHUNK_TIME / 2 => texts * 2,
            _ if taken > CHUNK_TIME * 2 => texts / 2,
            _ => texts,
        };
        self.wanted.store(texts.clamp(FIRST_CHUNK / 4, LARGEST_CHUNK), Ordering::Relaxed);
    }

    /// Texts handed out so far.
    pub fn texts(&self) -> u64 {
        self.texts
    }

    /// Warns when texts were cut.
    pub fn warn_truncated(&self, max_length: usize) {
        warn_truncated(self.truncated, self.texts, max_length);
    }
}

pub fn warn_truncated(truncated: u64, texts: u64, max_length: usize) {
    match (truncated, texts) {
        (0, _) => {}
        (1, 1) => log::warn!("the text was cut to {max_length} tokens"),
        _ => log::warn!("{truncated} of {texts} texts were cut to {max_length} tokens"),
    }
}

/// Sends one chunk; false when there is no more to do.
fn produce(
    reader: &mut Reader,
    sender: &SyncSender<Result<Chunk>>,
    texts: usize,
    encode: &(impl Fn(&Item) -> Result<Encoding> + Sync),
) -> bool {
    let (mut items, mut bytes) = (Vec::new(), 0);
    let end = loop {
        if items.len() >= texts || bytes >= CHUNK_BYTES {
            break Ok(true);
        }
        match reader.next() {
            Ok(Some(item)) => {
                bytes += item.text.len() + item.pair.as_ref().map_or(0, String::len);
                items.push(item);
            }
            Ok(None) => break Ok(false),
            Err(error) => break Err(error),
        }
    };
    let mut encodings = Vec::with_capacity(items.len());
    let mut end = end;
    for encoding in encode_all(&items, encode) {
        match encoding {
            Ok(encoding) => encodings.push(encoding),
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    // What comes before an error is not lost.
    items.truncate(encodings.len());
    let sent = items.is_empty() || sender.send(Ok(Chunk { items, encodings, position: reader.position })).is_ok();
    match end {
        Ok(more) => sent && more,
        Err(error) => {
            _ = sent && sender.send(Err(error)).is_ok();
            false
        }
    }
}

/// Tokens of all items, in order, made by as many threads as there are processors: one alone is slower than a GPU.
fn encode_all(items: &[Item], encode: &(impl Fn(&Item) -> Result<Encoding> + Sync)) -> Vec<Result<Encoding>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(FIRST_CHUNK);
    thread::scope(|scope| {
        let workers: Vec<_> = items.chunks(share).map(|items| scope.spawn(move || items.iter().map(encode).collect::<Vec<_>>())).collect();
        let panicked = || vec![Err(Error::Input { problem: "the tokenizer has panicked: please report the text".into() })];
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|_| panicked())).collect()
    })
}
