//! Which cameras are served at the end of the graph, second by second, and what became of the rest of their time.

use crate::status::NodeReport;
use crate::totals::Totals;
use crate::vitals::Vital;
use millrace_ab::soak::Account;
use millrace_frame::{CameraState, CameraStatus};
use millrace_graph::Upstream;
use millrace_graph::model::Graph;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Nodes report twice a second: a shorter time without a frame is not seen, and none.
const UNSEEN: Duration = Duration::from_secs(1);
/// The longest time between two frames that is a camera's way and no gap.
const LONGEST_PERIOD: Duration = Duration::from_secs(10);
/// From a camera's return to its first frame at the end of the graph.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// A camera that is live and has never come to the end of the graph is missed after so long.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// A node that has run for so long has listed its cameras.
const LISTED_AFTER_NS: u64 = 3_000_000_000;

/// A port of a sink at which a camera's frames arrive.
type Port = (String, String);
/// How many frames had come at each port of each camera.
pub(super) type Mark = BTreeMap<String, BTreeMap<Port, u64>>;

/// All cameras.
pub(super) struct Delivery {
    sinks: BTreeSet<String>,
    cameras: BTreeMap<String, Camera>,
    /// How long a camera that was live may take to come back when its decoder does.
    reconnect: Duration,
}

#[derive(Default)]
struct Camera {
    arrivals: BTreeMap<Port, Arrivals>,
    status: Option<CameraStatus>,
    account: Account,
    /// Up to when its time is accounted for; none before it was first served.
    upto: Option<Instant>,
    first_live: Option<Instant>,
    /// The gap that goes on: what of it is missing so far.
    gap_missing_s: f64,
    served: bool,
    /// Until when the camera's own outage has not reached the end of the graph.
    own_until: Option<Instant>,
    /// Until when its absence is that of a decoder that was started again.
    reconnects_until: Option<Instant>,
}

/// The frames of a camera that arrived at one port of a sink.
struct Arrivals {
    count: u64,
    at: Instant,
    first: (u64, Instant),
}

impl Arrivals {
    /// How old its last frame may be.
    fn patience(&self) -> Duration {
        let frames = u32::try_from(self.count - self.first.0).unwrap_or(u32::MAX);
        let period = self.at.saturating_duration_since(self.first.1).checked_div(frames).unwrap_or(LONGEST_PERIOD);
        UNSEEN + 2 * period.min(LONGEST_PERIOD)
    }
}

impl Delivery {
    /// Of a graph, with what is known from before an interruption.
    pub(super) fn new(graph: &Graph, known: &BTreeMap<String, Account>, reconnect: Duration) -> Self {
        let reads = |id: &str| {
            let fed =
                |upstream: &Option<Upstream>| matches!(upstream, Some(Upstream::Output { node, .. }) if node == id);
            graph.nodes.iter().any(|node| node.inputs.iter().any(|input| fed(&input.upstream)))
        };
        let sinks = graph.nodes.iter().map(|node| node.id.value.clone()).filter(|id| !reads(id)).collect();
        let camera = |account: &Account| Camera { account: *account, ..Camera::default() };
        let cameras = known.iter().map(|(id, account)| (id.clone(), camera(account))).collect();
        Self { sinks, cameras, reconnect }
    }

    /// The nodes at which the graph ends.
    pub(super) fn is_sink(&self, node: &str) -> bool {
        self.sinks.contains(node)
    }

    /// A node's process was replaced: the cameras that it reads have to come back with it.
    pub(super) fn restarted(&mut self, node: &Totals, now: Instant) {
        for status in node.last.iter().flat_map(|last| &last.cameras).filter(|_| is_source(node)) {
            if let Some(camera) = self.cameras.get_mut(&status.source) {
                camera.reconnects_until = Some(now + self.reconnect);
            }
        }
    }

    /// Accounts for the time up to now.
    pub(super) fn look(&mut self, nodes: &[Totals], in_fault: bool, now: Instant) {
        self.take_states(nodes);
        for node in nodes.iter().filter(|node| self.sinks.contains(&node.id)) {
            let last_report_at = node.last_report_at.unwrap_or(now);
            for ((port, source), count) in node.counts("in").into_iter().filter(|(_, count)| *count > 0) {
                let camera = self.cameras.entry(source).or_default();
                let arrivals = Arrivals { count, at: last_report_at, first: (count, last_report_at) };
                let arrivals = camera.arrivals.entry((node.id.clone(), port)).or_insert(arrivals);
                if count > arrivals.count {
                    (arrivals.count, arrivals.at) = (count, last_report_at);
                }
            }
        }
        self.cameras.values_mut().for_each(|camera| camera.account_for(in_fault, now));
    }

    /// The state of each camera, by the node that reads it; none where that node says nothing of now.
    fn take_states(&mut self, nodes: &[Totals]) {
        let mut found: BTreeMap<&str, (bool, &CameraStatus)> = BTreeMap::new();
        let mut complete = true;
        for node in nodes.iter().filter(|node| is_source(node)) {
            let well = node.vital == Vital::Well && node.process_gone.is_none();
            let listed = |last: &NodeReport| !last.cameras.is_empty() || last.uptime_ns > LISTED_AFTER_NS;
            complete &= well && node.last.as_ref().is_some_and(listed);
            for status in node.last.iter().flat_map(|last| &last.cameras) {
                let report = (well, status);
                let known = found.entry(&status.source).or_insert(report);
                if known.1.since_ns < status.since_ns {
                    *known = report;
                }
            }
        }
        for (source, (well, status)) in &found {
            self.cameras.entry((*source).to_owned()).or_default().status = well.then(|| (*status).clone());
        }
        for (source, camera) in &mut self.cameras {
            if !found.contains_key(source.as_str()) {
                // one that nobody reads any more has ended
                let ended = CameraStatus { state: CameraState::Ended, ..CameraStatus::new(source) };
                camera.status = complete.then_some(ended);
            }
        }
    }

    /// What became of the time of each.
    pub(super) fn accounts(&self) -> BTreeMap<String, Account> {
        let known =
            self.cameras.iter().filter(|(_, camera)| camera.upto.is_some() || camera.account != Account::default());
        known.map(|(id, camera)| (id.clone(), camera.account)).collect()
    }

    /// The state of each by name, for a row.
    pub(super) fn states(&self) -> impl Iterator<Item = (&String, &'static str)> {
        self.cameras.iter().map(|(id, camera)| (id, camera.status.as_ref().map_or("unknown", |s| s.state.as_str())))
    }

    /// The status of one.
    pub(super) fn status(&self, id: &str) -> Option<&CameraStatus> {
        self.cameras.get(id)?.status.as_ref()
    }

    /// Those that are served now.
    pub(super) fn served(&self) -> BTreeSet<String> {
        self.cameras.iter().filter(|(_, camera)| camera.served).map(|(id, _)| id.clone()).collect()
    }

    /// Each camera is served, or has an outage of its own; and one is served.
    pub(super) fn is_steady(&self) -> bool {
        let fine = |camera: &Camera| camera.served || camera.upto.is_none() || camera.is_out();
        self.cameras.values().all(fine) && self.cameras.values().any(|camera| camera.served)
    }

    /// What has come so far, of these cameras.
    pub(super) fn mark(&self, cameras: &BTreeSet<String>) -> Mark {
        let counts =
            |camera: &Camera| camera.arrivals.iter().map(|(port, arrivals)| (port.clone(), arrivals.count)).collect();
        self.cameras
            .iter()
            .filter(|(id, _)| cameras.contains(*id))
            .map(|(id, camera)| (id.clone(), counts(camera)))
            .collect()
    }

    /// More has come at each port of each of these cameras.
    pub(super) fn is_past(&self, mark: &Mark) -> bool {
        let arrivals = |id: &String, port: &Port| self.cameras.get(id).and_then(|camera| camera.arrivals.get(port));
        mark.iter().all(|(id, ports)| {
            ports.iter().all(|(port, count)| arrivals(id, port).is_some_and(|arrivals| arrivals.count > *count))
        })
    }
}

/// A node that reads cameras is fed by no other.
fn is_source(node: &Totals) -> bool {
    node.items("in").is_none()
}

impl Camera {
    /// By its own word nothing comes from it.
    fn is_out(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.state != CameraState::Live)
    }

    fn account_for(&mut self, in_fault: bool, now: Instant) {
        let late = |arrivals: &Arrivals| now.saturating_duration_since(arrivals.at) > arrivals.patience();
        let oldest = self.arrivals.values().map(|arrivals| arrivals.at).min();
        self.served = oldest.is_some() && !self.arrivals.values().any(late);
        let is_out = self.is_out();
        let Some(upto) = self.upto else {
            let live = self.status.is_some() && !is_out;
            let first = *self.first_live.get_or_insert(now);
            if !live {
                self.first_live = None;
            } else if self.served || now.saturating_duration_since(first) > FIRST_FRAME {
                self.upto = oldest.or(Some(now));
            }
            return;
        };
        if self.served {
            let to = oldest.unwrap_or(now).max(upto);
            self.account.served_s += (to - upto).as_secs_f64();
            self.account.longest_missing_s = self.account.longest_missing_s.max(self.gap_missing_s);
            (self.upto, self.gap_missing_s) = (Some(to), 0.0);
            return;
        }
        let piece_s = now.saturating_duration_since(upto).as_secs_f64();
        self.upto = Some(now);
        let before = |until: Option<Instant>| until.is_some_and(|until| now < until);
        let is_own = (is_out && !before(self.reconnects_until)) || before(self.own_until);
        if is_out && is_own {
            self.own_until = Some(now + ON_ITS_WAY);
        }
        if is_own {
            // what came before the camera's state said so was its own, too
            self.account.own_s += piece_s + self.gap_missing_s;
            self.account.missing_s -= self.gap_missing_s;
            self.gap_missing_s = 0.0;
        } else if in_fault {
            self.account.fault_s += piece_s;
        } else {
            self.gap_missing_s += piece_s;
            self.account.missing_s += piece_s;
        }
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
