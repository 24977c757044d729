//! The folder of one run: the graph as dora gets it, what starts the nodes, and the status socket.

use anyhow::Context;
use millrace_graph::check::Set;
use millrace_graph::describe::find_program;
use millrace_graph::model::{Graph, Node, Origin};
use millrace_graph::resolved;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Removed when dropped.
pub(crate) struct Scratch {
    folder: PathBuf,
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
        for attempt in 0..100 {
            let folder = base.join(if attempt == 0 { name.clone() } else { format!("{name}-{attempt}") });
            match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Self { folder }),
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
    /// dora starts nodes in the graph file's folder, and this file lies elsewhere. So each node gets a script as its
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
            let program = find_program(&path.it, folder).with_context(|| format!("there is no program {}", path.it))?;
            let script = self.script_path(node);
            let write = || -> std::io::Result<()> {
                std::fs::write(&script, script_text(folder, &program))?;
                std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))
            };
            write().with_context(|| format!("{} cannot be written", script.display()))?;
        }
        let path = |node: &Node| (node.origin == Origin::Program).then(|| self.script_path(node).display().to_string());
        let json = resolved::to_json(graph, sets, &path);
        let file = self.folder.join(format!("{stem}.yml"));
        std::fs::write(&file, format!("{json:#}\n"))
            .with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(file)
    }

    fn script_path(&self, node: &Node) -> PathBuf {
        // dora appends nothing to a name that has an extension; ids may hold dots, so every name gets one.
        self.folder.join(format!("start-{}.sh", node.index))
    }
}

fn script_text(folder: &Path, program: &Path) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    // What dora itself does with Python files.
    let python = if program.extension().is_some_and(|extension| extension == "py") { "python3 " } else { "" };
    format!("#!/bin/sh\ncd {} && exec {python}{} \"$@\"\n", quoted(folder), quoted(program))
}
