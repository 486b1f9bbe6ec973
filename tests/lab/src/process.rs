//! Background programs of a lab, ended with the value that holds them.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cleanup;
use crate::programs::show;

/// How often a process that is waited for is looked at.
const POLL: Duration = Duration::from_millis(5);
/// How much of a log an error message repeats.
const TAIL_LINES: usize = 20;

/// A running program with its output in a log file. It leads a process group of its own, so that Ctrl-C
/// reaches the lab first; the whole group is killed when the value goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a command, for example one of [`crate::NetNs::command`]. Standard output and error go to
    /// `<log_dir>/<name>.log`, which is emptied first.
    ///
    /// # Errors
    /// If the log cannot be written or the program not started. (A program that nsenter does not find shows
    /// only when it is waited for, with the reason in its log.)
    pub fn spawn(name: &str, command: &mut Command, log_dir: &Path) -> Result<Self> {
        cleanup::on_signals();
        let log = log_dir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out
            .try_clone()
            .context("cannot share the log between output and error")?;
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", show(command)))?;
        let process = Self {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        };
        cleanup::remember(process.group());
        Ok(process)
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program. One that has ended already is an error.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // A process that was waited for has given its id back; the signal would reach a stranger.
        if let Some(status) = self.poll()? {
            bail!("{} has ended already ({status}){}", self.name, self.tail());
        }
        let pid = Pid::from_raw(self.group()).context("a process id is never 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Whether the program still runs.
    ///
    /// # Errors
    /// If the kernel cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.poll()?.is_none())
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// If it goes on for longer than `limit`; the message holds the end of its log.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!(
                    "{} still runs after {:.1} s{}",
                    self.name,
                    limit.as_secs_f64(),
                    self.tail()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the program to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// If it has ended before, or goes on for longer than `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Ends the program at once (SIGKILL), as a crash would.
    ///
    /// # Errors
    /// If it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5)).map(drop)
    }

    /// Everything the program has written until now.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The end of the log, as a paragraph for an error message.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log().unwrap_or_else(|error| format!("{error:#}"));
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.split_at(lines.len().saturating_sub(TAIL_LINES)).1;
        format!("\n--- end of {}\n{}\n---", self.log.display(), tail.join("\n"))
    }

    /// The group's id is its leader's process id, which always fits: PID_MAX_LIMIT is 2^22.
    fn group(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.poll(), Ok(None)) {
            cleanup::kill_group(self.group(), Signal::KILL);
            let _ = self.child.wait();
        }
        cleanup::forget(self.group());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Process) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        let process = Process::spawn("script", command.args(["-c", script]), dir.path()).expect("sh starts");
        (dir, process)
    }

    #[test]
    fn a_program_that_ends_tells_its_status_and_leaves_its_log() {
        let (_dir, mut process) = shell("echo out; echo err >&2; exit 3");
        assert_eq!(
            process.wait(Duration::from_secs(5)).expect("it ends").code(),
            Some(3)
        );
        assert_eq!(process.log().expect("a log"), "out\nerr\n");
        assert!(
            process.signal(Signal::TERM).is_err(),
            "its id may belong to another by now"
        );
    }

    #[test]
    fn a_program_that_goes_on_is_reported_with_its_log() {
        let (_dir, mut process) = shell("echo still here; exec sleep 60");
        let error = process.wait(Duration::from_millis(300)).expect_err("it goes on");
        assert!(error.to_string().contains("still here"), "{error}");
        let status = process.terminate(Duration::from_secs(5)).expect("it ends");
        assert!(!status.success());
    }

    #[test]
    fn the_whole_group_goes_with_the_value() {
        let (_dir, process) = shell("sleep 60 & echo $!; wait");
        crate::wait_until("the child's id", Duration::from_secs(5), || {
            Ok(!process.log()?.is_empty())
        })
        .expect("it is written");
        let child = process.log().expect("a log").trim().to_owned();
        drop(process);
        let ended = || {
            // A child that nobody has waited for yet is a zombie: state Z.
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            Ok(stat.is_empty() || stat.contains(") Z "))
        };
        crate::wait_until("the child's end", Duration::from_secs(5), ended).expect("it ends");
    }
}
