//! A process of its own builds an engine: this program, started again. A build takes minutes, cannot be interrupted in every
//! release, and may crash; the node ends the process at the limit and has the rest of its memory back after it.

use crate::config::Settings;
use crate::plan::Build;
use millrace_infer::EngineError;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The first argument of the process that builds. The settings follow, as JSON; the engine or the error goes to its output.
const VERB: &str = "--build-engine";
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// What this process is to build, where that is what it was started for; its exit code then.
pub(crate) fn asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()?.to_str()? == VERB).then(|| {
        millrace_node::log_to_stderr(env!("CARGO_PKG_NAME"), "info");
        let (answer, code) = match engine_of(arguments.next()) {
            Ok(engine) => (engine, ExitCode::SUCCESS),
            Err(e) => (e.to_string().into_bytes(), ExitCode::FAILURE),
        };
        let mut out = std::io::stdout();
        match out.write_all(&answer).and_then(|()| out.flush()) {
            Ok(()) => code,
            Err(_) => ExitCode::FAILURE, // the process that asked has ended
        }
    })
}

fn engine_of(settings: Option<OsString>) -> Result<Vec<u8>, EngineError> {
    let text = settings.and_then(|text| text.into_string().ok());
    let text = text.ok_or_else(|| EngineError::setup(format!("{VERB} is followed by the node's settings as JSON")))?;
    let settings: Settings = serde_json::from_str(&text).map_err(EngineError::setup)?;
    end_with_parent();
    Build::of(&settings)?.plan()
}

/// The parent holds the other end of the standard input: when it is gone, however it ended, nobody waits for the engine.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // nothing of the library's may run any more, while it builds
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    });
}

/// Builds the engine in a process of its own.
///
/// # Errors
/// What that process says, how it died, or that the limit is over.
pub(crate) fn build_apart(settings: &Settings, file: &Path) -> Result<Vec<u8>, EngineError> {
    let program = std::env::current_exe().map_err(EngineError::setup)?;
    let text = serde_json::to_string(settings).map_err(EngineError::setup)?;
    let mut command = Command::new(&program);
    command.arg(VERB).arg(text);
    let limit = Duration::from_secs(settings.build_limit_s.into());
    let asked_for = settings.common.model.display();
    answer_of(command, limit)?.map_err(|why| {
        EngineError::setup(match why {
            Unbuilt::Said(text) => text,
            Unbuilt::Died(how) => format!(
                "the process that built an engine of '{}' has died ({how}); what TensorRT said is in the log above",
                file.display()
            ),
            Unbuilt::Late => format!(
                "no engine of '{}' was built within {} s (BUILD_LIMIT_S): raise it, lower BUILD_LEVEL (0 builds soonest), or build \
                 the engine before the graph starts: millrace model build {asked_for}",
                file.display(),
                limit.as_secs(),
            ),
        })
    })
}

/// Why a process gave no engine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unbuilt {
    /// In its own words.
    Said(String),
    /// By a signal, or without a word.
    Died(String),
    /// Ended at the limit.
    Late,
}

/// What a process writes to its output, once it has ended well; past the limit it is killed.
///
/// # Errors
/// It cannot be started or waited for; within, why it gave nothing.
pub(crate) fn answer_of(mut command: Command, limit: Duration) -> Result<Result<Vec<u8>, Unbuilt>, EngineError> {
    let program = command.get_program().display().to_string();
    let failed =
        |e: std::io::Error| EngineError::setup(format!("'{program}', which builds engines, cannot be run: {e}"));
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut output = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        output.read_to_end(&mut answer).map(|_| answer)
    });
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if begun.elapsed() < limit => std::thread::sleep(BETWEEN_LOOKS),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(Err(Unbuilt::Late));
            }
        }
    };
    let answer = reader.join().expect("it only reads").map_err(failed)?;
    let said = || String::from_utf8_lossy(&answer).trim().to_owned();
    Ok(match (status.success(), status.signal()) {
        (true, _) if !answer.is_empty() => Ok(answer),
        (true, _) => Err(Unbuilt::Died("it gave nothing".to_owned())),
        (false, Some(signal)) => Err(Unbuilt::Died(format!("signal {signal}"))),
        (false, None) if said().is_empty() => Err(Unbuilt::Died(status.to_string())),
        (false, None) => Err(Unbuilt::Said(said())),
    })
}
