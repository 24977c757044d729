//! The folder of one run: the graph as dora gets it, what starts the nodes, and the status socket.

use anyhow::Context;
use millrace_graph::check::Set;
use millrace_graph::describe::find_program;
use millrace_graph::model::{Graph, Node, Origin};
use millrace_graph::resolved;
use std::fs::{File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Removed when dropped.
pub(crate) struct Scratch {
    folder: PathBuf,
    /// Locked while the run lasts: its number alone would not say so to a `millrace` in a container that shares the folder.
    _lock: File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nobody to tell; a leftover in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The kernel's bound on a socket's path, less its final zero.
const LONGEST_SOCKET_BYTES: usize = 107;

impl Scratch {
    /// Makes the folder, for this user alone.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let name = format!("millrace-{}", std::process::id());
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() + name.len() + "//status".len() > LONGEST_SOCKET_BYTES {
            base = PathBuf::from("/tmp");
        }
        sweep(&base);
        for attempt in 0..100 {
            let folder = base.join(if attempt == 0 { name.clone() } else { format!("{name}-{attempt}") });
            match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => {
                    let lock = lock(&folder).with_context(|| format!("{} cannot be locked", folder.display()))?;
                    return Ok(Self { folder, _lock: lock });
                }
                // Left by an earlier process with this number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("{} cannot be made", folder.display())),
            }
        }
        anyhow::bail!("{} holds a hundred folders called {name}-…; delete them", base.display())
    }

    /// Where the nodes report to.
    pub(crate) fn status_path(&self) -> PathBuf {
        self.folder.join("status")
    }

    /// The socket behind it.
    pub(crate) fn status_socket(&self) -> anyhow::Result<UnixDatagram> {
        let path = self.status_path();
        UnixDatagram::bind(&path).with_context(|| format!("the status socket {} cannot be made", path.display()))
    }

    /// Writes the graph as dora is to run it, and gives its path.
    ///
    /// dora starts nodes in the graph file's folder, and this file is in another folder. So each node gets a script as its
    /// `path:` that changes to the graph's own folder and becomes the program.
    pub(crate) fn write_graph(
        &self,
        graph: &Graph,
        stem: &str,
        folder: &Path,
        sets: &[Set],
    ) -> anyhow::Result<PathBuf> {
        for node in graph.nodes.iter().filter(|node| node.origin == Origin::Program) {
            let Some(path) = &node.path else { continue };
            let program =
                find_program(&path.value, folder).with_context(|| format!("there is no program {}", path.value))?;
            self.write_script(node.index, &script_text(folder, &program, &node.id.value, sets))?;
        }
        let path =
            |node: &Node| (node.origin == Origin::Program).then(|| self.script_path(node.index).display().to_string());
        let mut json = resolved::to_json(graph, sets, &path);
        for node in json["nodes"].as_array_mut().into_iter().flatten().filter_map(|node| node.as_object_mut()) {
            // dora keeps what each node prints beside the graph, without a bound of its own
            node.entry("max_log_size").or_insert_with(|| "8MB".into());
            node.entry("max_rotated_files").or_insert_with(|| 1.into());
        }
        self.write_json(stem, &json)
    }

    /// Writes a graph, and gives its path.
    pub(crate) fn write_json(&self, stem: &str, json: &serde_json::Value) -> anyhow::Result<PathBuf> {
        let file = self.folder.join(format!("{stem}.yml"));
        std::fs::write(&file, format!("{json:#}\n"))
            .with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(file)
    }

    /// Writes the script that starts the node with this number, and gives its path.
    pub(crate) fn write_script(&self, index: usize, text: &str) -> anyhow::Result<PathBuf> {
        let script = self.script_path(index);
        let write = || -> std::io::Result<()> {
            std::fs::write(&script, text)?;
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))
        };
        write().with_context(|| format!("{} cannot be written", script.display()))?;
        Ok(script)
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn script_path(&self, index: usize) -> PathBuf {
        // dora appends nothing to a name that has an extension; ids may hold dots, so every name gets one.
        self.folder.join(format!("start-{index}.sh"))
    }
}

/// In the folder: locked while the run lasts.
pub(crate) const LOCK: &str = "lock";

/// The folders of all runs in the temporary folder, also of those that were killed.
pub(crate) fn folders() -> Vec<PathBuf> {
    let mut bases = vec![std::env::temp_dir(), PathBuf::from("/tmp")];
    bases.dedup();
    bases.iter().flat_map(|base| folders_in(base)).collect()
}

fn folders_in(base: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("millrace-")));
    ours.map(|entry| entry.path())
}

/// Whether the run of a folder lasts. `None` where that cannot be known, as of another user's folder.
pub(crate) fn lasts(folder: &Path) -> Option<bool> {
    match File::open(folder.join(LOCK)).ok()?.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

fn lock(folder: &Path) -> std::io::Result<File> {
    let lock = File::create(folder.join(LOCK))?;
    lock.lock()?;
    Ok(lock)
}

/// Removes the folders of runs that were killed, and whose dora has followed them (it does within seconds).
fn sweep(base: &Path) {
    for folder in folders_in(base) {
        let age = || folder.symlink_metadata().ok()?.modified().ok()?.elapsed().ok();
        if age().is_some_and(|age| age.as_secs() > 60) && lasts(&folder) == Some(false) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// The script of a node. `--set` values are put into its environment here, word for word: what dora reads from a graph
/// it expands and takes for numbers.
pub(crate) fn script_text(folder: &Path, program: &Path, node: &str, sets: &[Set]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut text = format!("#!/bin/sh\ncd {} || exit 1\n", quoted(&folder.display().to_string()));
    for set in sets.iter().filter(|set| set.node == node && is_name(&set.key)) {
        text.push_str(&format!("export {}={}\n", set.key, quoted(&set.value)));
    }
    // What dora itself does with Python files.
    let python = if program.extension().is_some_and(|extension| extension == "py") { "python3 " } else { "" };
    text.push_str(&format!("exec {python}{} \"$@\"\n", quoted(&program.display().to_string())));
    text
}

/// A name that a shell can export; no setting has another.
fn is_name(key: &str) -> bool {
    !key.starts_with(|c: char| c.is_ascii_digit()) && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_folder_of_a_killed_run_is_swept_and_no_other() {
        let base = tempfile::tempdir().unwrap();
        // numbers of processes that do not exist, as those of another container do not
        let folders = ["millrace-4194304", "millrace-4194304-1", "millrace-4194305", "millrace-0", "other"];
        let made = folders.map(|name| {
            let folder = base.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        });
        let [killed, again, runs, reports, other] = &made;
        drop([lock(killed).unwrap(), lock(again).unwrap(), lock(other).unwrap()]);
        let running = lock(runs).unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        for folder in &made {
            File::open(folder).unwrap().set_modified(hour_ago).unwrap();
        }
        let young = base.path().join("millrace-4194306");
        std::fs::create_dir(&young).unwrap();
        drop(lock(&young).unwrap());

        sweep(base.path());
        let there = [killed, again, runs, reports, other, &young].map(|folder| folder.exists());
        assert_eq!(there, [false, false, true, true, true, true]);
        drop(running);
    }

    #[test]
    fn scripts_keep_every_character() {
        let value = "it's $5 \"1.10\"\n";
        let sets = [Set { node: "a".into(), key: "K".into(), value: value.into() }];
        let text = script_text(Path::new("/a b"), Path::new("/c d/x.py"), "a", &sets);
        let expected =
            "#!/bin/sh\ncd '/a b' || exit 1\nexport K='it'\\''s $5 \"1.10\"\n'\nexec python3 '/c d/x.py' \"$@\"\n";
        assert_eq!(text, expected);
        let echo = script_text(Path::new("/"), Path::new("/usr/bin/printenv"), "a", &sets);
        let shown =
            std::process::Command::new("sh").args(["-c", &echo, "sh", "K"]).output().map(|output| output.stdout);
        assert_eq!(shown.ok(), Some(format!("{value}\n").into_bytes()));
    }
}
