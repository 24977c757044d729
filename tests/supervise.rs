//! `millrace supervise`: what hangs is ended, what has ended is started again, a node that cannot live leaves the others
//! alone, and the service manager hears that all is well while it is. The test plays the service manager.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::dataflow::Talk;
use millrace_tests::{Traces, finish, millrace, printed, root, skip_without};
use rustix::process::{Pid, Signal};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(240);
/// In microseconds; `WATCHDOG=1` comes twice as often.
const WATCHDOG: u64 = 1_000_000;

/// They share the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The graph for live cameras under supervision, with a clip in place of a camera, and what it tells its service manager.
struct Supervised {
    talk: Talk,
    manager: UnixDatagram,
    mark: String,
    _folder: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Supervised {
    fn begin(name: &str, more: &[&str]) -> Self {
        let one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let cameras = folder.path().join("cameras.yml");
        let clip = root().join("tests/data/demo/clip.mp4");
        std::fs::write(&cameras, format!("cameras:\n  - {{ id: street, file: {}, loop: true }}\n", clip.display()))
            .unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let value = format!("supervise-{name}-{}", std::process::id());
        let set = format!("decode.CAMERAS={}", cameras.display());
        let mut command = millrace(&["supervise", "graphs/cameras.yml", "--no-build", "--set", &set]);
        command.args(more).env("MILLRACE_TEST_MARK", &value);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG.to_string());
        let mark = format!("MILLRACE_TEST_MARK={value}");
        Self { talk: Talk::begin(&mut command), manager, mark, _folder: folder, _one: one }
    }

    /// The next message, where one comes within a moment.
    fn next(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        let length = self.manager.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
    }

    /// Reads messages up to one that has this in it; all that came.
    fn hears(&self, part: &str) -> Vec<String> {
        let (begun, mut messages) = (Instant::now(), Vec::new());
        loop {
            assert!(begun.elapsed() < LIMIT, "no '{part}' came: {messages:?}");
            let Some(message) = self.next() else { continue };
            messages.push(message);
            if messages.last().unwrap().contains(part) {
                return messages;
            }
        }
    }

    /// How many `WATCHDOG=1` come within so long.
    fn fed_within(&self, time: Duration) -> usize {
        let begun = Instant::now();
        let mut fed = 0;
        while begun.elapsed() < time {
            fed += usize::from(self.next().is_some_and(|message| message == "WATCHDOG=1"));
        }
        fed
    }

    /// No `WATCHDOG=1` comes for three times as long as a service manager waits.
    fn starves(&self) -> bool {
        let (begun, patience) = (Instant::now(), Duration::from_micros(3 * WATCHDOG));
        while begun.elapsed() < LIMIT {
            if self.fed_within(patience) == 0 {
                return true;
            }
        }
        false
    }

    /// The process of a node, or dora's.
    fn process(&self, name: &str) -> Option<u32> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let text = |file: &str| String::from_utf8_lossy(&read(file)).into_owned();
            let environment = text("environ");
            let node = environment.lines().find_map(|line| line.trim().strip_prefix("node_id:"));
            // dora's command line has the graph's copy, a node's has none
            let is_dora = || node.is_none() && text("cmdline").contains("\0run\0");
            environment.contains(&self.mark)
                && if name == "dora" { is_dora() } else { node.map(str::trim) == Some(name) }
        })
    }

    fn signal(&self, name: &str, signal: Signal) {
        let pid = self.process(name).unwrap_or_else(|| panic!("{name} does not run"));
        rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    /// Asks it to stop, as a service manager does.
    fn end(self) -> String {
        self.talk.signal(Signal::TERM);
        self.hears("STOPPING=1");
        let (code, said) = self.talk.end();
        assert_eq!(code, 0, "{said}");
        let ended = Instant::now();
        while Traces::now(&self.mark).has_processes() {
            assert!(ended.elapsed() < LIMIT, "the graph goes on");
            std::thread::sleep(Duration::from_millis(50));
        }
        said
    }
}

#[test]
fn what_hangs_is_ended_and_what_has_ended_is_started_again() {
    let mut graph = Supervised::begin("hang", &["--set", "page.PORT=0", "--hang", "5s"]);
    graph.hears("READY=1");
    // a node that dora does not know to hang
    let detect = graph.process("detect").unwrap();
    graph.signal("detect", Signal::STOP);
    graph.talk.until(&format!("its process {detect} is ended (SIGKILL)"));
    graph.talk.until(&format!("node detect: its process {detect} was ended by SIGKILL; started again as process "));
    graph.hears("5 of 5 nodes work");
    // dora itself, ended and stopped: nobody else could start it again
    graph.signal("dora", Signal::KILL);
    graph.talk.until("the graph has ended: dora ended with signal: 9 (SIGKILL); it is started again in 1 s");
    graph.talk.until("the graph is started");
    graph.hears("starts of the graph: 2");
    graph.hears("5 of 5 nodes work");
    let dora = graph.process("dora").unwrap();
    graph.signal("dora", Signal::STOP);
    graph.talk.until(&format!("dora's process {dora} is stopped (SIGSTOP): the graph is ended, to be started again"));
    graph.talk.until("the graph is started");
    graph.hears("starts of the graph: 3");
    graph.hears("5 of 5 nodes work; cameras: 1 live");
    let said = graph.end();
    assert!(
        said.contains("starts of the graph: 3; of single nodes: 1 more; processes that hung and were ended: 1"),
        "{said}"
    );
}

#[test]
fn the_service_manager_hears_that_all_is_well_while_it_is() {
    let graph = Supervised::begin("watchdog", &["--set", "page.PORT=0", "--hang", "1h"]);
    let before = graph.hears("READY=1");
    assert!(before.iter().any(|message| message.starts_with("STATUS=0 of 5 nodes work")), "{before:?}");
    for hanging in ["detect", "dora"] {
        graph.hears("WATCHDOG=1");
        graph.signal(hanging, Signal::STOP);
        assert!(graph.starves(), "{hanging} is stopped, and all is said to be well");
        graph.signal(hanging, Signal::CONT);
        graph.hears("WATCHDOG=1");
    }
    let said = graph.end();
    assert!(
        said.contains("starts of the graph: 1; of single nodes: 0 more; processes that hung and were ended: 0"),
        "{said}"
    );
}

#[test]
fn a_node_that_cannot_live_is_tried_ever_more_rarely_and_leaves_the_others_alone() {
    // a port that is free now
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut graph = Supervised::begin("lost", &["--set", &format!("page.PORT={port}")]);
    graph.hears("5 of 5 nodes work");
    let others = ["decode", "to-rgb", "detect", "zenoh", "dora"];
    let pids = |graph: &Supervised| others.map(|name| graph.process(name));
    let before = pids(&graph);
    graph.signal("page", Signal::KILL);
    // dora waits half a second before it starts the node again
    let begun = Instant::now();
    let taken = loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => break listener,
            Err(why) => assert!(begun.elapsed() < LIMIT, "{why}"),
        }
    };
    graph.talk.until("node page: ");
    for _ in 0..3 {
        graph.talk.until("node page: its process");
    }
    graph.hears("4 of 5 nodes work; cameras: 1 live");
    assert!(graph.fed_within(Duration::from_secs(5)) > 0, "dora has it in hand");
    assert_eq!(pids(&graph), before, "nobody else was ended");
    drop(taken);
    graph.hears("5 of 5 nodes work; cameras: 1 live; starts of the graph: 1");
    TcpStream::connect(("127.0.0.1", port)).expect("the page is back");
    assert_eq!(pids(&graph), before);
    graph.end();
}

#[test]
fn a_graph_that_has_done_its_work_is_not_started_again_and_a_job_is_refused() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let supervise = |more: &[&str]| finish(millrace(&["supervise", "--no-build"]).args(more), LIMIT);
    let done = supervise(&["graphs/demo.yml", "--set", "page.PORT=0"]);
    let text = printed(&done);
    assert!(done.status.success() && text.contains("the graph has done its work, and is not started again"), "{text}");
    assert!(
        text.contains("warning: node 'detect' has a max_restarts: when they are used up, the whole graph"),
        "{text}"
    );
    let job = supervise(&["graphs/detect.yml"]);
    let text = printed(&job);
    assert!(!job.status.success() && text.contains("has FLOW: lossless, and a job that is started again"), "{text}");
    let hasty = supervise(&["graphs/demo.yml", "--hang", "1s"]);
    assert!(printed(&hasty).contains("1s is less than 5 s: a node that is well reports twice a second"));
}

/// By systemd's own check, with the paths of this checkout in place of the installed ones.
#[test]
fn the_systemd_unit_is_one() {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        return skip_without("systemd", "no systemd-analyze");
    }
    let unit = std::fs::read_to_string(root().join("graphs/systemd/millrace@.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("millrace@cameras.service");
    let here = unit.replace("/opt/millrace", root().to_str().unwrap()).replace("User=millrace", "User=root");
    std::fs::write(&copy, here).unwrap();
    let output = finish(Command::new(analyze).args(["verify", "--man=no"]).arg(&copy), LIMIT);
    let text = printed(&output);
    // what it says of other units of the machine is not ours
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("millrace")).collect();
    assert!(ours.is_empty() && output.status.success(), "{text}");
    for line in ["Type=notify", "Restart=always", "WatchdogSec=", "KillMode=mixed", "OOMPolicy=continue"] {
        assert!(unit.lines().any(|of| of.starts_with(line)), "no {line}");
    }
}
