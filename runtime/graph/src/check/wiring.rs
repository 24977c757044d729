//! Inputs against outputs: that they exist, that nodes declare them, that payloads match.

use crate::describe::Description;
use crate::dora::{self, Upstream};
use crate::fault::{Fault, Report};
use crate::model::{Graph, Input, Node, Origin};
use crate::nearest::nearest;
use std::sync::Arc;

pub(super) fn check(graph: &Graph, described: &[Option<Arc<Description>>], report: &mut Report) {
    let all: Vec<(&Node, Option<Arc<Description>>)> = graph.nodes.iter().zip(described.iter().cloned()).collect();
    for (node, description) in graph.nodes.iter().zip(described) {
        if let Some(description) = description {
            check_outputs(node, description, report);
            check_inputs(node, description, report);
        }
        for input in &node.inputs {
            if let Some(Upstream::Output { node: from, output }) = &input.upstream {
                let source = graph.nodes.iter().position(|node| node.id.value == *from);
                let Some(index) = source else {
                    report.extend(no_such_node(graph, described, node, input, report));
                    continue;
                };
                let (source, theirs) = (&graph.nodes[index], described[index].as_deref());
                check_edge(node, description.as_deref(), input, source, theirs, output, &all, report);
            }
        }
    }
}

fn no_such_node(
    graph: &Graph,
    described: &[Option<Arc<Description>>],
    node: &Node,
    input: &Input,
    report: &Report,
) -> Option<Fault> {
    let (name, id, span) = (&input.name.value, &node.id.value, input.source.span);
    let Some(Upstream::Output { node: from, output }) = &input.upstream else { return None };
    // what a module takes and gives is checked where it is put in place
    let in_module = graph.is_module || !report.scope(span).is_empty();
    if graph.modules.iter().any(|module| module.id.value == *from) || (from == dora::MODULE && in_module) {
        return None;
    }
    if from == dora::MODULE {
        let message = format!("input '{name}' of node '{id}' names an input of a module, and this is a graph");
        return Some(Fault::error(span, message).fix("name a node's output: node/output"));
    }
    // what can be named where the input stands: a module's nodes have other names outside of it
    let scope = report.scope(span);
    let all = graph.nodes.iter().map(|node| &node.id).chain(graph.modules.iter().map(|module| &module.id));
    let near_by = all.filter(|id| report.scope(id.span) == scope);
    let ids: Vec<&str> = near_by.map(|id| id.value.strip_prefix(scope).unwrap_or(&id.value)).collect();
    let fix = nearest(from, ids.iter().copied()).map(|near| {
        let index = graph.nodes.iter().position(|node| node.id.value == format!("{scope}{near}"));
        match index {
            Some(index) => {
                format!("{name}: {near}/{}", output_of(&graph.nodes[index], described[index].as_deref(), output))
            }
            None => format!("{name}: {near}/{output}"),
        }
    });
    let message = format!(
        "input '{name}' of node '{id}' names node '{from}', which does not exist; there are: {}",
        ids.join(", ")
    );
    Some(Fault::error(span, message).fix_with(fix))
}

/// The output of a node that was most likely meant: one that it lists, else one that its program has.
fn output_of<'a>(node: &'a Node, description: Option<&'a Description>, meant: &'a str) -> &'a str {
    let listed = node.outputs.iter().map(|output| output.value.as_str());
    let of_program = description.into_iter().flat_map(|is| &is.outputs).map(|port| port.name.as_str());
    let mut names: Vec<&str> = listed.collect();
    if names.is_empty() {
        names.extend(of_program);
    }
    match names[..] {
        // what it has is not known, as of an operator or of a program that is not there
        [] if node.origin == Origin::Program => "…",
        [] => meant,
        [one] => one,
        _ => nearest(meant, names).unwrap_or("…"),
    }
}

#[allow(clippy::too_many_arguments)]
fn check_edge(
    node: &Node,
    ours: Option<&Description>,
    input: &Input,
    source: &Node,
    theirs: Option<&Description>,
    output: &str,
    all: &[(&Node, Option<Arc<Description>>)],
    report: &mut Report,
) {
    // The outputs of operators and modules stand elsewhere.
    let elsewhere = source.origin == Origin::Module || (source.origin == Origin::ByDora && source.outputs.is_empty());
    if elsewhere {
        return;
    }
    let (name, id) = (&input.name.value, &node.id.value);
    // as it is to be written where the input stands
    let scope = report.scope(input.source.span).to_owned();
    let local = |id: &str| id.strip_prefix(&scope).unwrap_or(id).to_owned();
    let port = theirs.and_then(|theirs| theirs.outputs.iter().find(|port| port.name == output));
    let names: Vec<&str> = source.outputs.iter().map(|listed| listed.value.as_str()).collect();
    if !names.contains(&output) {
        let from = &source.id.value;
        if port.is_some() {
            let mut all = names;
            all.push(output);
            let message = format!(
                "input '{name}' of node '{id}' takes '{from}/{output}', which '{from}' can send but does not list"
            );
            let fix = format!("in node '{from}': outputs: [{}]", all.join(", "));
            report.push(Fault::error(input.source.span, message).fix(fix));
        } else {
            let near = nearest(output, names.iter().copied()).or(if names.len() == 1 { Some(names[0]) } else { None });
            let declares = if names.is_empty() { " no outputs".to_owned() } else { format!(": {}", names.join(", ")) };
            let message = format!(
                "input '{name}' of node '{id}' names '{from}/{output}', which does not exist; '{from}' declares{declares}"
            );
            let fix = near.map(|near| format!("{name}: {}/{near}", local(from)));
            report.push(Fault::error(input.source.span, message).fix_with(fix));
            return;
        }
    }
    let (Some(ours), Some(port)) = (ours, port) else { return };
    let Some(mine) = ours.input(name) else { return };
    if port.carries.is_empty() || mine.accepts.is_empty() || mine.accepts.contains(&port.carries) {
        return;
    }
    let accepts = mine.accepts.join(" or ");
    let message = format!(
        "'{}/{output}' carries {}, and input '{name}' of node '{id}' ({}) takes {accepts}",
        source.id.value, port.carries, ours.name
    );
    // The same node's other outputs first, then those of the rest of the graph.
    let others = std::iter::once((source, theirs)).chain(all.iter().map(|(node, is)| (*node, is.as_deref())));
    let fitting = others.filter_map(|(from, is)| {
        let port = is?.outputs.iter().find(|port| mine.accepts.contains(&port.carries))?;
        (from.id.value != *id).then(|| format!("{name}: {}/{}", local(&from.id.value), port.name))
    });
    let fix = fitting.into_iter().next();
    report.push(Fault::error(input.source.span, message).fix_with(fix));
}

fn check_outputs(node: &Node, description: &Description, report: &mut Report) {
    let names: Vec<&str> = description.outputs.iter().map(|port| port.name.as_str()).collect();
    for output in &node.outputs {
        let known = names.contains(&output.value.as_str()) || node.text_outputs.contains(&output.value);
        if !known {
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!(
                "node '{}' lists the output '{}', which {} does not have; its outputs: {has}",
                node.id.value, output.value, description.name
            );
            let fix = nearest(&output.value, names.iter().copied()).map(str::to_owned);
            report.push(Fault::error(output.span, message).fix_with(fix));
        }
    }
}

fn check_inputs(node: &Node, description: &Description, report: &mut Report) {
    let names: Vec<&str> = description.inputs.iter().map(|port| port.name.as_str()).collect();
    let mut meant = Vec::new();
    let mut names_used: Vec<String> = node.inputs.iter().map(|input| input.name.value.clone()).collect();
    for input in &node.inputs {
        // A timer may have any name: it only keeps the node restartable.
        let Some(Upstream::Output { node: from, .. }) = &input.upstream else { continue };
        if description.input(&input.name.value).is_some() {
            continue;
        }
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let near = port_meant(&input.name.value, &names);
        meant.extend(near);
        // also by the fix of another fault: all of them can be followed together
        let taken = near.is_some_and(|near| names_used.iter().any(|name| name == near));
        // as it is to be written where the input stands
        let from = from.strip_prefix(report.scope(input.source.span)).unwrap_or(from);
        let (several, fix) = match near {
            Some(near) if taken => {
                let name = free_name(&names_used, near, from);
                let fix = format!("{name}: {}", input.source.value);
                names_used.push(name);
                (format!("; further producers of '{near}' are inputs '{near}.NAME'"), Some(fix))
            }
            near => {
                names_used.extend(near.map(str::to_owned));
                (String::new(), near.map(|near| format!("{near}: {}", input.source.value)))
            }
        };
        let message = format!(
            "node '{}' has an input '{}', which {} does not know; its inputs: {has}{several}",
            node.id.value, input.name.value, description.name
        );
        report.push(Fault::error(input.name.span, message).fix_with(fix));
    }
    for port in description.inputs.iter().filter(|port| port.required) {
        let belongs = |input: &Input| description.input(&input.name.value).is_some_and(|of| of.name == port.name);
        let connected = node.inputs.iter().any(belongs);
        // A misspelt input was reported; that it is also missing is no second fault.
        if connected || meant.contains(&port.name.as_str()) {
            continue;
        }
        let takes = if port.accepts.is_empty() { String::new() } else { format!(" ({})", port.accepts.join(" or ")) };
        let message = format!(
            "input '{}'{takes} of node '{}' is not connected; {} does nothing without it",
            port.name, node.id.value, description.name
        );
        report.push(Fault::error(node.id.span, message).fix(format!("inputs: {{ {}: node/output }}", port.name)));
    }
}

/// The port that was most likely meant: by the whole name, or by what is before its dot or its number.
fn port_meant<'a>(name: &str, ports: &[&'a str]) -> Option<&'a str> {
    let stem =
        name.split('.').next().unwrap_or(name).trim_end_matches(|c: char| c.is_ascii_digit() || c == '_' || c == '-');
    nearest(name, ports.iter().copied()).or_else(|| nearest(stem, ports.iter().copied()).filter(|_| !stem.is_empty()))
}

/// A name for one more producer of a port that no input of the node has yet.
fn free_name(used: &[String], port: &str, from: &str) -> String {
    let names = (1..).map(|n| if n == 1 { format!("{port}.{from}") } else { format!("{port}.{from}-{n}") });
    let mut free = names.filter(|name| used.iter().all(|used| used != name));
    free.next().unwrap_or_default()
}
