//! The demo: page, WebSocket, zenoh, Ctrl-C, and dora's own verbs. One test at a time: they share ports and machine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured and seen")]

use millrace_tests::dataflow::Talk;
use millrace_tests::{Running, Traces, finish, millrace, printed, python, root, skip_without, succeed};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The demo, running; what it prints goes on to the test's output.
fn demo(port: u16, mark: &str, sets: &[&str]) -> Running {
    let page = format!("page.PORT={port}");
    let mut args = vec!["run", "graphs/demo.yml", "--no-build", "--set", &page];
    for set in sets {
        args.extend(["--set", *set]);
    }
    let mut command = millrace(&args);
    command.env("MILLRACE_TEST_MARK", mark).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("millrace starts");
    let streams: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for stream in streams {
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                println!("| {line}");
            }
        });
    }
    let running = Running(child);
    let until = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "no page on port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
    running
}

#[test]
fn independent_clients_read_the_detections_and_ctrl_c_leaves_nothing() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut ws) = python() else { return };
    let Some(mut zenoh) = python() else { return };
    let mark = format!("MILLRACE_TEST_MARK=demo-{}", std::process::id());
    let before = Traces::now(&mark);
    let port = free_port();
    let mut running = demo(port, mark.split_once('=').unwrap().1, &["decode.LOOP=true"]);
    let ws =
        ws.arg("tests/clients/ws_client.py").arg(format!("ws://127.0.0.1:{port}/ws?video=1")).args(["--frames", "60"]);
    println!("{}", succeed(ws, Duration::from_secs(90)));
    println!(
        "{}",
        succeed(zenoh.arg("tests/clients/zenoh_client.py").args(["--frames", "40"]), Duration::from_secs(90))
    );

    running.signal(Signal::INT);
    let asked = Instant::now();
    let status = running.wait(Duration::from_secs(3));
    assert!(status.is_some(), "Ctrl-C ends everything within 3 s");
    println!("ended {:?} after Ctrl-C", asked.elapsed());
    Traces::left_since(&before, &mark, Duration::from_millis(500)).unwrap();
}

#[test]
fn a_router_with_tls_lets_those_with_a_certificate_read_and_nobody_write() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut clients) = python() else { return };
    if Command::new("openssl").arg("version").output().is_err() {
        return skip_without("openssl", "no such program");
    }
    let (page, router) = (free_port(), free_port());
    let mut clients = Talk::begin(clients.arg("tests/clients/zenoh_tls.py").args(["--tcp", &router.to_string()]));
    clients.until("the router listens");
    let connect = format!("zenoh.CONNECT=tcp/127.0.0.1:{router}");
    let sets = ["decode.LOOP=true", "zenoh.MODE=client", "zenoh.SCOUTING=false", &connect];
    let mut running = demo(page, "tls", &sets);
    let (code, said) = clients.end();
    println!("{said}");
    assert_eq!(code, 0, "{said}");
    running.signal(Signal::INT);
    assert!(running.wait(Duration::from_secs(10)).is_some());
}

/// Whether there is a browser; without one the test is skipped.
fn has_browser() -> bool {
    let found = ["chromium", "chromium-browser", "google-chrome"].iter().any(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    });
    if !found {
        skip_without("chromium", "no such program");
    }
    found
}

#[test]
fn the_page_shows_turned_and_mirrored_streams_upright() {
    let Some(mut browser) = python() else { return };
    if has_browser() {
        println!("{}", succeed(browser.arg("tests/clients/turned_page.py"), Duration::from_secs(60)));
    }
}

#[test]
fn a_browser_shows_the_picture_with_the_boxes_on_the_objects() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut browser) = python() else { return };
    if !has_browser() {
        return;
    }
    let port = free_port();
    let mark = format!("browser-{}", std::process::id());
    let _running = demo(port, &mark, &["decode.LOOP=true"]);
    let mark = format!("MILLRACE_TEST_MARK={mark}");
    let until = Instant::now() + Duration::from_secs(60);
    let decoder = loop {
        assert!(Instant::now() < until, "sw-nv12 runs");
        match node_process("sw-nv12", &mark) {
            Some(pid) => break pid.to_string(),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let shot = root().join("target/demo-page.png");
    let test = browser
        .arg("tests/clients/browser_test.py")
        .arg(format!("http://127.0.0.1:{port}/"))
        .args([
            "--truth",
            "tests/data/demo/truth.jsonl",
            "--clip-ns",
            "30000000000",
            "--outage",
            &decoder,
            "--screenshot",
        ])
        .arg(&shot);
    println!("{}", succeed(test, Duration::from_secs(180)));
    assert!(shot.exists() && root().join("target/demo-page-dead.png").exists());
}

/// The process of a node of the run that `mark` marks.
fn node_process(node: &str, mark: &str) -> Option<u32> {
    let exe = millrace_tests::program(node);
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let ours = environment.windows(mark.len()).any(|w| w == mark.as_bytes());
        (ours && std::fs::read_link(entry.path().join("exe")).ok()? == exe.canonicalize().ok()?).then_some(pid)
    })
}

#[test]
fn any_node_may_be_killed_and_the_detections_come_back() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if python().is_none() {
        return;
    }
    let mark = format!("MILLRACE_TEST_MARK=kill-{}", std::process::id());
    let before = Traces::now(&mark);
    let port = free_port();
    let mut running = demo(port, mark.split_once('=').unwrap().1, &["decode.LOOP=true"]);
    let detections = || {
        let mut ws = python().expect("it was there");
        ws.arg("tests/clients/ws_client.py").arg(format!("ws://127.0.0.1:{port}/ws")).args(["--frames", "20"]);
        succeed(&mut ws, Duration::from_secs(60));
    };
    detections();
    for node in ["cpu-infer", "nv12-to-rgb", "sw-nv12", "zenoh-publisher", "ws-publisher"] {
        let pid = node_process(node, &mark).unwrap_or_else(|| panic!("{node} runs"));
        let began = Instant::now();
        let victim = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(victim, Signal::KILL).unwrap();
        while node_process(node, &mark).is_none_or(|now| now == pid) {
            assert!(began.elapsed() < Duration::from_secs(20), "{node} was not started again");
            std::thread::sleep(Duration::from_millis(20));
        }
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "{node}: the page did not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
        detections();
        println!("kill -9 of {node}: 20 detections read {:?} later", began.elapsed());
    }
    running.signal(Signal::INT);
    assert!(running.wait(Duration::from_secs(3)).is_some(), "Ctrl-C ends everything within 3 s");
    Traces::left_since(&before, &mark, Duration::from_millis(500)).unwrap();
}

#[test]
fn a_busy_port_is_named_with_what_to_set() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let set = format!("page.PORT={port}");
    let output =
        finish(&mut millrace(&["run", "graphs/demo.yml", "--no-build", "--set", &set]), Duration::from_secs(60));
    let text = printed(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(&port) && text.contains("PORT"), "{text}");
}

#[test]
fn dora_runs_the_same_graph_with_its_own_verbs() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dora = root().join("target/tools/bin/dora");
    assert!(dora.exists(), "`millrace run` installs dora once; tests/run has called it");
    let graph = root().join("graphs/detect.yml");
    let out = root().join("target/detections.jsonl");
    let _ = std::fs::remove_file(&out);
    let output = finish(Command::new(&dora).arg("run").arg(&graph).current_dir(root()), Duration::from_secs(180));
    let lines = std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    assert_eq!(lines, 750, "{}", printed(&output));

    // a coordinator of our own, on ports of our own
    let port = free_port().to_string();
    let verb = |args: &[&str]| {
        let mut command = Command::new(&dora);
        command.args(args).env("DORA_COORDINATOR_PORT", &port).current_dir(root());
        finish(&mut command, Duration::from_secs(120))
    };
    let up = verb(&["up"]);
    assert!(up.status.success(), "{}", printed(&up));
    let _ = std::fs::remove_file(&out);
    let started = verb(&["start", graph.to_str().unwrap(), "--name", "detect", "--detach"]);
    let until = Instant::now() + Duration::from_secs(120);
    let lines = || std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    while started.status.success() && lines() < 100 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let stopped = verb(&["stop", "--name", "detect"]);
    let down = verb(&["down"]);
    assert!(started.status.success(), "{}", printed(&started));
    assert!(lines() >= 100, "{} lines\n{}\n{}", lines(), printed(&stopped), printed(&down));
}
