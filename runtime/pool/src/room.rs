//! How much memory a pool can be made of. The kernel does not refuse a memfd that the machine cannot hold: it fills the
//! memory and then kills a process of its choice, and a file-size limit is a deadly signal. So both are asked before.

use std::fs;
use std::path::Path;

/// Bytes that this process can still put into one shared file, and what sets that limit. `None`: nothing says.
pub(crate) fn left() -> Option<(u64, String)> {
    let file_size = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let file_size = file_size.map(|bytes| (bytes, "the file-size limit, ulimit -f".to_owned()));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let machine = machine.map(|bytes| (bytes, "the memory available on this machine".to_owned()));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_left(&text));
    [file_size, machine, group].into_iter().flatten().min()
}

fn available(meminfo: &str) -> Option<u64> {
    // proc_meminfo(5): an estimate, without swapping
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least that any control group of this process leaves.
fn group_left(of_self: &str) -> Option<(u64, String)> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/').to_owned());
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", "memory.current", path)),
            c if c.split(',').any(|c| c == "memory") => {
                Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", path))
            }
            _ => None,
        }
    };
    let groups = of_self.lines().filter_map(line).flat_map(|(root, max, used, path)| {
        let ancestors = Path::new(&path).ancestors().map(|part| Path::new(root).join(part)).collect::<Vec<_>>();
        ancestors.into_iter().filter_map(move |dir| Some((one_group_left(&dir, max, used)?, dir)))
    });
    groups.min().map(|(bytes, dir)| (bytes, format!("the memory limit of the control group {}", dir.display())))
}

fn one_group_left(dir: &Path, max: &str, used: &str) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
    let max = number(max)?; // "max" is no number: no limit here
    let used = number(used)?;
    // the page cache counts as used and makes room when asked
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        matches!(key, "inactive_file" | "active_file").then(|| value.parse::<u64>().ok()).flatten()
    });
    Some(max.saturating_sub(used.saturating_sub(cache.sum())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(available("MemTotal:  8 kB\nMemFree: 1 kB\nMemAvailable:    5368 kB\n"), Some(5368 * 1024));
        assert_eq!(available("MemTotal:  8 kB\n"), None);
        assert_eq!(available("MemAvailable: lots kB\n"), None);
        let (bytes, _) = left().unwrap();
        assert!((1 << 20..1 << 50).contains(&bytes), "{bytes} bytes left");
    }

    #[test]
    fn a_control_group_leaves_its_limit_less_what_is_used_and_not_cache() {
        let dir = std::env::temp_dir().join(format!("millrace-room-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let write = |file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(one_group_left(&dir, "memory.max", "memory.current"), None);
        write("memory.max", "1000\n");
        assert_eq!(one_group_left(&dir, "memory.max", "memory.current"), Some(300));
        write("memory.stat", "anon 500\ninactive_file 150\nactive_file 50\n");
        assert_eq!(one_group_left(&dir, "memory.max", "memory.current"), Some(500));
        write("memory.current", "1700\n");
        assert_eq!(one_group_left(&dir, "memory.max", "memory.current"), Some(0));
        fs::remove_dir_all(&dir).unwrap();
    }
}
