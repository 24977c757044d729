//! The node's state for whoever watches: a JSON datagram, twice a second, to the socket that `MILLRACE_STATUS` names and
//! to each socket in the dataflow's own folder. Nobody has to listen: a datagram that finds no reader is dropped, and the
//! node never waits for one.
//!
//! Watchers come and go while a dataflow runs, and so do its nodes. So it is the watcher that makes a socket, in
//! `millrace-USER/DATAFLOW/` in the folder for such things, and the nodes that look there: one that was started a moment
//! ago, and one that fails before anybody could have asked it, are heard like all others. A node makes nothing there.

use crate::link::Topology;
use crate::metrics::{Metrics, Snapshot};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(500);

pub(crate) struct Status {
    socket: Option<UnixDatagram>,
    /// The watcher that started the graph.
    starter: Option<PathBuf>,
    /// Where the others' sockets may be.
    folders: Vec<PathBuf>,
    /// Those that know how this node was defined.
    told: BTreeSet<PathBuf>,
    node: String,
    name: &'static str,
    restarts: u64,
    definition: serde_json::Value,
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
    /// How often dora has started it again.
    restarts: u64,
    state: State,
    uptime_ns: u64,
    #[serde(flatten)]
    metrics: Snapshot,
    rss_bytes: u64,
    cpu_ns: u64,
    error: Option<&'a str>,
    /// What dora started it from; the first message to a watcher of the dataflow has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<&'a serde_json::Value>,
}

impl Status {
    pub(crate) fn new(graph: &Topology, name: &'static str) -> Self {
        let socket = UnixDatagram::unbound().ok().filter(|socket| socket.set_nonblocking(true).is_ok());
        Self {
            socket,
            starter: std::env::var_os("MILLRACE_STATUS").filter(|path| !path.is_empty()).map(PathBuf::from),
            folders: if graph.dataflow.is_empty() { Vec::new() } else { folders(&graph.dataflow) },
            told: BTreeSet::new(),
            node: graph.node.clone(),
            name,
            restarts: graph.restarts,
            definition: graph.definition.clone(),
            started: Instant::now(),
            sent: None,
        }
    }

    /// Sends if it is time.
    pub(crate) fn tick(&mut self, metrics: &Metrics) {
        if self.sent.is_none_or(|at| at.elapsed() >= PERIOD) {
            self.send(State::Running, metrics, None);
        }
    }

    /// Sends now.
    pub(crate) fn send(&mut self, state: State, metrics: &Metrics, error: Option<&str>) {
        self.sent = Some(Instant::now());
        let watchers: Vec<PathBuf> = self.folders.iter().flat_map(|folder| sockets(folder)).collect();
        self.told.retain(|known| watchers.contains(known));
        let Some(socket) = self.socket.as_ref().filter(|_| self.starter.is_some() || !watchers.is_empty()) else {
            return;
        };
        let (rss_bytes, cpu_ns) = usage().unwrap_or_default();
        let mut message = Message {
            v: 1,
            node: &self.node,
            name: self.name,
            pid: std::process::id(),
            restarts: self.restarts,
            state,
            uptime_ns: self.started.elapsed().as_nanos() as u64,
            metrics: metrics.snapshot(),
            rss_bytes,
            cpu_ns,
            error,
            definition: None,
        };
        // the last word gets a few tries: a watcher's queue may be full for a moment
        let tries = if matches!(state, State::Running) { 1 } else { 20 };
        if let Some(starter) = &self.starter {
            let _ = offer(socket, starter, &message, tries);
        }
        for watcher in watchers {
            message.definition = (!self.told.contains(&watcher)).then_some(&self.definition);
            match offer(socket, &watcher, &message, tries) {
                Ok(()) => {
                    self.told.insert(watcher);
                }
                // its watcher was killed
                Err(ErrorKind::ConnectionRefused) => {
                    let _ = std::fs::remove_file(&watcher);
                }
                Err(_) => {}
            }
        }
    }
}

fn offer(socket: &UnixDatagram, to: &Path, message: &Message<'_>, tries: u32) -> Result<(), ErrorKind> {
    let bytes = serde_json::to_vec(message).map_err(|_| ErrorKind::InvalidData)?;
    for _ in 1..tries {
        match socket.send_to(&bytes, to) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            result => return result.map(drop).map_err(|e| e.kind()),
        }
    }
    socket.send_to(&bytes, to).map(drop).map_err(|e| e.kind())
}

/// Where watchers of a dataflow may have their sockets. A daemon's environment is not that of a user's shell, so no variable
/// is asked.
fn folders(dataflow: &str) -> Vec<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let bases = [format!("/run/user/{user}"), "/tmp".to_owned()];
    bases.map(|base| Path::new(&base).join(format!("millrace-{user}")).join(dataflow)).into()
}

/// The sockets in a folder, if it is one of this user's alone.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let ours = |path: Option<&Path>| {
        path.and_then(|path| path.symlink_metadata().ok())
            .is_some_and(|m| m.is_dir() && m.uid() == user && m.mode() & 0o022 == 0)
    };
    if !ours(folder.parent()) || !ours(Some(folder)) {
        return Vec::new();
    }
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn status(folder: &Path) -> Status {
        let graph = Topology {
            node: "a".to_owned(),
            definition: serde_json::json!({ "id": "a", "env": { "K": 1 } }),
            ..Topology::default()
        };
        let mut status = Status::new(&graph, "test");
        status.starter = None;
        status.folders = vec![folder.to_owned()];
        status
    }

    fn heard(socket: &UnixDatagram) -> serde_json::Value {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = vec![0; 65536];
        let len = socket.recv(&mut buffer).unwrap();
        serde_json::from_slice(&buffer[..len]).unwrap()
    }

    #[test]
    fn watchers_that_come_are_told_the_definition_once_and_those_that_died_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("dataflow");
        std::fs::create_dir(&folder).unwrap();
        for path in [base.path(), &folder] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut status = status(&folder);
        let metrics = Metrics::default();
        status.tick(&metrics); // nobody there
        let watcher = UnixDatagram::bind(folder.join("1")).unwrap();
        drop(UnixDatagram::bind(folder.join("2")).unwrap());
        status.send(State::Running, &metrics, None);
        status.send(State::Failed, &metrics, Some("why"));
        let (first, second) = (heard(&watcher), heard(&watcher));
        assert_eq!(first["definition"]["env"]["K"], 1);
        assert!(second["definition"].is_null());
        assert_eq!((second["state"].as_str(), second["error"].as_str()), (Some("failed"), Some("why")));
        assert!(folder.join("1").exists() && !folder.join("2").exists());
        // a folder that others could write to is left alone
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(sockets(&folder).is_empty());
    }
}
