//! A program that is not there: was it not built, or is its path wrong?

use super::World;
use crate::fault::Fault;
use crate::model::{Graph, Located, Node};
use crate::nearest::nearest;
use std::path::Path;

/// The fault of a node at whose path no program is.
pub(super) fn absent(graph: &Graph, node: &Node, path: &Located<String>, folder: &Path, world: &World<'_>) -> Fault {
    let file = Path::new(&path.value);
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let builds = || graph.nodes.iter().filter_map(|node| node.build.as_ref()).map(|build| build.value.as_str());
    let own = node.build.as_ref().map(|build| build.value.as_str());
    let made: Vec<&str> = builds().flat_map(packages).collect();
    let near = world.describer.near(&path.value, folder);
    let maker = own.filter(|own| made.is_empty() || names(own, name)).or_else(|| builds().find(|one| names(one, name)));
    let build_it = |build: &str| {
        let lines: Vec<&str> = build.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        format!("build it: {} ('millrace run' and 'dora build' do)", lines.join(" && "))
    };
    let fix = match maker {
        // it is built already, into another folder
        Some(build) => match near.filter(|near| Path::new(near).file_name() == file.file_name()) {
            Some(there) => Some(format!("path: {there}")),
            None => Some(build_it(build)),
        },
        // no build makes a program of this name
        None => {
            let meant = || nearest(name, made).map(|made| file.with_file_name(made).display().to_string());
            near.or_else(meant).map(|near| format!("path: {near}")).or_else(|| own.map(build_it))
        }
    };
    Fault::error(path.span, format!("node '{}': there is no program '{}'", node.id.value, path.value)).fix_with(fix)
}

/// The packages and programs that a build of cargo names.
fn packages(build: &str) -> Vec<&str> {
    let options = ["-p", "--package", "--bin", "--example"];
    let words: Vec<&str> = build.split_whitespace().collect();
    let behind = words.windows(2).filter(|pair| options.contains(&pair[0])).map(|pair| pair[1]);
    let joined = words.iter().filter_map(|word| word.split_once('=')).filter(|(key, _)| options.contains(key));
    behind.chain(joined.map(|(_, name)| name)).collect()
}

/// Whether a build names the program, as a word or the end of a path.
fn names(build: &str, program: &str) -> bool {
    build.split(|c: char| c.is_whitespace() || "=/'\"".contains(c)).any(|word| word == program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_says_what_it_makes() {
        let build = "cargo build --release -p sw-nv12 --bin=extra\ncargo build --package cpu-infer";
        assert_eq!(packages(build), ["sw-nv12", "cpu-infer", "extra"]);
        assert!(packages("make all").is_empty());
        assert!(names("cc node.c -o bin/node", "node") && !names("cargo build -p sw-nv12", "sw-nv1"));
    }
}
