//! Waiting for something with a deadline, and saying what was last seen when it did not come.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What one look found.
#[derive(Debug)]
pub enum Seen<T> {
    /// It is there.
    Done(T),
    /// It is not there yet; says what is instead.
    NotYet(String),
    /// It will never be there; says why. Ends the wait at once.
    Never(String),
}

/// Looks again and again until it is [`Seen::Done`].
///
/// `what` completes the sentence "waited for". A look that fails counts as "not yet": servers restart.
/// A look that hangs is cut off by the deadline.
///
/// # Errors
/// When the deadline passes: names `what`, how long, and what was last seen.
pub async fn wait_for<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let started = Instant::now();
    let mut last = "nothing at all: the first look did not end".to_owned();
    let mut pause = PAUSE_MIN;
    loop {
        let left = within.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(seen))) => last = seen,
            Ok(Ok(Seen::Never(why))) => bail!("waited for {what}, and it will not come: {why}"),
            Ok(Err(error)) => last = format!("error: {error:#}"),
            Err(_) => {}
        }
        // Asked for here, since a look that ends at once beats any timer.
        if started.elapsed() >= within {
            bail!(
                "waited {:.0} s for {what}; last seen: {last}",
                within.as_secs_f32()
            );
        }
        tokio::time::sleep(pause.min(within.saturating_sub(started.elapsed()))).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_that_ends_in_vain_says_what_was_last_seen() {
        let mut count = 0;
        let error = wait_for::<()>("the tide", Duration::from_millis(400), async || {
            count += 1;
            Ok(Seen::NotYet(format!("ebb {count}")))
        })
        .await
        .unwrap_err()
        .to_string();
        assert!(
            error.starts_with("waited 0 s for the tide; last seen: ebb "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_cut_off() {
        let look = async || std::future::pending::<Result<Seen<()>>>().await;
        let error = wait_for("nothing", Duration::from_millis(20), look)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("the first look did not end"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_can_never_come_is_not_waited_for() {
        let started = Instant::now();
        let look = async || Ok(Seen::<()>::Never("it is gone".to_owned()));
        let error = wait_for("it", Duration::from_secs(600), look)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("it is gone"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(300));
    }
}
