//! Nodes that share a process: whether they can.

use super::{CheckedNode, Effective, From, devices, place};
use crate::describe::{Describer, GROUP_PROGRAM, GROUP_SETTING as SETTING, find_program};
use crate::fault::{Fault, Location, Report};
use crate::model::{Graph, Node};
use crate::settings::{is_environment, redacted};
use std::collections::BTreeMap;
use std::path::Path;

/// The nodes of each process of several, in the order of the graph.
pub(crate) fn groups<'a>(
    graph: &'a Graph,
    nodes: &'a [CheckedNode],
) -> BTreeMap<&'a str, Vec<(&'a Node, &'a CheckedNode)>> {
    let mut groups: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (node, checked) in graph.nodes.iter().zip(nodes) {
        // what is said of all nodes concerns those that can share a process
        let shares = checked.description.as_ref().is_some_and(|is| is.shares_process);
        let meant = |setting: &&Effective| setting.described && (shares || !matches!(setting.from, From::Graph(_)));
        let name = setting(checked, SETTING).filter(meant).and_then(|setting| setting.value.as_deref());
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            groups.entry(name).or_default().push((node, checked));
        }
    }
    groups
}

pub(super) fn check(
    graph: &Graph,
    nodes: &[CheckedNode],
    folder: &Path,
    describer: &dyn Describer,
    report: &mut Report,
) {
    for (name, members) in groups(graph, nodes) {
        for (node, checked) in &members {
            contained(name, node, checked, folder, describer, report);
        }
        let Some(((first, of_first), others)) = members.split_first() else { continue };
        for (node, checked) in others {
            same_folder(name, first, node, checked, folder, report);
            same_environment(name, &members, (first, of_first), (node, checked), report);
        }
        same_gpu(name, &members, report);
    }
}

fn setting<'a>(checked: &'a CheckedNode, key: &str) -> Option<&'a Effective> {
    checked.settings.iter().find(|setting| setting.key == key)
}

/// A fault of the node's being in the group.
fn fault(node: &Node, checked: &CheckedNode, key: &str, message: String) -> Fault {
    let location = setting(checked, key).map_or(Location::File(node.id.span), |setting| place(node, checked, setting));
    Fault::error(node.id.span, message).at_location(location)
}

/// The program of the group is there, and contains that of the node.
fn contained(
    name: &str,
    node: &Node,
    checked: &CheckedNode,
    folder: &Path,
    describer: &dyn Describer,
    report: &mut Report,
) {
    let (Some(path), Some(is)) = (&node.path, &checked.description) else { return };
    let id = &node.id.value;
    match describer.stages(&path.value, folder) {
        None => {}
        Some(Ok(stages)) if stages.contains(&is.name) => {}
        Some(Ok(stages)) => {
            let message = format!(
                "node '{id}' cannot share the process '{name}': {GROUP_PROGRAM} does not contain '{}', but {}",
                is.name,
                stages.join(", ")
            );
            let fix = format!("leave {SETTING} out of the node, so that it has a process of its own");
            report.push(fault(node, checked, SETTING, message).fix(fix));
        }
        Some(Err((why, fix))) => {
            let message = format!("node '{id}' cannot share the process '{name}': {why}");
            report.push(fault(node, checked, SETTING, message).fix(fix));
        }
    }
}

/// Each program finds the group's beside its own file.
fn same_folder(name: &str, first: &Node, node: &Node, checked: &CheckedNode, folder: &Path, report: &mut Report) {
    let (Some(one), Some(other)) = (&first.path, &node.path) else { return };
    let real = |path: &str| Some(find_program(path, folder)?.canonicalize().ok()?.parent()?.to_owned());
    if real(&one.value) != real(&other.value) {
        let (id, first) = (&node.id.value, &first.id.value);
        let message = format!(
            "node '{id}' cannot share the process '{name}' with '{first}': their programs '{}' and '{}' are in two folders, \
             each with a {GROUP_PROGRAM} of its own",
            other.value, one.value
        );
        report.push(fault(node, checked, SETTING, message));
    }
}

/// A process works on one GPU: its members share one CUDA context, and an error of one GPU would end the nodes of the other.
fn same_gpu(name: &str, members: &[(&Node, &CheckedNode)], report: &mut Report) {
    let mut on = members.iter().filter_map(|(node, checked)| Some((*node, *checked, devices::device(checked)?)));
    let Some((first, _, gpu)) = on.next() else { return };
    for (node, checked, other) in on.filter(|(.., other)| *other != gpu) {
        let (id, first) = (&node.id.value, &first.id.value);
        let message =
            format!("node '{id}' works on GPU {other} and '{first}' on GPU {gpu}, and they share the process '{name}'");
        let fix = format!("a {SETTING} of its own for the nodes of each GPU, such as {name}-{gpu} and {name}-{other}");
        report.push(fault(node, checked, SETTING, message).fix(fix));
    }
}

/// A process has one environment. A setting concerns its node, also where its name begins like a variable's (`CUDA_GRAPH`).
fn same_environment(
    name: &str,
    members: &[(&Node, &CheckedNode)],
    (first, of_first): (&Node, &CheckedNode),
    (node, checked): (&Node, &CheckedNode),
    report: &mut Report,
) {
    let is_setting =
        |key: &str| members.iter().any(|(_, of)| setting(of, key).is_some_and(|setting| setting.described));
    let variable = |setting: &&Effective| is_environment(&setting.key) && !is_setting(&setting.key);
    let keys = of_first.settings.iter().chain(&checked.settings).filter(variable).map(|setting| setting.key.as_str());
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let text = |of: &CheckedNode, key: &str| {
        let value = setting(of, key).and_then(|setting| setting.value.clone());
        value.map_or_else(|| "not set".to_owned(), |value| format!("'{}'", redacted(key, &value)))
    };
    for key in keys {
        let [one, other] = [text(of_first, key), text(checked, key)];
        if one != other {
            let (id, first) = (&node.id.value, &first.id.value);
            let message =
                format!("{key} is {other} for node '{id}' and {one} for '{first}', which share the process '{name}'");
            report.push(fault(node, checked, key, message).fix(format!("give {key} the same value in both nodes")));
        }
    }
}
