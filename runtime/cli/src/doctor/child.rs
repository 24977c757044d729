//! Checks that run in a process of their own with a time limit, so that a library that crashes or hangs is a line of the
//! report and not its end.

use super::check::{Check, Need};
use super::probe::Probe;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a process that was killed may take to be gone: one that a driver holds in the kernel stays.
const LET_GO: Duration = Duration::from_secs(2);

/// Runs the checks `probe` and gives their lines. Each of `promised` has a line in the end, whatever happens; a promise
/// `gpu` is kept by `gpu 0` too.
pub(super) fn run(probe: Probe, input: &str, promised: &[(&str, Need)], limit: Duration) -> Vec<Check> {
    let (mut checks, end) = match start(probe, input) {
        Ok(child) => follow(child, limit),
        Err(e) => (Vec::new(), Err(format!("its process cannot be started: {e}"))),
    };
    let has_line = |checks: &[Check], name: &str| {
        checks.iter().any(|c| c.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
    };
    let why = match end {
        Ok(()) => "the check ended without a word".to_owned(),
        Err(why) => why,
    };
    let mend = "a library misbehaves: install driver and libraries of one release again, and see `dmesg`";
    for (name, need) in promised {
        if !has_line(&checks, name) {
            checks.push(Check::missing(name, *need, &why, format!("{mend}; without it, {}", super::check::INSTEAD)));
        }
    }
    checks
}

fn start(probe: Probe, input: &str) -> std::io::Result<Child> {
    // this file, also where a build has replaced it meanwhile
    let mut child = Command::new("/proc/self/exe")
        .args(["doctor", "--probe", &probe.name()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // one that is gone already shows in its end
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child)
}

/// The lines that the child writes until it ends, and how it ended.
fn follow(mut child: Child, limit: Duration) -> (Vec<Check>, Result<(), String>) {
    let deadline = Instant::now() + limit;
    let (send, receive) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            // a library may print too: what is no line of the report is skipped
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for check in lines.filter_map(|line| serde_json::from_str::<Check>(&line).ok()) {
                if send.send(check).is_err() {
                    break;
                }
            }
        });
    }
    let mut checks = Vec::new();
    loop {
        match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(check) => checks.push(check),
            Err(RecvTimeoutError::Timeout) => break,
            // the pipe is closed: it ends, or did
            Err(RecvTimeoutError::Disconnected) => match wait(&mut child, deadline) {
                Some(status) => return (checks, ended(status)),
                None => break,
            },
        }
    }
    // it may have ended in this moment
    let _ = child.kill();
    let hung = format!("it did not answer within {} s and was killed", limit.as_secs_f32());
    match wait(&mut child, Instant::now() + LET_GO) {
        Some(_) => (checks, Err(hung)),
        None => (checks, Err(format!("{hung}, but does not end: the kernel's driver holds it"))),
    }
}

fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

fn ended(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("its process broke down: {status}")) }
}
