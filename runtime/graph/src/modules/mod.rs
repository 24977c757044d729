//! Modules: a node with `module: file.yml` stands for the nodes of that file.
//!
//! They are put in its place in the tree of the graph, as `dora expand` does it, and every part keeps its place in its
//! own file: what follows, from the checks to the graph that dora gets, sees a flat graph and knows nothing of modules.

mod file;
mod inner;

use crate::dora::{self, Upstream};
use crate::fault::{Fault, Report};
use crate::model::{Located, check_doubled, check_keys, text_of};
use crate::nearest::nearest;
use crate::yaml::{Data, MOST_PARTS, Yaml, count_parts};
pub(crate) use file::{HEADER_KEYS, KEYS};
use file::{Header, id_of, lexical, locate, read, read_header};
use inner::{Use, check_params_used, prepend_build, set_source, source_of};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// dora's own bound on modules in modules.
const DEEPEST: usize = 8;
/// More uses of modules than any graph has.
const MOST_USES: usize = 1_000;

/// A node of the graph that a module stood in for.
#[derive(Clone, Debug)]
pub struct ModuleNode {
    /// Its id.
    pub id: Located<String>,
    /// Its nodes are in the graph.
    pub loaded: bool,
}

/// The keys that dora takes beside `module`.
const MODULE_NODE_KEYS: [&str; 9] =
    ["id", "name", "description", "module", "inputs", "params", "env", "build", "deploy"];

/// The file of a graph: the folder that relative paths in it start from, and its name as the user gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GraphFile<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) file: &'a str,
}

/// Puts the nodes of modules in their places, and gives the nodes that were modules.
pub(crate) fn expand(root: &mut Yaml, graph_file: GraphFile<'_>, report: &mut Report) -> Vec<ModuleNode> {
    let mut expander = Expander::new(graph_file, report);
    let mut outputs = Outputs::new();
    if let Some(Data::List(items)) = root.get_mut("nodes").map(|nodes| &mut nodes.data)
        && items.iter().any(|item| id_of(item).is_some())
    {
        let nodes = std::mem::take(items);
        for node in nodes {
            match id_of(&node) {
                Some(id) => items.extend(expander.expand(&node, id, Path::new(""), &mut outputs)),
                None => items.push(node),
            }
        }
        expander.connect(items, &outputs);
    }
    expander.uses
}

/// Reads a module that is checked on its own, as if a graph had given it all that it takes.
pub(crate) fn expand_alone(root: &mut Yaml, graph_file: GraphFile<'_>, report: &mut Report) -> Vec<ModuleNode> {
    let mut expander = Expander::new(graph_file, report);
    expander.alone = true;
    expander.open.extend(Path::new(graph_file.file).file_name().map(PathBuf::from));
    let nobody = Yaml::plain(root.span, "");
    let Some(header) = read_header(root, expander.report) else { return Vec::new() };
    let id = Located { span: root.span, value: String::new() };
    let (nodes, _) = expander.inside(&nobody, &id, root.clone(), &header, Path::new(""));
    if let Some(list) = root.get_mut("nodes") {
        list.data = Data::List(nodes);
    }
    expander.uses
}

/// By a module's output: the node's output that it is; none where that was reported, or is a matter of dora's.
type Targets = BTreeMap<String, Option<String>>;
/// By a module's id.
type Outputs = BTreeMap<String, Targets>;

/// By an output's name: all that the nodes of a module give under it. One is wanted.
#[derive(Default)]
struct Given {
    ports: BTreeMap<String, Vec<Option<String>>>,
    /// A node is among them whose outputs are not known here.
    more: bool,
}

struct Expander<'a> {
    graph_file: GraphFile<'a>,
    report: &'a mut Report,
    texts: BTreeMap<PathBuf, String>,
    /// The modules that the present one is in.
    open: Vec<PathBuf>,
    parts: usize,
    uses: Vec<ModuleNode>,
    alone: bool,
}

impl<'a> Expander<'a> {
    fn new(graph_file: GraphFile<'a>, report: &'a mut Report) -> Self {
        let texts = BTreeMap::new();
        Self { graph_file, report, texts, open: Vec::new(), parts: 0, uses: Vec::new(), alone: false }
    }

    /// The nodes that stand for a module's node; `dir` is the folder of the file that the node is in.
    fn expand(&mut self, node: &Yaml, id: Located<String>, dir: &Path, outputs: &mut Outputs) -> Vec<Yaml> {
        let use_number = self.uses.len();
        self.uses.push(ModuleNode { id: id.clone(), loaded: false });
        self.check_node(node, &id);
        let Some((root, file)) = self.load(node, &id, dir) else { return Vec::new() };
        self.open.push(file.clone());
        let mut nodes = Vec::new();
        if let Some(header) = read_header(&root, self.report) {
            self.check_inputs(node, &id, &header);
            let targets;
            (nodes, targets) = self.inside(node, &id, root, &header, file.parent().unwrap_or(Path::new("")));
            outputs.insert(id.value, targets);
            for inner in &mut nodes {
                prepend_build(inner, node.get("build"));
            }
            self.uses[use_number].loaded = true;
        }
        self.open.pop();
        nodes
    }

    /// The nodes of a module in the graph's terms, and what its outputs are.
    fn inside(
        &mut self,
        node: &Yaml,
        id: &Located<String>,
        mut root: Yaml,
        header: &Header,
        dir: &Path,
    ) -> (Vec<Yaml>, Targets) {
        let scope = if id.value.is_empty() { String::new() } else { format!("{}.", id.value) };
        let build = root.get("build").cloned();
        let items = match root.get_mut("nodes").map(|nodes| &mut nodes.data) {
            Some(Data::List(items)) => std::mem::take(items),
            _ => Vec::new(),
        };
        check_params_used(node, &items, self.report);
        let ids = items.iter().filter_map(|item| text_of(item, "id")).map(|id| id.value).collect();
        let user = Use { node, scope: &scope, header, ids, dir, alone: self.alone };
        let mut nodes = Vec::new();
        let mut nested = Outputs::new();
        let mut given = Given::default();
        for mut item in items {
            user.rewrite(&mut item, self.report);
            prepend_build(&mut item, build.as_ref());
            if let Some(inner) = id_of(&item) {
                let name = inner.value.clone();
                nodes.extend(self.expand(&item, inner, dir, &mut nested));
                given.add_module(nested.get(&name));
            } else {
                given.add_node(&item);
                nodes.push(item);
            }
        }
        self.connect(&mut nodes, &nested);
        (nodes, self.targets(header, &given, &scope))
    }

    /// What each output of a module is.
    fn targets(&mut self, header: &Header, given: &Given, scope: &str) -> Targets {
        let mut targets = Targets::new();
        for output in &header.outputs {
            let found = given.ports.get(&output.value).map(Vec::as_slice).unwrap_or_default();
            if found.len() > 1 {
                let local = |port: &String| port.strip_prefix(scope).unwrap_or(port).to_owned();
                let ports: Vec<String> = found.iter().flatten().map(local).collect();
                let message =
                    format!("the module's output '{}' is ambiguous: {} give one", output.value, ports.join(" and "));
                self.report.push(Fault::error(output.span, message).fix("give the outputs of its nodes unlike names"));
            } else if found.is_empty() && !given.more {
                let names: Vec<&str> = given.ports.keys().map(String::as_str).collect();
                let near = nearest(&output.value, names.iter().copied()).map(str::to_owned);
                let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let message = format!("no node of the module has an output '{}'; there are: {has}", output.value);
                self.report.push(Fault::error(output.span, message).fix_with(near));
            }
            let one = if let [one] = found { one.clone() } else { None };
            targets.insert(output.value.clone(), one);
        }
        targets
    }

    /// Leads inputs that name a module's output to the node that gives it.
    fn connect(&mut self, nodes: &mut [Yaml], outputs: &Outputs) {
        for node in nodes {
            let id = text_of(node, "id").map_or_else(String::new, |id| id.value);
            let Some(Data::Map(inputs)) = node.get_mut("inputs").map(|inputs| &mut inputs.data) else { continue };
            for (name, value) in inputs {
                let Some(source) = source_of(value) else { continue };
                let Some(Ok(Upstream::Output { node, output })) = source.text().map(dora::parse_upstream) else {
                    continue;
                };
                let Some(known) = outputs.get(&node) else { continue };
                match known.get(&output) {
                    Some(Some(port)) => set_source(value, port.clone()),
                    Some(None) => {}
                    None => {
                        let name = name.text().unwrap_or("input");
                        let names: Vec<&str> = known.keys().map(String::as_str).collect();
                        let one = if let [one] = names[..] { Some(one) } else { None };
                        let near = nearest(&output, names.iter().copied()).or(one);
                        let has =
                            if names.is_empty() { " no outputs".to_owned() } else { format!(": {}", names.join(", ")) };
                        let message = format!(
                            "input '{name}' of node '{id}' names '{node}/{output}', which does not exist; the module '{node}' declares{has}"
                        );
                        let local = node.strip_prefix(self.report.scope(source.span)).unwrap_or(&node);
                        let fix = near.map(|near| format!("{name}: {local}/{near}"));
                        self.report.push(Fault::error(source.span, message).fix_with(fix));
                    }
                }
            }
        }
    }

    /// The tree of a module's file, and where it lies from the graph's folder.
    fn load(&mut self, node: &Yaml, id: &Located<String>, dir: &Path) -> Option<(Yaml, PathBuf)> {
        let named = text_of(node, "module")?;
        let mut refuse = |message: String, fix: Option<String>| {
            self.report.push(Fault::error(named.span, message).fix_with(fix));
            None
        };
        let located = match locate(self.graph_file.folder, dir, &named.value) {
            // on its own, a module may use others wherever they lie: the graph's folder is not known
            Err(_) if self.alone && lexical(dir, &named.value).is_none() => Ok(dir.join(&named.value)),
            located => located,
        };
        let file = match located {
            Ok(file) => file,
            Err((message, fix)) => return refuse(message, fix),
        };
        let real = |file: &Path| self.graph_file.folder.join(file).canonicalize().ok();
        if let Some(first) = self.open.iter().position(|open| real(open) == real(&file)) {
            let names = self.open[first..].iter().chain([&file]).map(|file| file.display().to_string());
            let way = names.collect::<Vec<_>>().join(" -> ");
            return refuse(format!("the module is a part of itself: {way}"), None);
        }
        if self.open.len() >= DEEPEST {
            return refuse(format!("modules in modules go {DEEPEST} deep at most, which is dora's bound"), None);
        }
        if self.uses.len() > MOST_USES {
            return refuse(format!("more than {MOST_USES} uses of modules; this is not a graph"), None);
        }
        let path = self.graph_file.folder.join(&file);
        if !self.texts.contains_key(&path) {
            match read(&path) {
                Ok(text) => self.texts.insert(path.clone(), text),
                Err(why) => return refuse(format!("the module '{}' cannot be read: {why}", named.value), None),
            };
        }
        let text = &self.texts[&path];
        let shown = Path::new(self.graph_file.file).with_file_name("").join(&file).display().to_string();
        let source = self.report.add_source(shown, text, format!("{}.", id.value));
        let root = match Yaml::parse_as(text, source) {
            Ok(root) => root,
            Err(fault) => {
                self.report.push(Fault::error(fault.span, fault.what).fix_with(fault.fix));
                return None;
            }
        };
        if matches!(root.data, Data::Map(_)) && root.get("module").is_none() {
            let message = format!("'{}' is no module: it has no key 'module'", named.value);
            self.report
                .push(Fault::error(named.span, message).fix("in it: module: { name: …, inputs: […], outputs: […] }"));
            return None;
        }
        self.parts += count_parts(&root);
        if self.parts > MOST_PARTS {
            let message = format!("more than {MOST_PARTS} values in all uses of modules; this is not a graph");
            self.report.push(Fault::error(named.span, message));
            return None;
        }
        Some((root, file))
    }

    /// A module's node has an id, inputs, params, and what goes to the nodes inside.
    fn check_node(&mut self, node: &Yaml, id: &Located<String>) {
        let Data::Map(entries) = &node.data else { return };
        check_keys(entries, dora::NODE_KEYS, &format!("node '{}'", id.value), self.report);
        if let Some(fault) = dora::id_fault(&id.value) {
            self.report.push(Fault::error(id.span, format!("not a node's id: {fault}")));
        }
        for (key, _) in entries {
            let Some(name) = key.text() else { continue };
            if MODULE_NODE_KEYS.contains(&name) || !dora::NODE_KEYS.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let message = format!("node '{}' is a module, which has no '{name}' of its own", id.value);
            let fix = match name {
                "outputs" => "leave it out: a module's file says what comes out of it",
                "path" => "either 'path' or 'module'",
                _ => "give it to the nodes in the module's file",
            };
            self.report.push(Fault::error(key.span, message).fix(fix));
        }
        let Some(Data::Map(entries)) = node.get("params").map(|map| &map.data) else { return };
        check_doubled(entries, self.report);
        let mut upper: BTreeMap<String, &str> = BTreeMap::new();
        for (key, value) in entries {
            let Some(name) = key.text() else {
                self.report.push(Fault::error(key.span, format!("a param's name is text, and this is {}", key.kind())));
                continue;
            };
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                let message = format!("'{name}' is not a param's name: letters, digits and _ are allowed");
                self.report.push(Fault::error(key.span, message));
            }
            if value.scalar().is_none() {
                let message = format!("the param '{name}' is {}; a param is one text", value.kind());
                self.report.push(Fault::error(value.span, message));
            }
            if let Some(other) = upper.insert(name.to_uppercase(), name).filter(|other| *other != name) {
                let message =
                    format!("the params '{other}' and '{name}' are one to dora: PARAM_{}", name.to_uppercase());
                self.report.push(Fault::error(key.span, message).fix("give them unlike names"));
            }
        }
    }

    /// What the node connects, against what the module takes.
    fn check_inputs(&mut self, node: &Yaml, id: &Located<String>, header: &Header) {
        let entries = match node.get("inputs").map(|inputs| &inputs.data) {
            Some(Data::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        check_doubled(entries, self.report);
        let mut meant = Vec::new();
        for (key, value) in entries {
            let Some(name) = key.text() else { continue };
            if header.all_inputs().any(|input| input == name) {
                continue;
            }
            let near = nearest(name, header.all_inputs());
            meant.extend(near);
            let names: Vec<&str> = header.all_inputs().collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message =
                format!("node '{}' has an input '{name}', which its module does not know; its inputs: {has}", id.value);
            let source = source_of(value).and_then(Yaml::text).unwrap_or("…");
            self.report.push(Fault::error(key.span, message).fix_with(near.map(|near| format!("{near}: {source}"))));
        }
        for input in &header.inputs {
            let connected = entries.iter().any(|(key, _)| key.text() == Some(&input.value));
            if !connected && !meant.contains(&input.value.as_str()) {
                let message =
                    format!("input '{}' of node '{}', which its module needs, is not connected", input.value, id.value);
                self.report
                    .push(Fault::error(id.span, message).fix(format!("inputs: {{ {}: node/output }}", input.value)));
            }
        }
    }
}

impl Given {
    fn add_node(&mut self, node: &Yaml) {
        self.more |= ["operator", "operators", "ros2", "hub"].iter().any(|key| node.get(key).is_some());
        let Some(id) = text_of(node, "id") else { return };
        let Some(Data::List(listed)) = node.get("outputs").map(|list| &list.data) else { return };
        let names: BTreeSet<&str> = listed.iter().filter_map(Yaml::text).collect();
        for name in names {
            self.ports.entry(name.to_owned()).or_default().push(Some(format!("{}/{name}", id.value)));
        }
    }

    /// The outputs of a module in the module; none where it could not be read.
    fn add_module(&mut self, targets: Option<&Targets>) {
        self.more |= targets.is_none();
        for (name, port) in targets.into_iter().flatten() {
            self.ports.entry(name.clone()).or_default().push(port.clone());
        }
    }
}
