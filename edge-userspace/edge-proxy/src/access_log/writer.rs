//! The thread that writes lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

/// A worker hands its lines over once they are so many bytes, or have waited for [`PAUSE`].
const BATCH: usize = 32 * 1024;

/// How long a line may wait for others.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Batches that may wait to be written: half of a second of a busy node.
const WAITING: usize = 128;

/// Lines of one worker on their way to the writer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    text: Vec<u8>,
    lines: u64,
}

impl Batch {
    /// Appends the line that `write` writes. Answers how things stand.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Fill {
        if self.text.capacity() == 0 {
            // A line more than the batch, as most are.
            self.text.reserve(BATCH + 1024);
        }
        write(&mut self.text);
        self.lines += 1;
        match (self.lines, self.text.len()) {
            (_, BATCH..) => Fill::Full,
            (1, _) => Fill::First,
            _ => Fill::More,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

/// How full a batch is, after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// The line is its first.
    First,
    /// There is room for more.
    More,
    /// It is to be handed over.
    Full,
}

/// How long the end waits for lines to be written: a disk that hangs must not hold it.
const FINISH: Duration = Duration::from_secs(1);

/// Takes lines of all workers.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    tasks: SyncSender<Task>,
    dropped: IntCounter,
}

/// What the thread is asked to do.
#[derive(Debug)]
enum Task {
    Write(Batch),
    /// To say that all before was written.
    Say(SyncSender<()>),
}

impl Writer {
    /// Opens the log and starts the thread; it ends when the last `Writer` is dropped and all lines are written.
    pub(crate) fn start(path: Option<&Path>, dropped: IntCounter) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(open(path)?),
            None => Box::new(io::stdout()),
        };
        let (tasks, received) = sync_channel(WAITING);
        let lost = dropped.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || run(&received, out, &lost))?;
        Ok(Self { tasks, dropped })
    }

    /// Hands lines over. They are dropped and counted when too many wait.
    pub(crate) fn write(&self, batch: Batch) {
        let lines = batch.lines;
        match self.tasks.try_send(Task::Write(batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.inc_by(lines),
        }
    }

    /// Waits until what was handed over is written, if that does not take too long.
    pub(crate) fn finish(&self) {
        let end = Instant::now() + FINISH;
        let (say, said) = sync_channel(1);
        // A disk that is slow has filled the queue.
        while let Err(TrySendError::Full(_)) = self.tasks.try_send(Task::Say(say.clone())) {
            if Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Who is not told by then goes on without.
        let _ = said.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Opens the log. A named pipe is opened for reading, too: that waits for no reader, and who reads may end and be started
/// again (fifo(7)). While nobody reads, the pipe is full and lines are dropped.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match path.metadata().is_ok_and(|found| found.file_type().is_fifo()) {
        true => options.read(true).write(true),
        false => options.create(true).append(true),
    };
    options.open(path)
}

fn run(tasks: &Receiver<Task>, out: impl Write, lost: &IntCounter) {
    let mut out = Lines { out, is_torn: false };
    let mut failing = false;
    while let Ok(task) = tasks.recv() {
        let batch = match task {
            Task::Write(batch) => batch,
            Task::Say(say) => {
                // Who has asked may have gone.
                let _ = say.try_send(());
                continue;
            }
        };
        let result = out.write(&batch);
        if let Err((lines, error)) = &result {
            lost.inc_by(*lines);
            // Told once for each time that the disk fills up.
            if !failing {
                tracing::error!(%error, "cannot write the access log; lines are lost");
            }
        }
        failing = result.is_err();
    }
}

/// Where lines go to.
struct Lines<W> {
    out: W,
    /// A part of a line was written, and the rest could not be.
    is_torn: bool,
}

impl<W: Write> Lines<W> {
    /// Writes a batch. When that fails, how many of its lines are not there as a whole is told; the next batch begins with
    /// a line of its own.
    fn write(&mut self, batch: &Batch) -> Result<(), (u64, io::Error)> {
        if self.is_torn {
            self.out.write_all(b"\n").map_err(|error| (batch.lines, error))?;
            self.is_torn = false;
        }
        let text = batch.text.as_slice();
        let mut written = 0;
        let result = loop {
            if written == text.len() {
                break self.out.flush();
            }
            match self.out.write(&text[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        result.map_err(|error| {
            let there = &text[..written];
            self.is_torn = there.last().is_some_and(|last| *last != b'\n');
            let ends = there.iter().filter(|byte| **byte == b'\n').count();
            (batch.lines.saturating_sub(ends as u64), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(line: &str) -> Batch {
        let mut batch = Batch::default();
        assert_eq!(
            batch.push(|out| out.extend_from_slice(line.as_bytes())),
            Fill::First
        );
        batch
    }

    #[test]
    fn a_batch_is_full_before_it_grows() {
        let mut batch = batch("first\n");
        let capacity = batch.text.capacity();
        let line = "x".repeat(500);
        while batch.push(|out| out.extend_from_slice(line.as_bytes())) == Fill::More {}
        assert!(batch.text.len() >= BATCH && batch.text.capacity() == capacity);
    }

    #[test]
    fn lines_are_appended_and_those_that_cannot_be_written_are_counted() {
        let folder = std::env::temp_dir().join(format!("edge-access-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let dropped = IntCounter::new("dropped", "lines").unwrap();
        for line in ["one\n", "two\n"] {
            let writer = Writer::start(Some(&path), dropped.clone()).unwrap();
            writer.write(batch(line));
            drop(writer);
            let written = || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with(line));
            while !written() {
                std::thread::yield_now();
            }
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(dropped.get(), 0);
        let full = Writer::start(Some(Path::new("/dev/full")), dropped.clone()).unwrap();
        let mut lost = batch("lost\n");
        lost.push(|out| out.extend_from_slice(b"lost, too\n"));
        full.write(lost);
        while dropped.get() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(dropped.get(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// A disk with so much room left.
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_a_line_that_was_torn_the_next_one_is_whole() {
        let disk = Disk {
            written: Vec::new(),
            room: 6,
        };
        let mut out = Lines {
            out: disk,
            is_torn: false,
        };
        let mut lines = batch("one\n");
        lines.push(|out| out.extend_from_slice(b"two\n"));
        lines.push(|out| out.extend_from_slice(b"three\n"));
        let lost = |result: Result<(), (u64, io::Error)>| result.err().map_or(0, |(lines, _)| lines);
        assert_eq!(lost(out.write(&lines)), 2, "the first one is there");
        assert_eq!(lost(out.write(&batch("four\n"))), 1);
        out.out.room = 100;
        assert_eq!(lost(out.write(&batch("five\n"))), 0);
        assert_eq!(lost(out.write(&batch("six\n"))), 0);
        assert_eq!(out.out.written, b"one\ntw\nfive\nsix\n");
    }
}
