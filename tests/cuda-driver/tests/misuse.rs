//! The stand-in notices what the driver's manual forbids: each misuse is committed by a child process (this very
//! binary, in the role that its environment names), which has to die of it and to say why.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "the driver's calls, and wrong ones at that")]

mod common;

use common::{Driver, hex, say, unhex};
use std::ffi::c_void;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

/// Environment variables.
type Settings<'a> = &'a [(&'a str, &'a str)];

const ROLE: &str = "MILLRACE_ROLE";
const ABORTED: Option<i32> = Some(6);

fn command(role: &str, settings: Settings) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture"])
        .env("LD_LIBRARY_PATH", millrace_cuda_driver_folder::folder())
        .env(ROLE, role)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(role: &str, settings: Settings) -> (Output, String) {
    let output = command(role, settings).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// A slow device: work that was queued is still queued at the next call.
const SLOW: Settings<'static> = &[("MILLRACE_FAKE_CUDA_DELAY_US", "300000")];

#[test]
fn each_misuse_ends_its_process_and_is_named() {
    let cases: &[(&str, Settings, &str)] = &[
        ("free twice", &[], "cuMemFree: "),
        ("free inside", &[], "is not the start of an allocation"),
        ("free queued", SLOW, "1 queued operations use the memory"),
        ("free what a kernel uses", SLOW, "1 queued operations use the memory"),
        ("free pinned queued", SLOW, "cuMemFreeHost: 1 queued operations"),
        ("copy too much", &[], "leave it"),
        ("rows too many", &[], "leave it"),
        ("copy from freed", &[], "where the device has no memory"),
        ("copy over itself", &[], "overlap"),
        ("write to what is read-only", &[], "whose access does not allow it"),
        ("read what has no access", &[], "whose access does not allow it"),
        ("host address of the device", &[], "is given as the host's"),
        ("default stream", &[], "the default stream"),
        ("destroyed stream", &[], "is no stream"),
        ("destroyed event", &[], "is no event"),
        ("call from a host function", &[], "cuEventQuery is called from a host function"),
        ("unmap twice", &[], "cuMemUnmap: "),
        ("map over", &[], "mapped at"),
        ("give mapped addresses back", &[], "cuMemAddressFree: memory is mapped"),
        ("give addresses back twice", &[], "cuMemAddressFree: "),
        ("map what is not reserved", &[], "are not reserved"),
        ("release twice", &[], "cuMemRelease: "),
        ("free a mapping", &[], "is a mapping, which goes another way"),
        ("handle of the middle", &[], "cuIpcGetMemHandle: "),
        ("close what is ours", &[], "cuIpcCloseMemHandle: "),
        ("release the context twice", &[], "released as often as retained"),
        ("release the context too early", &[], "with memory, streams or events that live"),
        ("unload twice", &[], "cuModuleUnload: "),
        ("launch after unload", &[], "its module is unloaded"),
        ("a kernel nobody compiled", &[], "no body of kernel nobody_compiled_this"),
    ];
    for (role, settings, line) in cases {
        let (output, said) = run(role, settings);
        let misuse: Vec<&str> = said.lines().filter(|l| l.starts_with("cuda stand-in: MISUSE: ")).collect();
        assert_eq!(output.status.signal(), ABORTED, "{role}: {}: {said}", output.status);
        assert!(misuse.len() == 1 && misuse[0].contains(line), "{role}: '{line}' is not in {misuse:?}");
    }
}

#[test]
fn a_lenient_one_answers_with_an_error() {
    let (output, said) = run("free inside", &[("MILLRACE_FAKE_CUDA_LENIENT", "1")]);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("MISUSE: cuMemFree: ") && said.contains("answer 1"), "{said}");
}

#[test]
fn calls_that_are_only_wrong_are_answered() {
    let (output, said) = run("only wrong", &[]);
    assert!(output.status.success() && !said.contains("MISUSE"), "{said}");
}

#[test]
fn settings_have_their_effect() {
    let (output, said) = run("too much memory", &[("MILLRACE_FAKE_CUDA_MEMORY_BYTES", "100000")]);
    assert!(output.status.success(), "{said}");
    let (output, said) = run("no handles", &[("MILLRACE_FAKE_CUDA_NO_IPC", "1")]);
    assert!(output.status.success(), "{said}");
    let (output, said) = run("not yet", SLOW);
    assert!(output.status.success(), "{said}");
}

#[test]
fn what_is_left_at_the_end_is_told_where_asked_for() {
    let (output, said) = run("leak", &[("MILLRACE_FAKE_CUDA_LEAKS", "1")]);
    assert!(output.status.success(), "{said}");
    let leaks: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("cuda stand-in: LEAK ")).collect();
    for what in ["an allocation of 12345 bytes", "pinned memory of 77 bytes", "stream", "event", "module"] {
        assert!(leaks.iter().any(|leak| leak.starts_with(what)), "{what}: {leaks:?}");
    }
    assert_eq!(leaks.len(), 5, "{leaks:?}");
    let (_, said) = run("leak", &[]);
    assert!(!said.contains("LEAK"), "{said}");
    let (_, said) = run("only wrong", &[("MILLRACE_FAKE_CUDA_LEAKS", "1")]);
    assert!(!said.contains("LEAK"), "nothing was left: {said}");
}

/// A child that goes on until its input ends, and its first lines.
struct Owner {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Owner {
    fn start() -> Self {
        let mut child = command("owner", &[]).stdin(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn go_on(&mut self) {
        drop(self.child.stdin.take());
    }
}

#[test]
fn memory_freed_while_another_process_has_it_open_is_noticed() {
    let mut owner = Owner::start();
    let (memory, _) = (owner.line(), owner.line());
    let mut opener = command(&format!("open {memory}"), &[]).stdin(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(opener.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "opened");
    owner.go_on();
    let line = owner.line();
    assert!(line.contains(&format!("is open in other processes: [{}]", opener.id())), "{line}");
    assert_eq!(owner.child.wait().unwrap().signal(), ABORTED);
    drop(opener.stdin.take());
    assert!(opener.wait().unwrap().success(), "its reader goes on, and lets it go");
}

#[test]
fn an_event_that_its_owner_destroyed_is_not_used() {
    let mut owner = Owner::start();
    let (_, event) = (owner.line(), owner.line());
    let mut opener = command(&format!("event {event}"), &[]).stdin(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(opener.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "opened");
    owner.go_on();
    assert!(owner.child.wait().unwrap().success(), "{:?}", Vec::from_iter(owner.lines));
    drop(opener.stdin.take());
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("MISUSE: cuEventQuery: its owner has destroyed this event"), "{line}");
    assert_eq!(opener.wait().unwrap().signal(), ABORTED);
}

#[test]
fn an_event_of_a_dead_process_is_done_and_not_recorded() {
    let mut owner = Owner::start();
    let (_, event) = (owner.line(), owner.line());
    let mut opener = command(&format!("record {event}"), &[]).stdin(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(opener.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "opened");
    owner.child.kill().unwrap();
    owner.child.wait().unwrap();
    drop(opener.stdin.take());
    assert_eq!(said.next().unwrap().unwrap(), "done");
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("MISUSE: cuEventRecord: an event of a process that has died"), "{line}");
    assert_eq!(opener.wait().unwrap().signal(), ABORTED);
}

/// Not a test, but what the processes that the tests start do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let driver = Driver::start();
    let wait = || std::io::stdin().lines().map_while(Result::ok).for_each(drop);
    match role.split_once(' ') {
        Some(("open", handle)) => {
            let at = driver.open_memory(unhex(handle)).unwrap();
            say("opened");
            wait();
            driver.close_memory(at).unwrap();
        }
        Some(("event", handle)) => {
            let event = driver.open_event(unhex(handle)).unwrap();
            say("opened");
            wait();
            driver.query(event).unwrap();
        }
        Some(("record", handle)) => {
            let event = driver.open_event(unhex(handle)).unwrap();
            say("opened");
            wait();
            driver.query(event).unwrap();
            say("done");
            driver.record(event, driver.stream()).unwrap();
        }
        _ if role == "owner" => {
            let (at, event) = (driver.allocate(4096).unwrap(), driver.event(6));
            say(hex(driver.export_memory(at).unwrap()));
            say(hex(driver.export_event(event).unwrap()));
            wait();
            driver.destroy_event(event).unwrap();
            driver.free(at).unwrap();
        }
        _ => misuse(&driver, &role),
    }
}

fn misuse(driver: &Driver, role: &str) {
    const MIB: usize = 2 << 20;
    let at = driver.allocate(12345).unwrap();
    let other = driver.allocate(12345).unwrap();
    let stream = driver.stream();
    let event = driver.event(2);
    let answer = match role {
        "free twice" => driver.free(at).and_then(|()| driver.free(at)),
        "free inside" => driver.free(at + 256),
        "free queued" => driver.fill(at, 100, stream).and_then(|()| driver.free(at)),
        "free what a kernel uses" => {
            driver.launch(common::PTX, "conformance_count", at, stream).and_then(|_| driver.free(at))
        }
        "free pinned queued" => {
            let pinned = driver.pinned(100).unwrap();
            driver.download(pinned, at, 100, stream).and_then(|()| driver.free_pinned(pinned))
        }
        "copy too much" => driver.copy(other + 345, at, 12001, stream),
        "rows too many" => driver.copy_rows(other, at, [100, 125], 100, stream),
        "copy from freed" => driver.free(at).and_then(|()| driver.copy(other, at, 1, stream)),
        "copy over itself" => driver.copy(at + 10, at, 20, stream),
        "write to what is read-only" => driver.mapping(MIB, Some(1)).and_then(|(at, _)| driver.fill(at, 1, stream)),
        "read what has no access" => driver.mapping(MIB, None).and_then(|(at, _)| driver.copy(other, at, 1, stream)),
        "host address of the device" => driver.download(other as *mut c_void, at, 10, stream),
        "default stream" => driver.fill(at, 1, std::ptr::null_mut()),
        "destroyed stream" => driver.destroy_stream(stream).and_then(|()| driver.fill(at, 1, stream)),
        "destroyed event" => driver.destroy_event(event).and_then(|()| driver.query(event)),
        "call from a host function" => driver.query_from_host_function(event, stream),
        "unmap twice" => {
            driver.mapping(MIB, Some(3)).and_then(|(at, _)| driver.unmap(at, MIB).and_then(|()| driver.unmap(at, MIB)))
        }
        "map over" => driver.mapping(MIB, Some(3)).and_then(|(at, handle)| driver.map(at, MIB, handle)),
        "give mapped addresses back" => driver.mapping(MIB, Some(3)).and_then(|(at, _)| driver.give_back(at, MIB)),
        "give addresses back twice" => {
            let at = driver.reserve(MIB).unwrap();
            driver.give_back(at, MIB).and_then(|()| driver.give_back(at, MIB))
        }
        "map what is not reserved" => driver.map(0x7000_0000, MIB, driver.physical(MIB).unwrap()),
        "release twice" => {
            let handle = driver.physical(MIB).unwrap();
            driver.release(handle).and_then(|()| driver.release(handle))
        }
        "free a mapping" => driver.mapping(MIB, Some(3)).and_then(|(at, _)| driver.free(at)),
        "handle of the middle" => driver.export_memory(at + 256).map(drop),
        "close what is ours" => driver.close_memory(at),
        "release the context twice" => driver
            .clear(&[at, other], stream, event)
            .and_then(|()| driver.release_context().and_then(|()| driver.release_context())),
        "release the context too early" => driver.release_context(),
        "unload twice" => {
            let module = driver.module(common::PTX).unwrap();
            driver.unload(module).and_then(|()| driver.unload(module))
        }
        "launch after unload" => {
            let (module, function) = driver.function(common::PTX, "conformance_count");
            driver.unload(module).and_then(|()| driver.launch_function(function, at, stream))
        }
        "a kernel nobody compiled" => {
            let text = common::PTX.replace("conformance_count", "nobody_compiled_this");
            driver.launch(&text, "nobody_compiled_this", at, stream).and_then(|_| driver.synchronize(stream))
        }
        "only wrong" => {
            common::only_wrong(driver, at, stream);
            driver.clear(&[at, other], stream, event)
        }
        "too much memory" => {
            assert_eq!(driver.allocate(80_000), Err(2));
            driver.free(at).and_then(|()| driver.free(other)).and_then(|()| driver.allocate(80_000).map(drop))
        }
        "no handles" => {
            assert_eq!(driver.export_memory(at).map(drop), Err(801));
            Ok(())
        }
        "not yet" => {
            driver.record(event, stream).unwrap();
            assert_eq!(driver.query(event), Err(600));
            driver.synchronize(stream).and_then(|()| driver.query(event))
        }
        "leak" => {
            driver.free(other).unwrap();
            driver.pinned(77).unwrap();
            driver.module(common::PTX).map(drop)
        }
        _ => panic!("there is no role {role}"),
    };
    if let Err(code) = answer {
        say(format!("answer {code}"));
    }
}
