//! Memory and processor time of a node. The kernel counts them by process: the nodes of one process have equal shares, so
//! that a sum over nodes counts nothing twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What a process, or a node in it, uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// Processor time since the start.
    pub(crate) cpu_ns: u64,
}

/// Shares the processor time of this process out to its nodes: the time that was shared out so far, and each node's part.
#[derive(Debug)]
struct CpuShares {
    shared_ns: u64,
    next: u64,
    accounts: BTreeMap<u64, u64>,
}

impl CpuShares {
    const fn new() -> Self {
        Self { shared_ns: 0, next: 0, accounts: BTreeMap::new() }
    }

    fn open(&mut self) -> u64 {
        self.next += 1;
        self.accounts.insert(self.next, 0);
        self.next
    }

    /// Shares out what was used since the last call, and gives the usage of one account.
    fn look(&mut self, account: u64, process: Usage) -> Usage {
        let stages = self.accounts.len().max(1) as u64;
        let share_ns = process.cpu_ns.saturating_sub(self.shared_ns) / stages;
        self.shared_ns += share_ns * stages;
        self.accounts.values_mut().for_each(|ns| *ns += share_ns);
        let cpu_ns = self.accounts.get(&account).copied().unwrap_or_default();
        Usage { rss_bytes: process.rss_bytes / stages, cpu_ns }
    }
}

static CPU_SHARES: Mutex<CpuShares> = Mutex::new(CpuShares::new());

/// A node's share of its process. Closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Account(u64);

impl Account {
    pub(crate) fn open() -> Self {
        Self(CPU_SHARES.lock().unwrap_or_else(PoisonError::into_inner).open())
    }

    pub(crate) fn usage(&self) -> Usage {
        CPU_SHARES.lock().unwrap_or_else(PoisonError::into_inner).look(self.0, of_process())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        CPU_SHARES.lock().unwrap_or_else(PoisonError::into_inner).accounts.remove(&self.0);
    }
}

/// What this process uses, by proc(5); nothing where `/proc` does not say.
pub(crate) fn of_process() -> Usage {
    let read = || {
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let rss_bytes = pages * rustix::param::page_size() as u64;
        Some(Usage { rss_bytes, cpu_ns: (user + system) * tick_ns })
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{CpuShares, Usage};

    #[test]
    fn what_a_process_uses_is_shared_out_once() {
        let process = |cpu_ns| Usage { rss_bytes: 900, cpu_ns };
        let mut shares = CpuShares::new();
        let [a, b] = [shares.open(), shares.open()];
        assert_eq!(shares.look(a, process(100)), Usage { rss_bytes: 450, cpu_ns: 50 });
        assert_eq!(shares.look(b, process(100)).cpu_ns, 50, "looked at twice, shared once");
        let c = shares.open();
        assert_eq!(shares.look(c, process(401)), Usage { rss_bytes: 300, cpu_ns: 100 });
        shares.accounts.remove(&a);
        // the remainder of a division is not lost
        let now = [b, c].map(|account| shares.look(account, process(403)).cpu_ns);
        assert_eq!(now, [151, 101]);
        assert_eq!(150 + now[0] + now[1] + 1, 403, "a had 150 when it left");
    }
}
