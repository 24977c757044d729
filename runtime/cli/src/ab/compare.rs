//! Where two graphs differ, and whether they can be compared.

use super::plan::{Plan, PlanNode, Source};
use millrace_ab::model::Difference;
use millrace_graph::redact::redact;
use millrace_graph::settings::document;
use std::collections::BTreeSet;

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
        push(id.to_owned(), node_a.map(program), node_b.map(program));
        let (Some(node_a), Some(node_b)) = (node_a, node_b) else { continue };
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

fn program(node: &PlanNode) -> String {
    node.program.file_name().map_or_else(|| node.program.display().to_string(), |name| name.to_string_lossy().into())
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
            let (a, b) = (program(&in_a), program(&in_b));
            all.push(format!("'{id}' is {a} in A and {b} in B: use the same program"));
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
