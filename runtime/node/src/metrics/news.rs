//! What is worth a line of the log in a camera's states: each change once, and at the end of an outage how long it was.

use millrace_frame::{CameraState, CameraStatus};
use std::time::{Duration, Instant};

/// A reason that changes while the state does not is logged this often at most.
const SAME_STATE: Duration = Duration::from_secs(60);

/// What is kept of a camera between two of its states.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// When the last picture came, and why no more did; `None` while they come and before they first did.
    began: Option<(i64, String)>,
    was_live: bool,
    logged: Option<Instant>,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// As it should be.
    Good(String),
    /// Somebody should look.
    Bad(String),
}

impl News {
    pub(super) fn log(&self) {
        match self {
            Self::Good(text) => tracing::info!("{text}"),
            Self::Bad(text) => tracing::warn!("{text}"),
        }
    }
}

impl Outage {
    /// Takes the camera's new state; the line to log, where it is news.
    pub(super) fn take(&mut self, before: Option<&CameraStatus>, now: &CameraStatus, at: Instant) -> Option<News> {
        let changed = before.is_none_or(|before| before.state != now.state);
        let reason_changed = before.is_some_and(|before| before.last_error != now.last_error);
        let first_reason = reason_changed && before.is_some_and(|before| before.last_error.is_empty());
        let due = self.logged.is_none_or(|logged| at.saturating_duration_since(logged) >= SAME_STATE);
        let bad_reason = now.state != CameraState::Live && !now.last_error.is_empty();
        if !(changed || bad_reason && (first_reason || reason_changed && due)) {
            return None;
        }
        self.logged = Some(at);
        Some(self.line(now))
    }

    fn line(&mut self, now: &CameraStatus) -> News {
        let camera = format!("camera '{}'", now.source);
        let why = if now.last_error.is_empty() { String::new() } else { format!(": {}", now.last_error) };
        let tries = match now.tries {
            0 | 1 => String::new(),
            n => format!(" (attempt {n})"),
        };
        match now.state {
            CameraState::Connecting if now.is_changed() => {
                (self.began, self.was_live) = (None, false);
                News::Good(format!("{camera} is connecting{why}"))
            }
            CameraState::Live => {
                let again = self.began.take().map(|(since_ns, why)| {
                    let seconds = now.since_ns.saturating_sub(since_ns).max(0) as f64 / 1e9;
                    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
                    format!("{camera} is live again after an outage of {seconds:.1} s{why}")
                });
                self.was_live = true;
                News::Good(again.unwrap_or_else(|| format!("{camera} is live")))
            }
            CameraState::Ended => {
                self.began = None;
                News::Good(format!("{camera} has ended{why}"))
            }
            state => {
                let lost = self.was_live && self.began.is_none();
                if self.was_live {
                    // a state may be known long after it began: a process that was stopped knows nothing meanwhile
                    let last_ns = if now.last_frame_ns > 0 { now.last_frame_ns } else { now.since_ns };
                    let (_, reason) = self.began.get_or_insert((last_ns.min(now.since_ns), String::new()));
                    if !now.last_error.is_empty() {
                        reason.clone_from(&now.last_error);
                    }
                }
                let text = match state {
                    CameraState::Stalled => format!("{camera} is stalled{why}"),
                    CameraState::Refused => format!("{camera} is refused{tries}{why}"),
                    _ if lost => format!("{camera} was lost and is being reconnected{why}"),
                    _ => format!("{camera} is connecting{tries}{why}"),
                };
                if state == CameraState::Connecting && why.is_empty() && !lost {
                    News::Good(text)
                } else {
                    News::Bad(text)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn status(state: CameraState, since_s: i64, last_error: &str) -> CameraStatus {
        CameraStatus {
            state,
            since_ns: since_s * SECOND,
            last_error: last_error.to_owned(),
            ..CameraStatus::new("door")
        }
    }

    /// The lines of a row of states, each a second after the one before.
    fn lines(states: &[CameraStatus]) -> Vec<News> {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let mut before = None;
        let mut lines = Vec::new();
        for (second, now) in states.iter().enumerate() {
            lines.extend(outage.take(before, now, start + Duration::from_secs(second as u64)));
            before = Some(now);
        }
        lines
    }

    #[test]
    fn each_change_is_one_line_and_the_return_says_how_long_it_was() {
        use CameraState::{Connecting, Ended, Live, Refused, Stalled};
        let no = "401 Unauthorized";
        let states = [
            status(Connecting, 0, ""),
            status(Live, 2, ""),
            status(Live, 2, ""),
            status(Stalled, 10, "no picture for 3 s"),
            CameraStatus { tries: 1, ..status(Connecting, 12, "no picture for 3 s") },
            CameraStatus { tries: 2, ..status(Refused, 13, no) },
            CameraStatus { tries: 3, ..status(Refused, 13, no) },
            CameraStatus { tries: 4, ..status(Refused, 13, no) },
            status(Live, 48, ""),
            status(Ended, 50, ""),
        ];
        let good = |text: &str| News::Good(format!("camera 'door' {text}"));
        let bad = |text: &str| News::Bad(format!("camera 'door' {text}"));
        assert_eq!(
            lines(&states),
            [
                good("is connecting"),
                good("is live"),
                bad("is stalled: no picture for 3 s"),
                bad("is connecting: no picture for 3 s"),
                bad("is refused (attempt 2): 401 Unauthorized"),
                good("is live again after an outage of 38.0 s (401 Unauthorized)"),
                good("has ended"),
            ]
        );
    }

    #[test]
    fn an_outage_begins_with_the_last_picture() {
        use CameraState::{Live, Stalled};
        let stalled = CameraStatus { last_frame_ns: 7 * SECOND, ..status(Stalled, 12, "the process did not run") };
        let lines = lines(&[status(Live, 0, ""), stalled, status(Live, 13, "")]);
        let News::Good(back) = &lines[2] else { panic!("{lines:?}") };
        assert!(back.contains("after an outage of 6.0 s"), "{back}");
    }

    #[test]
    fn a_first_reason_is_news_and_one_that_goes_on_changing_is_so_once_a_minute() {
        use CameraState::Connecting;
        let refused = "connection refused";
        let mut states = vec![status(Connecting, 0, ""), status(Connecting, 0, refused)];
        states.extend((0..200).map(|n| status(Connecting, 0, &format!("{refused}, next attempt in {n} ms"))));
        let lines = lines(&states);
        assert_eq!(lines[1], News::Bad(format!("camera 'door' is connecting: {refused}")));
        assert_eq!(lines.len(), 2 + 3, "{lines:?}");
    }

    #[test]
    fn a_camera_that_was_edited_was_not_lost() {
        use CameraState::{Connecting, Live};
        let states = [status(Live, 0, ""), status(Connecting, 5, CameraStatus::changed()), status(Live, 6, "")];
        let expected =
            ["is live", "is connecting: its entry in the cameras file has changed, and it is opened again", "is live"];
        assert_eq!(lines(&states), expected.map(|text| News::Good(format!("camera 'door' {text}"))));
    }

    #[test]
    fn a_connection_that_is_lost_is_named_so() {
        let states =
            [status(CameraState::Live, 0, ""), status(CameraState::Connecting, 5, "the server closed the connection")];
        let expected = "camera 'door' was lost and is being reconnected: the server closed the connection";
        assert_eq!(lines(&states)[1], News::Bad(expected.to_owned()));
    }
}
