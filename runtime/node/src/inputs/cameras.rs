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
    /// The nodes that have ended and that these cameras came by, until they list them again.
    orphaned: BTreeMap<String, BTreeSet<String>>,
    changes: Vec<Change>,
}

impl Cameras {
    pub(super) fn get(&self, source: &str) -> Option<&CameraStatus> {
        self.known.get(source)
    }

    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The producer `node` lists these cameras now, and nobody lists those of `removed` any more.
    pub(super) fn listed<'a>(
        &mut self,
        node: &str,
        listed: impl Iterator<Item = &'a CameraStatus>,
        removed: &[&String],
    ) {
        for status in listed {
            let ended = self.orphaned.get_mut(&status.source);
            let is_back = ended.is_some_and(|ended| ended.remove(node));
            match self.known.get(&status.source) {
                // what another input says of it does not bring back the node that has ended
                _ if self.orphaned.get(&status.source).is_some_and(|ended| !ended.is_empty()) => {}
                Some(known) if known == status => {}
                // What brings it is there again, and the camera may not have changed meanwhile. Nodes behind this one take the
                // newest word, so that has to be newer than the one about the node that had ended.
                Some(known) if is_back => {
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

    /// The producer that listed these cameras is dead: nothing comes of them until it is started again. `computes`: it
    /// is not the node that reads them.
    pub(super) fn orphaned(&mut self, cameras: &BTreeMap<String, CameraStatus>, node: &str, computes: bool) {
        let (state, why) = match computes {
            true => (
                CameraState::Stalled,
                format!("node '{node}', which works on this camera's frames, has ended; the camera is not the cause"),
            ),
            false => (CameraState::Connecting, format!("node '{node}', which reads this camera, has ended")),
        };
        for source in self.without(cameras, state, &why) {
            self.orphaned.entry(source).or_default().insert(node.to_owned());
        }
    }

    /// The producer that listed these cameras was started again, and lists none before it has what it waits for.
    pub(super) fn waiting(&mut self, cameras: &BTreeMap<String, CameraStatus>, node: &str, waits: &str) {
        self.without(cameras, CameraState::Connecting, &format!("node '{node}' {waits}"));
    }

    /// Nothing comes of these cameras, for this reason. Gives those of which something was to come.
    fn without(&mut self, cameras: &BTreeMap<String, CameraStatus>, state: CameraState, why: &str) -> Vec<String> {
        let known = cameras.keys().filter_map(|source| self.known.get(source));
        let expected: Vec<_> = known.filter(|known| known.state != CameraState::Ended).cloned().collect();
        let sources = expected.iter().map(|known| known.source.clone()).collect();
        for known in expected {
            self.set(CameraStatus { state, since_ns: unix_ns(), last_error: why.to_owned(), ..known });
        }
        sources
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
        cameras.listed("decode", [&live, &stalled, &live].into_iter(), &[]);
        assert_eq!(cameras.changes(), [Change::Status(live.clone()), Change::Status(stalled)]);
        let again = status(CameraState::Live, 30);
        cameras.listed("decode", [&again].into_iter(), &[]);
        cameras.orphaned(&BTreeMap::from([("door".to_owned(), again.clone())]), "decode", false);
        let changes = cameras.changes();
        assert_eq!(changes[0], Change::Status(again.clone()));
        assert!(
            matches!(&changes[1], Change::Status(s) if s.state == CameraState::Connecting && s.last_error.contains("'decode'"))
        );
        // the node is started again and lists what it did before
        cameras.listed("decode", [&again].into_iter(), &[]);
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
        behind.listed("decode", [&again].into_iter(), &[]);
        behind.listed("detect", passed.iter(), &[]);
        behind.listed("decode", [&again].into_iter(), &[]);
        assert_eq!(behind.get("door").map(|s| s.state), Some(CameraState::Live));
        cameras.listed("decode", [].into_iter(), &[&"door".to_owned()]);
        assert_eq!(cameras.changes(), [Change::Removed("door".to_owned())]);
    }

    /// A page gets the camera's packets from its decoder, and detections by the detector.
    #[test]
    fn a_node_that_computes_is_the_cause_until_it_is_back_whatever_the_decoder_says() {
        let mut cameras = Cameras::default();
        let live = status(CameraState::Live, 10);
        let by_input = BTreeMap::from([("door".to_owned(), live.clone())]);
        cameras.listed("decode", [&live].into_iter(), &[]);
        cameras.listed("detect", [&live].into_iter(), &[]);
        cameras.changes();
        cameras.orphaned(&by_input, "detect", true);
        let stalled = cameras.get("door").cloned().unwrap_or_default();
        assert_eq!(stalled.state, CameraState::Stalled);
        let why = "node 'detect', which works on this camera's frames, has ended; the camera is not the cause";
        assert_eq!(stalled.last_error, why);
        // its pictures go on, and the camera may even be connected to again
        let newer = status(CameraState::Live, i64::MAX - 1);
        cameras.listed("decode", [&live].into_iter(), &[]);
        cameras.listed("decode", [&newer].into_iter(), &[]);
        assert_eq!(cameras.get("door"), Some(&stalled));
        cameras.listed("detect", [&newer].into_iter(), &[]);
        assert_eq!(cameras.get("door").map(|s| s.state), Some(CameraState::Live));
    }

    #[test]
    fn a_node_that_waits_says_what_for_and_goes_on() {
        let mut cameras = Cameras::default();
        let live = status(CameraState::Live, 10);
        let by_input = BTreeMap::from([("door".to_owned(), live.clone())]);
        cameras.listed("decode", [&live].into_iter(), &[]);
        cameras.orphaned(&by_input, "decode", false);
        cameras.waiting(&by_input, "decode", "waits for a cameras file");
        let known = cameras.get("door").cloned().unwrap_or_default();
        assert_eq!(
            (known.state, known.last_error.as_str()),
            (CameraState::Connecting, "node 'decode' waits for a cameras file")
        );
        cameras.listed("decode", [&live].into_iter(), &[]);
        assert_eq!(cameras.get("door").map(|s| s.state), Some(CameraState::Live));
    }
}
