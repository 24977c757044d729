//! Whether a process is still the one that wrote its name: by pid and start time, so that a reused pid fools nobody.

use rustix::io::Errno;
use std::io::Read;
use std::{fs, io};

/// A process as one word: the pid in the high half, the low half of its start time in clock ticks since boot in the low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// `/proc` is not mounted, or shows another pid namespace than the one that this process runs in: others could not
    /// find it there, and would take it for dead.
    pub fn me() -> io::Result<Self> {
        let pid = std::process::id();
        let link = fs::read_link("/proc/self")?;
        if link.as_os_str() != pid.to_string().as_str() {
            return Err(io::Error::other(format!("/proc shows process {pid} as {}", link.display())));
        }
        Self::of(pid)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The process that has this pid now; `None` if there is none, or it has ended and was not waited for.
    ///
    /// # Errors
    /// `/proc` does not say, for one because this process has no file descriptor left: that proves nobody's death.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        // proc(5): the command in parentheses may itself contain any character
        let mut stat = Vec::with_capacity(512);
        match fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read_to_end(&mut stat)) {
            Ok(_) => {}
            // it may end between our open and our read
            Err(e) if e.kind() == io::ErrorKind::NotFound || Errno::from_io_error(&e) == Some(Errno::SRCH) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        let stat = String::from_utf8_lossy(&stat);
        let parsed = stat.rfind(')').and_then(|end| {
            // fields 3, 20 and 22
            let mut fields = stat[end + 1..].split_ascii_whitespace();
            let ended = matches!(fields.next()?, "Z" | "X" | "x");
            let threads: u32 = fields.nth(16)?.parse().ok()?;
            let start_ticks: u64 = fields.nth(1)?.parse().ok()?;
            Some((ended, threads, start_ticks))
        });
        let (ended, threads, start_ticks) = parsed.ok_or(io::ErrorKind::InvalidData)?;
        // A killed process turns zombie with its first thread, and another may still be on its last instructions.
        let gone = ended && threads <= 1;
        Ok((!gone).then_some(Self(u64::from(pid) << 32 | (start_ticks & 0xffff_ffff))))
    }

    /// Its pid.
    pub fn pid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// It runs no more. What cannot be found out is presumed alive: to take the leases of the living means to write what
    /// they read.
    pub fn is_dead(self) -> bool {
        Self::of(self.pid()).is_ok_and(|now| now != Some(self))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_alive_until_it_is_killed_and_a_zombie_is_dead() {
        assert!(!Owner::me().unwrap().is_dead());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner::of(child.id()).unwrap().unwrap();
        assert_eq!(owner.pid(), child.id());
        assert!(!owner.is_dead());
        child.kill().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !owner.is_dead() {
            assert!(std::time::Instant::now() < until, "killed, not yet waited for: a zombie, which leases nothing");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(owner.is_dead());
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_the_owner() {
        let me = Owner::me().unwrap();
        assert!(Owner(me.0 ^ 1).is_dead());
    }
}
