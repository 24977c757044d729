//! The nodes of a running dataflow, whose reports arrive on a socket in its folder, and whether they are healthy.

use super::measure::{Done, Measures};
use crate::status::{Inbox, NodeReport, State};
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// A node's process may be gone for so long before it is missed: dora starts it again within less.
const MISSED: Duration = Duration::from_secs(3);
/// Histograms of the last seconds hold so much of the time before a span.
const MIXED: Duration = Duration::from_secs(10);

/// One process of a node.
struct Process {
    /// Its newest report.
    last: NodeReport,
    /// What dora started it from.
    definition: Option<Value>,
    /// When it was started.
    began: Instant,
    /// The one with which a span began.
    base: Option<NodeReport>,
    /// When it was first seen to be gone.
    gone: Option<Instant>,
}

/// One node: its processes, in the order of their first reports.
#[derive(Default)]
struct Seen {
    processes: Vec<Process>,
    ages: Vec<(Instant, String, u64)>,
}

/// All reports.
pub(crate) struct Watch {
    reports: Receiver<NodeReport>,
    socket: PathBuf,
    nodes: BTreeMap<String, Seen>,
    span: Instant,
    /// The nodes of which every process is new: what they do is not held against anybody.
    replaced: BTreeSet<String>,
    expected: BTreeMap<String, u32>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // nodes sweep what is left
        let _ = std::fs::remove_file(&self.socket);
        if let Some(folder) = self.socket.parent() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl Watch {
    /// Listens to the nodes of this dataflow.
    pub(crate) fn new(dataflow: &str) -> anyhow::Result<Self> {
        let user = rustix::process::getuid().as_raw();
        let runtime = PathBuf::from(format!("/run/user/{user}"));
        let base = if runtime.is_dir() { runtime } else { PathBuf::from("/tmp") };
        let ours = base.join(format!("millrace-{user}"));
        let folder = ours.join(dataflow);
        for folder in [&ours, &folder] {
            own_folder(folder, user)?;
        }
        let path = folder.join(std::process::id().to_string());
        // left by an earlier process with this number
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        let (to, reports) = sync_channel(1024);
        // the kernel queues a few datagrams only, and a question to dora takes long
        std::thread::spawn(move || {
            let mut inbox = Inbox::new(socket);
            loop {
                if let Some(status) = inbox.next(Duration::from_secs(1))
                    && to.send(status).is_err()
                {
                    return;
                }
            }
        });
        let (nodes, replaced, expected) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Ok(Self { reports, socket: path, nodes, span: Instant::now(), replaced, expected })
    }

    /// Listens for this long.
    pub(crate) fn listen(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.reports.recv_timeout(left) {
                Ok(status) => self.take(status),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => return std::thread::sleep(left),
            }
        }
    }

    fn take(&mut self, mut status: NodeReport) {
        let seen = self.nodes.entry(status.node.clone()).or_default();
        let definition = status.definition.take();
        let ages = status.latency.iter().filter(|latency| latency.name == "age");
        let now = Instant::now();
        seen.ages.extend(ages.filter_map(|age| Some((now, age.source.clone(), age.recent_p95_ns?))));
        match seen.processes.iter_mut().find(|process| process.last.pid == status.pid) {
            Some(process) => {
                process.last = status;
                process.definition = definition.or(process.definition.take());
            }
            None => {
                let began = now.checked_sub(Duration::from_nanos(status.uptime_ns)).unwrap_or(now);
                // the last word of one that was replaced is no news
                if seen.processes.last().is_none_or(|newest| newest.began <= began) {
                    seen.processes.push(Process { last: status, definition, began, base: None, gone: None });
                }
            }
        }
    }

    /// The nodes that have reported.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// What dora started this node from: its entry, the graph's `env`, and the folder. A process that ends, for one because
    /// another has taken its place, tells of what runs no more.
    pub(crate) fn definition(&self, node: &str) -> Option<&Value> {
        let newest = self.nodes.get(node)?.processes.last()?;
        let runs = matches!(newest.last.state, State::Opening | State::Running);
        newest.definition.as_ref().filter(|_| runs)
    }

    /// The newest report of the newest process of a node.
    pub(crate) fn newest(&self, node: &str) -> Option<&NodeReport> {
        Some(&self.nodes.get(node)?.processes.last()?.last)
    }

    /// The process that a node was when the span began.
    pub(crate) fn base_pid(&self, node: &str) -> Option<u32> {
        self.nodes.get(node)?.processes.iter().find_map(|process| Some(process.base.as_ref()?.pid))
    }

    /// A span begins: what is done from now on is measured.
    pub(crate) fn begin(&mut self) {
        self.listen(Duration::ZERO);
        self.span = Instant::now();
        for seen in self.nodes.values_mut() {
            // of those that were replaced, only the last one matters from here on
            let keep = seen.processes.len().saturating_sub(1);
            seen.processes.drain(..keep);
            seen.ages.clear();
            for process in &mut seen.processes {
                process.base = Some(process.last.clone());
            }
        }
    }

    /// This node is about to be replaced: another process of it is no fault.
    pub(crate) fn excuse(&mut self, node: &str) {
        self.expected.remove(node);
        self.replaced.insert(node.to_owned());
    }

    /// This node is to stay the process that it is now.
    pub(crate) fn expect(&mut self, node: &str) {
        if let Some(pid) = self.newest(node).map(|status| status.pid) {
            self.expected.insert(node.to_owned(), pid);
        }
    }

    /// What was done since [`begin`](Self::begin).
    pub(crate) fn measure(&self, is_last: &dyn Fn(&str) -> bool) -> Measures {
        let span = self.span.elapsed();
        let since = self.span + if span > MIXED + MIXED / 2 { MIXED } else { span / 2 };
        let done = |seen: &Seen| {
            let mut done = Done::default();
            seen.processes.iter().for_each(|process| done.add(process.base.as_ref(), &process.last));
            seen.ages.iter().filter(|(at, _, _)| *at >= since).for_each(|(_, source, ns)| done.age(source, *ns));
            done
        };
        let done = self.nodes.iter().map(|(node, seen)| (node.clone(), done(seen))).collect();
        Measures::of(&done, is_last, span)
    }

    /// What is wrong with the nodes right now; nothing when all is well.
    pub(crate) fn illness(&mut self) -> Option<String> {
        for (node, seen) in &mut self.nodes {
            let Some(process) = seen.processes.last_mut() else { continue };
            let (status, expected) = (&process.last, self.expected.get(node));
            if let (State::Failed, Some(error)) = (status.state, &status.error) {
                let error = error.strip_prefix(&format!("{node}: ")).unwrap_or(error);
                return Some(format!("node '{node}' failed: {error}"));
            }
            if status.restarts > 0 && self.replaced.contains(node) {
                return Some(format!("node '{node}' ended without a word and was started again{}", last_words(node)));
            }
            if expected.is_some_and(|pid| *pid != status.pid) {
                return Some(format!("node '{node}' ended and was started again{}", last_words(node)));
            }
            if matches!(status.state, State::Done | State::Stopped | State::Incomplete) && expected.is_some() {
                return Some(format!("node '{node}' has ended"));
            }
            let runs = Path::new("/proc").join(status.pid.to_string()).exists();
            let since = *process.gone.get_or_insert_with(Instant::now);
            if runs {
                process.gone = None;
            } else if expected.is_some() && since.elapsed() > MISSED {
                return Some(format!("node '{node}' ended without a word{}", last_words(node)));
            }
        }
        None
    }
}

/// Where to look for the reason.
fn last_words(node: &str) -> String {
    format!(" (what it said last: 'dora logs DATAFLOW --node {node}')")
}

/// Makes a folder that is this user's alone, or makes sure that it is one.
fn own_folder(folder: &Path, user: u32) -> anyhow::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("the folder {} cannot be made", folder.display()));
        }
        _ => {}
    }
    let m = folder.symlink_metadata().with_context(|| format!("{} cannot be looked at", folder.display()))?;
    if !m.is_dir() || m.uid() != user || m.mode() & 0o022 != 0 {
        bail!("{} is not a folder of this user alone, so nodes will not report there; remove it", folder.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_that_another_took_the_place_of_says_nothing_of_what_runs() {
        let report = |pid: u32, state: State, definition: &str, uptime_s: u64| NodeReport {
            node: "detect".into(),
            pid,
            state,
            definition: Some(definition.into()),
            uptime_ns: uptime_s * 1_000_000_000,
            ..NodeReport::default()
        };
        let old = || report(1, State::Stopped, "old", 100);
        let new = || report(2, State::Opening, "new", 1);
        for reports in [[new(), old()], [old(), new()]] {
            let (_to, receiver) = sync_channel(1);
            let (nodes, replaced, expected) = Default::default();
            let mut watch =
                Watch { reports: receiver, socket: PathBuf::new(), nodes, span: Instant::now(), replaced, expected };
            reports.into_iter().for_each(|report| watch.take(report));
            assert_eq!(watch.definition("detect"), Some(&Value::from("new")));
            assert_eq!(watch.newest("detect").unwrap().pid, 2);
            watch.take(report(2, State::Failed, "new", 2));
            assert_eq!(watch.definition("detect"), None);
        }
    }
}
