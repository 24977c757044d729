//! The journal of a switch: written before each step, so that the next command after a `kill -9` knows what runs.

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::measure::Measures;

/// Where a node is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Runs {
    /// A's definition runs, and nothing was done.
    A,
    /// A replacement was asked for: either runs.
    Either,
    /// B's definition runs.
    B,
}

/// One node that the switch changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Its id.
    pub(crate) node: String,
    /// Which definition runs.
    pub(crate) runs: Runs,
    /// How A defines it, as dora takes it.
    pub(crate) a: Value,
    /// How B does.
    pub(crate) b: Value,
}

/// All that a switch needs to go on, or back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Version of this form: 1.
    pub(crate) v: u32,
    /// The dataflow's id.
    pub(crate) dataflow: String,
    /// Its name, where it has one.
    pub(crate) name: String,
    /// B's file as the user named it.
    pub(crate) graph: String,
    /// The guard's expression.
    pub(crate) guard: String,
    /// How long B is watched, in milliseconds.
    pub(crate) watch_ms: u64,
    /// It was decided to put A back, for this reason.
    pub(crate) back: Option<String>,
    /// What A did, measured before.
    pub(crate) before: Measures,
    /// The nodes in the order in which they are replaced.
    pub(crate) steps: Vec<Step>,
}

/// The lock on a dataflow's journal: one switch at a time works on a dataflow.
pub(crate) struct JournalLock {
    file: PathBuf,
    _lock: File,
}

impl JournalLock {
    /// Locks the journal of this dataflow.
    pub(crate) fn of(dataflow: &str) -> anyhow::Result<Self> {
        Self::within(&state_folder()?, dataflow)
    }

    fn within(folder: &Path, dataflow: &str) -> anyhow::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        // a definition may hold a camera's password
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("the folder for the journal, {}, cannot be made", folder.display()))?;
        let path = folder.join(format!("{dataflow}.lock"));
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.with_context(|| format!("{} cannot be made", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another 'millrace switch' works on this dataflow right now; let it finish");
        }
        Ok(Self { file: folder.join(format!("{dataflow}.json")), _lock: lock })
    }

    /// The journal that an earlier switch left open.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Journal>> {
        let bytes = match std::fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("the journal {} cannot be read", self.file.display())),
        };
        let journal: Journal = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no journal of 'millrace switch'", self.file.display()))?;
        if journal.v != 1 {
            bail!("the journal {} is of version {}, this program knows 1", self.file.display(), journal.v);
        }
        Ok(Some(journal))
    }

    /// Writes it; when this returns it is on the disk.
    pub(crate) fn write(&self, journal: &Journal) -> anyhow::Result<()> {
        let fresh = self.file.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(journal)?)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.file)?;
            self.sync_folder()
        };
        write().with_context(|| format!("the journal {} cannot be written", self.file.display()))
    }

    /// Ends it: nothing is open any more.
    pub(crate) fn close(&self) -> anyhow::Result<()> {
        let remove = || -> std::io::Result<()> {
            std::fs::remove_file(&self.file)?;
            self.sync_folder()
        };
        remove().with_context(|| format!("the journal {} cannot be removed", self.file.display()))
    }

    fn sync_folder(&self) -> std::io::Result<()> {
        File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }
}

fn state_folder() -> anyhow::Result<PathBuf> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = given("XDG_STATE_HOME").or_else(|| given("HOME").map(|home| home.join(".local/state")));
    Ok(state
        .context("neither XDG_STATE_HOME nor HOME is set: there is no place for the journal")?
        .join("millrace/switch"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_journal_comes_back_as_it_was_written_and_one_switch_has_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let journal_lock = JournalLock::within(folder.path(), "flow").unwrap();
        assert!(journal_lock.read().unwrap().is_none());
        let step = Step {
            node: "detect".into(),
            runs: Runs::Either,
            a: serde_json::json!({ "id": "detect", "env": { "SCORE": 0.5 } }),
            b: Value::Null,
        };
        let journal = Journal {
            v: 1,
            dataflow: "flow".into(),
            name: "cams".into(),
            graph: "b.yml".into(),
            guard: "fps >= 1x".into(),
            watch_ms: 1,
            back: None,
            before: Measures::default(),
            steps: vec![step],
        };
        journal_lock.write(&journal).unwrap();
        let read = journal_lock.read().unwrap().unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&journal).unwrap());
        assert!(JournalLock::within(folder.path(), "flow").is_err(), "locked");
        journal_lock.close().unwrap();
        assert!(journal_lock.read().unwrap().is_none());
        drop(journal_lock);
        let journal_lock = JournalLock::within(folder.path(), "flow").unwrap();
        std::fs::write(journal_lock.path(), "{}").unwrap();
        assert!(journal_lock.read().is_err());
    }
}
