//! The node's reports to its observer: a JSON datagram, twice a second, to the socket that `MILLRACE_STATUS` names and
//! to each socket in the dataflow's own folder. No watcher is needed: a datagram that finds no reader is dropped.
//!
//! A thread of its own sends them, so that the event loop never waits for a watcher, and so that a node whose event loop
//! hangs still reports: `loop_age_ms` then says for how long. A report longer than a datagram should be (a hundred cameras
//! and more) travels in an anonymous file, whose descriptor the datagram carries.
//!
//! Watchers come and go while a dataflow runs, and so do its nodes. So the watchers make the sockets, in
//! `millrace-USER/DATAFLOW/` in the folder for such things, and the nodes look there: a watcher gets the reports of a node
//! that was started a moment ago, and of one that fails at once. A node makes nothing there.

use crate::launch::Launch;
use crate::link::Topology;
use crate::metrics::{Metrics, Snapshot};
use crate::usage;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(500);
/// A pause between two reports that is as long as this was none of their sender's: the whole process was stopped, or got no
/// processor time.
const OVERSLEPT: Duration = Duration::from_millis(1_500);
/// Reports up to this length travel in the datagram itself; the kernel takes about 200 KiB.
const LONGEST_DATAGRAM_BYTES: usize = 64 << 10;

/// Sends the node's reports until it is dropped.
pub(crate) struct StatusReporter {
    shared: Arc<SharedSender>,
    sender: Option<JoinHandle<()>>,
    /// The event loop runs: the reports say so already.
    running: bool,
}

/// What the event loop and the thread that sends the reports share.
struct SharedSender {
    report_sender: Mutex<ReportSender>,
    /// Signalled when no more is to be sent.
    over: Condvar,
}

impl SharedSender {
    fn report_sender(&self) -> MutexGuard<'_, ReportSender> {
        self.report_sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a report is made of, and the sockets that it goes to.
struct ReportSender {
    socket: Option<UnixDatagram>,
    /// The socket of the watcher that started the graph.
    starter: Option<PathBuf>,
    /// Where the other watchers' sockets may be.
    folders: Vec<PathBuf>,
    /// The watchers that know how this node was defined.
    informed: BTreeSet<PathBuf>,
    node: String,
    name: &'static str,
    restarts: u64,
    launch: Launch,
    definition: serde_json::Value,
    started: Instant,
    state: State,
    error: Option<String>,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Opening,
    Running,
    Done,
    Stopped,
    /// It has ended as it should, and frames of a lossless flow are missing.
    Incomplete,
    Failed,
}

impl State {
    fn is_last(self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Incomplete | Self::Failed)
    }
}

#[derive(Serialize)]
struct Message<'a> {
    v: u32,
    node: &'a str,
    name: &'a str,
    /// The process that dora started.
    pid: u32,
    /// The process of several nodes that the node runs in, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Group<'a>>,
    /// How often dora has started it again.
    restarts: u64,
    state: State,
    uptime_ns: u64,
    /// How long ago the event loop last turned; none before it first did.
    loop_age_ms: Option<u64>,
    /// Absent where the datagram carries the descriptor of a file, which has the whole report.
    #[serde(flatten)]
    metrics: Option<&'a Snapshot>,
    rss_bytes: u64,
    cpu_ns: u64,
    error: Option<&'a str>,
    /// What dora started it from; the first message to a watcher of the dataflow has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<&'a serde_json::Value>,
}

#[derive(Serialize)]
struct Group<'a> {
    name: &'a str,
    pid: u32,
}

impl StatusReporter {
    pub(crate) fn new(graph: &Topology, name: &'static str) -> Self {
        let socket = UnixDatagram::unbound().ok().filter(|socket| socket.set_nonblocking(true).is_ok());
        let report_sender = ReportSender {
            socket,
            starter: graph.launch.raw("MILLRACE_STATUS").filter(|path| !path.is_empty()).map(PathBuf::from),
            folders: if graph.dataflow.is_empty() { Vec::new() } else { folders(&graph.dataflow) },
            informed: BTreeSet::new(),
            node: graph.node.clone(),
            name,
            restarts: graph.restarts,
            launch: graph.launch.clone(),
            definition: graph.definition.clone(),
            started: Instant::now(),
            state: State::Opening,
            error: None,
            over: false,
        };
        let shared = Arc::new(SharedSender { report_sender: Mutex::new(report_sender), over: Condvar::new() });
        Self { shared, sender: None, running: false }
    }

    /// The event loop has turned.
    pub(crate) fn tick(&mut self, metrics: &Metrics) {
        metrics.beat();
        if !self.running {
            self.running = true;
            self.shared.report_sender().state = State::Running;
            self.send_regularly(metrics);
        }
    }

    /// Sends now, and from now on regularly, unless this is the node's end.
    pub(crate) fn send(&mut self, state: State, metrics: &Metrics, error: Option<&str>) {
        let mut report_sender = self.shared.report_sender();
        report_sender.state = state;
        report_sender.error = error.map(str::to_owned);
        report_sender.over = state.is_last();
        report_sender.report(metrics);
        let over = report_sender.over;
        drop(report_sender);
        self.running |= state == State::Running;
        if !over {
            self.send_regularly(metrics);
        }
    }

    /// For a thread that ends the process: reports why.
    pub(crate) fn last_words(&self, metrics: &Metrics) -> impl FnOnce(&str) + Send + 'static {
        let (shared, metrics) = (self.shared.clone(), metrics.clone());
        move |why| {
            let mut report_sender = shared.report_sender();
            (report_sender.state, report_sender.error) = (State::Failed, Some(why.to_owned()));
            report_sender.report(&metrics);
        }
    }

    /// Starts the thread that sends, where it does not run yet and there is somebody to send to.
    fn send_regularly(&mut self, metrics: &Metrics) {
        let report_sender = self.shared.report_sender();
        if self.sender.is_some() || report_sender.starter.is_none() && report_sender.folders.is_empty() {
            return;
        }
        drop(report_sender);
        let (shared, metrics) = (self.shared.clone(), metrics.clone());
        let started = Instant::now();
        let run = crate::log::logging_here(move || {
            let mut awake = started;
            let mut report_sender = shared.report_sender();
            while !report_sender.over {
                report_sender =
                    shared.over.wait_timeout(report_sender, PERIOD).unwrap_or_else(PoisonError::into_inner).0;
                if std::mem::replace(&mut awake, Instant::now()).elapsed() >= OVERSLEPT {
                    metrics.resumed();
                }
                if !report_sender.over {
                    report_sender.report(&metrics);
                }
            }
        });
        // without a thread the node works and is not seen: its watchers call it hung, which is true of its reports
        self.sender = std::thread::Builder::new().name("status".into()).spawn(run).ok();
    }
}

impl Drop for StatusReporter {
    fn drop(&mut self) {
        self.shared.report_sender().over = true;
        self.shared.over.notify_all();
        if let Some(sender) = self.sender.take() {
            // a panic in there has been printed by the thread itself
            let _ = sender.join();
        }
    }
}

impl ReportSender {
    fn report(&mut self, metrics: &Metrics) {
        let watchers: Vec<PathBuf> = self.folders.iter().flat_map(|folder| sockets(folder)).collect();
        self.informed.retain(|known| watchers.contains(known));
        if self.starter.is_none() && watchers.is_empty() {
            return;
        }
        let snapshot = metrics.snapshot();
        let usual = Letter::new(self.message(metrics, &snapshot, false));
        let mut to: Vec<(PathBuf, bool)> = self.starter.iter().map(|path| (path.clone(), false)).collect();
        to.extend(watchers.into_iter().map(|path| (path, true)));
        for (path, of_dataflow) in to {
            let first = of_dataflow && !self.informed.contains(&path);
            let sent = match (first, &usual) {
                (false, Some(letter)) => self.offer(&path, letter),
                (true, _) => match Letter::new(self.message(metrics, &snapshot, true)) {
                    Some(letter) => self.offer(&path, &letter),
                    None => continue,
                },
                (false, None) => continue,
            };
            match sent {
                Ok(()) if first => {
                    self.informed.insert(path);
                }
                // the watcher was killed
                Err(ErrorKind::ConnectionRefused) if of_dataflow => {
                    let _ = std::fs::remove_file(&path);
                }
                _ => {}
            }
        }
    }

    fn message<'a>(&'a self, metrics: &Metrics, snapshot: &'a Snapshot, with_definition: bool) -> Message<'a> {
        let member = self.launch.member.as_deref();
        let used = member.map_or_else(usage::of_process, |member| member.account.usage());
        Message {
            v: 1,
            node: &self.node,
            name: self.name,
            pid: self.launch.pid,
            group: member.map(|member| Group { name: &member.group, pid: std::process::id() }),
            restarts: self.restarts,
            state: self.state,
            uptime_ns: self.started.elapsed().as_nanos() as u64,
            loop_age_ms: metrics.loop_age().map(|age| age.as_millis() as u64),
            metrics: Some(snapshot),
            rss_bytes: used.rss_bytes,
            cpu_ns: used.cpu_ns,
            error: self.error.as_deref(),
            definition: with_definition.then_some(&self.definition),
        }
    }

    /// Sends a report; a few times where the watcher's queue is full, which it may be for a moment.
    fn offer(&self, to: &Path, letter: &Letter) -> Result<(), ErrorKind> {
        const TRIES: u32 = 20;
        let Some(socket) = &self.socket else { return Err(ErrorKind::NotConnected) };
        for _ in 1..TRIES {
            match letter.send(socket.as_fd(), to) {
                Err(ErrorKind::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
                result => return result,
            }
        }
        letter.send(socket.as_fd(), to)
    }
}

/// A report as it travels: a datagram, and where it is long the file that has all of it.
struct Letter {
    datagram: Vec<u8>,
    file: Option<std::fs::File>,
}

impl Letter {
    fn new(mut message: Message<'_>) -> Option<Self> {
        let whole = serde_json::to_vec(&message).ok()?;
        if whole.len() <= LONGEST_DATAGRAM_BYTES {
            return Some(Self { datagram: whole, file: None });
        }
        (message.metrics, message.definition) = (None, None);
        let datagram = serde_json::to_vec(&message).ok()?;
        let file = rustix::fs::memfd_create("millrace-status", rustix::fs::MemfdFlags::CLOEXEC);
        let mut file = std::fs::File::from(file.ok()?);
        file.write_all(&whole).ok()?;
        Some(Self { datagram, file: Some(file) })
    }

    fn send(&self, socket: BorrowedFd<'_>, to: &Path) -> Result<(), ErrorKind> {
        let to = SocketAddrUnix::new(to).map_err(|e| e.kind())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = self.file.iter().map(AsFd::as_fd).collect();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(ErrorKind::InvalidInput);
        }
        let data = [IoSlice::new(&self.datagram)];
        rustix::net::sendmsg_addr(socket, &to, &data, &mut control, SendFlags::empty()).map(drop).map_err(|e| e.kind())
    }
}

/// Where watchers of a dataflow may have their sockets. A daemon's environment is not that of a user's shell, so no variable
/// is asked.
pub(crate) fn folders(dataflow: &str) -> Vec<PathBuf> {
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

#[cfg(test)]
mod tests;
