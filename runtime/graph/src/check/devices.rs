//! Frames in a GPU's memory stay on that GPU: a node that works on another, or on the CPU, cannot read them.

use super::cameras::producer;
use super::{CheckedNode, place};
use crate::fault::{Fault, Report};
use crate::model::{Graph, Input, Node};
use std::collections::BTreeMap;

/// The GPUs that the frames of a node's outputs are on, each with the node that put them there.
type OnGpus = BTreeMap<u32, usize>;

/// Finds nodes that work on another GPU than their frames are on, and detectors on the CPU with frames on a GPU.
pub(super) fn check(graph: &Graph, nodes: &[CheckedNode], report: &mut Report) {
    let mut on: Vec<OnGpus> = nodes.iter().enumerate().map(|(index, node)| of_source(index, node)).collect();
    // each round goes one node further
    for _ in 0..nodes.len() {
        let mut grown = false;
        for (index, (node, checked)) in graph.nodes.iter().zip(nodes).enumerate().filter(|(_, (_, c))| passes_on(c)) {
            for (_, from) in frames(graph, nodes, node, checked) {
                for (gpu, maker) in on[from].clone() {
                    grown |= on[index].insert(gpu, maker).is_none();
                }
            }
        }
        if !grown {
            break;
        }
    }
    for (node, checked) in graph.nodes.iter().zip(nodes) {
        if value(checked, "PROVIDER") == Some("cpu") {
            let inputs = frames(graph, nodes, node, checked);
            for (input, (gpu, maker)) in inputs.filter_map(|(input, from)| Some((input, on[from].first_key_value()?))) {
                report.push(for_the_cpu(graph, node, checked, input, (*gpu, *maker)));
            }
        }
        let Some(own) = device(checked).filter(|_| !is_source(checked)) else { continue };
        for (input, from) in frames(graph, nodes, node, checked) {
            for (gpu, maker) in on[from].iter().filter(|(gpu, _)| **gpu != own) {
                report.push(crossing(graph, node, checked, input, own, (*gpu, *maker)));
            }
        }
    }
}

fn crossing(
    graph: &Graph,
    node: &Node,
    checked: &CheckedNode,
    input: &Input,
    own: u32,
    (gpu, maker): (u32, usize),
) -> Fault {
    let (id, name, maker) = (&node.id.value, &input.name.value, &graph.nodes[maker].id.value);
    let message = format!(
        "node '{id}' works on GPU {own}, and its input '{name}' brings frames of '{maker}', which are on GPU {gpu}: frames do not \
         go from one GPU to another"
    );
    let setting = checked.settings.iter().find(|setting| setting.key == "DEVICE");
    let fault = Fault::error(node.id.span, message)
        .fix(format!("DEVICE: {gpu}, or another '{id}' for the frames of '{maker}'"));
    match setting {
        Some(setting) => fault.at_location(place(node, checked, setting)),
        None => fault,
    }
}

/// A detector that computes on the CPU, and frames on a GPU.
fn for_the_cpu(graph: &Graph, node: &Node, checked: &CheckedNode, input: &Input, (gpu, maker): (u32, usize)) -> Fault {
    let (id, name, maker) = (&node.id.value, &input.name.value, &graph.nodes[maker].id.value);
    let message = format!(
        "node '{id}' computes on the CPU, and its input '{name}' brings frames of '{maker}', which are in the memory of GPU {gpu}"
    );
    let fault = Fault::error(node.id.span, message).fix(format!("PROVIDER: cuda, or MEMORY: host in '{maker}'"));
    match checked.settings.iter().find(|setting| setting.key == "PROVIDER") {
        Some(setting) => fault.at_location(place(node, checked, setting)),
        None => fault,
    }
}

/// The number of the GPU that a node works on, by its setting. A detector that could work on one and does not says so by
/// its PROVIDER.
pub(super) fn device(node: &CheckedNode) -> Option<u32> {
    let on_host = value(node, "PROVIDER") == Some("cpu") || value(node, "MEMORY") == Some("host");
    value(node, "DEVICE").filter(|_| !on_host)?.trim().parse().ok()
}

fn value<'a>(node: &'a CheckedNode, key: &str) -> Option<&'a str> {
    let setting = node.settings.iter().find(|setting| setting.described && setting.key == key);
    setting.and_then(|setting| setting.value.as_deref())
}

fn is_source(node: &CheckedNode) -> bool {
    node.description.as_ref().is_some_and(|is| is.inputs.is_empty())
}

fn of_source(index: usize, node: &CheckedNode) -> OnGpus {
    device(node).filter(|_| is_source(node)).map(|gpu| (gpu, index)).into_iter().collect()
}

/// It works where its frames are, as a converter does: it has no setting for that.
fn passes_on(node: &CheckedNode) -> bool {
    !is_source(node)
        && node.description.is_some()
        && !node.settings.iter().any(|setting| setting.described && setting.key == "DEVICE")
}

/// The inputs that bring a node pictures or tensors, with the numbers of the nodes that make them.
fn frames<'a>(
    graph: &'a Graph,
    nodes: &'a [CheckedNode],
    node: &'a Node,
    checked: &'a CheckedNode,
) -> impl Iterator<Item = (&'a Input, usize)> {
    node.inputs.iter().filter_map(move |input| {
        let from = producer(graph, input)?;
        let Some(crate::dora::Upstream::Output { output, .. }) = &input.upstream else { return None };
        let carries =
            nodes[from].description.as_ref()?.outputs.iter().find(|port| port.name == *output)?.carries.as_str();
        checked.description.as_ref()?;
        matches!(carries, "image" | "tensor").then_some((input, from))
    })
}
