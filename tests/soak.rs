//! `millrace soak`: the demo with a node killed holds, and the record says how; what was interrupted goes on, and undoes the
//! fault that it left; what is wrong with a file of faults is said with its place.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::dataflow::Talk;
use millrace_tests::{Traces, finish, millrace, printed};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// They share the machine, and what is left of one would be taken for what another left.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const LIMIT: Duration = Duration::from_secs(240);

/// The demo, endless and on any free port.
fn soak(folder: &Path, length: &str, faults: &str, more: &[&str]) -> Command {
    let file = folder.join("faults.yml");
    std::fs::write(&file, faults).unwrap();
    let out = folder.join("report");
    let args =
        ["soak", "graphs/demo.yml", "--no-build", "--set", "decode.LOOP=true", "--set", "page.PORT=0", "--for", length];
    let mut command = millrace(&args);
    command.arg("--faults").arg(file).arg("--out").arg(out).args(more);
    command
}

fn record(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report/soak.json")).unwrap()).unwrap()
}

#[test]
fn the_demo_holds_although_a_node_is_killed() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    // how fast a busy machine is is not what is tested
    let bounds = ["--availability", "20", "--seen", "20s", "--healed", "20s"];
    let faults = "first: 5s\nevery: 10s\nfaults: [{ kill: detect }, { segv: page }]\n";
    let output = finish(&mut soak(folder.path(), "45s", faults, &bounds), LIMIT);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let Value::Object(stored) = record(folder.path()) else { panic!("{text}") };
    let (soak, verdict) = (&stored["soak"], &stored["verdict"]);
    assert_eq!((verdict["word"].as_str(), soak["complete"].as_bool()), (Some("held"), Some(true)), "{text}");
    let [first, more @ ..] = &soak["faults"].as_array().unwrap()[..] else { panic!("no fault: {text}") };
    // a machine on which the first heals slowly has no time for the second
    assert!(first["name"] == "kill detect" && more.iter().all(|fault| fault["name"] != first["name"]), "{text}");
    for fault in soak["faults"].as_array().unwrap() {
        assert!(fault["seen_s"].is_number() && fault["healed_s"].is_number() && fault["trouble"] == "", "{fault}");
    }
    let street = &soak["cameras"]["street"];
    assert!(street["served_s"].as_f64().unwrap() > 10.0 && street["own_s"] == 0.0, "{street}");
    // each process is there, and the detector is two of them
    let rows = soak["rows"]["rows"].as_array().unwrap();
    let of = |name: &str, key: &str| -> Vec<f64> {
        rows.iter().filter_map(|row| row["processes"][name][key].as_f64()).collect()
    };
    for name in ["decode", "to-rgb", "detect", "page", "zenoh", "dora", "millrace soak"] {
        let memory = of(name, "pss_mib");
        assert!(memory.last().is_some_and(|mib| *mib > 0.5), "{name}: {memory:?}");
        assert!(of(name, "descriptors").last().is_some_and(|n| *n >= 3.0), "{name}");
    }
    let mut detectors = of("detect", "pid");
    detectors.dedup();
    assert_eq!(detectors.len(), 2, "{detectors:?}");
    let balances = soak["balances"].as_object().unwrap();
    assert!(balances.contains_key("detect/detections to page, street"), "{balances:?}");
    let page = std::fs::read_to_string(folder.path().join("report/soak.html")).unwrap();
    assert!(page.contains("<strong>held</strong>") && page.contains("kill detect"), "{page}");
}

#[test]
fn a_soak_that_was_killed_goes_on_and_undoes_its_fault() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mark = format!("MILLRACE_TEST_MARK=soak-{}", std::process::id());
    let (name, value) = mark.split_once('=').unwrap();
    let broken = folder.path().join("broken");
    let faults = format!("first: 3s\nfaults: [{{ run: touch {0}, undo: rm {0}, for: 10m }}]\n", broken.display());
    let begin = || Talk::begin(soak(folder.path(), "1h", &faults, &[]).env(name, value));
    let mut first = begin();
    first.until("fault: touch");
    let begun = Instant::now();
    while !broken.exists() {
        assert!(begun.elapsed() < LIMIT, "the fault's command does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
    first.kill();
    // without millrace, dora ends its nodes; what zenoh leaves in /dev/shm then, its next start removes
    let killed = Instant::now();
    while Traces::now(&mark).has_processes() {
        assert!(killed.elapsed() < LIMIT, "the graph goes on without the soak");
        std::thread::sleep(Duration::from_millis(50));
    }
    let measured = record(folder.path())["soak"]["measured_s"].as_f64().unwrap();
    assert!(measured >= 3.0);
    let mut second = begin();
    second.until("the graph is started");
    assert!(!broken.exists(), "what the first had broken is whole again");
    second.signal(Signal::INT);
    let (code, said) = second.end();
    assert!(code == 130 && said.contains("the same command goes on"), "{code}: {said}");
    let stored = record(folder.path());
    let gone_on = &stored["soak"];
    assert!(gone_on["measured_s"].as_f64().unwrap() >= measured && gone_on["starts"] == 2, "{gone_on}");
    assert_eq!((gone_on["breaks"].as_array().unwrap().len(), &gone_on["complete"]), (1, &Value::from(false)));
    // what it is of cannot change
    let other = finish(&mut soak(folder.path(), "1h", "faults: [{ kill: each }]\n", &[]), LIMIT);
    assert_eq!(other.status.code(), Some(2));
    assert!(
        printed(&other).contains("is of a soak with other faults; name another folder by --out"),
        "{}",
        printed(&other)
    );
}

#[test]
fn what_cannot_be_run_says_why_and_where() {
    let folder = tempfile::tempdir().unwrap();
    for (length, faults, says) in [
        ("1m", "faults:\n- kill: detct\n", "faults.yml:2:9: the graph has no node 'detct'"),
        ("1m", "faults:\n- { kill: page, for: x }\n", "faults.yml:2:22: 'for' says nothing of a fault with 'kill'"),
        ("1m", "fault: []\n", "faults.yml:1:1: a file of faults has no key 'fault'; did you mean 'faults'?"),
        ("8s", "faults: [{ kill: page }]\n", "--for 8 s is too short for the faults of"),
    ] {
        let output = finish(&mut soak(folder.path(), length, faults, &[]), LIMIT);
        assert_eq!(output.status.code(), Some(2));
        assert!(printed(&output).contains(says), "{}", printed(&output));
    }
    let none =
        finish(&mut millrace(&["soak", "graphs/demo.yml", "--for", "9s", "--faults", "none.yml", "--no-build"]), LIMIT);
    assert!(printed(&none).contains("the file of faults none.yml cannot be read"), "{}", printed(&none));
    // the shipped file is right, but for so short a time
    let short = ["soak", "graphs/demo.yml", "--for", "9s", "--faults", "graphs/faults.yml", "--no-build"];
    let short = finish(&mut millrace(&short), LIMIT);
    assert!(
        printed(&short).contains("--for 9 s is too short for the faults of graphs/faults.yml"),
        "{}",
        printed(&short)
    );
}
