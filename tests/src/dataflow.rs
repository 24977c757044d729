//! A dataflow under a coordinator of its own: what `dora up` and `dora start` run.

use crate::{finish, millrace, printed, root};
use rustix::process::{Pid, Signal};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// The name under which the dataflow runs.
pub const NAME: &str = "cameras";
/// Longer than anything takes that works, on a machine that does other things too.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A coordinator, its daemon and one dataflow, all of which end when this is dropped.
#[derive(Debug)]
pub struct Dataflow {
    folder: tempfile::TempDir,
    port: String,
    mark: String,
}

impl Dataflow {
    /// A folder for a dataflow, and a coordinator.
    ///
    /// # Panics
    /// When dora does not start.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it has one").port().to_string();
        drop(free);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let this = Self { folder, port, mark: format!("MILLRACE_TEST_MARK=dataflow-{unique}") };
        let up = finish(&mut this.dora(&["up"]), LIMIT);
        assert!(up.status.success(), "{}", printed(&up));
        this
    }

    /// Starts a graph of this repository. It is copied into the dataflow's folder, from where the paths count that do not
    /// begin with `../../`; `change` may alter its text.
    ///
    /// # Panics
    /// When dora does not start it.
    pub fn start(&self, graph: &str, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(root().join(graph)).expect("the graph is in the repository");
        std::fs::write(self.graph(), change(text.replace("../../", &format!("{}/", root().display()))))
            .expect("the folder is ours");
        let started = finish(&mut self.dora(&["start", &self.graph(), "--name", NAME, "--detach"]), LIMIT);
        assert!(started.status.success(), "{}", printed(&started));
    }

    /// The dataflow's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The graph that runs.
    pub fn graph(&self) -> String {
        self.folder().join("graph.yml").display().to_string()
    }

    /// `dora ARGS` for this coordinator. What dora keeps in the user's home is for one coordinator at a time, so this one
    /// has a home of its own.
    pub fn dora(&self, args: &[&str]) -> Command {
        let dora = root().join("target/tools/bin/dora");
        assert!(dora.exists(), "{} is missing: run the tests by tests/run, which installs it", dora.display());
        let mut command = Command::new(dora);
        self.at_home(command.args(args).current_dir(self.folder()));
        command
    }

    /// `millrace ARGS` for this coordinator, in the repository's root.
    pub fn millrace(&self, args: &[&str]) -> Command {
        let mut command = millrace(args);
        self.at_home(&mut command);
        command
    }

    fn at_home(&self, command: &mut Command) {
        let (key, value) = self.mark.split_once('=').expect("it is one");
        command.env("HOME", self.folder()).env("XDG_STATE_HOME", self.folder().join("state"));
        command.env("DORA_COORDINATOR_PORT", &self.port).env(key, value).stdin(Stdio::null());
    }

    /// The processes of each node, by what dora has put into their environment.
    pub fn processes(&self) -> BTreeMap<String, BTreeSet<u32>> {
        let mut found: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (pid, environment) in self.environments() {
            let node = environment.lines().find_map(|line| line.trim().strip_prefix("node_id:"));
            if let Some(node) = node {
                found.entry(node.trim().to_owned()).or_default().insert(pid);
            }
        }
        found
    }

    /// The processes of a program.
    pub fn programs(&self, name: &str) -> Vec<u32> {
        let is = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|file| file.ends_with(name));
        self.environments().into_iter().map(|(pid, _)| pid).filter(is).collect()
    }

    /// The one process of each node, once no node has more.
    ///
    /// # Panics
    /// When some node still has two after [`LIMIT`].
    pub fn pids(&self) -> BTreeMap<String, u32> {
        self.eventually("no node has two processes", || self.processes().values().all(|pids| pids.len() == 1));
        self.processes().into_iter().filter_map(|(node, pids)| Some((node, *pids.first()?))).collect()
    }

    /// The value of a setting with which a node runs.
    pub fn setting(&self, node: &str, key: &str) -> Option<String> {
        let pid = *self.pids().get(node)?;
        let environment = environment(pid);
        environment.split('\0').find_map(|entry| entry.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
    }

    fn environments(&self) -> Vec<(u32, String)> {
        let pids = std::fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = pids.filter(|pid| *pid != std::process::id()).map(|pid| (pid, environment(pid)));
        ours.filter(|(_, environment)| environment.split('\0').any(|entry| entry == self.mark)).collect()
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it is not after [`LIMIT`].
    pub fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + LIMIT;
        while !is_so() {
            assert!(Instant::now() < until, "{what}: not after {LIMIT:?}: {:?}\n{}", self.processes(), self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a count has grown by `by`. One that begins anew, as the lines of a file that is replaced, grows from there.
    ///
    /// # Panics
    /// When it has not after [`LIMIT`].
    pub fn grows(&self, what: &str, by: usize, count: impl Fn() -> usize) {
        let least = Cell::new(count());
        self.eventually(&format!("{what}: {by} more than {}", least.get()), || {
            let now = count();
            least.set(least.get().min(now));
            now >= least.get() + by
        });
    }

    /// Whole lines of a file in the dataflow's folder.
    pub fn lines(&self, file: &str) -> usize {
        let bytes = std::fs::read(self.folder().join(file)).unwrap_or_default();
        bytes.iter().filter(|byte| **byte == b'\n').count()
    }

    /// What the nodes have said, as dora kept it.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for file in files(&self.folder().join("out")) {
            text += &format!("{}:\n{}\n", file.display(), std::fs::read_to_string(&file).unwrap_or_default());
        }
        text
    }
}

impl Default for Dataflow {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Dataflow {
    fn drop(&mut self) {
        // what remains, after a test that failed, is ended below
        for verb in [&["stop", "--all"], &["down", "--force"]] {
            let Ok(child) = self.dora(verb).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { continue };
            crate::Running(child).wait(Duration::from_secs(30));
        }
        for (pid, _) in self.environments() {
            if let Some(pid) = Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Empty for a process that has ended or is another user's.
fn environment(pid: u32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned()
}

/// The first pictures of the demo's clip as a stream of its own: with so short a loop any few seconds show the same things.
///
/// # Panics
/// When the clip cannot be read, or the file not be written.
pub fn short_clip(to: &Path) {
    const PICTURES: usize = 10;
    let mp4 = std::fs::read(root().join("tests/data/demo/clip.mp4")).expect("the clip is in the repository");
    // the boxes that matter stand once each, before the pictures; ISO/IEC 14496-12 and -15
    let inside = |name: &[u8; 4]| mp4.windows(4).position(|tag| tag == name).expect("an MP4 of H.264 has it") + 4;
    let number = |at: usize, bytes: usize| mp4[at..at + bytes].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let mut stream = Vec::new();
    let mut unit = |at: usize, len: usize| {
        stream.extend([0, 0, 0, 1]);
        stream.extend(&mp4[at..at + len]);
    };
    let set = inside(b"avcC") + 6;
    unit(set + 2, number(set, 2));
    let picture_set = set + 2 + number(set, 2) + 1;
    unit(picture_set + 2, number(picture_set, 2));
    let (sizes, mut at) = (inside(b"stsz") + 12, number(inside(b"stco") + 8, 4));
    let end = at + (0..PICTURES).map(|n| number(sizes + 4 * n, 4)).sum::<usize>();
    while at < end {
        let len = number(at, 4);
        unit(at + 4, len);
        at += 4 + len;
    }
    std::fs::write(to, stream).expect("the folder is ours");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A program whose lines are read as they come.
#[derive(Debug)]
pub struct Talk {
    child: crate::Running,
    lines: Receiver<String>,
    said: String,
}

impl Talk {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn begin(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (to, lines) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        for stream in streams.into_iter().flatten() {
            let to: Sender<String> = to.clone();
            std::thread::spawn(move || {
                BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|l| to.send(l))
            });
        }
        Self { child: crate::Running(child), lines, said: String::new() }
    }

    /// Reads on to the line with this text.
    ///
    /// # Panics
    /// When it does not come.
    pub fn until(&mut self, part: &str) {
        let until = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said += &format!("{line}\n");
                    if line.contains(part) {
                        return;
                    }
                }
                Err(why) => panic!("'{part}' did not come ({why}):\n{}", self.said),
            }
        }
    }

    /// Reads on to its end: the exit code, and all that it said.
    ///
    /// # Panics
    /// When it goes on for too long, or is killed by a signal.
    pub fn end(mut self) -> (i32, String) {
        let until = Instant::now() + 2 * LIMIT;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said += &format!("{line}\n"),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it goes on:\n{}", self.said),
            }
        }
        let ended = self.child.wait(Duration::from_secs(10)).and_then(|status| status.code());
        (ended.unwrap_or_else(|| panic!("it did not end by itself:\n{}", self.said)), std::mem::take(&mut self.said))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.signal(Signal::KILL);
        assert!(self.child.wait(LIMIT).is_some(), "it was killed");
    }
}
