//! Processes, told apart for good: a number may be used again, a number and a start time are not.

use std::sync::OnceLock;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u64,
    /// In the kernel's ticks since it started.
    pub(crate) started: u64,
}

/// This process, as it was when first asked for: a fork is not the process that initialized the driver.
pub(crate) fn me() -> Identity {
    static ME: OnceLock<Identity> = OnceLock::new();
    *ME.get_or_init(|| {
        let pid = u64::from(std::process::id());
        Identity { pid, started: started(pid).unwrap_or(0) }
    })
}

/// Whether it lives. A zombie does not: the kernel has taken its memory and files.
pub(crate) fn lives(who: Identity) -> bool {
    who == me() || started(who.pid) == Some(who.started)
}

fn started(pid: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name before may hold anything, but the last parenthesis is its end; proc_pid_stat(5) numbers from 1
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(22 - 4)?.parse().ok()
}
