//! Where the ONNX Runtime library is found, and how it is opened.

use millrace_infer::{EngineError, contained};
use ort::environment::Environment;
use ort::logging::LogLevel;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The version that was tested, and how to get it.
const TESTED: &str = "1.32.0";
const NAME: &str = "libonnxruntime.so";
/// Where pip puts the library, in its target folder `tools/onnxruntime`.
const IN_TOOLS: &str = "tools/onnxruntime/onnxruntime/capi";

/// The environment of this process: ONNX Runtime allows one.
static OPENED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The library's errors since they were last forgotten: some are only logged, and the call fails with less.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
const REMEMBERED: usize = 8;

/// Takes a line of the library's log.
fn hear(level: LogLevel, _category: &str, _id: &str, place: &str, text: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => tracing::debug!("ONNX Runtime: {text} ({place})"),
        LogLevel::Warning => match copies(text) {
            // the node says it with what it knows besides
            Some(n) => *COPIES.lock().unwrap_or_else(PoisonError::into_inner) = Some(n),
            None => tracing::warn!("ONNX Runtime: {text}"),
        },
        LogLevel::Error | LogLevel::Fatal => {
            // whoever made the call gets it in the error
            tracing::debug!("ONNX Runtime: {text} ({place})");
            let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
            said.truncate(REMEMBERED - 1);
            said.push(text.to_owned());
        }
    }
}

/// How many copies between GPU and CPU the model has that is being loaded, by the library's warning of them.
static COPIES: Mutex<Option<usize>> = Mutex::new(None);

/// The number in the library's warning that a model has copies between GPU and CPU.
fn copies(text: &str) -> Option<usize> {
    let (number, _) = text.trim_start().split_once(" Memcpy nodes are added to the graph")?;
    number.parse().ok()
}

/// The copies of the model that was loaded last, where there are any.
pub(crate) fn copies_said() -> Option<usize> {
    COPIES.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Begins anew.
pub(crate) fn forget_what_was_said() {
    copies_said();
    SAID.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The text of an error with what was logged on the way to it and is not part of it.
pub(crate) fn with_what_was_said(error: &str) -> String {
    let said = std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner));
    let new = said.into_iter().filter(|text| !error.contains(text.as_str()));
    std::iter::once(error.to_owned()).chain(new).collect::<Vec<_>>().join("; ")
}

fn how_to_get_it() -> String {
    format!(
        "get it with `pip install --target target/tools/onnxruntime --no-deps onnxruntime=={TESTED}` in the \
         repository's root, or set LIBRARY to a {NAME} of version 1.{} or newer",
        ort::MINOR_VERSION
    )
}

/// Where the library is looked for, in this order, when no setting names it. The last is the system's loader's.
pub(crate) fn places(exe: Option<&Path>, working_folder: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(beside) = exe.and_then(Path::parent) {
        folders.push(beside.to_owned());
        // target/release/ort-infer and target/release/deps/ort_infer-… both have target/ above them
        folders.extend(beside.ancestors().skip(1).take(3).map(|above| above.join(IN_TOOLS)));
    }
    // the working folder of a node is its graph's
    folders.extend(working_folder.ancestors().take(4).map(|above| above.join("target").join(IN_TOOLS)));
    folders
}

/// The library in `folder`: the plain name, else the highest version by name.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let versioned = |name: &str| name == NAME || name.strip_prefix(NAME).is_some_and(|rest| rest.starts_with('.'));
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_str().is_some_and(versioned))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    if let Some(plain) = found.iter().find(|path| path.file_name().is_some_and(|name| name == NAME)) {
        return Some(plain.clone());
    }
    found.pop()
}

/// Opens the library and makes the process's environment, once; a second call with the same library gets the same.
///
/// # Errors
/// [`EngineError::Setup`] that says what was looked for and how to get it.
pub(crate) fn environment(setting: Option<&Path>) -> Result<Environment, EngineError> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, looked) = find(setting)?;
    if let Some((before, environment)) = opened.as_ref() {
        if *before == path {
            return Ok(environment.clone());
        }
        let cause = format!("'{}' was opened before '{}'; a process has one", before.display(), path.display());
        return Err(EngineError::Setup { cause });
    }
    let setup = |cause: String| {
        let cause = format!("ONNX Runtime library '{}': {cause}{looked}; {}", path.display(), how_to_get_it());
        EngineError::Setup { cause }
    };
    // any other call of `ort` before this one has succeeded would look for a library by itself, and panic
    let builder = contained("ort", || ort::init_from(&path)).map_err(setup)?.map_err(|e| setup(cause_of(&e)))?;
    let build = || builder.with_name("millrace").with_telemetry(false).with_logger(Arc::new(hear)).build();
    let environment = contained("ort", build).map_err(setup)?.map_err(|e| setup(e.to_string()))?;
    // with a logger of one's own it begins with every detail
    environment.set_log_level(LogLevel::Warning);
    *opened = Some((path.clone(), environment.clone()));
    Ok(environment)
}

/// The loader's own words too, which the error keeps to itself.
fn cause_of(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => match error.source() {
            Some(why) => format!("it cannot be loaded: {why}"),
            None => format!("it cannot be loaded: {error}"),
        },
        other => other.to_string(),
    }
}

/// The library's path, and for the message where it was looked for in vain.
fn find(setting: Option<&Path>) -> Result<(PathBuf, String), EngineError> {
    let variable = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from);
    for (name, path) in [("LIBRARY", setting.map(Path::to_owned)), ("ORT_DYLIB_PATH", variable)] {
        if let Some(path) = path {
            // absolute, or else it would be looked for beside the binary
            let found = std::fs::canonicalize(&path).map_err(|e| EngineError::Setup {
                cause: format!("{name} is '{}', which cannot be opened: {e}; {}", path.display(), how_to_get_it()),
            });
            return found.map(|path| (path, String::new()));
        }
    }
    let exe = std::env::current_exe().ok();
    let folders = places(exe.as_deref(), &std::env::current_dir().unwrap_or_default());
    if let Some(path) = folders.iter().find_map(|folder| in_folder(folder)) {
        return Ok((path, String::new()));
    }
    let list: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    // the bare name leaves it to the system's loader
    Ok((PathBuf::from(NAME), format!(" (nor is there one in {})", list.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::copies;

    #[test]
    fn the_warning_of_copies_is_read() {
        let text = "14 Memcpy nodes are added to the graph main_graph for CUDAExecutionProvider. It might have negative \
                    impact on performance (including unable to run CUDA graph).";
        assert_eq!(copies(text), Some(14));
        for other in
            ["", "Some nodes were not assigned to the preferred execution providers", "x Memcpy nodes are added"]
        {
            assert_eq!(copies(other), None, "{other}");
        }
    }
}
