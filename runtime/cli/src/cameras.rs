//! What the cameras of a graph do, by the reports of its nodes, and the lines that tell of a change.

use crate::clock;
use crate::status::NodeReport;
use crate::totals::Totals;
use crate::vitals::Vital;
use millrace_frame::{CameraState, CameraStatus, unix_ns};
use std::collections::BTreeMap;
use std::time::Instant;

/// A node that reads cameras and has run for so long has listed them, where it has any.
const LISTED_AFTER_NS: u64 = 3_000_000_000;

/// Reasons of one state that are said; more of them are one that goes on changing.
const MOST_SAID: usize = 8;

/// All cameras that a node has reported.
#[derive(Debug, Default)]
pub(crate) struct Cameras(BTreeMap<String, Camera>);

/// One camera.
#[derive(Debug)]
pub(crate) struct Camera {
    status: CameraStatus,
    /// Why the word of the node that reports it says nothing of now.
    doubt: Option<Doubt>,
    was_live: bool,
    /// When its node last came back from a time in which nothing was known of the camera, by the Unix clock.
    known_again_ns: i64,
    /// When pictures last stopped coming, by the Unix clock.
    down_since_ns: Option<i64>,
    outages: u32,
    down_ns: i64,
    /// The reason of the last outage.
    reason: String,
    /// The reasons that were said of its state.
    said: Vec<String>,
    /// Since when no node has it any more.
    removed: Option<Instant>,
}

/// A node gives no sign of life, so that nothing is known of its cameras.
#[derive(Clone, Debug)]
struct Doubt {
    node: String,
    what: &'static str,
    /// By the Unix clock.
    since_ns: i64,
}

impl Doubt {
    fn of(node: &Totals) -> Option<Self> {
        let (what, for_) = match node.vital {
            Vital::Well => return None,
            Vital::Gone(for_) => ("is gone", for_),
            Vital::Silent(for_) | Vital::Stuck(for_) => ("hangs", for_),
        };
        Some(Self { node: node.id.clone(), what, since_ns: clock::ago_ns(for_) })
    }

    fn text(&self) -> String {
        format!("its node {} {} since {}", self.node, self.what, clock::time_of_day(self.since_ns))
    }
}

impl Cameras {
    /// Takes the nodes' last reports. A line for each camera whose state is news.
    pub(crate) fn update(&mut self, nodes: &[Totals]) -> Vec<String> {
        let mut reports: BTreeMap<&str, (bool, i64, &Totals, &CameraStatus)> = BTreeMap::new();
        for node in nodes {
            // the node that reads a camera knows best, and of several processes of it the newest
            let is_source = node.items("in").is_none();
            for status in node.last.iter().flat_map(|last| &last.cameras) {
                let report = (is_source, status.since_ns, node, status);
                let known = reports.entry(&status.source).or_insert(report);
                if (known.0, known.1) < (report.0, report.1) {
                    *known = report;
                }
            }
        }
        let mut lines = Vec::new();
        // a camera that was removed is in no report of the nodes that read cameras
        let is_reader = |node: &Totals| node.items("in").is_none() && matches!(node.vital, Vital::Well);
        // one that has just started has not listed its cameras yet
        let has_listed = |last: &NodeReport| !last.cameras.is_empty() || last.uptime_ns > LISTED_AFTER_NS;
        let complete = nodes.iter().any(|node| is_reader(node) && node.last.as_ref().is_some_and(has_listed));
        for (source, camera) in
            self.0.iter_mut().filter(|(source, _)| complete && !reports.contains_key(source.as_str()))
        {
            if camera.removed.is_none() {
                (camera.removed, camera.doubt) = (Some(Instant::now()), None);
                camera.status.state = CameraState::Ended;
                camera.down_since_ns = None;
                lines.push(format!("{} camera {source}: removed", clock::now()));
            }
        }
        self.0.retain(|_, camera| camera.removed.is_none_or(|at| at.elapsed() < CameraStatus::REMOVED_SHOWN));
        for (source, (_, _, node, status)) in reports {
            let doubt = Doubt::of(node);
            let news = match self.0.get_mut(source) {
                Some(camera) => camera.take(status, doubt),
                None => {
                    let mut camera = Camera::new(status);
                    let news = camera.take(status, doubt);
                    self.0.insert(source.to_owned(), camera);
                    // the first look at a connection is no news before it has a result
                    news || status.state != CameraState::Connecting || !status.last_error.is_empty()
                }
            };
            if news && let Some(camera) = self.0.get_mut(source) {
                lines.push(format!("{} camera {}", clock::now(), camera.news()));
            }
        }
        lines
    }

    /// `3 live, 1 refused`; empty where no node reported a camera.
    pub(crate) fn counts(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for camera in self.0.values() {
            *counts.entry(camera.state()).or_default() += 1;
        }
        let order = ["live", "connecting", "stalled", "refused", "unknown", "ended", "removed"];
        let parts = order.iter().filter_map(|state| counts.get(state).map(|n| format!("{n} {state}")));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// The cameras of which nothing comes although something should.
    pub(crate) fn troubled(&self) -> impl Iterator<Item = &Camera> {
        self.0.values().filter(|camera| !matches!(camera.state(), "live" | "ended" | "removed"))
    }

    /// Lines for a summary: who is not live, and the outages of those that are.
    pub(crate) fn summary(&self) -> Vec<String> {
        let lines = self.0.values().filter_map(|camera| {
            let is_troubled = !matches!(camera.state(), "live" | "ended" | "removed");
            let outages = match camera.outages {
                0 => String::new(),
                1 => format!("1 outage of {}", clock::span(camera.down_s())),
                n => format!("{n} outages, {} in all", clock::span(camera.down_s())),
            };
            match (is_troubled, outages.is_empty()) {
                (true, true) => Some(format!("camera {}", camera.line())),
                (true, false) => Some(format!("camera {}; {outages}", camera.line())),
                (false, false) if camera.outages > 1 => {
                    Some(format!("camera {}: {outages}; the last: {}", camera.status.source, camera.reason))
                }
                (false, false) => Some(format!("camera {}: {outages}: {}", camera.status.source, camera.reason)),
                (false, true) => None,
            }
        });
        lines.collect()
    }
}

impl Camera {
    fn new(status: &CameraStatus) -> Self {
        Self {
            status: status.clone(),
            doubt: None,
            was_live: false,
            known_again_ns: 0,
            down_since_ns: None,
            outages: 0,
            down_ns: 0,
            reason: String::new(),
            said: Vec::new(),
            removed: None,
        }
    }

    /// Its state by name; `unknown` where the node that reads it says nothing any more.
    pub(crate) fn state(&self) -> &'static str {
        match &self.doubt {
            _ if self.removed.is_some() => "removed",
            Some(_) if self.status.state != CameraState::Ended => "unknown",
            _ => self.status.state.as_str(),
        }
    }

    fn take(&mut self, status: &CameraStatus, doubt: Option<Doubt>) -> bool {
        let before = self.state();
        self.removed = None;
        self.status = status.clone();
        if self.doubt.is_some() && doubt.is_none() {
            // it may never have been anything but live, as far as its node knows
            self.known_again_ns = unix_ns();
        }
        self.doubt = doubt;
        let state = self.state();
        self.was_live |= state == "live";
        if self.was_live && !matches!(state, "live" | "ended") {
            // one that says nothing does not hide the one before
            let says = self.doubt.is_some() || !self.status.last_error.is_empty();
            if says || self.down_since_ns.is_none() {
                self.reason = self.reason();
            }
        }
        self.is_news(before, state)
    }

    /// Another state, or a reason that was not said of this one.
    fn is_news(&mut self, before: &str, state: &str) -> bool {
        let changed = before != state;
        if changed {
            self.said.clear();
        }
        let why = &self.status.last_error;
        let new = state != "live" && self.doubt.is_none() && !why.is_empty() && !self.said.contains(why);
        let says = new && self.said.len() < MOST_SAID;
        if says {
            self.said.push(why.clone());
        }
        changed || says
    }

    /// The line that tells of its new state; keeps count of outages.
    fn news(&mut self) -> String {
        let name = &self.status.source;
        match self.state() {
            "live" => {
                let since_ns = self.status.since_ns.max(self.known_again_ns);
                let down = self.down_since_ns.take().map(|down_ns| since_ns.saturating_sub(down_ns).max(0));
                let again = down.map(|ns| {
                    self.down_ns += ns;
                    format!(" again after {}", clock::span(seconds(ns)))
                });
                format!("{name}: live{}", again.unwrap_or_default())
            }
            "ended" => {
                self.down_since_ns = None;
                format!("{name}: ended")
            }
            "connecting" if self.status.is_changed() => {
                (self.was_live, self.down_since_ns) = (false, None);
                format!("{name}: connecting{}", self.why())
            }
            _ => {
                if self.was_live && self.down_since_ns.is_none() {
                    self.outages += 1;
                    self.down_since_ns = Some(self.doubt.as_ref().map_or(self.status.since_ns, |doubt| doubt.since_ns));
                }
                format!("{name}: {}{}", self.state(), self.why())
            }
        }
    }

    fn reason(&self) -> String {
        match &self.doubt {
            Some(doubt) => doubt.text(),
            None if self.status.last_error.is_empty() => format!("{}, without a reason", self.state()),
            None => self.status.last_error.clone(),
        }
    }

    fn why(&self) -> String {
        if let Some(doubt) = &self.doubt {
            return format!(": {}", doubt.text());
        }
        let attempt = if self.status.tries > 1 { format!(" (attempt {})", self.status.tries) } else { String::new() };
        let error =
            if self.status.last_error.is_empty() { String::new() } else { format!(": {}", self.status.last_error) };
        format!("{attempt}{error}")
    }

    /// `door: refused since 14:02:11 (attempt 5): 401 Unauthorized`.
    pub(crate) fn line(&self) -> String {
        let since = match &self.doubt {
            Some(_) => String::new(),
            None => format!(" since {}", clock::time_of_day(self.status.since_ns)),
        };
        format!("{}: {}{since}{}", self.status.source, self.state(), self.why())
    }

    fn down_s(&self) -> u64 {
        let now = self.down_since_ns.map_or(0, |since_ns| unix_ns().saturating_sub(since_ns).max(0));
        seconds(self.down_ns.saturating_add(now))
    }
}

fn seconds(ns: i64) -> u64 {
    u64::try_from(ns / 1_000_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::{Counter, NodeReport};
    use std::time::Duration;

    const SECOND: i64 = 1_000_000_000;

    fn camera(state: CameraState, since_s: i64, last_error: &str) -> CameraStatus {
        let since_ns = since_s * SECOND;
        CameraStatus { state, since_ns, last_error: last_error.into(), tries: 5, ..CameraStatus::new("door") }
    }

    fn node(id: &str, taken: Option<u64>, cameras: Vec<CameraStatus>) -> Totals {
        let mut node = Totals::new(id);
        let of = |value| Counter { name: "in".into(), port: "frame".into(), source: "door".into(), value };
        let counters = taken.map(of).into_iter().collect();
        node.take(NodeReport { node: id.into(), cameras, counters, ..NodeReport::default() }, Instant::now());
        node
    }

    /// What is said behind the time of day.
    fn said(lines: Vec<String>) -> Vec<String> {
        lines.into_iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn each_change_is_one_line_and_outages_are_summed_up() {
        use CameraState::{Connecting, Live, Refused};
        let mut cameras = Cameras::default();
        let mut step = |status: CameraStatus| said(cameras.update(&[node("decode", None, vec![status])]));
        assert!(step(camera(Connecting, 0, "")).is_empty());
        let no = "401 Unauthorized; give user and password in cameras.yml";
        assert_eq!(step(camera(Refused, 1, no)), [format!("camera door: refused (attempt 5): {no}")]);
        assert!(step(camera(Refused, 1, no)).is_empty());
        assert_eq!(step(camera(Live, 20, "")), ["camera door: live"]);
        assert_eq!(
            step(camera(Connecting, 30, "connection reset")),
            ["camera door: connecting (attempt 5): connection reset"]
        );
        assert_eq!(step(camera(Live, 68, "")), ["camera door: live again after 38 s"]);
        assert_eq!(cameras.counts(), "1 live");
        assert_eq!(cameras.summary(), ["camera door: 1 outage of 38 s: connection reset"]);
        assert_eq!(cameras.troubled().count(), 0);
    }

    #[test]
    fn an_edit_is_no_outage_and_another_reason_is_news() {
        use CameraState::{Connecting, Live, Refused};
        let mut cameras = Cameras::default();
        let mut step = |status: CameraStatus| said(cameras.update(&[node("decode", None, vec![status])]));
        step(camera(Live, 1, ""));
        let edited =
            "camera door: connecting (attempt 5): its entry in the cameras file has changed, and it is opened again";
        assert_eq!(step(camera(Connecting, 2, CameraStatus::changed())), [edited]);
        assert_eq!(step(camera(Refused, 3, "PW is not set")), ["camera door: refused (attempt 5): PW is not set"]);
        assert_eq!(step(camera(Refused, 3, "401")), ["camera door: refused (attempt 5): 401"]);
        assert!(step(camera(Refused, 3, "401")).is_empty());
        assert!(step(camera(Refused, 3, "PW is not set")).is_empty(), "it was said");
        let more: usize = (0..90).map(|n| step(camera(Refused, 3, &format!("next attempt in {n} ms"))).len()).sum();
        assert!(more <= 8, "{more}");
        assert_eq!(step(camera(Live, 9, "")), ["camera door: live"]);
        assert!(cameras.summary().is_empty(), "{:?}", cameras.summary());
    }

    #[test]
    fn the_last_reason_is_one_that_says_something() {
        use CameraState::{Connecting, Live};
        let mut cameras = Cameras::default();
        for (state, since, why) in
            [(Live, 1, ""), (Connecting, 2, "connection reset"), (Connecting, 2, ""), (Live, 9, "")]
        {
            cameras.update(&[node("decode", None, vec![camera(state, since, why)])]);
        }
        assert_eq!(cameras.summary(), ["camera door: 1 outage of 7 s: connection reset"]);
    }

    #[test]
    fn a_camera_that_was_removed_is_said_to_be_and_leaves() {
        let mut cameras = Cameras::default();
        let other = CameraStatus { source: "yard".into(), ..camera(CameraState::Live, 1, "") };
        cameras.update(&[node("decode", None, vec![camera(CameraState::Live, 1, ""), other.clone()])]);
        assert_eq!(said(cameras.update(&[node("decode", None, vec![other.clone()])])), ["camera door: removed"]);
        assert_eq!(cameras.counts(), "1 live, 1 removed");
        assert_eq!(cameras.troubled().count(), 0);
        cameras.0.get_mut("door").unwrap().removed = Instant::now().checked_sub(CameraStatus::REMOVED_SHOWN);
        assert!(cameras.update(&[node("decode", None, vec![other])]).is_empty());
        assert_eq!(cameras.counts(), "1 live");
    }

    #[test]
    fn the_node_that_reads_a_camera_knows_best_and_one_that_hangs_knows_nothing() {
        use CameraState::{Live, Stalled};
        let mut cameras = Cameras::default();
        let page = node("page", Some(9), vec![camera(Live, 50, "")]);
        let mut nodes = [page, node("decode", None, vec![camera(Stalled, 40, "no picture for 3 s")])];
        cameras.update(&nodes);
        assert_eq!(cameras.counts(), "1 stalled");
        let line = cameras.troubled().next().unwrap().line();
        let since = clock::time_of_day(40 * SECOND);
        assert_eq!(line, format!("door: stalled since {since} (attempt 5): no picture for 3 s"));
        nodes[1] = node("decode", None, vec![camera(Live, 60, "")]);
        assert_eq!(said(cameras.update(&nodes)), ["camera door: live"]);
        nodes[1].vital = Vital::Silent(Duration::from_secs(240));
        let lines = said(cameras.update(&nodes));
        // which second it is may change meanwhile
        let since = clock::ago(Duration::from_secs(240))[..5].to_owned();
        assert!(lines[0].starts_with("camera door: unknown: its node decode hangs since "), "{lines:?}");
        assert!(
            lines[0].contains(&since) || lines[0].contains(&clock::ago(Duration::from_secs(241))[..5]),
            "{lines:?}"
        );
        assert_eq!(cameras.counts(), "1 unknown");
        nodes[1].vital = Vital::Gone(Duration::from_secs(250));
        assert!(cameras.update(&nodes).is_empty());
        let line = cameras.troubled().next().unwrap().line();
        assert!(line.starts_with("door: unknown: its node decode is gone since "), "{line}");
        // it comes back and has never known the camera to be anything but live
        nodes[1].vital = Vital::Well;
        assert!(
            matches!(&said(cameras.update(&nodes))[..], [line] if line.starts_with("camera door: live again after 4:0"))
        );
    }
}
