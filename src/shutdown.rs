//! How the server is asked to end: first to drain, then to stop at once.
//!
//! It knows signals and nothing of what drains. Its invariant: `now` is never reached before `drain`; a second request
//! while draining reaches it, however the requests came.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two steps of an end, as tokens that any task can wait for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    now: CancellationToken,
}

impl Shutdown {
    /// An end that only [`Shutdown::advance`] brings about.
    pub fn new() -> Self {
        Self::default()
    }

    /// An end that SIGTERM and SIGINT bring about, step by step. The task that listens ends with the last step, so
    /// whoever is done with draining calls [`Shutdown::finish`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system refused to install a signal handler.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let steps = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "asked to end"),
                    _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "asked to end"),
                    () = steps.now.cancelled() => break,
                }
                steps.advance();
            }
        });
        Ok(shutdown)
    }

    /// Goes one step on: to draining, from there to the end at once.
    pub fn advance(&self) {
        if self.drain.is_cancelled() {
            self.now.cancel();
        } else {
            self.drain.cancel();
        }
    }

    /// Takes both steps: everything is done, or nothing may be waited for.
    pub fn finish(&self) {
        self.drain.cancel();
        self.now.cancel();
    }

    /// Cancelled from the first step on: take nothing new, let what runs finish.
    pub fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled from the second step on: stop.
    pub fn now(&self) -> &CancellationToken {
        &self.now
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    #[test]
    fn the_first_step_drains_and_the_second_ends() {
        let shutdown = Shutdown::new();
        let steps = || (shutdown.drain().is_cancelled(), shutdown.now().is_cancelled());
        assert_eq!(steps(), (false, false));
        shutdown.advance();
        assert_eq!(steps(), (true, false));
        shutdown.advance();
        assert_eq!(steps(), (true, true));
    }

    #[test]
    fn finishing_takes_both_steps() {
        let shutdown = Shutdown::new();
        shutdown.finish();
        assert!(shutdown.drain().is_cancelled() && shutdown.now().is_cancelled());
    }

    #[tokio::test]
    async fn signals_are_steps() {
        let shutdown = Shutdown::on_signals().unwrap();
        let send = |name: &str| {
            let command = format!("kill -{name} {}", std::process::id());
            assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        };
        let limit = Duration::from_secs(10);
        send("TERM");
        tokio::time::timeout(limit, shutdown.drain().cancelled()).await.unwrap();
        assert!(!shutdown.now().is_cancelled());
        send("INT");
        tokio::time::timeout(limit, shutdown.now().cancelled()).await.unwrap();
    }
}
