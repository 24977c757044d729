//! A graph file from its path.

use anyhow::Context;
use millrace_graph::check::{Checked, Set, World, check};
use millrace_graph::describe::Describer;
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

/// Reads and checks a graph.
pub(crate) fn load(graph: &Path, sets: &[Set], describer: &dyn Describer) -> anyhow::Result<Loaded> {
    let bytes = std::fs::read(graph).with_context(|| format!("the graph {} cannot be read", graph.display()))?;
    let file = graph.canonicalize().with_context(|| format!("{} has no place", graph.display()))?;
    let folder = file.parent().context("the graph is no file")?.to_path_buf();
    let name = graph.display().to_string();
    let variables = |name: &str| std::env::var(name).ok();
    let world = World { describer, variables: &variables };
    let checked = check(&name, &folder, &bytes, sets, &world);
    Ok(Loaded { name, folder, checked })
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
        if is_path(&set) && !set.value.is_empty() && !set.value.contains("://") {
            set.value = std::path::absolute(&set.value)?.display().to_string();
        }
        Ok(set)
    };
    checked.sets.iter().map(absolute).collect()
}
