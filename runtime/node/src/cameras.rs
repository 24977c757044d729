//! The cameras that a sink serves: what their sources report, held against what arrives at the sink.

use millrace_frame::{CameraState, CameraStatus, unix_ns};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A camera of which nothing has arrived for so long is stalled; one that sends rarely has three times its usual interval.
const SILENT: Duration = Duration::from_millis(2_500);

/// The state of each camera at a sink.
///
/// A source reports its cameras' states ([`Node::on_camera`](crate::Node::on_camera)), and a node between it and the sink
/// can still hang or die: so a camera that is said to be live and of which nothing arrives is stalled here. A camera that
/// no source reports is live while its frames come.
#[derive(Debug, Default)]
pub struct Cameras(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    reported: Option<CameraStatus>,
    /// When the camera was reported live, or first came.
    live_from: Instant,
    arrived: Option<Instant>,
    /// When a picture last came, by another way than what the sink is there for.
    pictured: Option<Instant>,
    /// The longest of the last intervals between two frames, slowly forgotten.
    interval: Duration,
    status: CameraStatus,
}

impl Cameras {
    /// A source has reported this. `true` when the camera's state, or the reason for it, is another one now.
    pub fn report(&mut self, status: &CameraStatus, now: Instant) -> bool {
        let seen = self.seen(&status.source, now);
        let was_live = seen.reported.as_ref().is_some_and(|r| r.state == CameraState::Live);
        if status.state == CameraState::Live && !was_live {
            seen.live_from = now;
            // what came before an outage says nothing of the time after it
            seen.arrived = None;
        }
        seen.reported = Some(status.clone());
        seen.judge(now)
    }

    /// A frame of the camera has arrived; `capture_ns` is when at the first node, by the Unix clock. `true` when the
    /// camera's state is another one now.
    pub fn arrived(&mut self, source: &str, capture_ns: i64, now: Instant) -> bool {
        let seen = self.seen(source, now);
        if let Some(before) = seen.arrived.replace(now) {
            let interval = now.saturating_duration_since(before);
            seen.interval = interval.max(seen.interval - seen.interval / 16);
        }
        seen.status.last_frame_ns = seen.status.last_frame_ns.max(capture_ns);
        seen.status.state != CameraState::Live && seen.judge(now)
    }

    /// A picture of the camera has arrived, by another way than what the sink is there for: it does not make the camera live.
    pub fn pictured(&mut self, source: &str, capture_ns: i64, now: Instant) {
        let seen = self.seen(source, now);
        seen.pictured = Some(now);
        seen.status.last_frame_ns = seen.status.last_frame_ns.max(capture_ns);
    }

    /// Time has passed. The cameras whose state is another one now.
    pub fn look(&mut self, now: Instant) -> Vec<String> {
        let changed = self.0.iter_mut().filter_map(|(id, seen)| seen.judge(now).then(|| id.clone()));
        changed.collect()
    }

    /// The camera's state here.
    pub fn get(&self, source: &str) -> Option<&CameraStatus> {
        self.0.get(source).map(|seen| &seen.status)
    }

    /// All cameras' states here, by id.
    pub fn iter(&self) -> impl Iterator<Item = &CameraStatus> {
        self.0.values().map(|seen| &seen.status)
    }

    /// Forgets a camera.
    pub fn remove(&mut self, source: &str) {
        self.0.remove(source);
    }

    fn seen(&mut self, source: &str, now: Instant) -> &mut Seen {
        if !self.0.contains_key(source) {
            let status = CameraStatus::new(source);
            let seen = Seen {
                reported: None,
                live_from: now,
                arrived: None,
                pictured: None,
                interval: Duration::ZERO,
                status,
            };
            self.0.insert(source.to_owned(), seen);
        }
        self.0.get_mut(source).expect("it was put there")
    }
}

impl Seen {
    /// Sets the state by what is known at `now`; `true` when it, or its reason, is another one.
    fn judge(&mut self, now: Instant) -> bool {
        let before = (self.status.state, self.status.since_ns, self.status.last_error.clone());
        let last_frame_ns = self.status.last_frame_ns;
        match &self.reported {
            Some(reported) if reported.state != CameraState::Live => {
                self.status = reported.clone();
                self.status.last_frame_ns = last_frame_ns.max(reported.last_frame_ns);
            }
            reported => {
                let limit = SILENT.max(self.interval.min(Duration::from_secs(60)) * 3);
                let silent = now.saturating_duration_since(self.arrived.unwrap_or(self.live_from));
                if silent < limit {
                    if let Some(reported) = reported {
                        self.status = reported.clone();
                        self.status.last_frame_ns = last_frame_ns.max(reported.last_frame_ns);
                    } else if self.arrived.is_some() && self.status.state != CameraState::Live {
                        self.turn(CameraState::Live, Duration::ZERO);
                        self.status.last_error = String::new();
                    }
                } else if self.status.state != CameraState::Stalled {
                    let (seconds, is_reported) = (limit.as_secs_f64(), reported.is_some());
                    self.turn(CameraState::Stalled, silent);
                    let pictures_come = self.pictured.is_some_and(|at| now.saturating_duration_since(at) < SILENT);
                    self.status.last_error = if pictures_come {
                        format!(
                            "its pictures come, and nothing was detected in them for {seconds} s: a node that works on them has \
                             ended or hangs, and the camera is not the cause; 'millrace run' says which"
                        )
                    } else if is_reported {
                        format!(
                            "the camera was live and nothing of it has arrived here for {seconds} s: the node that reads it \
                             hangs, or one between; 'millrace run' says which"
                        )
                    } else {
                        format!("nothing of it has arrived for {seconds} s")
                    };
                }
            }
        }
        before != (self.status.state, self.status.since_ns, self.status.last_error.clone())
    }

    fn turn(&mut self, state: CameraState, ago: Duration) {
        self.status.state = state;
        self.status.since_ns = unix_ns().saturating_sub(ago.as_nanos() as i64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use CameraState::{Connecting, Ended, Live, Refused, Stalled};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn reported(state: CameraState) -> CameraStatus {
        CameraStatus { state, since_ns: 7, last_error: "why".to_owned(), tries: 2, ..CameraStatus::new("door") }
    }

    fn state(cameras: &Cameras) -> CameraState {
        cameras.get("door").unwrap().state
    }

    #[test]
    fn a_camera_that_nobody_reports_is_live_while_its_frames_come() {
        let (mut cameras, start) = (Cameras::default(), Instant::now());
        assert!(cameras.arrived("door", 5, start));
        assert_eq!((state(&cameras), cameras.get("door").unwrap().last_frame_ns), (Live, 5));
        assert!(!cameras.arrived("door", 6, start + s(1)), "no news");
        assert!(cameras.look(start + s(3)).is_empty(), "2 s after the last frame");
        assert_eq!(cameras.look(start + s(4)), ["door"]);
        assert_eq!(state(&cameras), Stalled);
        assert!(cameras.look(start + s(9)).is_empty(), "each change once");
        assert!(cameras.arrived("door", 7, start + s(10)));
        let status = cameras.get("door").unwrap();
        assert_eq!((status.state, status.last_error.as_str(), status.last_frame_ns), (Live, "", 7));
    }

    #[test]
    fn what_a_source_reports_counts() {
        let (mut cameras, start) = (Cameras::default(), Instant::now());
        assert!(cameras.report(&reported(Refused), start));
        assert_eq!(cameras.get("door"), Some(&reported(Refused)));
        assert!(!cameras.report(&reported(Refused), start));
        // a frame from before, still on its way
        assert!(!cameras.arrived("door", 9, start + s(1)));
        assert_eq!(state(&cameras), Refused);
        assert!(cameras.report(&reported(Live), start + s(20)));
        assert!(cameras.look(start + s(22)).is_empty());
        assert!(cameras.report(&reported(Ended), start + s(22)));
        assert!(cameras.look(start + s(60)).is_empty(), "a file that has ended does not stall");
        assert_eq!(cameras.get("door").unwrap().last_frame_ns, 9);
    }

    #[test]
    fn a_live_camera_of_which_nothing_arrives_is_stalled_here() {
        let (mut cameras, start) = (Cameras::default(), Instant::now());
        cameras.report(&reported(Connecting), start);
        cameras.report(&reported(Live), start + s(10));
        assert!(cameras.look(start + s(12)).is_empty());
        assert_eq!(cameras.look(start + s(13)), ["door"], "not one frame came");
        assert!(cameras.get("door").unwrap().last_error.contains("nothing of it has arrived here for 2.5 s"));
        assert!(cameras.arrived("door", 1, start + s(14)));
        assert_eq!(cameras.get("door").unwrap().last_error, "why", "the source's own words again");
        cameras.look(start + s(20));
        assert_eq!(state(&cameras), Stalled);
    }

    #[test]
    fn a_camera_whose_pictures_come_and_nothing_else_is_not_live() {
        let (mut cameras, start) = (Cameras::default(), Instant::now());
        cameras.report(&reported(Live), start);
        for k in 0..9 {
            cameras.arrived("door", 1, start);
            cameras.pictured("door", 5 + k, start + Duration::from_millis(500) * k as u32);
        }
        assert_eq!(cameras.look(start + s(4)), ["door"]);
        let status = cameras.get("door").unwrap();
        assert_eq!((status.state, status.last_frame_ns), (Stalled, 13));
        assert!(status.last_error.starts_with("its pictures come, and nothing was detected in them for 2.5 s"));
        assert!(status.last_error.contains("the camera is not the cause"), "{}", status.last_error);
        assert!(cameras.arrived("door", 14, start + s(5)));
        assert_eq!(cameras.get("door").unwrap().state, Live);
    }

    #[test]
    fn a_camera_that_sends_rarely_has_more_time() {
        let (mut cameras, start) = (Cameras::default(), Instant::now());
        for k in 0..4 {
            cameras.arrived("door", 1, start + s(5 * k));
        }
        assert!(cameras.look(start + s(15 + 14)).is_empty());
        assert_eq!(cameras.look(start + s(15 + 16)), ["door"]);
    }
}
