//! What the service manager is told: systemd's protocol, by which it starts again what no longer says that it is well.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// Says nothing where nobody asked (`NOTIFY_SOCKET`).
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// How often `WATCHDOG=1` is due; none where nobody waits for it.
    watchdog: Option<Duration>,
    fed: Option<Instant>,
    ready: bool,
    status: String,
}

impl Notify {
    /// As the environment says.
    pub(super) fn of_environment() -> Self {
        // as systemd advises: twice as often as it has to be
        Self { watchdog: sd_notify::watchdog_enabled().map(|most| most / 2), ..Self::default() }
    }

    /// Says that the start is over.
    pub(super) fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            send(&[NotifyState::Ready]);
        }
    }

    /// Says that all is well, where that is due.
    pub(super) fn well(&mut self, now: Instant) {
        let Some(every) = self.watchdog else { return };
        if self.fed.is_none_or(|fed| now.saturating_duration_since(fed) >= every) {
            self.fed = Some(now);
            send(&[NotifyState::Watchdog]);
        }
    }

    /// A line for `systemctl status`, where it is another one.
    pub(super) fn status(&mut self, text: String) {
        if self.status != text {
            send(&[NotifyState::Status(&text)]);
            self.status = text;
        }
    }

    /// Says that the end has begun.
    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

/// A service manager that cannot be reached notices by itself that nothing comes.
fn send(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
