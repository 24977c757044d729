//! A graph as dora reads it, with the place of each part; structural faults are found on the way.

use crate::dora::{self, Shape, Upstream};
use crate::fault::{Fault, Report};
use crate::modules::{self, GraphFile, ModuleNode};
use crate::nearest::nearest;
use crate::redact::redact;
use crate::restarts::Restarts;
use crate::yaml::{Data, Scalar, Span, Yaml};
use std::collections::{BTreeMap, BTreeSet};

/// A value, and where it is in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// Its position.
    pub span: Span,
    /// The value itself.
    pub value: T,
}

/// How a node comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A program at `path:`.
    Program,
    /// A graph file in this one's place, where it was not looked for.
    Module,
    /// `path: dynamic`: somebody starts it by hand.
    Dynamic,
    /// `git:`, `hub:`, `operator:`, `operators:` or `ros2:`, a URL, or `path: shell`: dora fetches or makes it.
    ByDora,
}

/// One input of a node.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: Located<String>,
    /// The text that names its source.
    pub source: Located<String>,
    /// The source that the text names. `None` if the text is wrong, which was reported.
    pub upstream: Option<Upstream>,
}

/// One value of an `env:`.
#[derive(Clone, Debug)]
pub struct EnvValue {
    /// Its name.
    pub key: Located<String>,
    /// Its value.
    pub value: Located<Scalar>,
    /// The anchor by which it is one value with others.
    pub shared: Option<usize>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id.
    pub id: Located<String>,
    /// How it comes to run.
    pub origin: Origin,
    /// Its program.
    pub path: Option<Located<String>>,
    /// Its build commands, one a line.
    pub build: Option<Located<String>>,
    /// Its restart policy.
    pub restart_policy: Option<Located<String>>,
    /// How dora starts it again; none where it does not.
    pub restarts: Option<Restarts>,
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// Its outputs.
    pub outputs: Vec<Located<String>>,
    /// Those of its outputs that carry what it prints or logs.
    pub text_outputs: Vec<String>,
    /// It asks for a machine of its own, which `dora run` does not do.
    pub deploy: Option<Span>,
    /// Its own environment.
    pub env: Vec<EnvValue>,
    /// Its number in the file's list.
    pub index: usize,
}

impl Node {
    /// Its id as its own file gives it. A module's nodes have the module's id before it.
    fn local_id(&self) -> &str {
        let id = self.id.value.as_str();
        if self.id.span.source == 0 { id } else { id.rsplit_once('.').map_or(id, |(_, last)| last) }
    }
}

/// A graph.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The file as a tree, with the nodes of modules in their places.
    pub root: Yaml,
    /// The nodes that have an id.
    pub nodes: Vec<Node>,
    /// The nodes that modules stood in for.
    pub modules: Vec<ModuleNode>,
    /// The file is a module itself, a part of a graph.
    pub is_module: bool,
    /// The environment of all nodes.
    pub env: Vec<EnvValue>,
    /// The graph ends when its nodes have ended, although timers go on.
    pub exits: bool,
}

impl Graph {
    /// The node with this id.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id.value == id)
    }

    /// The node that a user means: the one of this id, or the only one whose id ends so (`decode` for `pipeline.decode`).
    ///
    /// # Errors
    /// All that could be meant.
    pub(crate) fn find(&self, name: &str) -> Result<Option<&Node>, Vec<&str>> {
        if let Some(exact) = self.node(name) {
            return Ok(Some(exact));
        }
        let ends = |id: &str| id.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        let meant: Vec<&Node> = self.nodes.iter().filter(|node| ends(&node.id.value)).collect();
        if meant.len() > 1 {
            return Err(meant.iter().map(|node| node.id.value.as_str()).collect());
        }
        Ok(meant.first().copied())
    }

    /// The nodes' ids as short as they can be: without those of modules, where the rest still names each node.
    pub fn short_ids(&self) -> Vec<&str> {
        let short: Vec<&str> = self.nodes.iter().map(|node| node.local_id()).collect();
        let unlike = short.iter().collect::<BTreeSet<_>>().len() == short.len();
        if unlike { short } else { self.nodes.iter().map(|node| node.id.value.as_str()).collect() }
    }

    /// Whether a node of this id may be in a module that could not be read, which was reported.
    pub(crate) fn is_unknown(&self, id: &str) -> bool {
        let inside = |module: &ModuleNode| id.strip_prefix(&module.id.value).is_some_and(|rest| rest.starts_with('.'));
        // a short name may be in any of them
        self.modules.iter().any(|module| !module.loaded && (inside(module) || !id.contains('.')))
    }

    /// Reads a graph and reports all that is wrong with its form; what is right of it comes back all the same. Modules
    /// stay the nodes that they are.
    pub fn read(text: &str, report: &mut Report) -> Option<Self> {
        Self::read_at(text, None, report)
    }

    /// As [`read`](Self::read), and with the nodes of the modules that the graph's file names.
    pub(crate) fn read_at(text: &str, graph_file: Option<GraphFile<'_>>, report: &mut Report) -> Option<Self> {
        let mut root = match Yaml::parse(text) {
            Ok(root) => root,
            Err(error) => {
                report.push(Fault::error(error.span, error.what).fix_with(error.fix));
                return None;
            }
        };
        let Data::Map(entries) = &root.data else {
            let message = format!("a graph is a mapping with the key 'nodes', and this is {}", root.kind());
            report.push(Fault::error(root.span, message).fix("nodes: [{ id: …, path: … }]"));
            return None;
        };
        let is_module = root.get("module").is_some();
        if !is_module {
            check_keys(entries, dora::ROOT_KEYS, "a graph", report);
        }
        let modules = match graph_file {
            Some(file) if is_module => modules::expand_alone(&mut root, file, report),
            Some(file) => modules::expand(&mut root, file, report),
            None => Vec::new(),
        };
        let env = root.get("env").map(|env| read_env(env, report)).unwrap_or_default();
        let exits = root.get("exit_when_nodes_finish").and_then(Yaml::text) == Some("true");
        let mut nodes = Vec::new();
        match root.get("nodes") {
            None if is_module => {}
            None => report.push(Fault::error(root.span, "the graph has no nodes").fix("add a list 'nodes:'")),
            Some(list) => {
                if let Data::List(items) = &list.data {
                    // a module that could not be read was reported
                    if items.is_empty() && modules.iter().all(|module| module.loaded) {
                        let what = if is_module { "module" } else { "graph" };
                        report.push(Fault::error(list.span, format!("the {what} has no nodes")));
                    }
                    nodes.extend(items.iter().enumerate().filter_map(|(index, item)| read_node(item, index, report)));
                }
            }
        }
        let graph = Self { root, nodes, modules, is_module, env, exits };
        graph.check_doubles(report);
        Some(graph)
    }

    fn check_doubles(&self, report: &mut Report) {
        let mut first: BTreeMap<&str, Span> = BTreeMap::new();
        for node in &self.nodes {
            if let Some(earlier) = first.get(node.id.value.as_str()) {
                let other = report.place_from(node.id.span, *earlier);
                let message = format!("two nodes are called '{}'; the other is in {other}", node.id.value);
                report.push(Fault::error(node.id.span, message).fix("give each node an id of its own"));
            } else {
                first.insert(&node.id.value, node.id.span);
            }
        }
    }
}

fn read_node(item: &Yaml, index: usize, report: &mut Report) -> Option<Node> {
    let Data::Map(entries) = &item.data else {
        report.push(Fault::error(item.span, format!("a node is a mapping with an 'id', and this is {}", item.kind())));
        return None;
    };
    let id = text_of(item, "id");
    let name = id.as_ref().map_or("a node".to_owned(), |id| format!("node '{}'", id.value));
    check_keys(entries, dora::NODE_KEYS, &name, report);
    let Some(id) = id else {
        if item.get("id").is_none() {
            report.push(Fault::error(item.span, "this node has no id").fix("add 'id: …'"));
        }
        return None;
    };
    if let Some(fault) = dora::id_fault(&id.value) {
        report.push(Fault::error(id.span, format!("not a node's id: {fault}")));
    }
    let path = text_of(item, "path");
    let by_dora = ["git", "hub", "operator", "operators", "ros2"].iter().find(|key| item.get(key).is_some());
    let origin = match path.as_ref().map(|path| path.value.as_str()) {
        _ if item.get("module").is_some() => Origin::Module,
        _ if by_dora.is_some() => Origin::ByDora,
        Some("dynamic") => Origin::Dynamic,
        Some("shell") => Origin::ByDora,
        Some(path) if path.contains("://") => Origin::ByDora,
        _ => Origin::Program,
    };
    // A misspelt 'path' was reported; that there is no path is no second fault.
    let misspelt = entries.iter().any(|(key, _)| key.text().and_then(|key| nearest(key, ["path"])).is_some());
    if origin == Origin::Program && !misspelt {
        report.push(Fault::error(id.span, format!("{name} has no path")).fix("add 'path: …', the program to run"));
    }
    let restart_policy = text_of(item, "restart_policy");
    check_word(restart_policy.as_ref(), "restart_policy", dora::RESTART_POLICIES, report);
    let mut outputs = read_outputs(item, &name, report);
    let mut text_outputs = Vec::new();
    for key in ["send_stdout_as", "send_logs_as"] {
        let Some(output) = text_of(item, key) else { continue };
        text_outputs.push(output.value.clone());
        if !outputs.iter().any(|listed| listed.value == output.value) {
            let message = format!("{name} sends its text as '{}', which is not among its outputs", output.value);
            report.push(Fault::error(output.span, message).fix(format!("add '{}' to outputs", output.value)));
            outputs.push(output);
        }
    }
    let inputs = read_inputs(item, &name, report);
    let policy = restart_policy.as_ref().map(|policy| policy.value.as_str());
    let restarts = Restarts::read(item, policy, !inputs.is_empty());
    Some(Node {
        origin,
        path,
        build: text_of(item, "build"),
        restart_policy,
        restarts,
        inputs,
        outputs,
        text_outputs,
        deploy: item.get("deploy").filter(|deploy| deploy.kind() != "nothing").map(|deploy| deploy.span),
        env: item.get("env").map(|env| read_env(env, report)).unwrap_or_default(),
        index,
        id,
    })
}

pub(crate) fn text_of(map: &Yaml, key: &str) -> Option<Located<String>> {
    let value = map.get(key)?;
    Some(Located { span: value.span, value: value.text()?.to_owned() })
}

pub(crate) fn check_word(word: Option<&Located<String>>, what: &str, allowed: &[&str], report: &mut Report) {
    if let Some(word) = word
        && !allowed.contains(&word.value.as_str())
    {
        let key = what.split(' ').next().unwrap_or(what);
        let near = nearest(&word.value, allowed.iter().copied()).map(|near| format!("{key}: {near}"));
        let message = format!("{what} is '{}'; allowed are {}", word.value, allowed.join(", "));
        report.push(Fault::error(word.span, message).fix_with(near));
    }
}

fn read_outputs(item: &Yaml, node: &str, report: &mut Report) -> Vec<Located<String>> {
    let Some(Data::List(items)) = item.get("outputs").map(|list| &list.data) else { return Vec::new() };
    let mut outputs: Vec<Located<String>> = Vec::new();
    for output in items {
        let Some(name) = output.text() else {
            let message = format!("an output of {node} is a name, and this is {}", output.kind());
            report.push(Fault::error(output.span, message));
            continue;
        };
        if let Some(fault) = dora::port_fault(name) {
            report.push(Fault::error(output.span, format!("not an output's name: {fault}")));
        }
        if outputs.iter().any(|listed| listed.value == name) {
            report.push(Fault::warning(output.span, format!("{node} lists the output '{name}' twice")));
            continue;
        }
        outputs.push(Located { span: output.span, value: name.to_owned() });
    }
    outputs
}

fn read_inputs(item: &Yaml, node: &str, report: &mut Report) -> Vec<Input> {
    let Some(Data::Map(entries)) = item.get("inputs").map(|map| &map.data) else { return Vec::new() };
    let mut inputs = Vec::new();
    check_doubled_inputs(entries, report);
    for (key, value) in entries {
        let Some(name) = key.text() else {
            report.push(Fault::error(key.span, format!("an input's name is text, and this is {}", key.kind())));
            continue;
        };
        if let Some(fault) = dora::port_fault(name) {
            report.push(Fault::error(key.span, format!("not an input's name: {fault}")));
        }
        let source = match &value.data {
            Data::Map(options) => {
                let what = format!("input '{name}' of {node}");
                check_keys(options, dora::INPUT_KEYS, &what, report);
                check_word(text_of(value, "queue_policy").as_ref(), "queue_policy", dora::QUEUE_POLICIES, report);
                if value.get("source").is_none() {
                    let fix = "add 'source: node/output'";
                    report.push(Fault::error(key.span, format!("{what} has no source")).fix(fix));
                }
                text_of(value, "source")
            }
            _ => value.text().map(|text| Located { span: value.span, value: text.to_owned() }),
        };
        let Some(source) = source else {
            if !matches!(value.data, Data::Map(_)) {
                let message = format!("input '{name}' of {node} names a source, and this is {}", value.kind());
                report.push(Fault::error(value.span, message).fix(source_fix(name, value)));
                // that the input is also missing is no second fault
                let source = Located { span: value.span, value: String::new() };
                inputs.push(Input { name: Located { span: key.span, value: name.to_owned() }, source, upstream: None });
            }
            continue;
        };
        let upstream = match dora::parse_upstream(&source.value) {
            Ok(upstream) => Some(upstream),
            Err((what, fix)) => {
                report.push(Fault::error(source.span, format!("input '{name}' of {node}: {what}")).fix(fix));
                None
            }
        };
        inputs.push(Input { name: Located { span: key.span, value: name.to_owned() }, source, upstream });
    }
    inputs
}

fn read_env(env: &Yaml, report: &mut Report) -> Vec<EnvValue> {
    let Data::Map(entries) = &env.data else { return Vec::new() };
    check_doubled(entries, report);
    let mut values = Vec::new();
    for (key, value) in entries {
        let Some(name) = key.text() else {
            report.push(Fault::error(key.span, format!("a name in env is text, and this is {}", key.kind())));
            continue;
        };
        match name {
            "LD_LIBRARY_PATH" | "LD_PRELOAD" => {
                let message = format!("dora drops {name} from a graph: the node does not get it");
                let fix = format!("set {name} in the environment that dora is started in");
                report.push(Fault::warning(key.span, message).fix(fix));
            }
            _ if name.contains(['=', '\0']) => {
                report.push(Fault::error(key.span, format!("'{}' cannot be a variable's name", redact(name))));
            }
            _ => {}
        }
        match value.scalar() {
            Some(scalar) if scalar.is_null() => {
                let message = format!("{name} has no value, which dora refuses");
                report.push(Fault::error(value.span, message).fix(format!("{name}: \"\", or leave the line out")));
            }
            Some(scalar) => values.push(EnvValue {
                key: Located { span: key.span, value: name.to_owned() },
                value: Located { span: value.span, value: scalar.clone() },
                shared: value.shared,
            }),
            None => {
                let message = format!("{name} is {}; a value in env is one text, number or truth value", value.kind());
                let fix = matches!(value.data, Data::List(_)).then(|| format!("{name}: \"first,second\""));
                report.push(Fault::error(value.span, message).fix_with(fix));
            }
        }
    }
    values
}

/// How an input that is no single source is to be written: several producers have an input each.
fn source_fix(name: &str, value: &Yaml) -> String {
    let Data::List(items) = &value.data else {
        return "write it as node/output, for example decode/frame".to_owned();
    };
    let port = name.split('.').next().unwrap_or(name);
    let texts = items.iter().filter_map(Yaml::text).filter(|text| text.contains('/'));
    let named = texts.map(|text| format!("{port}.{}: {text}", text.split('/').next().unwrap_or_default()));
    let lines: Vec<String> = named.collect();
    let example = format!("{port}.NAME: node/output");
    format!("one input for each producer: {}", if lines.is_empty() { example } else { lines.join(", ") })
}

/// An input that is there twice is meant to have two producers.
fn check_doubled_inputs(entries: &[(Yaml, Yaml)], report: &mut Report) {
    let mut first: BTreeMap<&str, Span> = BTreeMap::new();
    for (key, value) in entries {
        let Some(name) = key.text() else { continue };
        let Some(earlier) = first.get(name) else {
            first.insert(name, key.span);
            continue;
        };
        let other = report.place_from(key.span, *earlier);
        let message = format!("'{name}' is given twice; the other is in {other}");
        let source = value.text().or_else(|| value.get("source").and_then(Yaml::text)).unwrap_or("node/output");
        let from = source.split('/').next().filter(|from| *from != "dora").unwrap_or("NAME");
        let port = name.split('.').next().unwrap_or(name);
        let fix = format!("keep one of them, or for a second producer: {port}.{from}: {source}");
        report.push(Fault::error(key.span, message).fix(fix));
    }
}

pub(crate) fn check_doubled(entries: &[(Yaml, Yaml)], report: &mut Report) {
    let mut first: BTreeMap<&str, Span> = BTreeMap::new();
    for (key, _) in entries {
        let Some(name) = key.text() else { continue };
        if let Some(earlier) = first.get(name) {
            let other = report.place_from(key.span, *earlier);
            let message = format!("'{name}' is given twice; the other is in {other}");
            report.push(Fault::error(key.span, message).fix("keep one of them"));
        } else {
            first.insert(name, key.span);
        }
    }
}

pub(crate) fn check_keys(entries: &[(Yaml, Yaml)], known: &[(&str, Shape)], what: &str, report: &mut Report) {
    check_doubled(entries, report);
    for (key, value) in entries {
        let Some(name) = key.text() else {
            report.push(Fault::error(key.span, format!("a key of {what} is text, and this is {}", key.kind())));
            continue;
        };
        let Some((_, shape)) = known.iter().find(|(known, _)| *known == name) else {
            let names = known.iter().map(|(name, _)| *name);
            let near = nearest(name, names.clone());
            let message = match near {
                // a URL with a comma in a mapping on one line: the rest of it, and maybe of its password
                _ if name.contains('@') => {
                    format!(
                        "{what} has a key with '@' in it, which looks like the rest of a URL: put the URL in quotes"
                    )
                }
                Some(near) => format!("{what} has no key '{name}'; did you mean '{near}'?"),
                None => format!("{what} has no key '{name}'; there are: {}", names.collect::<Vec<_>>().join(", ")),
            };
            report.push(Fault::error(key.span, message).fix_with(near.map(|near| format!("{near}: …"))));
            continue;
        };
        if let Some(expected) = misfit(value, *shape) {
            let found = value.text().map_or(value.kind().to_owned(), |text| format!("'{}'", redact(text)));
            report.push(Fault::error(value.span, format!("'{name}' of {what} is {expected}, and this is {found}")));
        }
    }
}

/// What a value of this shape is, in words, where `value` is not one. Null stands for a key left out.
fn misfit(value: &Yaml, shape: Shape) -> Option<&'static str> {
    if value.kind() == "nothing" && !matches!(shape, Shape::List | Shape::Map) {
        return matches!(shape, Shape::Text).then_some("a text");
    }
    let text = value.text();
    let parses = |fits: fn(&str) -> bool| text.is_some_and(fits);
    let (fits, expected) = match shape {
        Shape::Any => return None,
        Shape::Text => (text.is_some(), "a text"),
        Shape::Whole => (parses(|text| text.parse::<u64>().is_ok()), "a whole number"),
        Shape::Number => (parses(|text| text.parse::<f64>().is_ok_and(f64::is_finite)), "a number"),
        Shape::Truth => (parses(|text| text == "true" || text == "false"), "true or false"),
        Shape::List => (matches!(value.data, Data::List(_)), "a list"),
        Shape::Map => (matches!(value.data, Data::Map(_)), "a mapping of names to values"),
        Shape::Size => {
            let fits: fn(&str) -> bool = |text| {
                let digits = text.trim().trim_end_matches(|c: char| c.is_alphabetic()).trim();
                digits.parse::<f64>().is_ok_and(|size| size.is_finite() && size >= 0.0)
            };
            (parses(fits), "a size such as 64MB")
        }
    };
    (!fits).then_some(expected)
}
