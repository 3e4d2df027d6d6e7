//! The log's files: one open file a destination, lines gathered into few writes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::writer::Counts;

/// The files lines go to.
#[derive(Debug)]
pub(super) struct Files {
    /// By path, compared as text: a path's own comparison takes it apart.
    files: HashMap<Box<OsStr>, Destination, ahash::RandomState>,
    /// Counts the calls of [`write_all`](Self::write_all): the clock by which a destination is silent.
    round: u64,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Destination {
    file: Option<File>,
    /// Since when it cannot be opened.
    failed: Option<Instant>,
    buffer: Vec<u8>,
    lines: u64,
    last_round: u64,
}

impl Files {
    pub(super) fn new(counts: Arc<Counts>) -> Files {
        Files {
            files: HashMap::default(),
            round: 0,
            counts,
        }
    }

    /// Appends what `write` writes, one line, to a destination.
    pub(super) fn line(&mut self, path: &Path, write: impl FnOnce(&mut Vec<u8>)) {
        let name = path.as_os_str();
        if !self.files.contains_key(name) {
            self.make_room();
            let new = Destination {
                file: None,
                failed: None,
                buffer: Vec::new(),
                lines: 0,
                last_round: 0,
            };
            self.files.insert(name.into(), new);
        }
        let Some(destination) = self.files.get_mut(name) else {
            return;
        };
        destination.last_round = self.round;
        destination.lines += 1;
        write(&mut destination.buffer);
        if destination.buffer.len() >= WRITE_AT {
            destination.write(path, &self.counts);
        }
    }

    /// Writes what has been gathered.
    pub(super) fn write_all(&mut self) {
        for (name, destination) in &mut self.files {
            if destination.lines > 0 {
                destination.write(Path::new(name), &self.counts);
            }
        }
        self.round += 1;
    }

    /// Opens every file that is open anew.
    pub(super) fn reopen(&mut self) {
        self.write_all();
        // Opened again by the next line; until then nobody misses them.
        self.files.clear();
    }

    /// Closes the destination that was silent for longest where there are too many.
    fn make_room(&mut self) {
        if self.files.len() < MAX_OPEN {
            return;
        }
        let oldest = self
            .files
            .iter()
            .min_by_key(|(_, destination)| destination.last_round);
        if let Some(name) = oldest.map(|(name, _)| name.clone())
            && let Some(mut destination) = self.files.remove(&name)
        {
            destination.write(Path::new(&name), &self.counts);
        }
    }
}

impl Destination {
    fn write(&mut self, path: &Path, counts: &Counts) {
        let lines = std::mem::take(&mut self.lines);
        match self.try_write(path) {
            Ok(()) => drop(counts.written.fetch_add(lines, Ordering::Relaxed)),
            Err(error) => {
                counts.failed.fetch_add(lines, Ordering::Relaxed);
                if self.failed.is_none() {
                    tracing::warn!(path = %path.display(), %error, "access log lines are lost until this file can be written");
                }
                self.file = None;
                self.failed = Some(Instant::now());
            }
        }
        self.buffer.clear();
        // One burst of long lines must not be held for ever.
        self.buffer.shrink_to(2 * WRITE_AT);
    }

    fn try_write(&mut self, path: &Path) -> io::Result<()> {
        if self.failed.is_some_and(|since| since.elapsed() < TRY_AGAIN) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(path)?),
        };
        file.write_all(&self.buffer)?;
        if self.failed.take().is_some() {
            tracing::info!(path = %path.display(), "access log is being written again");
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let append = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
    };
    match (append(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
            append()
        }
        (file, _) => file,
    }
}

/// Bytes gathered before they are written, however many lines still wait.
const WRITE_AT: usize = 64 * 1024;

/// Files held open at once; beyond that the one that was silent for longest is closed, and opened again by its
/// next line.
const MAX_OPEN: usize = 512;

const TRY_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_destinations_than_open_files_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let counts = Arc::new(Counts::default());
        let mut files = Files::new(Arc::clone(&counts));
        let paths: Vec<_> = (0..MAX_OPEN + 50)
            .map(|n| dir.path().join(format!("{n}.log")))
            .collect();
        for round in 0..2 {
            for path in &paths {
                files.line(path, |out| out.extend_from_slice(format!("{round}\n").as_bytes()));
            }
            files.write_all();
            assert!(files.files.len() <= MAX_OPEN);
        }
        assert!(
            paths
                .iter()
                .all(|path| std::fs::read_to_string(path).unwrap() == "0\n1\n")
        );
        assert_eq!(counts.written.load(Ordering::Relaxed), 2 * paths.len() as u64);
    }
}
