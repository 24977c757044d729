//! Commands of the file of faults.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A command that begins or ends a fault is over within this time, or is killed.
const LONGEST: Duration = Duration::from_secs(30);

/// A command while it runs. Its output goes to the terminal.
pub(super) struct Shell {
    child: Child,
    began: Instant,
}

impl Shell {
    /// Starts it in the folder of the soak itself.
    pub(super) fn begin(command: &str) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        // in a group of its own, Ctrl-C does not reach it, and all of it can be ended
        let child = shell.args(["-c", command]).stdin(Stdio::null()).process_group(0).spawn()?;
        Ok(Self { child, began: Instant::now() })
    }

    /// How it ended, in words where it did not as it should; none while it runs.
    pub(super) fn outcome(&mut self) -> Option<Result<(), String>> {
        match self.child.try_wait() {
            Ok(Some(status)) if status.success() => Some(Ok(())),
            Ok(Some(status)) => Some(Err(format!("failed ({status})"))),
            Ok(None) if self.began.elapsed() < LONGEST => None,
            Ok(None) => {
                self.kill();
                Some(Err(format!("did not end within {} s, and was killed", LONGEST.as_secs())))
            }
            Err(error) => Some(Err(format!("cannot be waited for: {error}"))),
        }
    }

    /// Waits for its end.
    pub(super) fn finish(mut self) -> Result<(), String> {
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // it may have ended this moment
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_says_how_it_ended() {
        let run = |command: &str| Shell::begin(command).unwrap().finish();
        assert_eq!(run("true"), Ok(()));
        assert_eq!(run("exit 3"), Err("failed (exit status: 3)".to_owned()));
        assert!(run("no-such-command-anywhere 2>&-").unwrap_err().contains("127"));
        let mut slow = Shell::begin("sleep 600 & wait").unwrap();
        assert_eq!(slow.outcome(), None);
        slow.began = slow.began.checked_sub(LONGEST).unwrap();
        assert!(slow.outcome().unwrap().unwrap_err().contains("did not end within 30 s"));
    }
}
