//! The log's thread: takes records out of the shards' rings, formats them and appends them to files.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::entry::{Entry, FieldMask};
use super::files::Files;
use super::format::{Format, Memo};
use super::ring::{self, Consumer, Producer, Waker};

/// How the log is set up.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Number of shards, each with a ring of its own.
    pub shards: usize,
    /// Size of a shard's ring. At 200 bytes a record 1 MiB is 5,000 requests, which is what a shard may finish
    /// while the thread waits for company or the disk hesitates.
    pub ring_bytes: usize,
    /// Where files with a relative name lie.
    pub directory: PathBuf,
}

/// Where a request's line goes and what has to be sent along. Plain numbers for a stage's plan; good as long as a
/// [`LogHandle`] is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTarget {
    pub(in crate::telemetry) sink: u32,
    pub(in crate::telemetry) fields: FieldMask,
}

/// Keeps a destination and its format known to the writer.
#[derive(Clone, Debug)]
pub struct LogHandle {
    target: LogTarget,
    _open: Arc<Open>,
}

impl LogHandle {
    /// What the plan carries.
    pub fn target(&self) -> LogTarget {
        self.target
    }
}

/// What became of the lines, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Written to files.
    pub written: u64,
    /// Lost because a shard's ring was full.
    pub dropped_full: u64,
    /// Lost because a file could not be opened or written.
    pub dropped_failed: u64,
}

/// The access log of the node. Dropping it writes what is left and ends the thread.
#[derive(Debug)]
pub struct Writer {
    link: Link,
    directory: PathBuf,
    next_sink: AtomicU32,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) failed: AtomicU64,
    full: AtomicU64,
}

impl Writer {
    /// Starts the thread. The producers are the shards' ends, in order.
    pub(in crate::telemetry) fn start(options: WriterOptions) -> io::Result<(Writer, Vec<Producer>)> {
        let (sender, commands) = mpsc::channel();
        let (begin, begun) = mpsc::sync_channel(1);
        let counts = Arc::new(Counts::default());
        let pending = Arc::new(AtomicUsize::new(0));
        let worker_counts = Arc::clone(&counts);
        let worker_pending = Arc::clone(&pending);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                if let Ok((consumers, waker)) = begun.recv() {
                    let files = Files::new(Arc::clone(&worker_counts));
                    Worker {
                        consumers,
                        waker,
                        commands,
                        asked: VecDeque::new(),
                        pending: worker_pending,
                        sinks: HashMap::default(),
                        files,
                        counts: worker_counts,
                        memo: Memo::default(),
                        record: Vec::new(),
                    }
                    .run();
                }
            })?;
        let waker = Arc::new(Waker::new(thread.thread().clone()));
        let (producers, consumers) = (0..options.shards)
            .map(|_| ring::channel(options.ring_bytes, Arc::clone(&waker)))
            .unzip();
        // The thread is waiting for exactly this.
        let _ = begin.send((consumers, Arc::clone(&waker)));
        let link = Link {
            sender,
            pending,
            waker,
        };
        Ok((
            Writer {
                link,
                directory: options.directory,
                next_sink: AtomicU32::new(0),
                counts,
                thread: Some(thread),
            },
            producers,
        ))
    }

    /// Makes a destination known. The file is opened, with its parent directories, when the first line comes; one
    /// that cannot be opened loses its lines, counted, and is tried again every second. A relative one lies in the
    /// directory that the writer was started with.
    pub fn open(&self, destination: &Path, format: Format) -> LogHandle {
        let sink = self.next_sink.fetch_add(1, Ordering::Relaxed);
        let target = LogTarget {
            sink,
            fields: format.fields(),
        };
        self.link.send(Command::Open(
            sink,
            self.directory.join(destination).into(),
            format,
        ));
        LogHandle {
            target,
            _open: Arc::new(Open {
                sink,
                link: self.link.clone(),
            }),
        }
    }

    /// Opens every file anew, for log rotation. Called on SIGHUP; returns when it is done.
    pub fn reopen(&self) {
        self.link.request(Command::Reopen);
    }

    /// Returns when every line recorded before the call is in its file.
    pub fn flush(&self) {
        self.link.request(Command::Flush);
    }

    /// What became of the lines so far.
    pub fn stats(&self) -> LogStats {
        LogStats {
            written: self.counts.written.load(Ordering::Relaxed),
            dropped_full: self.counts.full.load(Ordering::Relaxed),
            dropped_failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.link.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
enum Command {
    Open(u32, Box<Path>, Format),
    Close(u32),
    Reopen(mpsc::SyncSender<()>),
    Flush(mpsc::SyncSender<()>),
    Stop,
}

/// A way to the thread.
#[derive(Clone, Debug)]
struct Link {
    sender: mpsc::Sender<Command>,
    /// Commands on the way, so that the thread can look without taking.
    pending: Arc<AtomicUsize>,
    waker: Arc<Waker>,
}

impl Link {
    fn send(&self, command: Command) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        // Fails only when the thread has ended: nothing is left to be told.
        let _ = self.sender.send(command);
        self.waker.wake_now();
    }

    fn request(&self, command: impl FnOnce(mpsc::SyncSender<()>) -> Command) {
        let (done, wait) = mpsc::sync_channel(1);
        self.send(command(done));
        let _ = wait.recv();
    }
}

#[derive(Debug)]
struct Open {
    sink: u32,
    link: Link,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.link.send(Command::Close(self.sink));
    }
}

struct Worker {
    consumers: Vec<Consumer>,
    waker: Arc<Waker>,
    commands: mpsc::Receiver<Command>,
    /// Fetched and not done yet.
    asked: VecDeque<Command>,
    pending: Arc<AtomicUsize>,
    sinks: HashMap<u32, (Box<Path>, Format), ahash::RandomState>,
    files: Files,
    counts: Arc<Counts>,
    memo: Memo,
    record: Vec<u8>,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.waker.park_unless(|| self.has_work());
            if self.pending.load(Ordering::Acquire) == 0 {
                // Wait for company: one write for many lines.
                std::thread::park_timeout(LINGER);
            }
            let stop = self.obey();
            self.drain();
            if stop {
                return;
            }
        }
    }

    fn has_work(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0 || self.consumers.iter().any(|ring| !ring.is_empty())
    }

    /// Does what was asked. True when the thread shall end.
    fn obey(&mut self) -> bool {
        self.fetch_commands();
        while let Some(command) = self.asked.pop_front() {
            match command {
                Command::Open(..) => {} // done when it was fetched
                Command::Close(sink) => {
                    // What was recorded before its plan went is still in the rings.
                    self.drain();
                    self.sinks.remove(&sink);
                }
                Command::Reopen(done) => {
                    self.drain();
                    self.files.reopen();
                    let _ = done.send(());
                }
                Command::Flush(done) => {
                    self.drain();
                    let _ = done.send(());
                }
                Command::Stop => return true,
            }
        }
        false
    }

    /// Takes in what was sent. Sinks are known from then on; the rest waits for [`obey`](Self::obey).
    fn fetch_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.pending.fetch_sub(1, Ordering::AcqRel);
            match command {
                Command::Open(sink, path, format) => drop(self.sinks.insert(sink, (path, format))),
                command => self.asked.push_back(command),
            }
        }
    }

    /// Writes everything that is in the rings now; what comes meanwhile waits for the next time.
    fn drain(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        let mut full = 0;
        for shard in 0..self.consumers.len() {
            let end = self.consumers[shard].end();
            while self.consumers[shard].pop_before(end, &mut record) {
                self.line(&record);
            }
            full += self.consumers[shard].dropped();
        }
        self.record = record;
        self.counts.full.store(full, Ordering::Relaxed);
        self.files.write_all();
    }

    fn line(&mut self, record: &[u8]) {
        let Some(entry) = Entry::decode(record) else {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !self.sinks.contains_key(&entry.sink) {
            // Its `Open` was sent before the record, yet we may have looked for commands even earlier.
            self.fetch_commands();
        }
        match self.sinks.get(&entry.sink) {
            Some((path, format)) => {
                self.files
                    .line(path, |out| format.write_line(&entry, &mut self.memo, out));
            }
            None => drop(self.counts.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// How long the thread waits for more lines after the first.
const LINGER: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::super::entry::Encoder;
    use super::super::entry::tests::sample;
    use super::super::format::StageFacts;
    use super::*;
    use crate::telemetry::RequestRecord;

    fn start(shards: usize) -> (Writer, Vec<Producer>) {
        Writer::start(WriterOptions {
            shards,
            ring_bytes: 64 * 1024,
            directory: PathBuf::new(),
        })
        .unwrap()
    }

    fn format(text: &str) -> Format {
        Format::compile(text, &StageFacts::default()).unwrap()
    }

    fn log(ring: &Producer, target: LogTarget, id: &str) -> bool {
        let record = RequestRecord {
            request_id: id.as_bytes(),
            ..sample()
        };
        ring.push(Encoder::new(4096).encode(target.sink, target.fields, &record))
    }

    /// OBS-033, OBS-034: a line a request, each stage in its own format and file.
    #[test]
    fn lines_of_all_shards_reach_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, rings) = start(2);
        let one = writer.open(
            &dir.path().join("deep/er/one.log"),
            format("one $context.requestId"),
        );
        let two = writer.open(&dir.path().join("two.log"), format("two $context.requestId"));
        let again = writer.open(&dir.path().join("two.log"), format("2 $context.requestId"));
        for (shard, ring) in rings.iter().enumerate() {
            assert!(log(ring, one.target(), &format!("a{shard}")));
            assert!(log(ring, two.target(), &format!("b{shard}")));
            assert!(log(ring, again.target(), &format!("c{shard}")));
        }
        drop((one, two, again));
        writer.flush();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("deep/er/one.log"), "one a0\none a1\n");
        assert_eq!(read("two.log"), "two b0\n2 c0\ntwo b1\n2 c1\n");
        assert_eq!(
            writer.stats(),
            LogStats {
                written: 6,
                dropped_full: 0,
                dropped_failed: 0
            }
        );
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            dir.path()
                .join("two.log")
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o640
        );
    }

    /// D19: after a rotation and SIGHUP lines go to the new file.
    #[test]
    fn reopening_follows_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let (writer, rings) = start(1);
        let handle = writer.open(&path, format("$context.requestId"));
        log(&rings[0], handle.target(), "before");
        writer.flush();
        std::fs::rename(&path, &old).unwrap();
        log(&rings[0], handle.target(), "between");
        writer.reopen();
        log(&rings[0], handle.target(), "after");
        drop(writer);
        assert_eq!(std::fs::read_to_string(old).unwrap(), "before\nbetween\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "after\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_loses_its_lines_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let (writer, rings) = start(1);
        let bad = writer.open(&dir.path().join("file/below.log"), format("$context.requestId"));
        let good = writer.open(&dir.path().join("good.log"), format("$context.requestId"));
        for id in 0..10 {
            log(&rings[0], bad.target(), &id.to_string());
            log(&rings[0], good.target(), &id.to_string());
        }
        writer.flush();
        assert_eq!(
            writer.stats(),
            LogStats {
                written: 10,
                dropped_full: 0,
                dropped_failed: 10
            }
        );
        assert_eq!(
            std::fs::read_to_string(dir.path().join("good.log"))
                .unwrap()
                .lines()
                .count(),
            10
        );
    }

    /// D19: more than the ring holds is dropped, and every record is either written or counted.
    #[test]
    fn every_record_is_written_or_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, rings) = start(1);
        let handle = writer.open(&dir.path().join("access.log"), format("$context.requestId"));
        let taken = (0..20_000)
            .filter(|id| log(&rings[0], handle.target(), &id.to_string()))
            .count() as u64;
        writer.flush();
        let stats = writer.stats();
        assert_eq!(
            (stats.written, stats.written + stats.dropped_full),
            (taken, 20_000)
        );
    }

    #[test]
    fn ending_writes_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, rings) = start(1);
        let handle = writer.open(&dir.path().join("access.log"), format("$context.requestId"));
        log(&rings[0], handle.target(), "last words");
        drop(writer);
        assert_eq!(
            std::fs::read_to_string(dir.path().join("access.log")).unwrap(),
            "last words\n"
        );
    }
}
