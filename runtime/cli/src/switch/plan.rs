//! What has to be replaced to get from what runs to B, and in which order; or why that cannot be done.

use super::journal::{Runs, Step};
use crate::load::{Loaded, absolute_sets};
use anyhow::Context;
use millrace_graph::check::From;
use millrace_graph::describe::find_program;
use millrace_graph::model::{Node, Origin};
use millrace_graph::settings::{document, is_environment};
use millrace_graph::{resolved, settings};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A graph as definitions that `dora node replace` takes: programs and paths absolute, the graph's `env` in each node's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions {
    /// By id, in the graph's order.
    pub(crate) nodes: Vec<(String, Value)>,
    /// Settings that are paths, by node.
    paths: BTreeMap<String, BTreeSet<String>>,
    /// All settings that a node knows, by node; of a program that is none of ours nothing is known.
    known: BTreeMap<String, BTreeSet<String>>,
}

impl Definitions {
    /// Of a graph file that was checked.
    pub(crate) fn of_graph(loaded: &Loaded) -> anyhow::Result<Self> {
        let graph = loaded.checked.graph.as_ref().context("the graph was not read")?;
        anyhow::ensure!(!graph.is_module, "{} is a module, a part of graphs: name a graph that uses it", loaded.name);
        for node in &graph.nodes {
            anyhow::ensure!(
                node.origin == Origin::Program,
                "node '{}' of {} is no program at a path, which 'dora node replace' needs",
                node.id.value,
                loaded.name
            );
        }
        for node in &loaded.checked.nodes {
            let given = node.settings.iter().filter(|setting| setting.from != From::Default);
            let of_file = given.filter_map(|setting| Some((setting.key.as_str(), setting.value.as_deref()?)));
            refuse_expanded(&node.id, of_file)?;
        }
        let program = |node: &Node| {
            let program = find_program(&node.path.as_ref()?.value, &loaded.folder)?;
            Some(program.canonicalize().unwrap_or(program).display().to_string())
        };
        let root = resolved::to_json(graph, &absolute_sets(&loaded.checked)?, &program);
        let mut this = Self::default();
        for checked in &loaded.checked.nodes {
            let keys = checked.settings.iter().filter(|setting| setting.is_path).map(|setting| setting.key.clone());
            this.paths.insert(checked.id.clone(), keys.collect());
            if let Some(said) = &checked.description {
                let all = [&said.settings, &said.common_settings].map(document);
                let keys = all.into_iter().flatten().map(|setting| setting.key);
                this.known.insert(checked.id.clone(), keys.collect());
            }
        }
        for node in root["nodes"].as_array().into_iter().flatten() {
            let id = node["id"].as_str().map_or_else(|| settings::to_text(&node["id"]), str::to_owned);
            let definition = this.absolute(&id, node, &root["env"], &loaded.folder);
            this.nodes.push((id, definition));
        }
        Ok(this)
    }

    /// Of one running node, by what it said of itself; the paths among its settings are those of `of`.
    pub(crate) fn add_running(&mut self, id: &str, said: &Value, of: &Self) {
        let folder = said["folder"].as_str().unwrap_or("/");
        self.paths.insert(id.to_owned(), of.paths.get(id).cloned().unwrap_or_default());
        self.known.extend(of.known.get(id).map(|keys| (id.to_owned(), keys.clone())));
        let definition = self.absolute(id, &said["node"], &said["env"], Path::new(folder));
        self.nodes.push((id.to_owned(), definition));
    }

    /// Refuses what dora would change on its way to a node.
    pub(crate) fn refuse_expanded(&self) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(|(id, definition)| {
            let env = definition["env"].as_object().into_iter().flatten();
            refuse_expanded(id, env.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))))
        })
    }

    fn absolute(&self, id: &str, node: &Value, root_env: &Value, folder: &Path) -> Value {
        let mut node = node.as_object().cloned().unwrap_or_default();
        // what dora adds of its own, and what is no part of a running node
        node.retain(|key, value| !value.is_null() && key != "build");
        if node.get("max_restarts").is_some_and(|n| *n == 0) {
            node.remove("max_restarts"); // dora's default, which it states
        }
        if let Some(Value::String(path)) = node.get_mut("path")
            && path.contains('/')
        {
            *path = clean(&folder.join(&*path));
        }
        let mut env: Map<String, Value> = root_env.as_object().cloned().unwrap_or_default();
        // what stands at the graph is for those who know it; at a node it would be refused
        if let Some(known) = self.known.get(id) {
            env.retain(|key, _| known.contains(key) || is_environment(key));
        }
        env.extend(node.get("env").and_then(Value::as_object).cloned().unwrap_or_default());
        let paths = self.paths.get(id);
        for (key, value) in &mut env {
            if let Value::String(text) = value
                && paths.is_some_and(|paths| paths.contains(key))
                && !(text.is_empty() || settings::is_url(text))
            {
                *text = clean(&folder.join(&*text));
            }
        }
        node.insert("env".to_owned(), Value::Object(env));
        node.entry("outputs").or_insert_with(|| Value::Array(Vec::new()));
        node.entry("inputs").or_insert_with(|| Value::Object(Map::new()));
        Value::Object(node)
    }

    /// The definition of a node.
    pub(crate) fn get(&self, id: &str) -> Option<&Value> {
        self.nodes.iter().find(|(other, _)| other == id).map(|(_, definition)| definition)
    }
}

/// A node that is replaced gets its `env:` from dora, which expands it several times.
fn refuse_expanded<'a>(id: &str, env: impl IntoIterator<Item = (&'a str, &'a str)>) -> anyhow::Result<()> {
    let changed: Vec<&str> =
        env.into_iter().filter(|(_, text)| resolved::carried(text) != *text).map(|(key, _)| key).collect();
    anyhow::ensure!(
        changed.is_empty(),
        "node '{id}': {} has a '$' that dora expands again when it replaces a node, so the node would get another text; \
         in a URL write %24 for it, and put passwords into a file (password_file)",
        changed.join(", ")
    );
    Ok(())
}

/// Without `.` and `..`, as far as the text alone tells; the same file by two names would look like a change.
fn clean(path: &Path) -> String {
    if let Ok(real) = path.canonicalize() {
        return real.display().to_string();
    }
    let mut clean = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean.display().to_string()
}

/// Who feeds each input, without what dora adds or leaves out.
fn edges(definition: &Value) -> BTreeMap<String, String> {
    let inputs = definition["inputs"].as_object().into_iter().flatten();
    let source = |value: &Value| value["source"].as_str().or_else(|| value.as_str()).unwrap_or_default().to_owned();
    inputs.map(|(name, value)| (name.clone(), source(value))).collect()
}

/// A part of a definition, and its values; none where it is not given.
struct Difference {
    what: String,
    was: Option<String>,
    is: Option<String>,
}

/// What makes one definition another.
fn differences(a: &Value, b: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    let text = |value: Option<&Value>| value.map(settings::to_text);
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect()
    };
    for key in keys(&a["env"]).union(&keys(&b["env"])) {
        let (was, is) = (text(a["env"].get(key)), text(b["env"].get(key)));
        let same_number = || Some(was.as_ref()?.parse::<f64>().ok()? == is.as_ref()?.parse::<f64>().ok()?);
        if was != is && same_number() != Some(true) {
            found.push(Difference { what: key.clone(), was, is });
        }
    }
    for key in keys(a).union(&keys(b)) {
        let described = !matches!(key.as_str(), "env" | "inputs" | "outputs" | "id" | "name" | "description");
        if described && a.get(key) != b.get(key) {
            found.push(Difference { what: key.clone(), was: text(a.get(key)), is: text(b.get(key)) });
        }
    }
    found
}

/// The steps from A to B, the nodes at the end of the graph first; or everything that prevents them, a line each.
///
/// A node is replaced before those that feed it: a reader of B knows all that a reader of A knew, or fails at once, while
/// nothing but itself has been touched; and the sources, of which a replacement costs a camera most, come last.
pub(crate) fn steps(a: &Definitions, b: &Definitions) -> Result<Vec<Step>, Vec<String>> {
    let mut against = Vec::new();
    for (id, _) in b.nodes.iter().filter(|(id, _)| a.get(id).is_none()) {
        against.push(format!("node '{id}' is in B alone: 'dora node replace' puts nothing new into a graph"));
    }
    let mut steps = Vec::new();
    for (id, a) in &a.nodes {
        let Some(b) = b.get(id) else {
            against.push(format!("node '{id}' runs and is not in B: 'dora node replace' takes nothing out of a graph"));
            continue;
        };
        let (was, is) = (edges(a), edges(b));
        for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            let none = || "nothing".to_owned();
            let (was, is) = (was.get(name).cloned(), is.get(name).cloned());
            if was != is {
                against.push(format!(
                    "input '{name}' of node '{id}' is fed by {} and would be by {}: 'dora node replace' keeps the edges",
                    was.unwrap_or_else(none),
                    is.unwrap_or_else(none)
                ));
            }
        }
        if !differences(a, b).is_empty() {
            steps.push(Step { node: id.clone(), runs: Runs::A, a: a.clone(), b: b.clone() });
        }
    }
    if against.is_empty() {
        let depths = depths(b);
        steps.sort_by_key(|step| std::cmp::Reverse(depths.get(&step.node).copied().unwrap_or(0)));
        Ok(steps)
    } else {
        Err(against)
    }
}

/// What a step changes, for the user: `SCORE 0.5 -> 0.6`, a line each.
pub(crate) fn changes(step: &Step) -> Vec<String> {
    let line = |Difference { what, was, is }: Difference| {
        let shown =
            |value: Option<String>| value.map_or("not set".to_owned(), |value| settings::redacted(&what, &value));
        format!("{what} {} -> {}", shown(was), shown(is))
    };
    differences(&step.a, &step.b).into_iter().map(line).collect()
}

/// How far each node is from a source.
fn depths(graph: &Definitions) -> BTreeMap<String, usize> {
    let mut depths: BTreeMap<String, usize> = BTreeMap::new();
    // a loop in the graph ends the search after as many rounds as there are nodes
    for _ in &graph.nodes {
        for (id, definition) in &graph.nodes {
            let feeders =
                edges(definition).into_values().filter_map(|source| Some(source.split_once('/')?.0.to_owned()));
            let depth = feeders.filter_map(|feeder| depths.get(&feeder)).max().map_or(0, |depth| depth + 1);
            depths.insert(id.clone(), depth);
        }
    }
    depths
}

/// The nodes whose outputs nobody reads.
pub(crate) fn last_nodes(graph: &Definitions) -> BTreeSet<String> {
    let feeders: BTreeSet<String> = graph
        .nodes
        .iter()
        .flat_map(|(_, definition)| edges(definition).into_values())
        .filter_map(|source| Some(source.split_once('/')?.0.to_owned()))
        .collect();
    graph.nodes.iter().map(|(id, _)| id.clone()).filter(|id| !feeders.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn graph(nodes: &[Value]) -> Definitions {
        let node = |node: &Value| (node["id"].as_str().unwrap().to_owned(), node.clone());
        Definitions { nodes: nodes.iter().map(node).collect(), ..Definitions::default() }
    }

    fn chain(score: Value, source: &str) -> Definitions {
        graph(&[
            json!({ "id": "detect", "path": "/d", "inputs": { "frame": { "source": source, "queue_size": 4 } }, "env": { "SCORE": score } }),
            json!({ "id": "decode", "path": "/s", "inputs": { "tick": "dora/timer/secs/5" }, "env": { "S": score } }),
            json!({ "id": "write", "path": "/w", "inputs": { "detections": "detect/detections" }, "env": {} }),
        ])
    }

    #[test]
    fn changed_nodes_are_replaced_from_the_end_of_the_graph() {
        let (a, b) = (chain(json!(0.5), "decode/frame"), chain(json!("0.6"), "decode/frame"));
        let steps = steps(&a, &b).unwrap();
        let order: Vec<&str> = steps.iter().map(|step| step.node.as_str()).collect();
        assert_eq!(order, ["detect", "decode"]);
        assert_eq!(changes(&steps[0]), ["SCORE 0.5 -> 0.6"]);
        assert_eq!(last_nodes(&a), BTreeSet::from(["write".to_owned()]));
        // the same number, written in another way
        assert!(super::steps(&a, &chain(json!("0.50"), "decode/frame")).unwrap().is_empty());
    }

    #[test]
    fn a_change_has_both_values_and_no_secret() {
        let (a, b) =
            (json!({ "env": { "API_KEY": "x", "N": 1 } }), json!({ "env": { "API_KEY": "y" }, "max_restarts": 3 }));
        let step = Step { node: "n".into(), runs: Runs::A, a, b };
        assert_eq!(changes(&step), ["API_KEY *** -> ***", "N 1 -> not set", "max_restarts not set -> 3"]);
    }

    #[test]
    fn a_node_is_given_what_it_knows_of_the_graphs_env() {
        let mut of = Definitions::default();
        of.known.insert("to-rgb".into(), ["FUSED", "FLOW"].map(str::to_owned).into());
        let said = |id: &str| {
            json!({
                "folder": "/", "env": { "FUSED": true, "FORMAT": "nv12", "RUST_LOG": "debug" },
                "node": { "id": id, "path": "/n", "env": { "FLOW": "live" } },
            })
        };
        let mut a = Definitions::default();
        a.add_running("to-rgb", &said("to-rgb"), &of);
        // of another program nothing is known, so nothing is kept from it
        a.add_running("theirs", &said("theirs"), &of);
        let env = |id: &str| a.get(id).unwrap()["env"].clone();
        assert_eq!(env("to-rgb"), json!({ "FUSED": true, "RUST_LOG": "debug", "FLOW": "live" }));
        assert_eq!(env("theirs")["FORMAT"], "nv12");
    }

    #[test]
    fn all_that_cannot_be_done_is_named() {
        let a = chain(json!(1), "decode/frame");
        let mut b = chain(json!(1), "decode/picture");
        b.nodes.pop();
        b.nodes.push(("page".into(), json!({ "id": "page" })));
        let against = steps(&a, &b).unwrap_err().join("\n");
        for part in
            ["'page' is in B alone", "'write' runs and is not in B", "decode/frame and would be by decode/picture"]
        {
            assert!(against.contains(part), "{against}");
        }
    }

    #[test]
    fn what_a_node_said_of_itself_compares_with_a_file() {
        let said = json!({
            "node": { "id": "a", "name": null, "path": "../bin/x", "env": { "P": "m.yml", "N": 1 },
                      "outputs": [], "inputs": { "i": "b/o" }, "max_restarts": 0, "deploy": null },
            "env": { "FLOW": "live", "N": 2 },
            "folder": "/none/graphs",
        });
        let paths = BTreeMap::from([("a".to_owned(), BTreeSet::from(["P".to_owned()]))]);
        let of = Definitions { paths, ..Definitions::default() };
        let mut running = Definitions::default();
        running.add_running("a", &said, &of);
        let expected = json!({ "id": "a", "path": "/none/bin/x", "outputs": [], "inputs": { "i": "b/o" },
                               "env": { "FLOW": "live", "N": 1, "P": "/none/graphs/m.yml" } });
        assert_eq!(running.get("a"), Some(&expected));
    }
}
