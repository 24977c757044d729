//! What the node knows of the cameras behind its inputs, whichever of them says so.

use millrace_frame::{CameraState, CameraStatus, unix_ns};
use std::collections::BTreeMap;

/// What has changed of a camera.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// It has this status now.
    Status(CameraStatus),
    /// No producer lists it any more.
    Removed(String),
}

/// The cameras, by id. Where several inputs bring a camera, the newest word counts.
#[derive(Default)]
pub(super) struct Cameras {
    known: BTreeMap<String, CameraStatus>,
    changes: Vec<Change>,
}

impl Cameras {
    pub(super) fn get(&self, source: &str) -> Option<&CameraStatus> {
        self.known.get(source)
    }

    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// A producer lists these cameras now, and nobody lists those of `removed` any more.
    pub(super) fn listed<'a>(&mut self, listed: impl Iterator<Item = &'a CameraStatus>, removed: &[&String]) {
        for status in listed {
            let news =
                self.known.get(&status.source).is_none_or(|known| known != status && known.since_ns <= status.since_ns);
            if news {
                self.set(status.clone());
            }
        }
        for source in removed {
            if self.known.remove(source.as_str()).is_some() {
                self.changes.push(Change::Removed((*source).clone()));
            }
        }
    }

    /// The producer that listed these cameras is dead: nothing comes of them until it is started again.
    pub(super) fn orphaned(&mut self, cameras: &BTreeMap<String, CameraStatus>, from: &str) {
        let node = from.split_once('/').map_or(from, |(node, _)| node);
        for source in cameras.keys() {
            let Some(known) = self.known.get(source) else { continue };
            if known.state == CameraState::Ended {
                continue;
            }
            let mut status = known.clone();
            status.state = CameraState::Connecting;
            status.since_ns = unix_ns();
            status.last_error = format!("node '{node}', which brings this camera, has ended");
            self.set(status);
        }
    }

    fn set(&mut self, status: CameraStatus) {
        self.known.insert(status.source.clone(), status.clone());
        self.changes.push(Change::Status(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: CameraState, since_ns: i64) -> CameraStatus {
        CameraStatus { source: "door".into(), state, since_ns, ..CameraStatus::default() }
    }

    #[test]
    fn the_newest_word_counts_whichever_input_brings_it() {
        let mut cameras = Cameras::default();
        let (live, stalled) = (status(CameraState::Live, 10), status(CameraState::Stalled, 20));
        cameras.listed([&live, &stalled, &live].into_iter(), &[]);
        assert_eq!(cameras.changes(), [Change::Status(live.clone()), Change::Status(stalled)]);
        let again = status(CameraState::Live, 30);
        cameras.listed([&again].into_iter(), &[]);
        cameras.orphaned(&BTreeMap::from([("door".to_owned(), again.clone())]), "decode/frame");
        let changes = cameras.changes();
        assert_eq!(changes[0], Change::Status(again));
        assert!(
            matches!(&changes[1], Change::Status(s) if s.state == CameraState::Connecting && s.last_error.contains("'decode'"))
        );
        cameras.listed([].into_iter(), &[&"door".to_owned()]);
        assert_eq!(cameras.changes(), [Change::Removed("door".to_owned())]);
    }
}
