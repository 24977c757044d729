//! The folder of a soak: its record and its page, and what a soak that was interrupted goes on from.

use super::shell::Shell;
use anyhow::{Context, anyhow, bail};
use millrace_ab::soak::{Break, Soak};
use millrace_ab::{soak_html, soak_json, soak_read};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Interruptions that are kept.
const MOST_BREAKS: usize = 1_000;

/// Such a folder, which no other soak uses meanwhile.
pub(super) struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the folder where it is not there.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let path = folder.join("soak.lock");
        let lock = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
        if lock.try_lock().is_err() {
            bail!("another soak runs in {}; name another folder by --out", folder.display());
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    fn record(&self) -> PathBuf {
        self.folder.join("soak.json")
    }

    /// The page.
    pub(super) fn page(&self) -> PathBuf {
        self.folder.join("soak.html")
    }

    /// The soak that was begun here, or this one where there is none.
    pub(super) fn go_on(&self, fresh: Soak) -> anyhow::Result<Soak> {
        let path = self.record();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let path = path.display();
        let mut soak = soak_read(&text)
            .map_err(|why| anyhow!("{path}: {why}; name another folder by --out, or remove the file"))?;
        for (what, same) in [
            ("graph", soak.graph == fresh.graph),
            ("settings (--set)", soak.sets == fresh.sets),
            ("faults", soak.schedule == fresh.schedule),
        ] {
            if !same {
                bail!("{path} is of a soak with other {what}; name another folder by --out, or remove the file");
            }
        }
        if soak.measured_s >= fresh.asked.seconds {
            bail!(
                "the soak in {path} is over, after {} s; name another folder by --out, remove the file, or go on with a longer \
                 --for",
                soak.measured_s.round()
            );
        }
        let away = std::fs::metadata(self.record()).and_then(|about| about.modified()).ok();
        let away = away.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        // a soak that is started again and again without end keeps the last of them
        let kept = soak.breaks.len().saturating_sub(MOST_BREAKS - 1);
        soak.breaks.drain(..kept);
        soak.breaks.push(Break { at_s: soak.measured_s, seconds: away.as_secs_f64() });
        (soak.asked, soak.command, soak.complete) = (fresh.asked, fresh.command, false);
        soak.event("the soak goes on after an interruption".to_owned());
        if let Some(undo) = soak.pending_undo.take() {
            let outcome = Shell::begin(&undo).map_err(|error| error.to_string()).and_then(Shell::finish);
            let how = outcome.map_or_else(|why| format!(", which {why}"), |()| String::new());
            soak.event(format!("the fault that went on was undone by '{undo}'{how}"));
        }
        Ok(soak)
    }

    /// Writes the record and the page. One that is cut off leaves the one before.
    pub(super) fn save(&self, soak: &Soak) -> anyhow::Result<()> {
        for (path, text) in [(self.record(), soak_json(soak)?), (self.page(), soak_html(soak))] {
            let new = path.with_extension("new");
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, &path))
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(())
    }
}

/// What another judge found wrong.
pub(super) fn problems(file: &Path) -> anyhow::Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Judged {
        problems: Vec<String>,
    }
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("the other judge's file {} cannot be read", file.display()))?;
    let judged: Judged = serde_json::from_str(&text)
        .with_context(|| format!("{} is no JSON with a list 'problems' of texts", file.display()))?;
    Ok(judged.problems)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
