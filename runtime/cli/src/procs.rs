//! The processes of a run: dora and all that descend from it, and what they have in shared memory.

use crate::vitals::Process;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process that cannot be taken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    pid: i32,
    /// In clock ticks since boot.
    started: u64,
}

impl Member {
    /// Sends it a signal; false where it has ended.
    fn signal(self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        // The handle may be of a later process with this number; with the handle held, the start time decides.
        let is_it = stat(self.pid).is_some_and(|(_, started)| started == self.started);
        is_it && pidfd_send_signal(&handle, signal).is_ok()
    }
}

/// A family of processes, as far as it has been seen.
pub(crate) struct Family {
    root: i32,
    members: BTreeSet<Member>,
    segments: BTreeSet<PathBuf>,
}

impl Family {
    /// The family of the process `root`, which leads a process group.
    pub(crate) fn of(root: u32) -> Self {
        Self { root: i32::try_from(root).unwrap_or(0), members: BTreeSet::new(), segments: BTreeSet::new() }
    }

    /// Looks who has come; to be called now and then, as those whose parent has died can't be found later.
    pub(crate) fn look(&mut self) {
        let all = all_processes();
        let mut known: BTreeSet<i32> = self.living().map(|process| process.pid).collect();
        known.insert(self.root);
        // Parents may come after their children in the listing.
        loop {
            let found: Vec<i32> = all
                .iter()
                .filter(|(pid, (parent, _))| known.contains(parent) && !known.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if found.is_empty() {
                break;
            }
            known.extend(found);
        }
        for pid in known {
            if let Some((_, started)) = all.get(&pid) {
                self.members.insert(Member { pid, started: *started });
                self.segments.extend(shared_segments(pid));
            }
        }
    }

    fn living(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|process| stat(process.pid).is_some_and(|(_, started)| started == process.started))
    }

    /// What the process `pid` does; 0 means an unknown process.
    pub(crate) fn process(&self, pid: u32) -> Process {
        let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return Process::Unknown };
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, started)) = parse_stat(&text) else { return Process::Ended };
        let mut known = self.members.iter().filter(|member| member.pid == pid).peekable();
        if known.peek().is_some() && !known.any(|member| member.started == started) {
            // another one that got its number
            return Process::Ended;
        }
        if is_stopped(&text) { Process::Stopped } else { Process::Runs }
    }

    /// Somebody of them runs.
    pub(crate) fn lives(&self) -> bool {
        self.living().next().is_some()
    }

    /// Waits until nobody of them runs; false where somebody still does.
    pub(crate) fn gone_within(&self, patience: Duration) -> bool {
        let start = Instant::now();
        while self.lives() {
            if start.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Those of them that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.living().filter_map(|process| u32::try_from(process.pid).ok()).collect()
    }

    /// Sends a signal to one of them; false where `pid` is none of them, or has ended.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) -> bool {
        self.living().filter(|process| u32::try_from(process.pid) == Ok(pid)).any(|process| process.signal(signal))
    }

    /// Sends a signal to dora alone.
    pub(crate) fn signal_root(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.root) {
            // It may be gone already.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Kills all of them.
    pub(crate) fn kill(&mut self) {
        self.look();
        self.signal_root(Signal::KILL);
        for process in self.living() {
            // It may be gone already.
            let _ = process.signal(Signal::KILL);
        }
    }

    /// Removes the shared-memory segments that the family left behind.
    ///
    /// zenoh, which dora uses, names its segments `NUMBER.zenoh`, and the CUDA driver `cuda.shm.USER.PROCESS.NUMBER`; both
    /// remove them themselves unless they are killed.
    pub(crate) fn sweep(&self) {
        let left: Vec<&PathBuf> = self.segments.iter().filter(|path| path.exists()).collect();
        if left.is_empty() || self.lives() {
            return;
        }
        let in_use: BTreeSet<PathBuf> = all_processes().keys().flat_map(|pid| shared_segments(*pid)).collect();
        for path in left.into_iter().filter(|path| !in_use.contains(*path)) {
            // It may be another user's by now, or gone.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Memory of a process by its proportional share: pages that several have are counted once in the sum.
pub(crate) fn pss_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

/// Parent and start time of every process.
fn all_processes() -> BTreeMap<i32, (i32, u64)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Parent and start time of a process that is not a zombie.
fn stat(pid: i32) -> Option<(i32, u64)> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(i32, u64)> {
    // The name in parentheses may hold anything, parentheses and blanks too.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// Somebody stopped it, or traces it.
fn is_stopped(stat: &str) -> bool {
    stat.rfind(')').is_some_and(|at| stat[at + 1..].trim_start().starts_with(['T', 't']))
}

/// zenoh's and CUDA's segments in a process's memory map.
fn shared_segments(pid: i32) -> Vec<PathBuf> {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else { return Vec::new() };
    parse_maps(&maps)
}

fn parse_maps(maps: &str) -> Vec<PathBuf> {
    let paths = maps.lines().filter_map(|line| Some(&line[line.find("/dev/shm/")?..]));
    let ours = |path: &&str| path.ends_with(".zenoh") || path.starts_with("/dev/shm/cuda.shm.");
    paths.filter(ours).map(|path| Path::new(path).to_path_buf()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn reads_stat_lines() {
        let line = "123 (a b) c) S 7 123 123 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(parse_stat(line), Some((7, 987_654)));
        assert_eq!(parse_stat(&line.replace(" S ", " Z ")), None);
        assert_eq!(parse_stat("nonsense"), None);
        assert!(is_stopped(&line.replace(" S ", " T ")) && !is_stopped(line));
    }

    #[test]
    fn reads_maps() {
        let maps =
            "7f00-7f01 rw-s 00000000 00:1b 6      /dev/shm/331774729.zenoh\n7f02-7f03 rw-s 0 00:1b 7 /dev/shm/other\n";
        assert_eq!(parse_maps(maps), [PathBuf::from("/dev/shm/331774729.zenoh")]);
        let cuda = "7f0000000000-7f0000001000 rw-s 00000000 00:19 5 /dev/shm/cuda.shm.0.94d.1\n";
        assert_eq!(parse_maps(cuda), [PathBuf::from("/dev/shm/cuda.shm.0.94d.1")]);
    }

    #[test]
    fn a_process_is_seen_to_stop_and_to_end() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut family = Family::of(child.id());
        family.look();
        let state = |family: &Family| family.process(child.id());
        assert_eq!((state(&family), family.process(0)), (Process::Runs, Process::Unknown));
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        let start = Instant::now();
        while state(&family) != Process::Stopped && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(state(&family), Process::Stopped);
        // another process with its number is not taken for it
        let started = family.members.iter().next().unwrap().started;
        let another = Member { pid: child.id() as i32, started: started + 1 };
        assert_eq!(Family { members: [another].into(), ..Family::of(child.id()) }.process(child.id()), Process::Ended);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(family.process(child.id()), Process::Ended);
    }

    #[test]
    fn kills_grandchildren_in_groups_of_their_own() {
        let script = "setsid sleep 600 & echo started; wait";
        let mut child = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
        let mut family = Family::of(child.id());
        let start = Instant::now();
        while family.members.len() < 2 && start.elapsed() < Duration::from_secs(10) {
            family.look();
        }
        assert!(family.members.len() >= 2, "the grandchild was not seen");
        family.kill();
        child.wait().unwrap();
        assert!(family.gone_within(Duration::from_secs(10)));
    }
}
