//! Every setting's effective value with its origin, and who feeds whom: what `--explain` prints.

use crate::check::process::groups;
use crate::check::{Checked, CheckedNode, Effective, From};
use crate::describe::GROUP_PROGRAM;
use crate::dora::Upstream;
use crate::fault::Report;
use crate::model::{Graph, Node};
use crate::settings::redacted;
use std::fmt::Write as _;

/// The tables of all nodes as text.
pub fn explain(checked: &Checked) -> String {
    let Some(graph) = &checked.graph else { return String::new() };
    let mut out = String::new();
    for (node, found) in graph.nodes.iter().zip(&checked.nodes) {
        write_node(&mut out, &checked.report, graph, node, found);
        out.push('\n');
    }
    for (name, members) in groups(graph, &checked.nodes) {
        let ids: Vec<&str> = members.iter().map(|(node, _)| node.id.value.as_str()).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "process {name} · {GROUP_PROGRAM} · {}: an error or a crash of one ends them all\n",
            ids.join(", ")
        );
    }
    out.push_str(&checked.memory.explain());
    if checked.nodes.iter().any(|node| node.settings.iter().any(|setting| setting.live)) {
        out.push_str("live: can change while the graph runs, by 'dora param set NODE SETTING VALUE'\n\n");
    }
    out
}

fn write_node(out: &mut String, report: &Report, graph: &Graph, node: &Node, found: &CheckedNode) {
    let path = node.path.as_ref().map_or("", |path| path.value.as_str());
    // Writing to a String cannot fail.
    let _ = match &found.description {
        Some(is) => writeln!(out, "{} · {} {} · {}", node.id.value, is.name, is.version, is.summary),
        None => writeln!(out, "{} · {path} · not described: settings and ports as the graph gives them", node.id.value),
    };
    let mut rows: Vec<[String; 3]> = Vec::new();
    for setting in &found.settings {
        rows.push([setting.key.clone(), value(setting), origin(report, setting)]);
    }
    let carries = |port: &str, is_input: bool| -> String {
        let Some(is) = &found.description else { return String::new() };
        if is_input {
            return is.input(port).map(|port| port.accepts.join(" or ")).unwrap_or_default();
        }
        let port = is.outputs.iter().find(|known| known.name == port);
        port.map(|port| port.carries.clone()).unwrap_or_default()
    };
    for input in &node.inputs {
        let from = format!("<- {}", input.source.value);
        rows.push([format!("input {}", input.name.value), from, carries(&input.name.value, true)]);
    }
    for output in &node.outputs {
        let readers = readers(graph, &node.id.value, &output.value);
        let to = if readers.is_empty() { "-> nobody".to_owned() } else { format!("-> {}", readers.join(", ")) };
        rows.push([format!("output {}", output.value), to, carries(&output.value, false)]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1).min(48));
    for [name, middle, last] in &rows {
        let line = format!("  {name:first$}  {middle:second$}  {last}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn value(setting: &Effective) -> String {
    match &setting.value {
        None if setting.optional => "(unset)".to_owned(),
        None => "(not stated)".to_owned(),
        Some(text) if text.is_empty() => "\"\"".to_owned(),
        Some(text) => redacted(&setting.key, text),
    }
}

fn origin(report: &Report, setting: &Effective) -> String {
    let from = match setting.from {
        From::Node(at) => report.place(at),
        From::Graph(at) => format!("{}, for all nodes", report.place(at)),
        From::Set => "--set".to_owned(),
        From::Default => "default".to_owned(),
    };
    match setting {
        Effective { live: true, .. } => format!("{from}; live"),
        Effective { described: true, .. } | Effective { from: From::Default, .. } => from,
        _ => format!("{from} (variable)"),
    }
}

fn readers(graph: &Graph, id: &str, output: &str) -> Vec<String> {
    let mut readers = Vec::new();
    for node in &graph.nodes {
        for input in &node.inputs {
            let takes = matches!(&input.upstream, Some(Upstream::Output { node, output: port }) if node == id && port == output);
            if takes {
                readers.push(format!("{}/{}", node.id.value, input.name.value));
            }
        }
    }
    readers
}
