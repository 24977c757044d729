//! What the whole-graph tests share: the built programs, `millrace run`, and what must not be left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

pub mod dataflow;

pub use millrace_needs::{data as shared_data, onnxruntime, skip_without};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Where the programs are, as the graphs name them.
pub fn program(name: &str) -> PathBuf {
    let path = root().join("target/release").join(name);
    assert!(path.exists(), "{} is not built: run the tests by tests/run, which builds it first", path.display());
    path
}

/// `millrace ARGS` in the repository's root.
pub fn millrace(args: &[&str]) -> Command {
    let mut command = Command::new(program("millrace"));
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs a command to its end, at most for `limit`, and gives what it printed.
///
/// # Panics
/// When it takes longer; it is killed then.
pub fn finish(command: &mut Command, limit: Duration) -> Output {
    // what cargo tells a test of its package makes some build scripts run again, in a build that a graph starts
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO")) {
        if name != "CARGO_HOME" {
            command.env_remove(name);
        }
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let id = child.id();
    let done = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // the receiver is gone only after a time-out
        let _ = done.0.send(child.wait_with_output());
    });
    match done.1.recv_timeout(limit) {
        Ok(output) => output.expect("its output can be read"),
        Err(_) => {
            if let Some(pid) = rustix::process::Pid::from_raw(id as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            panic!("{command:?} still ran after {limit:?}");
        }
    }
}

/// Runs a command that has to succeed, and gives its standard output.
pub fn succeed(command: &mut Command, limit: Duration) -> String {
    let output = finish(command, limit);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Everything a command printed, on both streams.
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A child that does not outlive the test.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended by itself
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(rustix::process::Signal::INT);
            if self.wait(Duration::from_secs(5)).is_none() {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
    }
}

impl Running {
    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).expect("a child's pid is not zero");
        rustix::process::kill_process(pid, signal).expect("it still runs");
    }

    /// Waits for its end; `None` if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What runs and what stands in /dev/shm, to compare before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    shm: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl Traces {
    /// Looks now. `mark` is something that stands in the environment of the processes of this run alone.
    pub fn now(mark: &str) -> Self {
        let names = |dir: &str| -> BTreeSet<String> {
            std::fs::read_dir(dir)
                .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
                .unwrap_or_default()
        };
        let marked = |pid: &String| {
            pid.parse::<u32>().is_ok_and(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                pid != std::process::id() && environment.windows(mark.len()).any(|w| w == mark.as_bytes())
            })
        };
        Self { shm: names("/dev/shm"), nodes: names("/proc").into_iter().filter(marked).collect() }
    }

    /// Processes of this run are there.
    pub fn has_processes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Waits until all is as it was before; the difference, if it stays.
    pub fn left_since(before: &Self, mark: &str, limit: Duration) -> Result<(), String> {
        let until = Instant::now() + limit;
        loop {
            let now = Self::now(mark);
            let shm: Vec<_> = now.shm.difference(&before.shm).collect();
            let nodes: Vec<_> = now.nodes.difference(&before.nodes).collect();
            if shm.is_empty() && nodes.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("left behind: /dev/shm {shm:?}, processes {nodes:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Python with the clients' packages. Without them the test is skipped; `tests/run` installs them.
pub fn python() -> Option<Command> {
    let packages = root().join("target/tools/python");
    if !packages.is_dir() {
        skip_without("python", "there are no packages in target/tools/python");
        return None;
    }
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).current_dir(root());
    Some(command)
}

/// The `model.yml` of the detector among the real data.
pub fn yolox_nano(data: &Path) -> String {
    let models = data.join("models");
    format!(
        "schema: 1\nname: yolox-nano\nfile: {0}/yolox_nano.onnx\n\
         input: {{name: images, width_px: 416, height_px: 416, layout: nchw, dtype: f32, colour: bgr}}\n\
         letterbox: {{anchor: top_left, pad: 114}}\n\
         head: {{kind: yolox, output: output}}\n\
         thresholds: {{score: 0.3, iou: 0.45}}\n\
         labels: {{file: {0}/coco_classes.txt}}\n",
        models.display()
    )
}
