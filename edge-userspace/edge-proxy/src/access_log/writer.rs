//! The thread that writes lines.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use prometheus::IntCounter;

/// Lines that may wait to be written: a tenth of a second of a busy node.
const WAITING: usize = 8192;

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

/// Takes lines of all workers.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    lines: SyncSender<Vec<u8>>,
    dropped: IntCounter,
}

impl Writer {
    /// Opens the log and starts the thread; it ends when the last `Writer` is dropped and all lines are written.
    pub(crate) fn start(path: Option<&Path>, dropped: IntCounter) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let (lines, received) = sync_channel(WAITING);
        let lost = dropped.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || run(&received, BufWriter::with_capacity(BUFFER, out), &lost))?;
        Ok(Self { lines, dropped })
    }

    /// Hands a line over. It is dropped and counted when too many wait.
    pub(crate) fn write(&self, line: Vec<u8>) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.inc(),
        }
    }
}

/// Writes lines in batches: whatever waits, and then to the file.
fn run(lines: &Receiver<Vec<u8>>, mut out: impl Write, lost: &IntCounter) {
    let mut failing = false;
    while let Ok(first) = lines.recv() {
        let mut count = 1;
        let mut result = out.write_all(&first);
        for line in lines.try_iter().take(WAITING) {
            count += 1;
            result = result.and_then(|()| out.write_all(&line));
        }
        let result = result.and_then(|()| out.flush());
        if let Err(error) = &result {
            lost.inc_by(count);
            // Told once for each time that the disk fills up.
            if !failing {
                tracing::error!(%error, "cannot write the access log; lines are lost");
            }
        }
        failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_those_that_cannot_be_written_are_counted() {
        let folder = std::env::temp_dir().join(format!("edge-access-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let dropped = IntCounter::new("dropped", "lines").unwrap();
        for line in ["one\n", "two\n"] {
            let writer = Writer::start(Some(&path), dropped.clone()).unwrap();
            writer.write(line.into());
            drop(writer);
            let written = || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with(line));
            while !written() {
                std::thread::yield_now();
            }
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(dropped.get(), 0);
        let full = Writer::start(Some(Path::new("/dev/full")), dropped.clone()).unwrap();
        full.write(b"lost\n".to_vec());
        while dropped.get() == 0 {
            std::thread::yield_now();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
