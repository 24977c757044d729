//! What the node knows of the cameras behind its inputs, whichever of them says so.

use millrace_frame::{CameraState, CameraStatus, unix_ns};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Cameras of which a node between has ended, until somebody lists them again.
    orphaned: BTreeSet<String>,
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
            let known = self.known.get(&status.source);
            let orphaned = self.orphaned.contains(&status.source);
            match known {
                Some(known) if known == status => {}
                // What brings it is there again, and the camera may not have changed meanwhile. Nodes behind this one take the
                // newest word, so that has to be newer than the one about the node that had ended.
                Some(known) if orphaned => {
                    let since_ns = status.since_ns.max(known.since_ns.saturating_add(1));
                    self.set(CameraStatus { since_ns, ..status.clone() });
                }
                Some(known) if known.since_ns > status.since_ns => {}
                _ => self.set(status.clone()),
            }
        }
        for source in removed {
            self.orphaned.remove(source.as_str());
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
            self.orphaned.insert(source.clone());
        }
    }

    fn set(&mut self, status: CameraStatus) {
        self.orphaned.remove(&status.source);
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
        assert_eq!(changes[0], Change::Status(again.clone()));
        assert!(
            matches!(&changes[1], Change::Status(s) if s.state == CameraState::Connecting && s.last_error.contains("'decode'"))
        );
        // the node is started again and lists what it did before
        cameras.listed([&again].into_iter(), &[]);
        let changes = cameras.changes();
        assert!(
            matches!(&changes[..], [Change::Status(s)] if s.state == CameraState::Live && s.since_ns > 30),
            "{changes:?}"
        );
        // a node behind this one, which was passed all of these on
        let mut behind = Cameras::default();
        let passed: Vec<CameraStatus> = [changes]
            .concat()
            .into_iter()
            .filter_map(|c| match c {
                Change::Status(s) => Some(s),
                Change::Removed(_) => None,
            })
            .collect();
        behind.listed([&again].into_iter(), &[]);
        behind.listed(passed.iter(), &[]);
        behind.listed([&again].into_iter(), &[]);
        assert_eq!(behind.get("door").map(|s| s.state), Some(CameraState::Live));
        cameras.listed([].into_iter(), &[&"door".to_owned()]);
        assert_eq!(cameras.changes(), [Change::Removed("door".to_owned())]);
    }
}
