//! Why a command did not end well, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

/// A failure of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The input is wrong: configuration, arguments, packets. Exit code 1.
    WrongInput(anyhow::Error),
    /// It could not be done: privileges, kernel, network. Exit code 2.
    CannotBeDone(anyhow::Error),
}

impl Failure {
    /// Exit code of [`Failure::WrongInput`].
    pub(crate) const WRONG_INPUT: u8 = 1;
    /// Exit code of [`Failure::CannotBeDone`].
    const CANNOT_BE_DONE: u8 = 2;

    /// A wrong input in words.
    pub(crate) fn input(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::WrongInput(anyhow::Error::msg(message))
    }

    /// The code that the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::WrongInput(_) => Self::WRONG_INPUT.into(),
            Self::CannotBeDone(_) => Self::CANNOT_BE_DONE.into(),
        }
    }
}

/// The error and its causes. Some errors tell their cause themselves; it is not told again.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::WrongInput(error) | Self::CannotBeDone(error)) = self;
        let mut told = String::new();
        for cause in error.chain().map(ToString::to_string) {
            if told.is_empty() {
                told = cause;
            } else if !told.contains(&cause) {
                told = format!("{told}: {cause}");
            }
        }
        f.write_str(&told)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn every_cause_is_told_once() {
        let told = |error| Failure::CannotBeDone(error).to_string();
        let taken = || anyhow!("address in use");
        assert_eq!(told(taken()), "address in use");
        assert_eq!(
            told(taken().context("no listener").context("cannot start")),
            "cannot start: no listener: address in use"
        );
        let telling = taken().context("no listener: address in use (hint)");
        assert_eq!(
            told(telling.context("cannot start")),
            "cannot start: no listener: address in use (hint)"
        );
    }
}
