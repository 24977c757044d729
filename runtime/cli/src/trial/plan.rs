//! A graph as a list of nodes that can be driven, cut, joined with another and handed to dora.

use crate::load::{Loaded, absolute_sets};
use crate::scratch::{Scratch, script_text};
use anyhow::Context;
use millrace_graph::Upstream;
use millrace_graph::check::{CheckedNode, Effective, From, Set};
use millrace_graph::describe::GROUP_SETTING;
use millrace_graph::describe::{Description, find_program};
use millrace_graph::model::Node;
use millrace_graph::settings::{document, file_path, is_environment, is_url};
use millrace_graph::{model::Origin, resolved};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An output of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) node: String,
    pub(crate) output: String,
}

/// What feeds an input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// Another node.
    Port(Port),
    /// A clock, or a log of dora's, in its words.
    Dora(String),
}

/// An input of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlanInput {
    pub(crate) name: String,
    pub(crate) source: Source,
    /// Options of dora's beside the source.
    options: Map<String, Value>,
}

/// A node, as it is to be started.
#[derive(Clone, Debug)]
pub(crate) struct PlanNode {
    pub(crate) id: String,
    /// Its id in its own graph: `decode` for a module's `pipeline.decode`, where that names it alone. So nodes of two graphs
    /// are told for the same, whether they stand in a module or not.
    pub(crate) original: String,
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) description: Option<Arc<Description>>,
    /// Variables that are given to it, word for word.
    pub(crate) given: Vec<(String, String)>,
    /// All settings as they take effect, paths made absolute.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) inputs: Vec<PlanInput>,
    pub(crate) outputs: Vec<String>,
    /// dora's other keys.
    rest: Map<String, Value>,
}

/// A graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<PlanNode>,
    /// What the graph says to all nodes, as far as every node has it: `HANDOVER` and the like.
    pub(crate) common: Vec<(String, String)>,
}

/// Keys of dora's that an experiment decides itself: nothing is restarted, and the graph ends with its nodes.
const OURS: [&str; 13] = [
    "id",
    "path",
    "build",
    "env",
    "inputs",
    "outputs",
    "restart_policy",
    "max_restarts",
    "restart_delay",
    "max_restart_delay",
    "restart_window",
    "module",
    "params",
];

impl Plan {
    /// A checked graph without faults.
    pub(crate) fn of(loaded: &Loaded) -> anyhow::Result<Self> {
        let graph = loaded.checked.graph.as_ref().context("there is no graph")?;
        let sets = absolute_sets(&loaded.checked)?;
        let json = resolved::to_json(graph, &[], &|_| None);
        let mut nodes = Vec::new();
        let short = |id: &str| {
            let same = graph.nodes.iter().zip(graph.short_ids()).find(|(node, _)| node.id.value == id);
            same.map_or(id, |(_, short)| short).to_owned()
        };
        let all = loaded.checked.nodes.iter().flat_map(|node| &node.settings);
        let described: BTreeSet<&str> = all.filter(|s| s.described).map(|s| s.key.as_str()).collect();
        for (node, checked) in graph.nodes.iter().zip(&loaded.checked.nodes) {
            let path = node.path.as_ref().filter(|_| node.origin == Origin::Program);
            let path = path.with_context(|| format!("node '{}' is no program of its own", node.id.value))?;
            let program = find_program(&path.value, &loaded.folder)
                .with_context(|| format!("node '{}': there is no program {}", node.id.value, path.value))?;
            let program = program.canonicalize().unwrap_or(program);
            let mut rest = json["nodes"][node.index].as_object().cloned().unwrap_or_default();
            let inputs = inputs(node, rest.get("inputs"), &short);
            rest.retain(|key, _| !OURS.contains(&key.as_str()));
            nodes.push(PlanNode {
                id: short(&node.id.value),
                original: short(&node.id.value),
                program,
                folder: loaded.folder.clone(),
                description: checked.description.clone(),
                given: given(checked, &sets, &described),
                settings: effective(checked, &sets, &described, &loaded.folder),
                inputs,
                outputs: node.outputs.iter().map(|output| output.value.clone()).collect(),
                rest,
            });
        }
        let common =
            nodes.iter().find_map(|node: &PlanNode| Some(document(&node.description.as_ref()?.common_settings)));
        let common_keys: BTreeSet<String> = common.into_iter().flatten().map(|doc| doc.key).collect();
        let of_all = loaded.checked.nodes.iter().flat_map(|node| &node.settings);
        let mut common: Vec<(String, String)> = of_all
            .filter(|setting| matches!(setting.from, From::Graph(_)) && common_keys.contains(&setting.key))
            // that of a sink which a trial adds is a process of its own
            .filter(|setting| setting.key != GROUP_SETTING)
            .filter_map(|setting| Some((setting.key.clone(), setting.value.clone()?)))
            .collect();
        common.sort();
        common.dedup();
        Ok(Self { nodes, common })
    }

    pub(crate) fn node(&self, id: &str) -> Option<&PlanNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Who reads an output: the node and its input's name.
    pub(crate) fn consumers(&self, port: &Port) -> impl Iterator<Item = (&PlanNode, &str)> {
        self.nodes.iter().flat_map(move |node| {
            let own = node.inputs.iter().filter(move |input| input.source == Source::Port(port.clone()));
            own.map(move |input| (node, input.name.as_str()))
        })
    }

    /// Nodes that give nothing to others.
    pub(crate) fn sinks(&self) -> impl Iterator<Item = &PlanNode> {
        self.nodes.iter().filter(|node| node.outputs.is_empty())
    }

    /// The graph without its sinks.
    pub(crate) fn without_sinks(&self) -> Self {
        let nodes = self.nodes.iter().filter(|node| !node.outputs.is_empty()).cloned().collect();
        Self { nodes, common: self.common.clone() }
    }

    /// The node `until` and all that it needs, and nothing else.
    pub(crate) fn cut(&self, until: &str) -> anyhow::Result<Self> {
        let all = || self.nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>().join(", ");
        // also by the id that it has in the graph, with the module's
        let ends = |id: &str| until.strip_suffix(id).is_some_and(|before| before.ends_with('.'));
        let last = self.node(until).or_else(|| self.nodes.iter().find(|node| ends(&node.id)));
        let last = last.with_context(|| format!("--until {until}: there is no such node; there are: {}", all()))?;
        let mut wanted = vec![last.id.clone()];
        let mut at = 0;
        while let Some(node) = wanted.get(at).and_then(|id| self.node(id)) {
            at += 1;
            let feeds = node.inputs.iter().filter_map(|input| match &input.source {
                Source::Port(port) => Some(port.node.clone()),
                Source::Dora(_) => None,
            });
            let new: Vec<String> = feeds.filter(|id| !wanted.contains(id)).collect();
            wanted.extend(new);
        }
        let nodes = self.nodes.iter().filter(|node| wanted.contains(&node.id)).cloned().collect();
        Ok(Self { nodes, common: self.common.clone() })
    }

    /// The last outputs of this kind: those that no node makes more of the same of.
    pub(crate) fn taps(&self, kind: &str) -> Vec<Port> {
        let makes = |node: &PlanNode| node.ports_of(kind).next().is_some();
        let mut taps = Vec::new();
        for node in &self.nodes {
            for output in node.ports_of(kind) {
                let port = Port { node: node.id.clone(), output: output.to_owned() };
                if !self.consumers(&port).any(|(consumer, _)| makes(consumer)) {
                    taps.push(port);
                }
            }
        }
        taps
    }

    /// The outputs at which an arm ends, and what they carry: detections, else tensors, else images.
    pub(crate) fn ends(&self) -> Option<(&'static str, Vec<Port>)> {
        ["detections", "tensor", "image"].into_iter().find_map(|kind| {
            let taps = self.taps(kind);
            (!taps.is_empty()).then_some((kind, taps))
        })
    }

    /// Gives a setting to every node that has it and for which `which` holds.
    pub(crate) fn force(&mut self, key: &str, value: &str, which: impl Fn(&PlanNode) -> bool) {
        for node in self.nodes.iter_mut().filter(|node| which(node)) {
            if node.has(key) {
                node.give(key, value);
            }
        }
    }

    /// Withdraws a setting from every node for which `which` holds: it has its default again.
    pub(crate) fn withhold(&mut self, key: &str, which: impl Fn(&PlanNode) -> bool) {
        for node in self.nodes.iter_mut().filter(|node| which(node)) {
            node.given.retain(|(known, _)| known != key);
            node.settings.remove(key);
        }
    }

    /// Writes everything that dora needs to run it, and gives the graph's path.
    pub(crate) fn write(&self, scratch: &Scratch, stem: &str) -> anyhow::Result<PathBuf> {
        let mut nodes = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let set =
                |(key, value): &(String, String)| Set { node: node.id.clone(), key: key.clone(), value: value.clone() };
            let sets: Vec<Set> = node.given.iter().map(set).collect();
            let script = scratch.write_script(index, &script_text(&node.folder, &node.program, &node.id, &sets))?;
            nodes.push(node.json(&script.display().to_string()));
        }
        scratch.write_json(stem, &json!({ "exit_when_nodes_finish": true, "nodes": nodes }))
    }
}

impl PlanNode {
    /// A node of an experiment's own.
    pub(crate) fn own(id: &str, program: PathBuf, given: &[(&str, String)], inputs: Vec<(String, Port)>) -> Self {
        let inputs =
            inputs.into_iter().map(|(name, port)| PlanInput { name, source: Source::Port(port), options: Map::new() });
        Self {
            id: id.to_owned(),
            original: id.to_owned(),
            program,
            folder: PathBuf::from("/"),
            description: None,
            given: given.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            settings: BTreeMap::new(),
            inputs: inputs.collect(),
            outputs: Vec::new(),
            rest: Map::new(),
        }
    }

    /// It has this setting.
    pub(crate) fn has(&self, key: &str) -> bool {
        let schema = self.description.as_ref().map(|description| description.schema());
        schema.is_some_and(|schema| document(&schema).iter().any(|doc| doc.key == key))
    }

    /// Gives it another value.
    pub(crate) fn give(&mut self, key: &str, value: &str) {
        self.given.retain(|(known, _)| known != key);
        self.given.push((key.to_owned(), value.to_owned()));
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// It is fed by no other node.
    pub(crate) fn is_source(&self) -> bool {
        !self.outputs.is_empty() && !self.inputs.iter().any(|input| matches!(input.source, Source::Port(_)))
    }

    /// Its outputs of this kind that the graph lists.
    pub(crate) fn ports_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        let described = self.description.iter().flat_map(|description| &description.outputs);
        described
            .filter(move |port| port.carries == kind && self.outputs.contains(&port.name))
            .map(|port| port.name.as_str())
    }

    /// The node is the same as another, but for what feeds it.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.program == other.program
            && self.settings == other.settings
            && self.outputs == other.outputs
            && self.rest == other.rest
    }

    fn json(&self, path: &str) -> Value {
        let mut node = self.rest.clone();
        node.insert("id".to_owned(), json!(self.id));
        node.insert("path".to_owned(), json!(path));
        let input = |input: &PlanInput| {
            let source = match &input.source {
                Source::Port(port) => format!("{}/{}", port.node, port.output),
                Source::Dora(text) => text.clone(),
            };
            let mut value = input.options.clone();
            value.insert("source".to_owned(), json!(source));
            (input.name.clone(), Value::Object(value))
        };
        node.insert("inputs".to_owned(), Value::Object(self.inputs.iter().map(input).collect()));
        node.insert("outputs".to_owned(), json!(self.outputs));
        // the exact text comes from the script that starts the node
        let env = self.given.iter().map(|(key, value)| (key.clone(), json!(resolved::carried(value)))).collect();
        node.insert("env".to_owned(), Value::Object(env));
        node.insert("restart_policy".to_owned(), json!("never"));
        Value::Object(node)
    }
}

fn inputs(node: &Node, raw: Option<&Value>, short: &dyn Fn(&str) -> String) -> Vec<PlanInput> {
    let read = |input: &millrace_graph::model::Input| {
        let options = raw.and_then(|raw| raw.get(&input.name.value)).and_then(Value::as_object).cloned();
        let source = match input.upstream.clone()? {
            Upstream::Output { node, output } => Source::Port(Port { node: short(&node), output }),
            Upstream::Timer | Upstream::Logs => Source::Dora(input.source.value.clone()),
        };
        Some(PlanInput { name: input.name.value.clone(), source, options: options.unwrap_or_default() })
    };
    node.inputs.iter().filter_map(read).collect()
}

/// What the graph and the command line say to a node.
fn given(checked: &CheckedNode, sets: &[Set], described: &BTreeSet<&str>) -> Vec<(String, String)> {
    let all = checked.settings.iter().filter(|s| s.from != From::Default && concerns(checked, s, described));
    all.filter_map(|s| Some((s.key.clone(), set_value(checked, sets, &s.key).or_else(|| s.value.clone())?))).collect()
}

/// The graph's own `env:` is for all nodes: a name in it that this node does not know is some other node's, or a variable of
/// every process. `described` has the settings of all nodes: `CUDA_GRAPH` is a setting, though its name begins like a variable's.
fn concerns(checked: &CheckedNode, setting: &Effective, described: &BTreeSet<&str>) -> bool {
    let graphs = matches!(setting.from, From::Graph(_));
    let variable = is_environment(&setting.key) && !described.contains(setting.key.as_str());
    let Some(description) = checked.description.as_ref().filter(|_| graphs) else { return true };
    let meant = setting.key != GROUP_SETTING || description.shares_process;
    setting.described && meant || variable
}

fn set_value(checked: &CheckedNode, sets: &[Set], key: &str) -> Option<String> {
    sets.iter().find(|set| set.node == checked.id && set.key == key).map(|set| set.value.clone())
}

fn effective(
    checked: &CheckedNode,
    sets: &[Set],
    described: &BTreeSet<&str>,
    folder: &std::path::Path,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for setting in checked.settings.iter().filter(|setting| concerns(checked, setting, described)) {
        let Some(value) = set_value(checked, sets, &setting.key).or_else(|| setting.value.clone()) else { continue };
        // a file: URL names a file, and a camera's URL stays as it is
        let file = file_path(&value).ok().filter(|file| !is_url(&value) || file != Path::new(&value));
        let value = if let Some(file) = file.filter(|_| setting.is_path && !value.is_empty()) {
            let path = folder.join(file);
            path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path).display().to_string()
        } else {
            value
        };
        all.insert(setting.key.clone(), value);
    }
    all
}
