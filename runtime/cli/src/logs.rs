//! dora's logs of the last runs.

use crate::dora;
use anyhow::Context;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    dora::target_folder().unwrap_or_else(std::env::temp_dir).join("millrace-logs")
}

/// A log of this run, beside the last ones. Logs of runs that go on are left alone, however many came later.
pub(crate) fn log_file(stem: &str) -> anyhow::Result<PathBuf> {
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    remove_old_logs(&folder);
    Ok(folder.join(format!("{stem}-{}.log", std::process::id())))
}

/// The newest log of graphs of this name, or of all.
pub(crate) fn newest(folder: &Path, stem: Option<&str>) -> Option<PathBuf> {
    let is_of = |path: &Path| {
        let name = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
        name.is_some_and(|(of, number)| number.parse::<u32>().is_ok() && stem.is_none_or(|stem| of == stem))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = entries.map(|entry| entry.path()).filter(|path| is_of(path));
    logs.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

/// Keeps the last logs, and those of runs that go on: dora and its nodes hold a lock on theirs.
fn remove_old_logs(folder: &Path) {
    const KEPT: usize = 20;
    let mut old: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    old.sort();
    for (_, path) in old.iter().take(old.len().saturating_sub(KEPT - 1)) {
        let Ok(log) = File::open(path) else { continue };
        if log.try_lock().is_ok() {
            // Another run may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The stream or the level of a line and its node, as dora 1.1 writes them: `14:02:11 stdout detect:  WARN …`.
pub(crate) fn origin(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace().skip(1);
    Some((words.next()?, words.next()?.strip_suffix(':')?))
}

/// Blank lines, stack traces without names, and what dora 1.1 logs of its own workings.
pub(crate) fn is_noise(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_frame = number.len() < line.len() && number.starts_with(": ");
    line.is_empty()
        || is_frame
        || line.starts_with("at ")
        || line.starts_with("Stack backtrace")
        || line.contains("diagnostic)")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::procs::Family;
    use crate::run::start;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;
    use std::time::{Duration, Instant};

    #[test]
    fn the_newest_log_of_a_graph_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (age_s, name) in [(30, "demo-7.log"), (20, "demo-12.log"), (10, "demo-gpu-9.log"), (0, "notes.log")] {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
        }
        let newest = |stem| newest(folder.path(), stem).map(|path| path.file_name().unwrap().to_owned());
        assert_eq!(newest(Some("demo")).unwrap(), "demo-12.log");
        assert_eq!(newest(None).unwrap(), "demo-gpu-9.log");
        assert_eq!(newest(Some("dem")), None);
    }

    #[test]
    fn the_log_of_a_run_that_goes_on_is_kept_however_many_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let aged = |path: &Path, age_s: u64| {
            let file = File::options().create(true).append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
        };
        // the oldest of all, and what dora started still runs; a script stands in for dora
        let elsewhere = tempfile::tempdir().unwrap();
        let dora = elsewhere.path().join("dora");
        std::fs::write(&dora, "#!/bin/sh\nsleep 600 &\nwait\n").unwrap();
        std::fs::set_permissions(&dora, std::fs::Permissions::from_mode(0o700)).unwrap();
        let log = folder.path().join("long-1.log");
        let mut child = start(&dora, Path::new("graph.yml"), Path::new("/none"), &log).unwrap();
        aged(&log, 5_000);
        let later: Vec<PathBuf> = (0..30).map(|n| folder.path().join(format!("g-{n}.log"))).collect();
        for (n, path) in later.iter().enumerate() {
            aged(path, 1_000 - n as u64);
        }
        remove_old_logs(folder.path());
        let kept = later.iter().filter(|path| path.exists()).count();
        assert!(log.exists() && child.try_wait().unwrap().is_none());
        assert_eq!(kept, 19, "the newest of those that have ended");
        let mut family = Family::of(child.id());
        family.kill();
        child.wait().unwrap();
        assert!(family.gone_within(Duration::from_secs(10)));
        aged(&log, 5_000);
        // a process that was not seen yet may take a moment to die
        let start = Instant::now();
        while log.exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "nobody writes there any more");
            remove_old_logs(folder.path());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
