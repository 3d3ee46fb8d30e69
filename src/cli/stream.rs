//! Items in chunks, read and made into tokens on a thread of their own while the GPU works on the chunk before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use minilm::{Encoding, Error, Length, Result, Sequence, Sourced};

use super::input::{Item, Reader};
use super::output;
use super::progress::Progress;

/// A chunk should take about this long: long enough to keep a GPU busy, short enough to show where one is and to lose little.
const CHUNK_TIME: Duration = Duration::from_millis(500);

/// Texts of the first chunk, and of the largest.
const FIRST_CHUNK: usize = 32;
const LARGEST_CHUNK: usize = 8192;

/// Bytes of text after which a chunk is closed, however few texts it has.
const CHUNK_BYTES: usize = 1 << 20;

/// What becomes of the input behind an item that cannot be taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Faults {
    /// Nothing: the error ends the program, after what comes before it.
    End,
    /// It goes on: a line of JSON takes the item's place, and the exit status tells of it.
    Report,
}

/// What an item is as tokens.
pub trait Tokens: Send + 'static {
    fn length(&self) -> Length;

    /// How many inputs of the model it is.
    fn inputs(&self) -> usize {
        1
    }
}

impl Tokens for Encoding {
    fn length(&self) -> Length {
        Encoding::length(self)
    }
}

impl Tokens for Sourced {
    fn length(&self) -> Length {
        self.encoding.length()
    }
}

/// Several inputs of one text; the longest speaks for all.
impl<T: Tokens> Tokens for Vec<T> {
    fn length(&self) -> Length {
        self.iter().map(T::length).max_by_key(|length| length.total).unwrap_or(Length { total: 0, used: 0 })
    }

    fn inputs(&self) -> usize {
        self.iter().map(T::inputs).sum()
    }
}

/// Some items, in order.
pub struct Chunk<T> {
    /// The number of the first one, from 0.
    pub first: u64,
    pub results: Vec<Result<(Item, T)>>,
    position: u64,
}

impl<T: Tokens> Chunk<T> {
    /// With the place of the text, where an error only has its number among the model's inputs of this chunk.
    pub fn placed(&self, error: Error) -> Error {
        let Error::NotFinite { text, .. } = error else { return error };
        let mut inputs = 0;
        let wrong = self.good().find(|(_, tokens)| {
            inputs += tokens.inputs();
            inputs > text
        });
        let Some((item, _)) = wrong else { return error };
        let problem = error.to_string();
        let problem = problem.strip_prefix(&format!("text {text}: ")).unwrap_or(&problem);
        Error::Input { problem: format!("{}: {problem}", item.place) }
    }

    fn found<F>(&self, find: impl Fn(&Self) -> Result<Vec<F>>) -> Result<Vec<F>> {
        if self.good().next().is_none() {
            return Ok(Vec::new());
        }
        find(self).map_err(|error| self.placed(error))
    }
}

impl<T> Chunk<T> {
    /// The items that can be taken.
    pub fn good(&self) -> impl Iterator<Item = &(Item, T)> {
        self.results.iter().flatten()
    }

    /// Writes a line for every item, in order: what `line` makes of the next of `found`, or what was wrong with it.
    fn write<F>(self, found: impl IntoIterator<Item = F>, mut line: impl FnMut(&mut Vec<u8>, Line<'_, T, F>) -> Result<()>) -> Result<()> {
        let (mut lines, mut found) = (Vec::new(), found.into_iter());
        for (index, result) in (self.first..).zip(&self.results) {
            match result {
                Ok((item, tokens)) => match found.next() {
                    Some(found) => line(&mut lines, Line { index, item, tokens, found })?,
                    None => return Err(Error::Input { problem: format!("{}: there is no result: please report this", item.place) }),
                },
                Err(error) => output::push_json(&mut lines, &Fault { index, error: error.to_string() })?,
            }
        }
        output::write(&lines)
    }
}

impl<T: Clone> Chunk<T> {
    /// The tokens of all items that can be taken.
    pub fn tokens(&self) -> Vec<T> {
        self.good().map(|(_, tokens)| tokens.clone()).collect()
    }
}

impl Chunk<Encoding> {
    pub fn sequences(&self) -> Vec<Sequence<'_>> {
        self.good().map(|(_, encoding)| encoding.sequence()).collect()
    }
}

/// An item and what was found for it.
pub struct Line<'a, T, F> {
    pub index: u64,
    pub item: &'a Item,
    pub tokens: &'a T,
    pub found: F,
}

#[derive(serde::Serialize)]
struct Fault {
    index: u64,
    error: String,
}

/// All chunks of an input, in order.
pub struct Stream<T> {
    chunks: Receiver<Result<Chunk<T>>>,
    /// How many texts the next chunk should have.
    wanted: Arc<AtomicUsize>,
    handed_out: Option<Instant>,
    progress: Progress,
    position: u64,
    source: String,
    texts: u64,
    truncated: u64,
    faults: u64,
}

impl<T: Tokens> Stream<T> {
    /// The thread is never joined: at an early end it may be waiting for input that does not come.
    pub fn start(reader: Reader, progress: Progress, faults: Faults, encode: impl Fn(&Item) -> Result<T> + Send + Sync + 'static) -> Self {
        let wanted = Arc::new(AtomicUsize::new(FIRST_CHUNK));
        let (sender, chunks) = sync_channel(1);
        let source = reader.source().to_owned();
        let mut producer = Producer { reader, sender, faults, encode, first: 0 };
        let texts = wanted.clone();
        thread::spawn(move || while producer.produce(texts.load(Ordering::Relaxed)) {});
        Self { chunks, wanted, handed_out: None, progress, position: 0, source, texts: 0, truncated: 0, faults: 0 }
    }

    /// The next chunk, or `None` at the end.
    ///
    /// # Errors
    /// Something is wrong with the input; chunks of what comes before it have been handed out. There is no input at all.
    pub fn next(&mut self) -> Result<Option<Chunk<T>>> {
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
        self.texts += chunk.results.len() as u64;
        self.truncated += chunk.good().filter(|(_, tokens)| tokens.length().truncated()).count() as u64;
        self.faults += chunk.results.iter().filter(|result| result.is_err()).count() as u64;
        self.position = chunk.position;
        self.handed_out = Some(Instant::now());
        Ok(Some(chunk))
    }

    /// For every chunk, finds something for each item that can be taken, and writes a line for each item.
    ///
    /// # Errors
    /// As [`Stream::next`] and [`Stream::finish`], and those of the work itself.
    pub fn write_each<F>(
        mut self,
        max_length: usize,
        find: impl Fn(&Chunk<T>) -> Result<Vec<F>>,
        line: impl Fn(&mut Vec<u8>, Line<'_, T, F>) -> Result<()>,
    ) -> Result<()> {
        while let Some(chunk) = self.next()? {
            let found = chunk.found(&find)?;
            chunk.write(found, &line)?;
        }
        self.finish(max_length)
    }

    /// As [`Stream::write_each`], but nothing is written before everything is found.
    pub fn collect<F>(mut self, find: impl Fn(&Chunk<T>) -> Result<Vec<F>>) -> Result<Collected<T, F>> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.next()? {
            let found = chunk.found(&find)?;
            chunks.push((chunk, found));
        }
        Ok(Collected { stream: self, chunks })
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

    /// Warns when texts were cut.
    ///
    /// # Errors
    /// Some items could not be taken: what was wrong stands in their place.
    pub fn finish(self, max_length: usize) -> Result<()> {
        let Self { truncated, texts, faults, .. } = self;
        match (truncated, texts) {
            (0, _) => {}
            (1, 1) => log::warn!("the text was cut to {max_length} tokens"),
            _ => log::warn!("{truncated} of {texts} texts were cut to {max_length} tokens"),
        }
        match (faults, texts) {
            (0, _) => Ok(()),
            (1, 1) => Err(Error::Input { problem: "the text could not be taken: see `error` in its place".into() }),
            _ => Err(Error::Input { problem: format!("{faults} of {texts} lines could not be taken: see `error` in their place") }),
        }
    }
}

/// Everything that was found.
pub struct Collected<T, F> {
    stream: Stream<T>,
    pub chunks: Vec<(Chunk<T>, Vec<F>)>,
}

impl<T: Tokens, F> Collected<T, F> {
    /// The items that could be taken, with what was found.
    pub fn good(&self) -> impl Iterator<Item = Line<'_, T, &F>> {
        self.chunks.iter().flat_map(|(chunk, found)| {
            let good = (chunk.first..).zip(&chunk.results).filter_map(|(index, result)| Some((index, result.as_ref().ok()?)));
            good.zip(found).map(|((index, (item, tokens)), found)| Line { index, item, tokens, found })
        })
    }

    /// Appends a line for each item that could not be taken.
    pub fn push_faults(&self, lines: &mut Vec<u8>) -> Result<()> {
        for (chunk, _) in &self.chunks {
            for (index, result) in (chunk.first..).zip(&chunk.results) {
                if let Err(error) = result {
                    output::push_json(lines, &Fault { index, error: error.to_string() })?;
                }
            }
        }
        Ok(())
    }

    /// As [`Stream::finish`].
    pub fn finish(self, max_length: usize) -> Result<()> {
        self.stream.finish(max_length)
    }

    /// Writes a line for each item.
    ///
    /// # Errors
    /// As [`Stream::finish`], and those of the work itself.
    pub fn write(self, max_length: usize, line: impl Fn(&mut Vec<u8>, Line<'_, T, F>) -> Result<()>) -> Result<()> {
        for (chunk, found) in self.chunks {
            chunk.write(found, &line)?;
        }
        self.stream.finish(max_length)
    }
}

/// Reads and makes tokens.
struct Producer<T, E> {
    reader: Reader,
    sender: SyncSender<Result<Chunk<T>>>,
    faults: Faults,
    encode: E,
    first: u64,
}

impl<T: Tokens, E: Fn(&Item) -> Result<T> + Sync> Producer<T, E> {
    /// Sends one chunk; false when there is no more to do.
    fn produce(&mut self, texts: usize) -> bool {
        let (mut items, mut bytes, mut more) = (Vec::new(), 0, true);
        while items.len() < texts && bytes < CHUNK_BYTES {
            let item = self.reader.next().transpose();
            let Some(item) = item else {
                more = false;
                break;
            };
            // A line that cannot be read as it should says nothing about the next; a file that cannot be read ends here.
            let ends = item.as_ref().is_err_and(|error| self.faults == Faults::End || !matches!(error, Error::Input { .. }));
            bytes += item.as_ref().map_or(0, |item| item.text.len() + item.pair.as_ref().map_or(0, String::len));
            items.push(item);
            if ends {
                more = false;
                break;
            }
        }
        let mut results = encode_all(items, &self.encode);
        // What comes before an error is not lost.
        let fatal = |result: &Result<(Item, T)>| {
            result.as_ref().is_err_and(|error| self.faults == Faults::End || !matches!(error, Error::Input { .. }))
        };
        let end = results.iter().position(fatal).and_then(|at| results.drain(at..).next()).and_then(Result::err);
        let (first, position) = (self.first, self.reader.position);
        self.first += results.len() as u64;
        let sent = results.is_empty() || self.sender.send(Ok(Chunk { first, results, position })).is_ok();
        match end {
            None => sent && more,
            Some(error) => {
                _ = sent && self.sender.send(Err(error)).is_ok();
                false
            }
        }
    }
}

/// Tokens of all items, in order, made by as many threads as there are processors: one alone is slower than a GPU.
fn encode_all<T: Tokens>(items: Vec<Result<Item>>, encode: &(impl Fn(&Item) -> Result<T> + Sync)) -> Vec<Result<(Item, T)>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(FIRST_CHUNK);
    let mut shares: Vec<Vec<Result<Item>>> = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        if i % share == 0 {
            shares.push(Vec::with_capacity(share));
        }
        if let Some(last) = shares.last_mut() {
            last.push(item);
        }
    }
    let one = |item: Result<Item>| {
        item.and_then(|item| match encode(&item) {
            Ok(tokens) => Ok((item, tokens)),
            Err(error) => Err(Error::Input { problem: format!("{}: {error}", item.place) }),
        })
    };
    thread::scope(|scope| {
        let workers: Vec<_> = shares.into_iter().map(|items| scope.spawn(move || items.into_iter().map(one).collect::<Vec<_>>())).collect();
        let panicked = || vec![Err(Error::Input { problem: "the tokenizer has panicked: please report the text".into() })];
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|_| panicked())).collect()
    })
}
