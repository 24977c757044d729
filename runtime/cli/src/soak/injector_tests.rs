#![allow(clippy::unwrap_used)]
use super::*;
use crate::status::Counter;
use crate::vitals::Process;
use millrace_frame::CameraStatus;
use millrace_graph::check::{World as Surroundings, check};
use millrace_graph::describe::Blind;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A decoder and a detector whose processes are real, and whose reports are made up; a step is half a second.
struct Bench {
    family: Family,
    /// Runs the two processes of the nodes.
    parent: Child,
    pids: [u32; 2],
    nodes: Vec<Totals>,
    delivery: Delivery,
    injector: Injector,
    turn: ScheduleProgress,
    now: Instant,
    begun: Instant,
    frames: u64,
    state: CameraState,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.family.kill();
        let _ = self.parent.wait();
    }
}

fn children(family: &mut Family, parent: u32, count: usize) -> Vec<u32> {
    let begun = Instant::now();
    loop {
        family.look();
        let found: Vec<u32> = family.pids().into_iter().filter(|pid| *pid != parent).collect();
        if found.len() >= count {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the processes did not start");
    }
}

impl Bench {
    fn new(faults: &str) -> Self {
        let text = "nodes:\n- { id: decode, path: a, outputs: [frame], inputs: { tick: dora/timer/secs/5 } }\n\
                    - { id: detect, path: b, inputs: { frame: decode/frame } }\n";
        let surroundings = Surroundings { describer: &Blind, variables: &|_| None };
        let checked = check("g.yml", std::path::Path::new("/"), text.as_bytes(), &[], &surroundings);
        let graph = checked.graph.unwrap();
        let mut report = millrace_graph::fault::Report::new("f.yml", faults);
        let schedule = millrace_graph::schedule::read(faults, &["decode", "detect"], &mut report).unwrap();
        let healed = Duration::from_secs(10);
        let parent = Command::new("sh").args(["-c", "sleep 600 & sleep 600 & wait"]).process_group(0).spawn().unwrap();
        let mut family = Family::of(parent.id());
        let pids = children(&mut family, parent.id(), 2);
        let now = Instant::now();
        Self {
            family,
            parent,
            pids: [pids[0], pids[1]],
            nodes: ["decode", "detect"].map(Totals::new).into(),
            delivery: Delivery::new(&graph, &Default::default(), healed),
            injector: Injector::new(schedule, Duration::from_secs(3), healed),
            turn: ScheduleProgress::default(),
            now,
            begun: now,
            frames: 0,
            state: CameraState::Live,
        }
    }

    /// Half a second in which nodes with a process report, and frames come where both do.
    fn step(&mut self, reports: [bool; 2], frames: u64) -> Option<News> {
        self.now += Duration::from_millis(500);
        self.frames += frames;
        let since_ns = if self.state == CameraState::Live { 0 } else { unix_ns() + 1_000_000 };
        let status = CameraStatus { state: self.state, since_ns, ..CameraStatus::new("gate") };
        let counter = Counter { name: "in".into(), port: "frame".into(), source: "gate".into(), value: self.frames };
        let decode =
            NodeReport { node: "decode".into(), pid: self.pids[0], cameras: vec![status], ..NodeReport::default() };
        let detect =
            NodeReport { node: "detect".into(), pid: self.pids[1], counters: vec![counter], ..NodeReport::default() };
        for ((node, status), _) in
            self.nodes.iter_mut().zip([decode, detect]).zip(reports).filter(|(_, reports)| *reports)
        {
            if node.take(status, self.now).is_some() {
                self.injector.noticed(&node.id, self.now);
            }
        }
        self.delivery.look(&self.nodes, self.injector.excuses(self.now), self.now);
        let world = World {
            nodes: &self.nodes,
            family: &self.family,
            root: self.parent.id(),
            delivery: &self.delivery,
            now: self.now,
            measured_s: (self.now - self.begun).as_secs_f64(),
            end_s: 600.0,
        };
        self.injector.turn(&mut self.turn, &world)
    }

    fn until_begun(&mut self) -> String {
        for _ in 0..100 {
            if let Some(News::Begun(name, _)) = self.step([true; 2], 12) {
                return name;
            }
        }
        panic!("no fault begins");
    }

    fn until_over(&mut self, frames: u64) -> FaultRecord {
        for _ in 0..400 {
            if let Some(News::Over(fault)) = self.step([true; 2], frames) {
                return fault;
            }
        }
        panic!("the fault does not end");
    }

    /// The state of a node's process as the kernel has it, once it is as expected.
    fn becomes(&self, node: usize, expected: Process) {
        let begun = Instant::now();
        while self.family.process(self.pids[node]) != expected {
            assert!(begun.elapsed() < Duration::from_secs(20), "process {} is not {expected:?}", self.pids[node]);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_node_that_is_killed_is_seen_and_heals_with_its_next_process() {
    let mut bench = Bench::new("first: 5s\nfaults: [{ kill: detect }]\n");
    assert_eq!(bench.until_begun(), "kill detect");
    bench.becomes(1, Process::Ended);
    // what was on its way comes, and heals nothing
    assert!(bench.step([true, false], 3).is_none());
    // its next process is that of another program here
    bench.pids[1] = bench.parent.id();
    let fault = bench.until_over(12);
    assert_eq!((fault.seen_s, fault.healed_s, fault.trouble.as_str()), (Some(1.0), Some(1.5), ""));
    assert_eq!((fault.lasted_s, fault.has_to_be_seen, bench.turn.begun), (0.0, true, 1));
    assert!(fault.at_s >= 5.0 && !bench.injector.is_active(), "{fault:?}");
}

#[test]
fn a_segmentation_fault_ends_also_a_process_that_handles_the_first() {
    let mut bench = Bench::new("first: 5s\nfaults: [{ segv: detect }]\n");
    // this process becomes the node: it handles the signal once, as programs in Rust do
    let script = "trap 'trap - SEGV' SEGV; while :; do sleep 0.005; done";
    let mut node = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    bench.family.kill();
    bench.parent.wait().unwrap();
    bench.family = Family::of(node.id());
    bench.family.look();
    bench.pids[1] = node.id();
    assert_eq!(bench.until_begun(), "segv detect");
    bench.becomes(1, Process::Ended);
    let status = node.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SEGV.as_raw()));
}

#[test]
fn a_node_that_is_stopped_goes_on_after_its_time() {
    let mut bench = Bench::new("first: 5s\nfaults: [{ stop: decode, for: 4s }]\n");
    assert_eq!(bench.until_begun(), "stop decode");
    bench.becomes(0, Process::Stopped);
    for half in 0..7 {
        assert!(bench.step([false, true], 0).is_none());
        if half == 5 {
            bench.injector.noticed("decode", bench.now);
        }
    }
    let fault = bench.until_over(12);
    bench.becomes(0, Process::Runs);
    assert_eq!((fault.seen_s, fault.lasted_s, fault.healed_s), (Some(3.0), 4.0, Some(1.0)), "{fault:?}");
}

#[test]
fn what_never_heals_is_given_up_and_said() {
    let mut bench = Bench::new("first: 5s\nfaults: [{ stop: detect, for: 1s }]\n");
    bench.until_begun();
    let fault = bench.until_over(0);
    assert_eq!((fault.healed_s, fault.has_to_be_seen), (None, false), "a stop of a second need not be seen");
    assert!(!bench.delivery.is_steady());
    for _ in 0..400 {
        assert!(bench.step([true; 2], 0).is_none(), "nothing more is done to a graph that is not well");
    }
}

#[test]
fn a_command_begins_a_fault_and_another_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("unplugged");
    let (on, off) = (format!("touch {}", file.display()), format!("rm {}", file.display()));
    let mut bench = Bench::new(&format!(
        "first: 5s\nfaults: [{{ run: {on}, undo: {off}, for: 6s, cameras: [gate], name: unplug }}]\n"
    ));
    assert_eq!(bench.until_begun(), "unplug");
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(bench.step([true; 2], 0).is_none());
    bench.state = CameraState::Stalled;
    for _ in 0..6 {
        assert!(bench.step([true; 2], 0).is_none());
    }
    bench.state = CameraState::Live;
    while file.exists() {
        bench.step([true; 2], 0);
        std::thread::sleep(Duration::from_millis(5));
        assert!(begun.elapsed() < Duration::from_secs(40));
    }
    // the command may need a moment to end
    std::thread::sleep(Duration::from_millis(200));
    let fault = bench.until_over(12);
    assert!(fault.seen_s.is_some_and(|seen_s| seen_s <= 1.5) && fault.healed_s.is_some(), "{fault:?}");
    assert!(fault.has_to_be_seen && fault.trouble.is_empty() && fault.lasted_s >= 6.0, "{fault:?}");
}

#[test]
fn a_command_that_fails_is_said() {
    let mut bench = Bench::new("first: 5s\nfaults: [{ run: exit 4 }]\n");
    bench.until_begun();
    std::thread::sleep(Duration::from_millis(300));
    let fault = bench.until_over(12);
    assert_eq!(fault.trouble, "its command failed (exit status: 4)");
}

#[test]
fn faults_come_in_turn_and_those_with_a_time_of_their_own_at_it() {
    let mut bench = Bench::new(
        "first: 5s\nevery: 20s\nfaults:\n- { stop: decode, for: 1s }\n- { stop: detect, for: 1s, at: 30s }\n- { stop: detect, for: 2s }\n",
    );
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push((bench.until_begun(), bench.until_over(12).at_s.round()));
    }
    let names: Vec<(&str, f64)> = names.iter().map(|(name, at)| (name.as_str(), *at)).collect();
    assert_eq!(
        (names[0].0, names[1].0, names[2].0, names[3].0),
        ("stop decode", "stop detect", "stop detect", "stop decode")
    );
    assert!(names[1].1 >= 25.0 && names[2].1 >= 30.0 && names[3].1 >= 45.0, "{names:?}");
    assert_eq!((bench.turn.begun, bench.turn.fixed), (3, 1));
}
