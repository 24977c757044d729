//! Messages to the service manager, by systemd's protocol. It restarts a service that stops sending them.

use sd_notify::NotifyState;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Messages that wait for a service manager that does not read; more are dropped.
const WAITING: usize = 16;

/// One message.
enum Word {
    Ready,
    Well,
    Stopping,
    Status(String),
}

/// Says nothing where nobody asked (`NOTIFY_SOCKET`).
#[derive(Debug, Default)]
pub(super) struct Notify {
    to: Option<SyncSender<Word>>,
    /// How often `WATCHDOG=1` is due; none where nobody waits for it.
    watchdog: Option<Duration>,
    fed: Option<Instant>,
    ready: bool,
    status: String,
}

impl Notify {
    /// As the environment says.
    pub(super) fn of_environment() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::default();
        }
        // the socket of a service manager that does not read is full soon, and a thread that writes to it waits
        let (to, words) = sync_channel(WAITING);
        std::thread::spawn(move || pass_on(&words));
        // as systemd advises: twice as often as it has to be
        let watchdog = sd_notify::watchdog_enabled().map(|most| most / 2);
        Self { to: Some(to), watchdog, ..Self::default() }
    }

    fn say(&self, word: Word) -> bool {
        self.to.as_ref().is_none_or(|to| to.try_send(word).is_ok())
    }

    /// Says that the start is over.
    pub(super) fn ready(&mut self) {
        self.ready = self.ready || self.say(Word::Ready);
    }

    /// Says that all is well, where that is due.
    pub(super) fn well(&mut self, now: Instant) {
        let Some(every) = self.watchdog else { return };
        if self.fed.is_none_or(|fed| now.saturating_duration_since(fed) >= every) && self.say(Word::Well) {
            self.fed = Some(now);
        }
    }

    /// A line for `systemctl status`, where it is another one.
    pub(super) fn status(&mut self, text: String) {
        if self.status != text && self.say(Word::Status(text.clone())) {
            self.status = text;
        }
    }

    /// Says that the end has begun.
    pub(super) fn stopping(&self) {
        self.say(Word::Stopping);
    }
}

/// A service manager that cannot be reached notices by itself that nothing comes.
fn pass_on(words: &Receiver<Word>) {
    for word in words {
        let state = match &word {
            Word::Ready => NotifyState::Ready,
            Word::Well => NotifyState::Watchdog,
            Word::Stopping => NotifyState::Stopping,
            Word::Status(text) => NotifyState::Status(text),
        };
        let _ = sd_notify::notify(&[state]);
    }
}
