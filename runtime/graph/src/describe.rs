//! What a node says of itself: its ports and the schema of its settings.

use crate::nearest::nearest;
use crate::remarks::{Asked, Remarks};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A program is asked to describe itself only when its file holds these bytes, so that a check never starts a
/// stranger's program.
pub const MARKER: &[u8] = b"millrace-node-describe-v1";

/// The program in which nodes that share a process run; it is beside theirs. To `--describe` it answers which it contains.
pub const GROUP_PROGRAM: &str = "millrace-stages";
/// The setting that names the process of a node.
pub const GROUP_SETTING: &str = "PROCESS";

/// What `NODE --describe` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Version of this form: 1.
    pub describe: u32,
    /// The node's name.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// What it does, in one line.
    #[serde(default)]
    pub summary: String,
    /// It can run in a process of several nodes.
    #[serde(default)]
    pub shares_process: bool,
    /// It answers `--check`: what it says of its settings.
    #[serde(default)]
    pub checks: bool,
    /// Its inputs.
    #[serde(default)]
    pub inputs: Vec<PortIn>,
    /// Its outputs.
    #[serde(default)]
    pub outputs: Vec<PortOut>,
    /// JSON Schema of its settings.
    #[serde(default)]
    pub settings: Value,
    /// JSON Schema of the settings that every node has.
    #[serde(default)]
    pub common_settings: Value,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortIn {
    /// Its name.
    pub name: String,
    /// The kinds of payload that it takes.
    #[serde(default)]
    pub accepts: Vec<String>,
    /// `newest` or `every`.
    #[serde(default)]
    pub order: String,
    /// What it is for.
    #[serde(default)]
    pub doc: String,
    /// The node does nothing without it.
    #[serde(default)]
    pub required: bool,
}

/// An output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortOut {
    /// Its name.
    pub name: String,
    /// The kind of payload that it carries.
    #[serde(default)]
    pub carries: String,
    /// What it is.
    #[serde(default)]
    pub doc: String,
}

impl Description {
    /// Reads what a node printed.
    ///
    /// # Errors
    /// What does not fit.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let found: Self = serde_json::from_slice(json).map_err(|error| format!("not a description: {error}"))?;
        if found.describe != 1 {
            return Err(format!("a description of version {}; this millrace reads version 1", found.describe));
        }
        Ok(found)
    }

    /// The input port that an input of this name belongs to: `frame`, and `frame.NAME` for one of several producers.
    pub fn input(&self, name: &str) -> Option<&PortIn> {
        let of = |port: &&PortIn| {
            let rest = name.strip_prefix(port.name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(|more| !more.is_empty()))
        };
        self.inputs.iter().find(of)
    }

    /// The schema of all settings of the node: its own and the common ones.
    pub fn schema(&self) -> Value {
        crate::settings::merge(&self.settings, &self.common_settings)
    }
}

/// What came of asking for a description.
#[derive(Clone, Debug)]
pub enum Described {
    /// A Millrace node.
    Node(Arc<Description>),
    /// A program, but none of ours.
    Foreign,
    /// There is no such program.
    Absent,
    /// Something is there that cannot be started: why, and how to change that.
    Unusable(String, Option<String>),
    /// One of ours that did not answer as it should.
    Failed(String),
}

/// The nodes' programs that a group's contains, or why that is not known, and what to do about it.
pub type Stages = Result<Vec<String>, (String, String)>;

/// Who asks nodes to describe themselves.
pub trait Describer {
    /// The description of the node at `path`, as written in a graph in `folder`.
    fn describe(&self, path: &str, folder: &Path) -> Described;

    /// What the group's program beside the node at `path` contains; `None` from one that starts no programs.
    fn stages(&self, _path: &str, _folder: &Path) -> Option<Stages> {
        None
    }

    /// What the node at `path` says of its settings; `None` from one that is not asked.
    fn remarks(&self, _path: &str, _folder: &Path, _asked: &Asked) -> Option<Result<Remarks, String>> {
        None
    }

    /// The path that was most likely meant by one where nothing is.
    fn near(&self, _path: &str, _folder: &Path) -> Option<String> {
        None
    }
}

/// Says of every node that it is not known: checks the wiring alone.
pub struct Blind;

impl Describer for Blind {
    fn describe(&self, _: &str, _: &Path) -> Described {
        Described::Foreign
    }
}

/// Runs the programs. Each is asked once.
#[derive(Default)]
pub struct Programs {
    known: RefCell<HashMap<PathBuf, Described>>,
    stages: RefCell<HashMap<PathBuf, Stages>>,
}

/// Where dora finds a program: in the graph's folder, or by its name on PATH.
pub fn find_program(path: &str, folder: &Path) -> Option<PathBuf> {
    let beside = folder.join(path);
    if beside.is_file() {
        return Some(beside);
    }
    if path.contains('/') {
        return None;
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(path)).find(|program| program.is_file())
}

impl Describer for Programs {
    fn describe(&self, path: &str, folder: &Path) -> Described {
        let Some(program) = find_program(path, folder) else {
            let is_folder = folder.join(path).is_dir();
            return if is_folder { Described::Unusable("is a folder".to_owned(), None) } else { Described::Absent };
        };
        // Python is given its files as text
        let is_python = program.extension().is_some_and(|extension| extension == "py");
        if !is_python && let Err(error) = access(&program, Access::EXEC_OK) {
            // what cargo writes beside a program, `sw-nv12.d`, is a list for make
            let named = program.with_extension("");
            let fix = match path.rsplit_once('.') {
                Some((named_so, _)) if named.is_file() && access(&named, Access::EXEC_OK).is_ok() => {
                    format!("path: {named_so}")
                }
                _ => format!("chmod +x '{}'", program.display()),
            };
            return Described::Unusable(format!("cannot be executed: {error}"), Some(fix));
        }
        if let Some(known) = self.known.borrow().get(&program) {
            return known.clone();
        }
        let found = match has_marker(&program) {
            Ok(false) => Described::Foreign,
            Ok(true) => ask(&program),
            Err(error) => Described::Failed(format!("its file cannot be read: {error}")),
        };
        self.known.borrow_mut().insert(program, found.clone());
        found
    }

    fn stages(&self, path: &str, folder: &Path) -> Option<Stages> {
        // as the node finds it: beside its own file, whatever link leads there
        let program = find_program(path, folder)?.canonicalize().ok()?.with_file_name(GROUP_PROGRAM);
        let known = || ask_for_stages(&program);
        Some(self.stages.borrow_mut().entry(program.clone()).or_insert_with(known).clone())
    }

    fn remarks(&self, path: &str, folder: &Path, asked: &Asked) -> Option<Result<Remarks, String>> {
        let Described::Node(found) = self.describe(path, folder) else { return None };
        let program = find_program(path, folder).filter(|_| found.checks)?;
        let question = serde_json::to_vec(asked).map_err(|error| error.to_string());
        // where dora starts it: its settings' paths count from there
        let answer = question.and_then(|question| run(&program, "--check", &question, folder));
        Some(answer.and_then(|json| {
            serde_json::from_slice(&json).map_err(|error| format!("'--check' printed no answer: {error}"))
        }))
    }

    fn near(&self, path: &str, folder: &Path) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        // of an absolute path the first part is nothing
        let (from, parts) = if parts[0].is_empty() { (Path::new("/"), &parts[1..]) } else { (folder, &parts[..]) };
        let near = meant(from, parts)?;
        Some(if from == folder { near } else { format!("/{near}") })
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// The path from `folder` that was most likely meant: where a folder of it is not there, or does not lead to a program of
/// this name, another folder beside it that does, or the one whose name is nearest. Cargo's dep files are no programs.
fn meant(folder: &Path, parts: &[&str]) -> Option<String> {
    let (first, rest) = parts.split_first()?;
    let beside = || std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    if rest.is_empty() {
        if is_program(&folder.join(first)) {
            return Some((*first).to_owned());
        }
        let programs: Vec<String> = beside().filter(|entry| is_program(&entry.path())).filter_map(name).collect();
        return nearest(first, programs.iter().map(String::as_str)).map(str::to_owned);
    }
    let behind = |first: &str| Some(format!("{first}/{}", meant(&folder.join(first), rest)?));
    let exact = |first: &str| is_program(&folder.join(first).join(rest.join("/")));
    let folders: Vec<String> = beside().filter(|entry| entry.path().is_dir()).filter_map(name).collect();
    let other = || folders.iter().find(|other| exact(other)).map(|other| format!("{other}/{}", rest.join("/")));
    let near = || nearest(first, folders.iter().map(String::as_str)).and_then(behind);
    let is_special = ["", ".", ".."].contains(first);
    behind(first).or_else(|| if is_special { None } else { other().or_else(near) })
}

fn has_marker(program: &Path) -> std::io::Result<bool> {
    const CHUNK_BYTES: usize = 1 << 20;
    let finder = memchr::memmem::Finder::new(MARKER);
    let mut file = std::fs::File::open(program)?;
    let mut buffer = vec![0_u8; CHUNK_BYTES];
    // The end of one chunk is kept before the next, as the marker may lie across.
    let mut kept = 0;
    loop {
        let read = file.read(&mut buffer[kept..])?;
        if read == 0 {
            return Ok(false);
        }
        let have = kept + read;
        if finder.find(&buffer[..have]).is_some() {
            return Ok(true);
        }
        kept = have.min(MARKER.len() - 1);
        buffer.copy_within(have - kept..have, 0);
    }
}

/// A node describes itself in some milliseconds; a loaded machine may take its time.
const PATIENCE: Duration = Duration::from_secs(10);
/// A description is some kilobytes.
const LONGEST_BYTES: u64 = 4 << 20;

fn ask_for_stages(program: &Path) -> Stages {
    let build = || format!("build it: cargo build --release -p {GROUP_PROGRAM}");
    let name = program.display();
    match has_marker(program) {
        Ok(true) => {}
        Ok(false) => return Err((format!("'{name}' is no program of Millrace's"), build())),
        Err(e) => return Err((format!("its program '{name}' cannot be read: {e}"), build())),
    }
    #[derive(Deserialize)]
    struct Contents {
        stages: Vec<String>,
    }
    let contents = run(program, "--describe", &[], Path::new("."))
        .and_then(|json| serde_json::from_slice(&json).map_err(|e| e.to_string()));
    contents
        .map(|Contents { stages }| stages)
        .map_err(|why| (format!("'{name}' does not say what it contains: {why}"), build()))
}

fn ask(program: &Path) -> Described {
    match run(program, "--describe", &[], Path::new(".")) {
        Ok(json) => match Description::parse(&json) {
            Ok(found) => Described::Node(Arc::new(found)),
            Err(error) => Described::Failed(format!("'--describe' printed {error}")),
        },
        Err(error) => Described::Failed(error),
    }
}

/// What the program prints that is started in `folder` with this one argument, and reads `input`.
fn run(program: &Path, argument: &str, input: &[u8], folder: &Path) -> Result<Vec<u8>, String> {
    let program = std::path::absolute(program).map_err(|error| format!("its path is not known: {error}"))?;
    let mut child = Command::new(program)
        .arg(argument)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    let pipes = (child.stdin.take(), child.stdout.take());
    let input = input.to_vec();
    let talk = std::thread::spawn(move || {
        let (stdin, stdout) = pipes;
        // A broken pipe shows as text that does not parse.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&input);
        }
        let mut json = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(LONGEST_BYTES).read_to_end(&mut json);
        }
        json
    });
    let status = wait(&mut child, argument, PATIENCE)?;
    let json = talk.join().map_err(|_| "its answer could not be read".to_owned())?;
    if status.success() { Ok(json) } else { Err(format!("'{argument}' ended with {status}")) }
}

fn wait(child: &mut Child, argument: &str, patience: Duration) -> Result<std::process::ExitStatus, String> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                // It may have ended just now; either way it is gone after this.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("'{argument}' did not end within {} s", patience.as_secs()));
            }
            Err(error) => return Err(format!("it cannot be waited for: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(folder: &Path, name: &str, body: &str) {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn starts_only_marked_programs() {
        let folder = tempfile::tempdir().unwrap();
        script(folder.path(), "stranger", "touch was-run");
        script(folder.path(), "ours", "# millrace-node-describe-v1\necho '{\"describe\":1,\"name\":\"ours\"}'");
        script(folder.path(), "later", "# millrace-node-describe-v1\necho '{\"describe\":2,\"name\":\"later\"}'");
        script(folder.path(), "broken", "# millrace-node-describe-v1\nexit 3");
        let programs = Programs::default();
        assert!(matches!(programs.describe("stranger", folder.path()), Described::Foreign));
        assert!(!folder.path().join("was-run").exists());
        assert!(matches!(programs.describe("ours", folder.path()), Described::Node(found) if found.name == "ours"));
        assert!(
            matches!(programs.describe("later", folder.path()), Described::Failed(why) if why.contains("version 2"))
        );
        assert!(matches!(programs.describe("broken", folder.path()), Described::Failed(why) if why.contains("3")));
        assert!(matches!(programs.describe("./nowhere", folder.path()), Described::Absent));
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let folder_itself = programs.describe("sub", folder.path());
        assert!(matches!(folder_itself, Described::Unusable(why, None) if why == "is a folder"));
        std::fs::write(folder.path().join("text"), "#!/bin/sh\n").unwrap();
        let text = programs.describe("text", folder.path());
        assert!(
            matches!(text, Described::Unusable(why, Some(fix)) if why.contains("executed") && fix.contains("chmod +x"))
        );
        std::fs::write(folder.path().join("ours.d"), "ours: main.rs\n").unwrap();
        let list = programs.describe("./ours.d", folder.path());
        assert!(matches!(list, Described::Unusable(_, Some(fix)) if fix == "path: ./ours"));
    }

    #[test]
    fn only_programs_are_suggested() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cpu-infer.d"), "cpu-infer: main.rs").unwrap();
        std::fs::create_dir(folder.path().join("cpu-inferences")).unwrap();
        let programs = Programs::default();
        assert_eq!(programs.near("cpu-inference", folder.path()), None);
        script(folder.path(), "cpu-infer", "");
        assert_eq!(programs.near("cpu-inference", folder.path()).as_deref(), Some("cpu-infer"));
    }

    #[test]
    fn a_wrong_folder_is_corrected_as_a_wrong_name_is() {
        let folder = tempfile::tempdir().unwrap();
        let (graphs, release) = (folder.path().join("graphs"), folder.path().join("target/release"));
        for made in [&graphs, &release, &folder.path().join("target/debug"), &folder.path().join("docs")] {
            std::fs::create_dir_all(made).unwrap();
        }
        script(&release, "sw-nv12", "");
        let near = |path: &str| Programs::default().near(path, &graphs);
        for wrong in ["release/sw-nv1", "debug/sw-nv12", "relaese/sw-nv12", "./release//sw-nv12x", "rel/sw-nv12"] {
            let found = near(&format!("../target/{wrong}")).unwrap_or_default().replace("./release//", "release/");
            assert_eq!(found, "../target/release/sw-nv12", "{wrong}");
        }
        for wrong in ["../taregt/release/sw-nv12", "../target/release/sw_nv12"] {
            assert_eq!(near(wrong).as_deref(), Some("../target/release/sw-nv12"), "{wrong}");
        }
        let whole = folder.path().display().to_string();
        assert_eq!(near(&format!("{whole}/target/debug/sw-nv12")), Some(format!("{whole}/target/release/sw-nv12")));
        assert_eq!(near("../docs/else"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn finds_the_marker_across_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        for before in [0, (1 << 20) - 7, (1 << 20), 3 << 20] {
            let mut bytes = vec![b'm'; before];
            bytes.extend_from_slice(MARKER);
            std::fs::write(&path, &bytes).unwrap();
            assert!(has_marker(&path).unwrap(), "after {before} bytes");
            std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            assert!(!has_marker(&path).unwrap());
        }
    }
}
