//! What a test needs that may be missing. Every test that does nothing without it calls [`skip_without`].
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The table of names; `needs.py` reads it too.
const TABLE: &str = include_str!("../README.md");
/// Names whose absence is a failure, with commas between.
pub const REQUIRE: &str = "MILLRACE_REQUIRE";
/// `1` requires all that CI installs.
pub const CI: &str = "MILLRACE_CI";
/// The file of skipped tests, if it is not `target/skipped.txt`.
pub const RECORD: &str = "MILLRACE_SKIPPED";

/// The rows of the table: a name, and whether CI installs it.
pub fn names() -> impl Iterator<Item = (&'static str, bool)> {
    TABLE.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        Some((name, rest.trim_start().starts_with("yes")))
    })
}

/// The names that are required, given the values of [`REQUIRE`] and [`CI`].
fn required(require: &str, ci: &str) -> Result<BTreeSet<String>, String> {
    let of_ci = names().filter(|(_, in_ci)| *in_ci && ci == "1").map(|(name, _)| name);
    let asked = require.split(',').map(str::trim).filter(|name| !name.is_empty());
    let all: BTreeSet<String> = of_ci.chain(asked).map(str::to_owned).collect();
    match all.iter().find(|asked| names().all(|(name, _)| name != *asked)) {
        None => Ok(all),
        Some(unknown) => {
            let known: Vec<&str> = names().map(|(name, _)| name).collect();
            Err(format!(
                "{REQUIRE} has '{unknown}', which tests/needs/README.md does not list; it lists {}",
                known.join(", ")
            ))
        }
    }
}

/// Records that the calling test does nothing (or less than it could), because `name` is missing.
///
/// # Panics
/// If `name` is required, and if the environment requires a name that does not exist.
pub fn skip_without(name: &str, why: impl Display) {
    assert!(names().any(|(known, _)| known == name), "tests/needs/README.md does not list '{name}'");
    let value = |variable| std::env::var(variable).unwrap_or_default();
    let required = required(&value(REQUIRE), &value(CI)).expect("the environment names what exists");
    assert!(!required.contains(name), "'{name}' is required ({REQUIRE}, or {CI}=1), and it is missing: {why}");
    println!("skipped: without {name}: {why}");
    record(&format!("{}\t{name}\t{why}\n", test()));
}

/// The program and the test that runs in this thread.
fn test() -> String {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_stem).map_or("".into(), |stem| stem.to_string_lossy());
    // cargo adds a hash to the name
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    format!("{program}: {}", std::thread::current().name().unwrap_or("a thread"))
}

/// One write for each line, since other tests append at the same time.
fn record(line: &str) {
    let file = std::env::var_os(RECORD).map_or_else(|| root().join("target/skipped.txt"), PathBuf::from);
    // test programs also run on machines that have no checkout
    if file.parent().is_some_and(Path::is_dir) {
        let open = OpenOptions::new().create(true).append(true).open(&file);
        let written = open.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `path` if it exists; otherwise the test is skipped without `name`.
fn found(name: &str, path: PathBuf) -> Option<PathBuf> {
    let there = path.canonicalize();
    there.map_err(|e| skip_without(name, format!("{}: {e}", path.display()))).ok()
}

/// The folder of clips, streams and models beside the checkout.
pub fn data() -> Option<PathBuf> {
    found("data", root().join("../shared/data"))
}

/// The library of ONNX Runtime that `tests/run` installs.
pub fn onnxruntime() -> Option<PathBuf> {
    let folder = found("onnxruntime", root().join("target/tools/onnxruntime/onnxruntime/capi"))?;
    let mut files = std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path());
    let is_library =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"));
    files.find(is_library).or_else(|| found("onnxruntime", folder.join("libonnxruntime.so")))
}

/// The library of TensorRT-RTX that `tests/run` installs.
pub fn tensorrt_rtx() -> Option<PathBuf> {
    found("tensorrt_rtx", root().join("target/tools/tensorrt_rtx/tensorrt_rtx_libs/libtensorrt_rtx.so.1"))
}

#[cfg(test)]
mod tests;
