//! The process that dora started for a node whose stage runs elsewhere: it hands the node over, and waits for its end.

use super::wire::{Answer, Member, peer, receive, send};
use super::{Group, PROGRAM};
use crate::launch::Launch;
use crate::link::dora::for_several;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a group may refuse a member without a word, since its process is at its end.
const PATIENCE: Duration = Duration::from_secs(15);
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// How long the end of the group's process is waited for: it gives a GPU's memory back first.
const END: Duration = Duration::from_secs(5);

impl Group {
    /// Hands the node of `program` over to the group's process, and gives the exit code of its stage.
    pub(crate) fn join(&self, program: &str, launch: &Launch) -> ExitCode {
        crate::log::install("info");
        self.stay(program, launch).map_or_else(
            |why| {
                tracing::error!("{}: {why}", self.node);
                ExitCode::FAILURE
            },
            ExitCode::from,
        )
    }

    fn stay(&self, program: &str, launch: &Launch) -> Result<u8, String> {
        let Self { name, node, .. } = self;
        let own = |what: &str, e: io::Error| format!("PROCESS '{name}': {what}: {e}");
        let host = std::env::current_exe().map_err(|e| own("this program's own file is not known", e))?;
        let host = host.with_file_name(PROGRAM);
        let folder = std::env::current_dir().map_err(|e| own("the working folder is gone", e))?;
        let member = Member {
            node: node.clone(),
            program: program.to_owned(),
            host: host.clone().into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            folder: folder.into(),
            variables: launch.variables(),
        };
        let (out, err) = (io::stdout(), io::stderr());
        let began = Instant::now();
        let mut child = None;
        loop {
            let connection = self.reach(&host, &mut child)?;
            // an error is one of a process that is at its end, as is an end without a word
            let answer = send(&connection, &member, &[out.as_fd(), err.as_fd()]).and_then(|()| receive(&connection));
            match answer.unwrap_or_default() {
                Some((Answer::Accepted, _)) => return self.wait(&connection, child.as_mut()),
                Some((Answer::Refused(why), _)) => {
                    return Err(format!("PROCESS '{name}' does not accept the node: {why}"));
                }
                Some((Answer::Ended { .. }, _)) | None => {}
            }
            if let Some(status) = child.as_mut().and_then(|child| ended(child, Duration::ZERO)) {
                return Err(format!("PROCESS '{name}': '{}' has ended at its start ({status})", host.display()));
            }
            if began.elapsed() >= PATIENCE {
                return Err(format!("PROCESS '{name}': a process of the group is at its end, and does not end"));
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }

    /// A connection to the group's process, which is started where there is none.
    fn reach(&self, host: &Path, child: &mut Option<Child>) -> Result<UnixStream, String> {
        let Self { name, .. } = self;
        let failed = |what: &str, e: io::Error| format!("PROCESS '{name}': {what}: {e}");
        let address = self.address().map_err(|e| failed("no name for its socket", e))?;
        loop {
            match UnixStream::connect_addr(&address) {
                Ok(connection) => {
                    peer(&connection).map_err(|e| failed("its socket belongs to a stranger", e))?;
                    return Ok(connection);
                }
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(failed("no connection", e)),
            }
            // the member that binds the name starts the process; the others wait in the socket's queue
            match UnixListener::bind_addr(&address) {
                Ok(listener) => *child = Some(self.start(host, listener)?),
                Err(e) if e.kind() == ErrorKind::AddrInUse => std::thread::sleep(TRY_AGAIN),
                Err(e) => return Err(failed("no socket", e)),
            }
        }
    }

    /// Starts the group's process. It is in a process group of its own, since dora ends a node by ending the node's.
    fn start(&self, host: &Path, listener: UnixListener) -> Result<Child, String> {
        let mut command = Command::new(host);
        command.arg(&self.name).stdin(Stdio::from(OwnedFd::from(listener))).process_group(0);
        for_several(&mut command);
        command.spawn().map_err(|e| {
            let (name, program) = (&self.name, host.display());
            format!(
                "PROCESS '{name}' needs the program '{program}', which cannot be started: {e}; build it: cargo build \
                 --release -p {PROGRAM}"
            )
        })
    }

    /// Waits for the stage's end.
    fn wait(&self, connection: &UnixStream, child: Option<&mut Child>) -> Result<u8, String> {
        let Self { name, node, .. } = self;
        match receive(connection) {
            Ok(Some((Answer::Ended { code, why }, _))) => {
                if let Some(why) = why {
                    tracing::error!("{node}: {why}");
                }
                Ok(code)
            }
            Ok(Some((Answer::Accepted | Answer::Refused(_), _))) | Ok(None) | Err(_) => {
                let how = child.and_then(|child| ended(child, END)).map(|status| format!(" ({status})"));
                Err(format!(
                    "the process of PROCESS '{name}' is gone{}: it was killed or has crashed, and every node of the group \
                     ends with it",
                    how.unwrap_or_default()
                ))
            }
        }
    }
}

/// How a process has ended; `None` where it still runs after `patience`.
fn ended(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if began.elapsed() < patience => std::thread::sleep(TRY_AGAIN),
            Ok(ended) => return ended,
            Err(_) => return None,
        }
    }
}
