//! The process of a group: each node that is handed over runs as a thread.

use super::wire::{Answer, Member, peer, receive, send};
use crate::describe::{MARKER, schema};
use crate::launch::{self, Launch};
use crate::link::{Line, Signal};
use crate::log::{self, Sink};
use crate::node::Node;
use crate::run::{get_room, message, start};
use crate::settings::has;
use crate::usage::Account;
use millrace_graph::settings::{is_environment, redacted};
use millrace_pool::Bell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A node's program as a part of a group's.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    name: &'static str,
    run: fn(Launch, Line) -> Result<u8, String>,
    has_setting: fn(&str) -> bool,
}

impl Stage {
    /// The node `N`.
    pub const fn of<N: Node>() -> Self {
        const { assert!(N::SHARES_PROCESS, "a node says whether it can share a process") };
        Self { name: N::NAME, run: start::<N>, has_setting: has_setting::<N> }
    }
}

fn has_setting<N: Node>(key: &str) -> bool {
    has(&schema::<N::Settings>(), key)
}

/// The `main` of a group's program: `--describe` prints which nodes' programs it contains, otherwise it is the process of the
/// group that it is given the name of, with the socket of the group as standard input.
pub fn host(stages: &'static [Stage]) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(group), None) = (arguments.next(), arguments.next()) else {
        return refuse("it is started by nodes that have the setting PROCESS, not by hand");
    };
    if group == "--describe" {
        let names: Vec<&str> = stages.iter().map(|stage| stage.name).collect();
        let text = serde_json::json!({ "describe": 1, "marker": MARKER, "stages": names });
        // a reader that closes the pipe early has what it wanted
        let _ = writeln!(io::stdout(), "{text:#}");
        return ExitCode::SUCCESS;
    }
    let listener = match io::stdin().as_fd().try_clone_to_owned().map(UnixListener::from) {
        Ok(listener) if listener.local_addr().is_ok() => listener,
        _ => return refuse("its standard input is no socket: it is started by nodes that have the setting PROCESS"),
    };
    log::of_nodes(stages.iter().map(|stage| stage.name));
    log::install_for_several();
    get_room();
    // a panic is said where its thread's lines go
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    // now: a file that is replaced later has another name here
    let program = std::env::current_exe().unwrap_or_default();
    let (state, changed) = (Mutex::default(), Condvar::new());
    let house: &'static House = Box::leak(Box::new(House { group, program, stages, state, changed }));
    let doorman = move || {
        for connection in listener.incoming() {
            match connection {
                Ok(connection) => house.admit(connection),
                // no descriptor is left, for one
                Err(e) => {
                    tracing::warn!("a member of PROCESS '{}' cannot be served yet: {e}", house.group);
                    std::thread::sleep(TRY_AGAIN);
                }
            }
        }
    };
    match std::thread::Builder::new().name("members".into()).spawn(doorman) {
        Ok(_) => house.stay(),
        Err(e) => return refuse(&format!("no thread for its members: {e}")),
    }
    ExitCode::SUCCESS
}

fn refuse(why: &str) -> ExitCode {
    log::install("info");
    tracing::error!("{}: {why}", super::PROGRAM);
    ExitCode::FAILURE
}

/// How long the process is there for its first member, and for a message that has begun.
const FIRST: Duration = Duration::from_secs(10);
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// How long a stage that was asked to stop may take: a stop is over within 3 s.
const STOP: Duration = Duration::from_secs(5);

/// The process of a group.
struct House {
    group: String,
    /// Its own file.
    program: PathBuf,
    stages: &'static [Stage],
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Connections of members.
    members: usize,
    /// Some member has come.
    began: bool,
    running: Vec<Running>,
    /// Which numbers were given to stages.
    numbers: u64,
    /// Which stage has failed, and when.
    failed: Option<(String, Instant)>,
}

/// A stage that runs.
struct Running {
    number: u64,
    node: String,
    to: Sender<Signal>,
    bell: Bell,
    output: OwnedFd,
    errors: OwnedFd,
}

impl Running {
    fn stop(&self) {
        // one that has ended needs no stop
        let _ = self.to.send(Signal::Stop);
        self.bell.ring();
    }
}

impl State {
    /// A stage has failed, and with the first that does the group.
    fn fail(&mut self, node: String) {
        if self.failed.is_none() {
            self.failed = Some((node, Instant::now()));
            self.running.iter().for_each(Running::stop);
        }
    }
}

impl House {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the last member has left. After a failure, not longer than a stop may take.
    fn stay(&self) {
        let began = Instant::now();
        let mut state = self.state();
        loop {
            let is_over = match &state.failed {
                Some((_, since)) => state.members == 0 || since.elapsed() >= STOP,
                None => state.members == 0 && (state.began || began.elapsed() >= FIRST),
            };
            if is_over {
                return;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_millis(500));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Serves a connection, in a thread of its own.
    fn admit(&'static self, connection: UnixStream) {
        {
            let mut state = self.state();
            state.members += 1;
            state.began = true;
        }
        let serve = move || {
            if let Err(e) = self.serve(&connection) {
                tracing::debug!("a member of PROCESS '{}': {e}", self.group);
            }
            self.state().members -= 1;
            self.changed.notify_all();
        };
        if let Err(e) = std::thread::Builder::new().name("member".into()).spawn(serve) {
            tracing::error!("no thread for a member of PROCESS '{}': {e}", self.group);
            self.state().members -= 1;
            self.changed.notify_all();
        }
    }

    /// A member from its first message to its end.
    fn serve(&'static self, connection: &UnixStream) -> io::Result<()> {
        let pid = peer(connection)?;
        connection.set_read_timeout(Some(FIRST))?;
        let Some((member, descriptors)) = receive::<Member>(connection)? else { return Ok(()) };
        connection.set_read_timeout(None)?;
        let answer = |why: String| send(connection, &Answer::Refused(why), &[]);
        let stage = match self.check(&member) {
            Ok(stage) => stage,
            Err(why) => return answer(why),
        };
        let Ok([output, errors]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return answer("its standard output and error did not come with it".to_owned());
        };
        let line = match Line::new() {
            Ok(line) => line,
            Err(why) => return answer(why),
        };
        let sink = Sink::new(File::from(errors.try_clone()?));
        let (to, bell) = (line.to.clone(), line.bell.clone());
        let Some(number) = self.enter(|number| Running { number, node: member.node.clone(), to, bell, output, errors })
        else {
            return Ok(()); // it comes again, to the process that is started in the place of this one
        };
        send(connection, &Answer::Accepted, &[])?;
        let in_group = launch::Member { group: self.group.clone(), account: Account::open() };
        let launch = Launch::of(pid, in_group, member.variables);
        let teller = connection.try_clone()?;
        let run = move || {
            let outcome = {
                let _log = log::to(sink.clone());
                catch_unwind(AssertUnwindSafe(|| (stage.run)(launch, line)))
                    .unwrap_or_else(|panic| Err(format!("panicked: {}", message(&*panic))))
            };
            sink.close();
            let ended = self.leave(number, outcome);
            // a member that is gone wants no answer
            let _ = send(&teller, &ended, &[]);
            let _ = teller.shutdown(Shutdown::Both);
        };
        std::thread::Builder::new().name(member.node).spawn(run)?;
        // ends with the stage, or with the process that dora started for it
        let _ = { connection }.read(&mut [0]);
        self.let_go(number);
        Ok(())
    }

    /// Asks a stage to stop that nobody waits for any more, and waits for its end. One that hangs ends the group: a process
    /// of its own would have been killed.
    fn let_go(&self, number: u64) {
        let began = Instant::now();
        let mut state = self.state();
        while let Some(stage) = state.running.iter().find(|stage| stage.number == number) {
            if began.elapsed() >= STOP {
                let node = stage.node.clone();
                tracing::error!("{node}: the process that dora started for it is gone, and its stage does not stop");
                state.fail(node);
                self.changed.notify_all();
                return;
            }
            stage.stop();
            state =
                self.changed.wait_timeout(state, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a node can run here.
    fn check(&self, member: &Member) -> Result<&'static Stage, String> {
        let Member { program, .. } = member;
        let Some(stage) = self.stages.iter().find(|stage| stage.name == program) else {
            let known: Vec<&str> = self.stages.iter().map(|stage| stage.name).collect();
            return Err(format!("'{program}' cannot share a process; these can: {}", known.join(", ")));
        };
        let differs = |what: &str, here: &OsStr, there: &OsStr| {
            // a proxy's password is nobody's business
            let [here, there] = [here, there].map(|value| redacted(what, &value.to_string_lossy()));
            Err(format!("{what} is '{there}', and '{here}' in the group's process; all nodes of a group share it"))
        };
        if self.program.as_os_str() != member.host {
            return differs("the group's program", self.program.as_os_str(), &member.host);
        }
        if member.version != env!("CARGO_PKG_VERSION") {
            return differs("its version", OsStr::new(env!("CARGO_PKG_VERSION")), OsStr::new(&member.version));
        }
        let folder = std::env::current_dir().unwrap_or_default();
        if folder.as_os_str() != member.folder {
            return differs("the working folder", folder.as_os_str(), &member.folder);
        }
        let theirs = member.variables.iter().map(|(name, _)| name.clone());
        let names: BTreeSet<_> = std::env::vars_os().map(|(name, _)| name).chain(theirs).collect();
        for name in names.iter().filter(|name| name.to_str().is_some_and(|name| of_process(name, self.stages))) {
            let here = std::env::var_os(name).unwrap_or_default();
            let there = member.variables.iter().find(|(known, _)| known == name);
            let there = there.map(|(_, value)| value.as_os_str()).unwrap_or_default();
            if here != there {
                return differs(&name.to_string_lossy(), &here, there);
            }
        }
        Ok(stage)
    }

    /// Takes a stage in; `None` where the group is at its end.
    fn enter(&self, running: impl FnOnce(u64) -> Running) -> Option<u64> {
        let mut state = self.state();
        if state.failed.is_some() {
            return None;
        }
        state.numbers += 1;
        let number = state.numbers;
        state.running.push(running(number));
        show_where_seen(&state);
        Some(number)
    }

    /// A stage has ended. Where it has failed, so do the others; otherwise what they say goes on to be seen.
    fn leave(&self, number: u64, outcome: Result<u8, String>) -> Answer {
        let mut state = self.state();
        let at = state.running.iter().position(|stage| stage.number == number);
        let left = at.map(|at| state.running.remove(at));
        let node = left.map(|left| left.node).unwrap_or_default();
        if outcome.is_err() {
            state.fail(node.clone());
        }
        show_where_seen(&state);
        let of_another = state.failed.as_ref().filter(|(failed, _)| *failed != node).map(|(failed, _)| failed.clone());
        drop(state);
        self.changed.notify_all();
        match (outcome, of_another) {
            (Ok(code), None) => Answer::Ended { code, why: None },
            (Err(_), _) => Answer::Ended { code: 1, why: None },
            (Ok(_), Some(failed)) => {
                let why = format!("node '{failed}' has failed, and PROCESS '{}' ends with all its nodes", self.group);
                Answer::Ended { code: 1, why: Some(why) }
            }
        }
    }
}

/// What this process itself prints (a library, a crash) goes where the first of its stages prints. dora waits until everybody
/// has let go of a node's output, so that of a stage that has ended is not kept.
fn show_where_seen(state: &State) {
    if let Some(first) = state.running.first() {
        // where it is refused, what is printed is seen at another node or not at all
        let _ = rustix::stdio::dup2_stdout(&first.output);
        let _ = rustix::stdio::dup2_stderr(&first.errors);
    }
}

/// A variable that concerns the whole process. dora gives its own to each node, and a setting concerns its node, also where its
/// name begins like a variable's (`CUDA_GRAPH`).
fn of_process(name: &str, stages: &[Stage]) -> bool {
    let setting = || stages.iter().any(|stage| (stage.has_setting)(name));
    is_environment(name) && !name.starts_with("DORA_") && name != "MILLRACE_STATUS" && !setting()
}

#[cfg(test)]
mod tests {
    use super::{Stage, of_process};

    #[test]
    fn what_libraries_read_concerns_the_process_and_a_setting_its_node() {
        let stage = Stage { name: "detector", run: |_, _| Ok(0), has_setting: |key| key == "CUDA_GRAPH" };
        let concerns = |name| of_process(name, &[stage]);
        assert!(["CUDA_VISIBLE_DEVICES", "RUST_LOG", "ORT_DYLIB_PATH"].into_iter().all(concerns));
        assert!(!["CUDA_GRAPH", "MODEL", "DORA_NODE_CONFIG", "MILLRACE_STATUS"].into_iter().any(concerns));
    }
}
