//! Where an experiment ran, and when.

use super::gpu::Probe;
use super::plan::Plan;
use crate::dora;
use millrace_ab::model::Machine;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// The facts of this machine, with the GPUs that `plan` works on.
pub(crate) fn machine(plan: &Plan) -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let (gpu, driver) = Probe::of(plan).names().unzip();
    Machine {
        cpu: cpu.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()),
        cores: std::thread::available_parallelism().map_or(0, |n| n.get() as u32),
        memory_bytes: memory.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) << 10,
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        gpu,
        driver,
        versions: vec![("millrace".to_owned(), version()), ("dora".to_owned(), dora::VERSION.to_owned())],
    }
}

/// Our version, with the commit of the working copy that this program was built in.
fn version() -> String {
    let own = env!("CARGO_PKG_VERSION").to_owned();
    let Some(folder) = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_path_buf())) else {
        return own;
    };
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(args).current_dir(&folder).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return own };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    format!("{own} ({commit}{})", if changed { ", with changes" } else { "" })
}

/// Today, UTC, as `2026-11-24`.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    date(seconds / 86_400)
}

/// The day so many days after 1970-01-01.
fn date(mut days: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // by date -u -d @SECONDS
        for (days, text) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_781, "2026-11-24")] {
            assert_eq!(date(days), text);
        }
    }
}
