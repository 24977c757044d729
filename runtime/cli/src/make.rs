//! The graph's `build:` commands, as `dora build` runs them, but cargo's in one go.

use anyhow::{Context, bail};
use millrace_graph::model::{Graph, Origin};
use std::path::Path;
use std::process::{Command, Stdio};

/// The commands to run, each as its words.
///
/// Lines of the form `cargo build --release -p NAME` become one command with all names: cargo then shows one progress
/// bar, and features are unified once, so that no dependency is built twice.
fn commands(graph: &Graph) -> Vec<Vec<String>> {
    let mut packages: Vec<String> = Vec::new();
    let mut others: Vec<Vec<String>> = Vec::new();
    let programs = graph.nodes.iter().filter(|node| node.origin == Origin::Program);
    for line in programs.filter_map(|node| node.build.as_ref()).flat_map(|build| build.value.lines()) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let plain: Vec<&str> = words.iter().map(String::as_str).collect();
        match plain.as_slice() {
            [] => {}
            ["cargo", "build", "--release", "-p" | "--package", name]
            | ["cargo", "build", "-p" | "--package", name, "--release"] => {
                if !packages.iter().any(|known| known == name) {
                    packages.push((*name).to_owned());
                }
            }
            _ if others.contains(&words) => {}
            _ => others.push(words),
        }
    }
    let mut all = Vec::new();
    if !packages.is_empty() {
        let mut cargo: Vec<String> = ["cargo", "build", "--release"].map(str::to_owned).to_vec();
        cargo.extend(packages.into_iter().flat_map(|name| ["-p".to_owned(), name]));
        all.push(cargo);
    }
    all.extend(others);
    all
}

/// Runs them in the graph's folder, their output going to the terminal.
pub(crate) fn make(graph: &Graph, folder: &Path, quiet: bool, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    run(commands(graph), folder, quiet, say)
}

/// Builds these packages of ours, where cargo has a place for them: an installed millrace has its nodes beside it.
pub(crate) fn packages(names: &[&str], folder: &Path, quiet: bool, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let mut cargo: Vec<String> = ["cargo", "build", "--release"].map(str::to_owned).to_vec();
    cargo.extend(names.iter().flat_map(|name| ["-p".to_owned(), (*name).to_owned()]));
    run(vec![cargo], folder, quiet, say)
}

fn run(commands: Vec<Vec<String>>, folder: &Path, quiet: bool, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    for mut words in commands {
        say(&format!("building: {}", words.join(" ")));
        let is_cargo = words.first().is_some_and(|word| word == "cargo");
        if quiet && is_cargo {
            words.push("--quiet".to_owned());
        }
        let mut command = Command::new(&words[0]);
        outside_cargo(command.args(&words[1..]).current_dir(folder).stdin(Stdio::null()));
        let status = command.status().with_context(|| format!("'{}' cannot be started", words[0]))?;
        if !status.success() {
            bail!("the build failed ({status}): {}", words.join(" "));
        }
    }
    Ok(())
}

/// Takes away what `cargo run` tells its program of itself. Build scripts of some crates look at it (ring's does), so
/// that a build from inside `cargo millrace` and one from a shell would each undo the other's, zenoh and all.
pub(crate) fn outside_cargo(command: &mut Command) {
    const OF_A_PACKAGE: [&str; 6] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO" || OF_A_PACKAGE.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use millrace_graph::fault::Report;

    #[test]
    fn cargo_builds_become_one() {
        let text = "nodes:\n  - {id: a, path: a, build: cargo build --release -p a}\n  - {id: b, path: b, build: \"cargo build -p b --release\\nmake b\"}\n  - {id: c, path: a, build: cargo build --release -p a}\n  - {id: d, path: d, build: cargo build -p d}\n";
        let graph = Graph::read(text, &mut Report::default()).unwrap();
        let lines: Vec<String> = commands(&graph).iter().map(|words| words.join(" ")).collect();
        assert_eq!(lines, ["cargo build --release -p a -p b", "make b", "cargo build -p d"]);
    }
}
