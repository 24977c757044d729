//! Whether a process is still the one that wrote its name: by pid and start time, so that a reused pid fools nobody.

use std::fs;

/// A process as one word: the pid in the high half, the low half of its start time in clock ticks since boot in the low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

impl Owner {
    /// This process.
    ///
    /// # Panics
    /// Where `/proc` is not mounted: no process can prove itself there.
    pub fn me() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or_else(|| panic!("/proc/{pid}/stat cannot be read: Millrace needs /proc"))
    }

    /// The process that has this pid now; `None` if there is none, or it is a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the command in parentheses may itself contain any character; state is field 3, starttime field 22
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        let start_ticks: u64 = fields.nth(18)?.parse().ok()?;
        Some(Self(u64::from(pid) << 32 | (start_ticks & 0xffff_ffff)))
    }

    /// Its pid.
    pub fn pid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// It runs no more.
    pub fn is_dead(self) -> bool {
        Self::of(self.pid()) != Some(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_alive_until_it_is_killed_and_a_zombie_is_dead() {
        assert!(!Owner::me().is_dead());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner::of(child.id()).unwrap();
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
        let me = Owner::me();
        assert!(Owner(me.0 ^ 1).is_dead());
    }
}
