use super::*;
use crate::status::{Counter, DropCount};

/// A decoder and a detector that have passed so many seconds; the detector reports half a second later, and loses frames by
/// name and without one.
struct Bench {
    balances: Balances,
    nodes: [Totals; 2],
    now: Instant,
    given: u64,
    taken: u64,
    lost: u64,
}

impl Bench {
    fn new() -> Self {
        let point = BalancePoint {
            name: "decode/frame to detect".into(),
            given: vec![("decode".into(), "out", "frame".into())],
            taken: ("detect".into(), "in", "frame".into()),
            lost: vec![("detect".into(), "frame".into())],
        };
        let balances = Balances { points: vec![point], spans: BTreeMap::new(), found: BTreeMap::new(), quiet: None };
        let nodes = ["decode", "detect"].map(Totals::new);
        Self { balances, nodes, now: Instant::now(), given: 0, taken: 0, lost: 0 }
    }

    fn pass(&mut self, seconds: u32, named: u64, unnamed: u64, pid: u32) -> Balance {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.given += 25;
            self.lost += named;
            self.taken += 25 - named - unnamed;
            let counter =
                |name: &str, value| Counter { name: name.into(), port: "frame".into(), source: "gate".into(), value };
            let counters = vec![counter("out", self.given + self.given % 7)];
            self.nodes[0]
                .take(NodeReport { node: "decode".into(), pid: 1, counters, ..NodeReport::default() }, self.now);
            let drops = ["late", "doorbell"].map(|cause| DropCount {
                cause: cause.into(),
                port: "frame".into(),
                source: "gate".into(),
                value: self.lost,
                ..DropCount::default()
            });
            let counters = vec![counter("in", self.taken)];
            let detect =
                NodeReport { node: "detect".into(), pid, counters, drops: drops.into(), ..NodeReport::default() };
            self.nodes[1].take(detect, self.now);
            self.balances.look(&self.nodes, false, self.now);
        }
        self.balances.found().get("decode/frame to detect, gate").copied().unwrap_or_default()
    }
}

#[test]
fn losses_with_a_name_are_none_and_what_is_between_two_reports_is_allowed() {
    let found = Bench::new().pass(600, 3, 0, 2);
    assert!(found.worst.unsigned_abs() <= 6 && (54..=64).contains(&found.allowed), "{found:?}");
    assert!(found.passed.abs_diff((600 - 11) * 25) <= 6, "{found:?}");
}

#[test]
fn one_frame_in_a_second_without_a_name_is_found() {
    let mut bench = Bench::new();
    bench.pass(60, 0, 0, 2);
    let found = bench.pass(120, 0, 1, 2);
    assert!(found.worst >= 110 && found.worst.unsigned_abs() > found.allowed, "{found:?}");
}

#[test]
fn what_a_killed_process_had_not_reported_is_not_held_against_the_next() {
    let mut bench = Bench::new();
    bench.pass(60, 0, 0, 2);
    // the new process begins to count at 0, and what came while there was none it never knew of
    (bench.given, bench.taken, bench.lost) = (bench.given + 90, 0, 0);
    let found = bench.pass(60, 0, 0, 3);
    assert!(found.worst.unsigned_abs() <= 6, "{found:?}");
}
