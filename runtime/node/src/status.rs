//! The node's state for whoever watches: a JSON datagram to the socket that `MILLRACE_STATUS` names, twice a second.
//! Nobody has to listen: a datagram that finds no reader is dropped, and the node never waits for one.

use crate::metrics::{Metrics, Snapshot};
use serde::Serialize;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(500);

pub(crate) struct Status {
    to: Option<(UnixDatagram, PathBuf)>,
    node: String,
    name: &'static str,
    started: Instant,
    sent: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Opening,
    Running,
    Done,
    Stopped,
    Failed,
}

#[derive(Serialize)]
struct Message<'a> {
    v: u32,
    node: &'a str,
    name: &'a str,
    pid: u32,
    state: State,
    uptime_ns: u64,
    #[serde(flatten)]
    metrics: Snapshot,
    rss_bytes: u64,
    cpu_ns: u64,
    error: Option<&'a str>,
}

impl Status {
    pub(crate) fn new(node: &str, name: &'static str) -> Self {
        let to = std::env::var_os("MILLRACE_STATUS").filter(|path| !path.is_empty()).and_then(|path| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, path.into()))
        });
        Self { to, node: node.to_owned(), name, started: Instant::now(), sent: None }
    }

    /// Sends if it is time.
    pub(crate) fn tick(&mut self, metrics: &Metrics) {
        if self.to.is_some() && self.sent.is_none_or(|at| at.elapsed() >= PERIOD) {
            self.send(State::Running, metrics, None);
        }
    }

    /// Sends now.
    pub(crate) fn send(&mut self, state: State, metrics: &Metrics, error: Option<&str>) {
        let Some((socket, path)) = &self.to else { return };
        self.sent = Some(Instant::now());
        let (rss_bytes, cpu_ns) = usage().unwrap_or_default();
        let message = Message {
            v: 1,
            node: &self.node,
            name: self.name,
            pid: std::process::id(),
            state,
            uptime_ns: self.started.elapsed().as_nanos() as u64,
            metrics: metrics.snapshot(),
            rss_bytes,
            cpu_ns,
            error,
        };
        if let Ok(bytes) = serde_json::to_vec(&message) {
            // the last word gets a few tries: a watcher's queue may be full for a moment
            let tries = if matches!(state, State::Running) { 1 } else { 20 };
            for _ in 0..tries {
                match socket.send_to(&bytes, path) {
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Resident memory in bytes and processor time in nanoseconds, by proc(5).
fn usage() -> Option<(u64, u64)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    Some((pages * rustix::param::page_size() as u64, (user + system) * tick_ns))
}
