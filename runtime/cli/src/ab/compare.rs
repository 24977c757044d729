//! Where two graphs differ, and whether they can be compared.

use crate::trial::plan::{Plan, PlanNode, Source};
use millrace_ab::model::Difference;
use millrace_graph::redact::redact;
use millrace_graph::settings::document;
use std::collections::BTreeSet;
use std::path::Path;

/// Settings that the loads decide, so that a difference in them is none.
const DRIVEN: [&str; 5] = ["FLOW", "ALLOW_LOSS", "PACE", "LOOP", "FRAMES"];

/// All differences of effective settings, programs and wiring.
pub(super) fn differences(a: &Plan, b: &Plan) -> Vec<Difference> {
    let ids: BTreeSet<&str> = a.nodes.iter().chain(&b.nodes).map(|node| node.id.as_str()).collect();
    let mut all = Vec::new();
    let mut push = |what: String, a: Option<String>, b: Option<String>| {
        if a != b {
            all.push(Difference { what, a, b });
        }
    };
    for id in ids {
        let (node_a, node_b) = (a.node(id), b.node(id));
        let (Some(node_a), Some(node_b)) = (node_a, node_b) else {
            push(id.to_owned(), node_a.map(|node| name(&node.program)), node_b.map(|node| name(&node.program)));
            continue;
        };
        let [program_a, program_b] = distinguished(&node_a.program, &node_b.program);
        push(id.to_owned(), Some(program_a), Some(program_b));
        push(format!("{id} inputs"), Some(wiring(node_a)), Some(wiring(node_b)));
        let keys: BTreeSet<&String> = node_a.settings.keys().chain(node_b.settings.keys()).collect();
        for key in keys.into_iter().filter(|key| !DRIVEN.contains(&key.as_str())) {
            // a setting that only one of two programs has, at its default, says nothing that the program does not
            let of = |node: &PlanNode| node.settings.get(key).map(|value| redact(value));
            let stated = [node_a, node_b].iter().any(|node| node.given.iter().any(|(given, _)| given == key));
            if node_a.program == node_b.program || stated {
                push(format!("{id}.{key}"), of(node_a), of(node_b));
            }
        }
    }
    all
}

fn name(program: &Path) -> String {
    program.file_name().map_or_else(|| program.display().to_string(), |name| name.to_string_lossy().into())
}

/// The names of two programs, or their paths where different programs have one name.
fn distinguished(a: &Path, b: &Path) -> [String; 2] {
    if a != b && name(a) == name(b) { [a, b].map(|path| path.display().to_string()) } else { [a, b].map(name) }
}

/// Why two sinks with these programs cannot be compared.
fn other_program(id: &str, a: &Path, b: &Path) -> String {
    let cure = if name(a) == name(b) {
        "both arms must run programs of one build, since the sink that measures and the layout of messages belong to a build; \
         name the same path in both graphs. To compare two builds, time the whole command with the one and then with the other: \
         'time millrace run GRAPH', by turns"
    } else {
        "use the same program"
    };
    let [a, b] = distinguished(a, b);
    format!("'{id}' is {a} in A and {b} in B: {cure}")
}

fn wiring(node: &PlanNode) -> String {
    let text = |source: &Source| match source {
        Source::Port(port) => format!("{}/{}", port.node, port.output),
        Source::Dora(text) => text.clone(),
    };
    let mut inputs: Vec<String> =
        node.inputs.iter().map(|input| format!("{}: {}", input.name, text(&input.source))).collect();
    inputs.sort();
    inputs.join(", ")
}

/// What makes the ends of two graphs unequal: each difference with what to do about it.
///
/// What every node has (how frames are handed over) may differ: it is a part of what is compared. What a sink does may
/// not: an arm that does not draw or write wins by that alone.
pub(super) fn unequal_sinks(a: &Plan, b: &Plan) -> Vec<String> {
    let ids: BTreeSet<&str> = a.sinks().chain(b.sinks()).map(|node| node.id.as_str()).collect();
    let mut all = Vec::new();
    for id in ids {
        let sink = |plan: &Plan| plan.sinks().find(|node| node.id == id).cloned();
        let (Some(in_a), Some(in_b)) = (sink(a), sink(b)) else {
            let (has, lacks) = if sink(a).is_some() { ("A", "B") } else { ("B", "A") };
            all.push(format!(
                "{has} ends in '{id}', and {lacks} has no such sink: add it to {lacks}, or take it out of {has}"
            ));
            continue;
        };
        if in_a.program != in_b.program {
            all.push(other_program(id, &in_a.program, &in_b.program));
            continue;
        }
        let ports = |node: &PlanNode| node.inputs.iter().map(|input| input.name.clone()).collect::<BTreeSet<_>>();
        if ports(&in_a) != ports(&in_b) {
            let list = |node: &PlanNode| ports(node).into_iter().collect::<Vec<_>>().join(", ");
            all.push(format!("'{id}' reads {} in A and {} in B: connect the same inputs", list(&in_a), list(&in_b)));
        }
        let common: BTreeSet<String> =
            in_a.description.iter().flat_map(|d| document(&d.common_settings)).map(|d| d.key).collect();
        let keys: BTreeSet<&String> = in_a.settings.keys().chain(in_b.settings.keys()).collect();
        for key in keys.into_iter().filter(|key| !common.contains(*key)) {
            let of = |node: &PlanNode| node.settings.get(key).map_or("unset".to_owned(), |v| redact(v));
            let (value_a, value_b) = (of(&in_a), of(&in_b));
            if value_a != value_b {
                all.push(format!(
                    "{id}.{key} is {value_a} in A and {value_b} in B: give both the same (--set {id}.{key}=…)"
                ));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_two_builds_are_distinguished_and_the_way_to_compare_them_is_named() {
        let (old, new) = (Path::new("/old/target/release/jsonl-writer"), Path::new("/new/target/release/jsonl-writer"));
        let text = other_program("write", old, new);
        let start = "'write' is /old/target/release/jsonl-writer in A and /new/target/release/jsonl-writer in B: both arms must \
                     run programs of one build";
        assert!(text.starts_with(start) && text.contains("To compare two builds, time the whole command"), "{text}");
        let text = other_program("write", old, Path::new("/new/target/release/ab-sink"));
        assert_eq!(text, "'write' is jsonl-writer in A and ab-sink in B: use the same program");
        assert_eq!(distinguished(old, old), ["jsonl-writer", "jsonl-writer"]);
    }
}
