//! Waiting for a condition instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often the condition is looked at. Many conditions start a process, so not more often.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` answers `Ok(true)`. `what` names it for the error message.
///
/// # Errors
/// If it does not hold within `limit`; the last error of `condition` is told as the reason.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = condition();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if start.elapsed() > limit {
            let message = format!("waited {:.1} s for {what}", limit.as_secs_f64());
            answer.context(message.clone())?;
            bail!(message);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let condition = || {
            looks += 1;
            Ok(looks == 3)
        };
        assert!(wait_until("the third look", Duration::from_secs(5), condition).is_ok());
    }

    #[test]
    fn a_wait_in_vain_tells_what_for_and_the_last_error() {
        let never = || bail!("connection refused");
        let error = wait_until("the listener", Duration::ZERO, never).expect_err("it never comes");
        assert_eq!(
            format!("{error:#}"),
            "waited 0.0 s for the listener: connection refused"
        );
        assert!(wait_until("godot", Duration::ZERO, || Ok(false)).is_err());
    }
}
