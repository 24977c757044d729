//! All checks of a graph, and what they learned of it.

mod cameras;
mod devices;
mod env;
mod files;
mod memory;
mod parts;
pub(crate) mod process;
mod programs;
mod remarks;
mod wiring;

pub use memory::{Memory, PortMemory};

use crate::describe::{Described, Describer, Description};
use crate::fault::{Fault, Location, Report, Severity};
use crate::model::{Graph, Node, Origin};
use crate::modules::GraphFile;
use crate::nearest::nearest;
use crate::settings::FileUse;
use crate::yaml::Span;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// `--set node.KEY=value`: one setting of one node, over what the graph says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The node's id.
    pub node: String,
    /// The setting.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl std::str::FromStr for Set {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write it as node.KEY=value, for example decode.SOURCE=clip.mp4";
        let (place, value) = text.split_once('=').ok_or_else(|| format!("no '=' in it; {form}"))?;
        // Ids of a module's nodes hold dots (cam0.decode); names of settings do not.
        let (node, key) = place.rsplit_once('.').ok_or_else(|| format!("no '.' before the '='; {form}"))?;
        if node.is_empty() || key.is_empty() {
            return Err(format!("a part is empty; {form}"));
        }
        Ok(Self { node: node.to_owned(), key: key.to_owned(), value: value.to_owned() })
    }
}

impl Set {
    fn location(&self) -> Location {
        Location::Set(format!("{}.{}", self.node, self.key))
    }
}

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The node's `env:`, or that of a module's node around it.
    Node(Span),
    /// The graph's `env:`.
    Graph(Span),
    /// `--set`.
    Set,
    /// Nothing was given.
    Default,
}

/// One setting as the node will have it.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Its name.
    pub key: String,
    /// Its value as text; none where it is unset, or has a default that the node does not state.
    pub value: Option<String>,
    /// Without a value it is unset.
    pub optional: bool,
    /// Where from.
    pub from: From,
    /// The value is a path.
    pub is_path: bool,
    /// What the node does with the file that it names, where it says so.
    pub file: Option<FileUse>,
    /// It can change while the node runs.
    pub live: bool,
    /// It is a setting that the node describes, and not just a variable.
    pub described: bool,
}

/// What is known of a node after the check.
#[derive(Clone, Debug)]
pub struct CheckedNode {
    /// Its id.
    pub id: String,
    /// What it says of itself, where it is a Millrace node that is built.
    pub description: Option<Arc<Description>>,
    /// Its settings, the described ones first.
    pub settings: Vec<Effective>,
}

/// The outcome of a check.
#[derive(Debug)]
pub struct Checked {
    /// The graph, where there is one to speak of.
    pub graph: Option<Graph>,
    /// What was found.
    pub report: Report,
    /// Its nodes, in the order of the file, those of a module where it stands.
    pub nodes: Vec<CheckedNode>,
    /// The `--set`s by the nodes' whole ids, with those that follow from them by aliases in the file.
    pub sets: Vec<Set>,
    /// What its pools need, where that is known.
    pub memory: Memory,
}

impl Checked {
    /// Refuses a graph whose pools need more than this machine, or its container, has.
    pub fn check_memory(&mut self, available_bytes: u64) {
        if let Some(graph) = &self.graph {
            memory::refuse(&self.memory, graph, available_bytes, &mut self.report);
        }
    }
}

/// What a check needs of the world.
pub struct World<'a> {
    /// Asks nodes to describe themselves.
    pub describer: &'a dyn Describer,
    /// The variables that `$NAME` in a graph refers to.
    pub variables: &'a dyn Fn(&str) -> Option<String>,
}

/// More than any graph; a larger file is something else.
const LARGEST_BYTES: usize = 4 << 20;

/// Checks a graph file that is called `file` and lies in `folder`.
pub fn check(file: &str, folder: &Path, bytes: &[u8], sets: &[Set], world: &World<'_>) -> Checked {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= LARGEST_BYTES => text,
        refused => {
            let (span, what) = match refused {
                Err(error) => (end_of(&bytes[..error.valid_up_to()]), "a byte that is not UTF-8: this is not a text"),
                Ok(_) => (Span { source: 0, line: 1, column: 1, len: 0 }, "larger than 4 MiB: this is not a graph"),
            };
            let mut report = Report::new(file, "");
            report.push(Fault::error(span, what));
            return Checked { graph: None, report, nodes: Vec::new(), sets: Vec::new(), memory: Memory::default() };
        }
    };
    let mut report = Report::new(file, text);
    let Some(graph) = Graph::read_at(text, Some(GraphFile { folder, file }), &mut report) else {
        return Checked { graph: None, report, nodes: Vec::new(), sets: Vec::new(), memory: Memory::default() };
    };
    let described: Vec<Option<Arc<Description>>> =
        graph.nodes.iter().map(|node| describe(&graph, node, folder, world, &mut report)).collect();
    wiring::check(&graph, &described, &mut report);
    let sets = check_sets(&graph, sets, &mut report);
    let sets = spread(&graph, &sets);
    let nodes: Vec<CheckedNode> = graph
        .nodes
        .iter()
        .zip(&described)
        .map(|(node, description)| {
            let settings = env::check(&graph, node, description.as_deref(), &sets, world, &mut report);
            CheckedNode { id: node.id.value.clone(), description: description.clone(), settings }
        })
        .collect();
    if graph.is_module {
        let message = "this is a module, a part of graphs: what they give to it is checked with them";
        report.push(Fault::note(graph.root.span, message));
    } else {
        env::check_common(&graph, &described, &mut report);
    }
    if !graph.is_module {
        process::check(&graph, &nodes, folder, world.describer, &mut report);
    }
    let (reach, mut read) = cameras::check(&graph, &nodes, folder, file, world, &mut report);
    // a module does not know the folder that its paths count from
    if !graph.is_module {
        let name = Path::new(file).file_name().unwrap_or_default();
        read.extend(files::Use::of("the graph".to_owned(), &folder.join(name)));
        files::check(&graph, &nodes, folder, read, &mut report);
        remarks::check(&graph, &nodes, folder, world.describer, &mut report);
    }
    devices::check(&graph, &nodes, &mut report);
    let memory = memory::estimate(&graph, &nodes, &reach, &mut report);
    // what flows through a module is for its graphs to say, and with it what a restart does
    for (node, checked) in graph.nodes.iter().zip(&nodes).filter(|_| !graph.is_module) {
        check_restarts(node, checked, &mut report);
    }
    Checked { graph: Some(graph), report, nodes, sets, memory }
}

fn end_of(text: &[u8]) -> Span {
    let line_start = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
    let line = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    Span { source: 0, line, column: String::from_utf8_lossy(&text[line_start..]).chars().count() + 1, len: 1 }
}

fn describe(
    graph: &Graph,
    node: &Node,
    folder: &Path,
    world: &World<'_>,
    report: &mut Report,
) -> Option<Arc<Description>> {
    let id = &node.id.value;
    let why_not = match node.origin {
        Origin::Program => None,
        Origin::Module => Some("is a module"),
        Origin::Dynamic => Some("is started by hand"),
        Origin::ByDora => Some("is fetched or hosted by dora"),
    };
    if let Some(why_not) = why_not {
        report.push(Fault::note(node.id.span, format!("node '{id}' {why_not}: settings and ports not checked")));
        return None;
    }
    let path = node.path.as_ref()?;
    match world.describer.describe(&path.value, folder) {
        Described::Node(description) => return Some(description),
        Described::Foreign => {
            let message = format!("node '{id}' is not a Millrace node: settings and ports not checked");
            report.push(Fault::note(path.span, message));
        }
        Described::Absent => {
            report.push(programs::absent(graph, node, path, folder, world));
        }
        Described::Unusable(why, fix) => {
            let message = format!("node '{id}': the program '{}' {why}", path.value);
            report.push(Fault::error(path.span, message).fix_with(fix));
        }
        Described::Failed(why) => {
            let message = format!("node '{id}' is a Millrace node, but could not say what it needs: {why}");
            let fix = node.build.as_ref().map(|_| "build it again".to_owned());
            report.push(Fault::error(path.span, message).fix_with(fix));
        }
    }
    None
}

/// The sets by the whole ids of their nodes: the end of an id will do, where one node alone has it.
fn check_sets(graph: &Graph, sets: &[Set], report: &mut Report) -> Vec<Set> {
    let mut all: Vec<Set> = Vec::new();
    for set in sets {
        let error = |message: String| Fault::new(Severity::Error, Span::default(), message).at_location(set.location());
        let mut set = set.clone();
        match graph.find(&set.node) {
            Ok(Some(node)) => set.node.clone_from(&node.id.value),
            Ok(None) if graph.is_unknown(&set.node) => {}
            Ok(None) => report.push(no_such_node(graph, &set)),
            Err(meant) => {
                let fix = format!("--set {}.{}=…", meant[0], set.key);
                report.push(error(format!("'{}' may be {}", set.node, meant.join(" or "))).fix(fix));
            }
        }
        if all.iter().any(|earlier| earlier.node == set.node && earlier.key == set.key) {
            report.push(error(format!("{}.{} is set twice", set.node, set.key)));
        }
        all.push(set);
    }
    all
}

fn no_such_node(graph: &Graph, set: &Set) -> Fault {
    let ids = || graph.nodes.iter().map(|node| node.id.value.as_str());
    let module = graph.modules.iter().find(|module| module.id.value == set.node);
    let message = match module {
        Some(module) => {
            let scope = format!("{}.", module.id.value);
            let inside = ids().filter(|id| id.starts_with(&scope)).collect::<Vec<_>>().join(", ");
            format!("'{}' is a module, and settings are its nodes'; there are: {inside}", set.node)
        }
        None => format!("the graph has no node '{}'; there are: {}", set.node, ids().collect::<Vec<_>>().join(", ")),
    };
    let near = nearest(&set.node, ids()).filter(|_| module.is_none());
    let near = near.or_else(|| nearest(&set.node, graph.short_ids()));
    let fix = near.map(|near| format!("--set {near}.{}=…", set.key));
    Fault::new(Severity::Error, Span::default(), message).at_location(set.location()).fix_with(fix)
}

/// Adds what follows from each set: `MODEL: &model …` in one node and `MODEL: *model` in another are one value, and
/// setting it in either place sets it in both, unless the other is set as well.
fn spread(graph: &Graph, sets: &[Set]) -> Vec<Set> {
    let mut all = sets.to_vec();
    for set in sets {
        let values = graph.node(&set.node).map(|node| node.env.as_slice()).unwrap_or_default();
        let shared = values.iter().find(|value| value.key.value == set.key).and_then(|value| value.shared);
        let Some(shared) = shared else { continue };
        for node in &graph.nodes {
            for value in node.env.iter().filter(|value| value.shared == Some(shared)) {
                let (node, key) = (node.id.value.clone(), value.key.value.clone());
                if !all.iter().any(|set| set.node == node && set.key == key) {
                    all.push(Set { node, key, value: set.value.clone() });
                }
            }
        }
    }
    all
}

/// Where a setting's value is written.
pub fn place(node: &Node, checked: &CheckedNode, setting: &Effective) -> Location {
    let in_env = |node: &Node| {
        node.env.iter().find(|value| value.key.value == setting.key).map(|value| Location::File(value.value.span))
    };
    match setting.from {
        From::Set => Set { node: checked.id.clone(), key: setting.key.clone(), value: String::new() }.location(),
        From::Node(span) | From::Graph(span) => in_env(node).unwrap_or(Location::File(span)),
        From::Default => Location::File(node.id.span),
    }
}

/// dora 1.1 never restarts a node without inputs, and `never` is its default.
fn check_restarts(node: &Node, checked: &CheckedNode, report: &mut Report) {
    let id = &node.id.value;
    let policy = node.restart_policy.as_ref().map_or("never", |policy| policy.value.as_str());
    let flow = checked.settings.iter().find(|setting| setting.key == "FLOW").and_then(|flow| flow.value.as_deref());
    // In `lossless` flow every frame counts once; a node that starts over would send some of them again.
    // what a FLOW that is wrong was meant to be is not known
    let misspelt =
        node.env.iter().any(|value| value.key.value != "FLOW" && nearest(&value.key.value, ["FLOW"]).is_some());
    let live = checked.description.is_some() && flow.is_none_or(|flow| flow == "live") && !misspelt;
    if node.origin == Origin::Program && node.inputs.is_empty() && (live || policy != "never") {
        let message =
            format!("node '{id}' has no inputs: dora never restarts such a node, whatever restart_policy says");
        report.push(Fault::warning(node.id.span, message).fix("inputs: { tick: dora/timer/secs/5 }"));
    }
    if live && policy == "never" {
        let stated = if node.restart_policy.is_some() { "is" } else { "is not given, and dora's default is" };
        let message = format!("restart_policy of node '{id}' {stated} never: when the node fails, it stays down");
        let span = node.restart_policy.as_ref().map_or(node.id.span, |policy| policy.span);
        report.push(Fault::warning(span, message).fix("restart_policy: on-failure"));
    }
    if let Some(span) = node.deploy {
        let message = format!("node '{id}' has a 'deploy': 'dora run' and 'millrace run' refuse such graphs");
        report.push(Fault::warning(span, message).fix("use dora up and dora start, or leave deploy out"));
    }
}

/// The value of a setting before anything was given.
fn default_text(default: Option<&Value>) -> Option<String> {
    default.map(crate::settings::to_text)
}
