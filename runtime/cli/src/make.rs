//! The graph's `build:` commands, as `dora build` runs them, but cargo's in one go.

use crate::dora;
use crate::out::stderr;
use anyhow::{Context, bail};
use millrace_graph::describe::find_program;
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
        match package_of(&plain) {
            _ if plain.is_empty() => {}
            Some(name) => {
                if !packages.iter().any(|known| known == name) {
                    packages.push(name.to_owned());
                }
            }
            None if others.contains(&words) => {}
            None => others.push(words),
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

/// The package of `cargo build --release -p NAME`.
fn package_of<'a>(words: &[&'a str]) -> Option<&'a str> {
    match words {
        ["cargo", "build", "--release", "-p" | "--package", name]
        | ["cargo", "build", "-p" | "--package", name, "--release"] => Some(name),
        _ => None,
    }
}

/// Whether cargo finds a package here: there is a `Cargo.toml` in this folder or above it.
fn is_in_cargo(folder: &Path) -> bool {
    folder.ancestors().any(|folder| folder.join("Cargo.toml").is_file())
}

/// The nodes that cargo cannot build, since the graph is outside of any checkout. Their programs have to be there.
fn built_elsewhere(graph: &Graph, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut there = Vec::new();
    for node in graph.nodes.iter().filter(|node| node.origin == Origin::Program) {
        let (Some(build), Some(path)) = (&node.build, &node.path) else { continue };
        let by_cargo = |line: &str| package_of(&line.split_whitespace().collect::<Vec<_>>()).is_some();
        if !build.value.lines().any(by_cargo) {
            continue;
        }
        if find_program(&path.value, folder).is_none() {
            bail!(
                "node '{}': its build line '{}' needs a Cargo.toml in {} or above it, where there is none, and its program \
                 {} is not there; build the program in its own checkout, and write its path into the graph",
                node.id.value,
                build.value.trim(),
                folder.display(),
                path.value
            );
        }
        there.push(node.id.value.clone());
    }
    Ok(there)
}

/// Runs them in the graph's folder, their output going to the terminal.
pub(crate) fn make(graph: &Graph, folder: &Path, quiet: bool, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let mut commands = commands(graph);
    if !is_in_cargo(folder) {
        let there = built_elsewhere(graph, folder)?;
        if !there.is_empty() {
            let names = there.join(", ");
            say(&format!("not built, as the graph is in no cargo checkout and the programs are there: {names}"));
            commands.remove(0);
        }
    }
    run(commands, folder, quiet, say)
}

/// Builds these packages of ours, where cargo has a place for them: in the checkout that this program was built in, or in
/// that of the graph. An installed millrace has its nodes beside it.
pub(crate) fn packages(names: &[&str], folder: &Path, quiet: bool, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let Some(target) = dora::target_folder() else { return Ok(()) };
    let ours = target.parent().filter(|checkout| checkout.join("runtime/cli/Cargo.toml").is_file());
    let Some(folder) = ours.or_else(|| is_in_cargo(folder).then_some(folder)) else { return Ok(()) };
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
        outside_cargo(command.args(&words[1..]).current_dir(folder).stdin(Stdio::null()).stdout(stderr()?));
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
    fn a_graph_outside_of_a_checkout_runs_with_the_programs_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let text = "nodes:\n  - {id: a, path: bin/a, build: cargo build --release -p a}\n  - {id: b, path: b, build: \"touch made\"}\n";
        let graph = Graph::read(text, &mut Report::default()).unwrap();
        let mut lines = Vec::new();
        let mut make = || make(&graph, folder.path(), true, &mut |line| lines.push(line.to_owned()));
        let error = make().unwrap_err().to_string();
        assert!(
            error.starts_with("node 'a': its build line 'cargo build --release -p a' needs a Cargo.toml in "),
            "{error}"
        );
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(folder.path().join("bin/a"), "").unwrap();
        make().unwrap();
        assert!(folder.path().join("made").is_file(), "other build lines run in the graph's folder");
        assert!(lines[0].ends_with("the programs are there: a") && lines[1] == "building: touch made", "{lines:?}");
        assert!(
            !is_in_cargo(folder.path()) && is_in_cargo(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path())
        );
    }

    #[test]
    fn cargo_builds_become_one() {
        let text = "nodes:\n  - {id: a, path: a, build: cargo build --release -p a}\n  - {id: b, path: b, build: \"cargo build -p b --release\\nmake b\"}\n  - {id: c, path: a, build: cargo build --release -p a}\n  - {id: d, path: d, build: cargo build -p d}\n";
        let graph = Graph::read(text, &mut Report::default()).unwrap();
        let lines: Vec<String> = commands(&graph).iter().map(|words| words.join(" ")).collect();
        assert_eq!(lines, ["cargo build --release -p a -p b", "make b", "cargo build -p d"]);
    }
}
