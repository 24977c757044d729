//! A graph file from its path.

use crate::out::{err, errln};
use crate::run::refuse_what_dora_must_fetch;
use crate::{dora, fit, make};
use anyhow::{Context, bail};
use millrace_graph::check::{Checked, Set, World, check};
use millrace_graph::describe::{Blind, Describer, Programs};
use millrace_graph::settings::{file_text, is_url};
use std::path::{Path, PathBuf};

/// A graph that was read and checked.
pub(crate) struct Loaded {
    /// The file as the user named it.
    pub(crate) name: String,
    /// Its folder, absolute: where dora starts its nodes.
    pub(crate) folder: PathBuf,
    /// What was found.
    pub(crate) checked: Checked,
}

/// Where the report of a command about a graph goes: `out`, or `target/COMMAND/GRAPH`.
pub(crate) fn report_folder(command: &str, graph: &Path, out: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(out) = out {
        return std::path::absolute(out).with_context(|| format!("{} is no path", out.display()));
    }
    let stem = graph.file_stem().map_or_else(|| "graph".into(), |stem| stem.to_string_lossy().into_owned());
    let base = dora::target_folder().unwrap_or_else(|| PathBuf::from("target"));
    Ok(base.join(command).join(stem))
}

/// Reads and checks a graph.
pub(crate) fn load(graph: &Path, sets: &[Set], describer: &dyn Describer) -> anyhow::Result<Loaded> {
    let bytes = std::fs::read(graph).with_context(|| format!("the graph {} cannot be read", graph.display()))?;
    let file = graph.canonicalize().with_context(|| format!("{} has no place", graph.display()))?;
    let folder = file.parent().context("the graph is no file")?.to_path_buf();
    if folder.to_str().is_none() {
        bail!("{}: the folder's name is not UTF-8; move the graph to another folder", graph.display());
    }
    let name = graph.display().to_string();
    let variables = |name: &str| std::env::var(name).ok();
    let world = World { describer, variables: &variables };
    let mut checked = check(&name, &folder, &bytes, sets, &world);
    fit::check(&mut checked, &folder);
    if let Some(available_bytes) = available_bytes(Path::new("/")) {
        checked.check_memory(available_bytes);
    }
    Ok(Loaded { name, folder, checked })
}

/// A graph that was checked, built, and checked again with what its nodes say of themselves; and dora, which runs it. None
/// where it has faults, which have been shown.
pub(crate) fn ready(
    graph: &Path,
    sets: &[Set],
    no_build: bool,
    quiet: bool,
) -> anyhow::Result<Option<(PathBuf, Loaded)>> {
    let mut say = |line: &str| {
        if !quiet {
            errln!("{line}");
        }
    };
    // What is wrong with the file itself need not wait for a build.
    let first = load(graph, sets, &Blind)?;
    let Some(found) = first.checked.graph.as_ref().filter(|_| first.checked.report.is_ok()) else {
        err!("{}", first.checked.report.text(false));
        return Ok(None);
    };
    refuse_what_dora_must_fetch(found, graph)?;
    let dora = dora::ensure(&mut say)?;
    if !no_build {
        make::make(found, &first.folder, quiet, &mut say)?;
    }
    let loaded = load(graph, sets, &Programs::default())?;
    if loaded.checked.graph.is_none() || !loaded.checked.report.is_ok() {
        err!("{}", loaded.checked.report.text(false));
        return Ok(None);
    }
    Ok(Some((dora, loaded)))
}

/// The memory of this machine, or that of the container where it has less.
fn available_bytes(root: &Path) -> Option<u64> {
    let limit = |file: &str| std::fs::read_to_string(root.join(file)).ok()?.trim().parse::<u64>().ok();
    let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let limits = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"].map(limit);
    total.map(|kib| kib * 1024).into_iter().chain(limits.into_iter().flatten()).min()
}

/// The `--set`s with paths made absolute against the current folder, as the nodes run in the graph's.
///
/// What is a path is known from the nodes' descriptions. URLs and empty values stay as they are.
pub(crate) fn absolute_sets(checked: &Checked) -> anyhow::Result<Vec<Set>> {
    let is_path = |set: &Set| {
        let node = checked.nodes.iter().find(|node| node.id == set.node);
        node.is_some_and(|node| node.settings.iter().any(|setting| setting.key == set.key && setting.is_path))
    };
    let absolute = |set: &Set| -> anyhow::Result<Set> {
        let mut set = set.clone();
        if is_path(&set) && !set.value.is_empty() && !is_url(&set.value) {
            set.value = file_text(&std::path::absolute(&set.value)?);
        }
        Ok(set)
    };
    checked.sets.iter().map(absolute).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_container_has_what_it_is_given() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(available_bytes(root.path()), None);
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:        8000 kB\nMemFree:          10 kB\n");
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(available_bytes(root.path()), Some(8_192_000));
        write("sys/fs/cgroup/memory.max", "4096000\n");
        assert_eq!(available_bytes(root.path()), Some(4_096_000));
    }
}
