#![allow(clippy::unwrap_used)]
use super::*;
use crate::status::Counter;

/// A graph of a decoder and a page that reads two of its ports, looked at each half second.
struct Bench {
    delivery: Delivery,
    nodes: Vec<Totals>,
    now: Instant,
    frames: [u64; 2],
}

impl Bench {
    fn new() -> Self {
        let camera = ["page".to_owned()].into();
        let delivery = Delivery { sinks: camera, cameras: BTreeMap::new(), reconnect: Duration::from_secs(10) };
        let nodes = ["decode", "page"].map(Totals::new).into();
        Self { delivery, nodes, now: Instant::now(), frames: [0; 2] }
    }

    /// So many half seconds in which the camera is in this state and its ports get so many frames.
    fn pass(&mut self, halves: u32, state: CameraState, frames: [u64; 2], in_fault: bool) -> Account {
        for _ in 0..halves {
            self.now += Duration::from_millis(500);
            let status = CameraStatus { state, ..CameraStatus::new("gate") };
            let decode = NodeReport { node: "decode".into(), pid: 1, cameras: vec![status], ..NodeReport::default() };
            self.nodes[0].take(decode, self.now);
            self.frames = [0, 1].map(|n| self.frames[n] + frames[n]);
            let counter =
                |port: &str, value| Counter { name: "in".into(), port: port.into(), source: "gate".into(), value };
            let counters = vec![counter("detections", self.frames[0]), counter("packet", self.frames[1])];
            self.nodes[1].take(NodeReport { node: "page".into(), pid: 2, counters, ..NodeReport::default() }, self.now);
            self.delivery.look(&self.nodes, in_fault, self.now);
        }
        self.delivery.accounts().get("gate").copied().unwrap_or_default()
    }
}

const LIVE: CameraState = CameraState::Live;

fn near(account: Account, [served, missing, fault, own]: [f64; 4]) {
    let found = [account.served_s, account.missing_s, account.fault_s, account.own_s];
    for (found, expected) in found.into_iter().zip([served, missing, fault, own]) {
        assert!((found - expected).abs() <= 1.01, "{account:?}: {served}, {missing}, {fault}, {own}");
    }
}

#[test]
fn a_camera_whose_frames_come_is_served() {
    let account = Bench::new().pass(200, LIVE, [12, 12], false);
    near(account, [100.0, 0.0, 0.0, 0.0]);
    // two frames in a second and none in the next is the way of a slow camera
    let mut slow = Bench::new();
    for _ in 0..50 {
        slow.pass(1, LIVE, [1, 1], false);
        slow.pass(3, LIVE, [0, 0], false);
    }
    // the time behind its last frame is nobody's yet
    near(slow.delivery.accounts()["gate"], [98.5, 0.0, 0.0, 0.0]);
}

#[test]
fn one_port_without_frames_is_a_gap_whatever_the_others_have() {
    let mut bench = Bench::new();
    bench.pass(100, LIVE, [12, 12], false);
    let account = bench.pass(20, LIVE, [0, 12], false);
    near(account, [50.0, 10.0, 0.0, 0.0]);
    assert!(!bench.delivery.is_steady());
    let account = bench.pass(100, LIVE, [12, 12], false);
    near(account, [100.0, 10.0, 0.0, 0.0]);
    assert!((account.longest_missing_s - 10.0).abs() <= 1.0, "{account:?}");
    // all time is somebody's
    let all = account.served_s + account.missing_s;
    assert!((all - 109.5).abs() < 1e-6, "{all}");
}

#[test]
fn the_cameras_own_outage_is_its_own_from_its_last_frame_to_its_first() {
    let mut bench = Bench::new();
    bench.pass(100, LIVE, [12, 12], false);
    // it stalls after 2.5 s, and its first frame needs a second to the end of the graph
    bench.pass(5, LIVE, [0, 0], false);
    bench.pass(20, CameraState::Stalled, [0, 0], false);
    bench.pass(2, LIVE, [0, 0], false);
    near(bench.pass(100, LIVE, [12, 12], false), [100.0, 0.0, 0.0, 13.5]);
    assert_eq!(bench.delivery.served().len(), 1);
}

#[test]
fn the_time_of_a_fault_is_apart_and_a_decoder_that_comes_back_is_no_camera_that_was_gone() {
    let mut bench = Bench::new();
    bench.pass(100, LIVE, [12, 12], false);
    let now = bench.now;
    bench.delivery.restarted(&bench.nodes[0], now);
    near(bench.pass(8, CameraState::Connecting, [0, 0], true), [50.0, 0.0, 4.0, 0.0]);
    near(bench.pass(8, CameraState::Connecting, [0, 0], false), [50.0, 4.0, 4.0, 0.0]);
    // beyond its bound it is the camera's after all
    near(bench.pass(20, CameraState::Connecting, [0, 0], false), [50.0, 0.0, 4.0, 14.0]);
}

#[test]
fn a_camera_that_never_came_is_not_due_and_one_that_is_live_and_never_comes_out_is() {
    let mut bench = Bench::new();
    assert_eq!(bench.pass(200, CameraState::Refused, [0, 0], false), Account::default());
    let account = bench.pass(200, LIVE, [0, 0], false);
    near(account, [0.0, 70.0, 0.0, 0.0]);
}

#[test]
fn what_has_come_is_known_port_by_port() {
    let mut bench = Bench::new();
    bench.pass(10, LIVE, [12, 12], false);
    let mark = bench.delivery.mark(&bench.delivery.served());
    assert!(!bench.delivery.is_past(&mark));
    bench.pass(1, LIVE, [0, 12], false);
    assert!(!bench.delivery.is_past(&mark));
    bench.pass(1, LIVE, [1, 0], false);
    assert!(bench.delivery.is_past(&mark));
}
