//! What graphs need of the machine, GPU or not.

use super::check::{Check, Need};
use crate::dora;
use millrace_sandbox::Offer;
use rustix::fs::MemfdFlags;
use rustix::process::{Resource, getrlimit};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A graph of this many nodes is what the report thinks of; the shipped ones have fewer.
const NODES: usize = 8;
/// What most systems start with. A node opens a few descriptors for each pool that it reads and each camera.
const OPEN_FILES: u64 = 1024;

/// All of them.
pub(super) fn checks() -> Vec<Check> {
    vec![cores(), memory(), shm(), memfd(), open_files(), locked_memory(), ptrace(), sandbox(), dora_cli()]
}

fn cores() -> Check {
    match std::thread::available_parallelism() {
        Ok(cores) => Check::ok("cores", Need::Cpu, format!("{cores} for this process")),
        Err(e) => Check::warn("cores", Need::Cpu, format!("not known: {e}"), "look at the container's CPU limit"),
    }
}

/// A number of `/proc/meminfo`, which counts in KiB.
fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    let limit = limit.trim().parse().ok().map(|bytes| format!(", {} for this container", gib(bytes)));
    match (meminfo_bytes(&text, "MemTotal"), meminfo_bytes(&text, "MemAvailable")) {
        (Some(total), Some(free)) => {
            let limit = limit.unwrap_or_default();
            Check::ok("memory", Need::Cpu, format!("{} of {} available{limit}", gib(free), gib(total)))
        }
        _ => Check::warn("memory", Need::Cpu, "/proc/meminfo does not tell", "mount /proc"),
    }
}

fn shm() -> Check {
    let size = rustix::fs::statvfs("/dev/shm").map(|fs| {
        format!("{} MiB of {} MiB free", (fs.f_bavail * fs.f_frsize) >> 20, (fs.f_blocks * fs.f_frsize) >> 20)
    });
    match (dora::has_room(NODES), size) {
        (Ok(()), Ok(size)) => Check::ok("/dev/shm", Need::Cpu, size),
        (Ok(()), Err(e)) => Check::missing("/dev/shm", Need::Cpu, format!("not readable: {e}"), "mount a tmpfs there"),
        (Err(why), size) => Check::missing("/dev/shm", Need::Cpu, size.unwrap_or("none".into()), format!("{why:#}")),
    }
}

/// Pools are files in memory, which other processes open by this process's number.
fn memfd() -> Check {
    let make = || -> Result<(), String> {
        let file = rustix::fs::memfd_create("millrace-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|e| format!("memfd_create: {e}"))?;
        rustix::fs::ftruncate(&file, 4096).map_err(|e| format!("ftruncate of a memfd: {e}"))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        std::fs::File::open(&path).map_err(|e| format!("opening {path}: {e}"))?;
        Ok(())
    };
    match make() {
        Ok(()) => Check::ok("memfd", Need::Cpu, "made, and opened through /proc/PID/fd"),
        Err(why) => Check::missing(
            "memfd",
            Need::Cpu,
            why,
            "frame pools need Linux 3.17 or newer with /proc mounted, and a sandbox that allows memfd_create",
        ),
    }
}

fn open_files() -> Check {
    let limit = getrlimit(Resource::Nofile);
    let text = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let value = format!("{} (hard limit {})", text(limit.current), text(limit.maximum));
    match limit.current {
        Some(files) if files < OPEN_FILES => {
            Check::warn("open files", Need::Cpu, value, format!("`ulimit -n {OPEN_FILES}` before the start, or more"))
        }
        _ => Check::ok("open files", Need::Cpu, value),
    }
}

fn locked_memory() -> Check {
    let limit = getrlimit(Resource::Memlock).current;
    let value = limit.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
    Check::ok("locked memory", Need::Option, format!("{value}; Millrace locks none by itself"))
}

/// Descriptors of GPU memory are taken from the process that made them, which Yama may forbid.
fn ptrace() -> Check {
    const NAME: &str = "ptrace";
    let path = Path::new("/proc/sys/kernel/yama/ptrace_scope");
    match std::fs::read_to_string(path).ok().as_deref().map(str::trim) {
        None => Check::ok(NAME, Need::Option, "not limited by Yama"),
        Some("0") => Check::ok(NAME, Need::Option, "0: processes of one user reach each other"),
        Some("1") => {
            Check::ok(NAME, Need::Option, "1: processes that allow it are reached, and pools of a GPU allow it")
        }
        Some(scope) => Check::warn(
            NAME,
            Need::Option,
            format!("{scope}: no process is reached by another"),
            "GPU memory is not shared by descriptor then; legacy IPC handles are not concerned. \
             `sysctl kernel.yama.ptrace_scope=1` allows it",
        ),
    }
}

/// What decoders give up before they read what strangers send.
fn sandbox() -> Check {
    const NAME: &str = "sandbox";
    let Offer { landlock, lacks, seccomp } = millrace_sandbox::offered();
    let mut without: Vec<String> = match landlock {
        0 => vec!["no Landlock: files and ports are not restricted".to_owned()],
        _ if lacks.is_empty() => Vec::new(),
        abi => vec![format!("Landlock ABI {abi} does not restrict {}", lacks.join(", "))],
    };
    without.extend(seccomp.err().map(|why| format!("system calls cannot be refused: {why}")));
    if without.is_empty() {
        return Check::ok(NAME, Need::Option, format!("Landlock ABI {landlock} and seccomp"));
    }
    Check::warn(
        NAME,
        Need::Option,
        without.join("; "),
        "decoders give up what this kernel allows; Linux 6.12 with Landlock among its security modules (`lsm=landlock,...` at \
         boot) and with seccomp has all of it, and a container's own profile must not forbid their system calls",
    )
}

fn dora_cli() -> Check {
    const NAME: &str = "dora";
    match (dora::found(), dora::installer()) {
        (Some(program), _) => Check::ok(NAME, Need::Cpu, format!("{} at {}", dora::VERSION, program.display())),
        (None, Some(python)) => Check::warn(
            NAME,
            Need::Cpu,
            format!("{} is not installed yet", dora::VERSION),
            format!("`millrace setup` installs it with {python}, and so does the first `millrace run`"),
        ),
        (None, None) => Check::missing(
            NAME,
            Need::Cpu,
            format!("{} is not installed, and there is no Python 3.11 or later with pip to install it", dora::VERSION),
            format!(
                "apt install python3 python3-pip, then `millrace setup`; or cargo install dora-cli --version {} --locked",
                dora::VERSION
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo() {
        let text = "MemTotal:       24576000 kB\nMemFree: 1 kB\nMemAvailable:   12288 kB\nHugePages_Total:       0\n";
        assert_eq!(meminfo_bytes(text, "MemTotal"), Some(25_165_824_000));
        assert_eq!(meminfo_bytes(text, "MemAvailable"), Some(12_582_912));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
        assert_eq!(meminfo_bytes(text, "HugePages_Total"), None);
    }
}
