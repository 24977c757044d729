//! dora's command line, version 1.1.0: the one on PATH, or one installed beside our build.
//!
//! The PyPI package is a wheel with the program as a Python module; without its dependencies it takes seconds to
//! install and runs graphs of native nodes. Installing it needs Python 3.11 or later with pip, and happens once.

use anyhow::{Context, bail};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version that the graphs and the nodes are made for.
pub(crate) const VERSION: &str = "1.1.0";

/// Starts the installed module wherever its folder is; the script that pip writes holds an absolute path.
/// `dora up` starts further doras by name, hence PATH. When millrace is killed, the kernel interrupts dora, which then
/// stops its nodes (1 = PR_SET_PDEATHSIG, 2 = SIGINT).
const WRAPPER: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
PATH="$here/bin:$PATH"
export PATH
exec @PYTHON@ -c '
import os, sys
if os.environ.pop("MILLRACE_CHILD", None):
    import ctypes
    ctypes.CDLL(None).prctl(1, 2)
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "dora"
from dora_cli import py_main
sys.exit(py_main())
' "$here/dora" "$@"
"#;

/// Names under which a Python may be found, and whether it is one that the wheel is for.
const PYTHONS: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];
const IS_RECENT: &str = "import sys; sys.exit(sys.version_info < (3, 11))";

/// The dora program to use, installed now if need be.
pub(crate) fn ensure(say: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    if let Some(program) = found() {
        return Ok(program);
    }
    let tools = tools_folder()?;
    let program = tools.join("bin/dora");
    say(&format!("installing dora {VERSION} from PyPI into {} (once)", tools.display()));
    install(&tools)?;
    match version_of(&program) {
        Some(version) if version == VERSION => Ok(program),
        found => bail!(
            "dora was installed into {} but says of itself {}; delete the folder and try again",
            tools.display(),
            found.unwrap_or("nothing".to_owned())
        ),
    }
}

/// The dora program that is here already, on PATH or in the tools.
pub(crate) fn found() -> Option<PathBuf> {
    let in_tools = tools_folder().ok().map(|tools| tools.join("bin/dora"));
    let mut programs = std::iter::once(PathBuf::from("dora")).chain(in_tools);
    programs.find(|program| version_of(program).as_deref() == Some(VERSION))
}

/// The Python that would install it: one that is recent enough and has pip.
pub(crate) fn installer() -> Option<&'static str> {
    let fits = |python: &&str| succeeds(python, &["-c", IS_RECENT]) && succeeds(python, &["-m", "pip", "--version"]);
    PYTHONS.iter().copied().find(fits)
}

fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("dora-cli ").map(str::to_owned)
}

/// The size of the shared memory that dora keeps for a node's large messages. Frames never go by messages, so little will
/// do in place of dora's 8 MiB; a node's `shared_memory_pool_size` in the graph comes first.
pub(crate) const POOL_SIZE: (&str, &str) = ("DORA_NODE_SHM_POOL_SIZE", "262144");
/// What zenoh then takes of `/dev/shm` for each node, and some more.
const SHM_BYTES_PER_NODE: u64 = 2 << 20;

/// Whether `/dev/shm` has what dora needs for so many nodes: without it dora's nodes fail with a text that names neither.
pub(crate) fn has_room(nodes: usize) -> anyhow::Result<()> {
    let shm = rustix::fs::statvfs("/dev/shm").context("dora needs /dev/shm; mount a tmpfs there")?;
    let (free, needed) = (shm.f_bavail * shm.f_frsize, nodes as u64 * SHM_BYTES_PER_NODE);
    if free < needed {
        bail!(
            "/dev/shm has {} KiB free, and dora needs {} KiB for {nodes} nodes: \
             remove what nobody uses there, or give the container more of it (docker run --shm-size=64m)",
            free >> 10,
            needed >> 10
        );
    }
    Ok(())
}

/// `tools/` in cargo's target folder where millrace runs from one, otherwise in the user's cache.
fn tools_folder() -> anyhow::Result<PathBuf> {
    if let Some(target) = target_folder() {
        return Ok(target.join("tools"));
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("millrace/tools"))
}

/// Cargo's target folder that this program was built into.
pub(crate) fn target_folder() -> Option<PathBuf> {
    target_folder_of(&std::env::current_exe().ok()?)
}

/// Cargo writes `CACHEDIR.TAG` only where it makes the folder itself, so not where the folder was made by hand or came
/// back from a cache; it writes `.rustc_info.json` at every build.
fn target_folder_of(program: &Path) -> Option<PathBuf> {
    let is_target = |folder: &&Path| ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|it| folder.join(it).is_file());
    program.ancestors().skip(1).find(is_target).map(Path::to_path_buf)
}

/// How the last process of `node` ended that dora started again, by its log: a node's process is dora's child, and nobody
/// else gets to know it. `None` where the log does not say it as dora 1.1 does.
pub(crate) fn end_of_process(log: &Path, node: &str) -> Option<String> {
    const TAIL_BYTES: u64 = 256 << 10;
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let mark = format!(" {node}: daemon handling node stop with exit status ");
    let tail = String::from_utf8_lossy(&tail);
    let status =
        tail.lines().rev().find_map(|line| line.split_once(&mark)?.1.split_once(" (restart: true").map(|it| it.0))?;
    let (kind, number) = status.strip_suffix(')').and_then(|it| it.split_once('(')).unwrap_or((status, ""));
    Some(match (kind, number.parse::<i32>()) {
        ("Success", _) => "has ended with exit code 0".to_owned(),
        ("ExitCode", Ok(code)) => format!("has ended with exit code {code}"),
        ("Signal", Ok(signal)) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("was ended by {name}"),
            None => format!("was ended by signal {signal}"),
        },
        _ => format!("has ended ({status})"),
    })
}

fn install(tools: &Path) -> anyhow::Result<()> {
    let other_way = format!(
        "or install dora {VERSION} another way, so that 'dora --version' says 'dora-cli {VERSION}': \
         cargo install dora-cli --version {VERSION} --locked"
    );
    let Some(python) = PYTHONS.iter().copied().find(|python| succeeds(python, &["-c", IS_RECENT])) else {
        bail!(
            "dora {VERSION} is not installed, and installing it needs Python 3.11 or later with pip: \
             install these (Debian and Ubuntu: apt install python3 python3-pip), {other_way}"
        );
    };
    if !succeeds(python, &["-m", "pip", "--version"]) {
        bail!(
            "dora {VERSION} is not installed, and installing it needs pip, which {python} lacks: \
             install it (Debian and Ubuntu: apt install python3-pip), {other_way}"
        );
    }
    std::fs::create_dir_all(tools).with_context(|| format!("{} cannot be made", tools.display()))?;
    // An install that was cut short must not look like one: pip works in a folder of its own, which is renamed.
    let fresh = tools.join(format!("dora.{}", std::process::id()));
    let package = format!("dora-rs-cli=={VERSION}");
    let pip = Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
        .arg(&fresh)
        .arg(&package)
        .stdin(Stdio::null())
        .output()
        .context("pip cannot be started")?;
    if !pip.status.success() {
        // It may not even exist.
        let _ = std::fs::remove_dir_all(&fresh);
        let said = String::from_utf8_lossy(&pip.stderr);
        bail!("pip could not install {package}:\n{}\n{other_way}", said.trim());
    }
    let place = tools.join("dora");
    if place.exists() {
        std::fs::remove_dir_all(&place).with_context(|| format!("{} cannot be replaced", place.display()))?;
    }
    std::fs::rename(&fresh, &place).with_context(|| format!("{} cannot be put in place", place.display()))?;
    write_wrapper(&tools.join("bin"), python)
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn write_wrapper(bin: &Path, python: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let program = bin.join("dora");
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(bin)?;
        std::fs::write(&program, WRAPPER.replace("@PYTHON@", python))?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
    };
    write().with_context(|| format!("{} cannot be written", program.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{end_of_process, target_folder_of};

    #[test]
    fn how_a_process_ended_is_what_dora_wrote_last_of_its_node() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let stop = |node: &str, status: &str, restart: bool| {
            format!(
                "01:13:05 DEBUG  {node}: daemon handling node stop with exit status {status} (restart: {restart}, restart_count: 0)\n"
            )
        };
        let end = |lines: &[String]| {
            std::fs::write(&log, lines.concat()).unwrap();
            end_of_process(&log, "detect")
        };
        assert_eq!(end(&[]), None);
        let killed = stop("detect", "Signal(9)", true);
        assert_eq!(end(std::slice::from_ref(&killed)).as_deref(), Some("was ended by SIGKILL"));
        let others =
            [stop("detect", "Signal(11)", true), stop("redetect", "ExitCode(1)", true), stop("page", "Success", false)];
        assert_eq!(end(&[&[killed], &others[..]].concat()).as_deref(), Some("was ended by SIGSEGV"));
        assert_eq!(end(&[stop("detect", "ExitCode(101)", true)]).as_deref(), Some("has ended with exit code 101"));
        assert_eq!(end(&[stop("detect", "Signal(62)", true)]).as_deref(), Some("was ended by signal 62"));
        assert_eq!(end(&[stop("detect", "IoError(\"x\")", true)]).as_deref(), Some("has ended (IoError(\"x\"))"));
        assert_eq!(end_of_process(std::path::Path::new("/nowhere"), "detect"), None);
    }

    #[test]
    fn a_target_folder_is_known_whether_cargo_made_it_or_not() {
        for mark in ["CACHEDIR.TAG", ".rustc_info.json"] {
            let target = tempfile::tempdir().unwrap();
            let program = target.path().join("release/millrace");
            assert_eq!(target_folder_of(&program), None);
            std::fs::write(target.path().join(mark), "").unwrap();
            assert_eq!(target_folder_of(&program).as_deref(), Some(target.path()), "{mark}");
        }
    }
}
