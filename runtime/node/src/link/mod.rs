//! What connects a node to the others: doorbells in, doorbells out, and the shape of the graph.

pub(crate) mod dora;

use crate::launch::Launch;
use arrow::array::StructArray;
use millrace_frame::{Device, SlotRef};
use millrace_pool::Bell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What came in.
#[derive(Clone, Debug)]
pub(crate) enum Signal {
    /// Where the directory of an input's producer is, and where its frames will be.
    Announced { input: String, at: SlotRef, device: Device },
    /// A message on an input that this schema does not have.
    Noise { input: String, why: String },
    /// No more will come on an input.
    Closed { input: String },
    /// Every input is closed.
    AllClosed,
    /// A setting is to have this value from now on, or with none the graph's again.
    Param { key: String, value: Option<serde_json::Value> },
    /// The dataflow stops.
    Stop,
    /// A timer, or news that only mean 'look around'.
    Nudge,
    /// Nothing has come.
    Quiet,
}

/// The line by which signals reach a node. A clone of the sending end and of the bell is enough to send one.
pub(crate) struct Line {
    pub(crate) to: Sender<Signal>,
    pub(crate) signals: Receiver<Signal>,
    pub(crate) bell: Bell,
}

impl Line {
    /// A line to a node of this process.
    pub(crate) fn new() -> Result<Self, String> {
        let (to, signals) = channel();
        Ok(Self { to, signals, bell: Bell::create().map_err(|e| e.to_string())? })
    }
}

/// The connection.
pub(crate) trait Link {
    /// The next signal that has come; the node's bell rings for each.
    fn next(&mut self) -> Signal;
    /// Rings an output port's consumers.
    fn ring(&mut self, port: &'static str, row: StructArray) -> Result<(), String>;
}

/// The graph, as far as one node sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    /// How dora started the node.
    pub(crate) launch: Launch,
    /// This node's id.
    pub(crate) node: String,
    /// The dataflow's id; empty where there is none.
    pub(crate) dataflow: String,
    /// What dora started this node from: its entry in the graph, the graph's `env:`, and the folder that paths count from.
    pub(crate) definition: serde_json::Value,
    /// How often the node was started again.
    pub(crate) restarts: u64,
    /// Connected inputs, timers left out: `frame`, or `frame.door` where several feed one port.
    pub(crate) inputs: Vec<String>,
    /// What feeds each input, as `node/output`.
    pub(crate) sources: BTreeMap<String, String>,
    /// The nodes of the graph that another node feeds: they compute, and read no camera.
    pub(crate) computing: BTreeSet<String>,
    /// For each output port, the inputs that it feeds, as `node/input`.
    pub(crate) consumers: BTreeMap<String, Vec<String>>,
    /// The node's own `env:`, expanded.
    pub(crate) env: Vec<(String, String)>,
    /// The graph's `env:`, expanded.
    pub(crate) root_env: Vec<(String, String)>,
}

impl Topology {
    /// Reads it from a dataflow descriptor as JSON. `value_of` gives the expanded value of an environment variable.
    pub(crate) fn of(node: &str, descriptor: &serde_json::Value, value_of: impl Fn(&str) -> Option<String>) -> Self {
        let mut this = Self { node: node.to_owned(), ..Self::default() };
        let nodes = descriptor["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        for other in nodes {
            let id = other["id"].as_str().unwrap_or_default();
            for (input, mapping) in other["inputs"].as_object().into_iter().flatten() {
                let source = mapping.as_str().or_else(|| mapping["source"].as_str()).unwrap_or_default();
                let Some((from, output)) = source.split_once('/') else { continue };
                if from == "dora" {
                    continue;
                }
                this.computing.insert(id.to_owned());
                if from == node {
                    this.consumers.entry(output.to_owned()).or_default().push(format!("{id}/{input}"));
                }
                if id == node {
                    this.inputs.push(input.clone());
                    this.sources.insert(input.clone(), source.to_owned());
                }
            }
            if id == node {
                this.env = environment(&other["env"], &value_of);
                let mut node = other.clone();
                fill(&mut node["env"], &value_of);
                let mut env = descriptor["env"].clone();
                fill(&mut env, &value_of);
                this.definition =
                    serde_json::json!({ "node": node, "env": env, "folder": std::env::current_dir().ok() });
            }
        }
        this.root_env = environment(&descriptor["env"], &value_of);
        this
    }
}

/// Puts values that were left out of the descriptor back: this process has them.
fn fill(env: &mut serde_json::Value, value_of: &impl Fn(&str) -> Option<String>) {
    for (key, value) in env.as_object_mut().into_iter().flatten() {
        if value == ""
            && let Some(text) = value_of(key)
        {
            *value = text.into();
        }
    }
}

fn environment(env: &serde_json::Value, value_of: &impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    env.as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value_of(key).unwrap_or_else(|| text(value))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_says_who_feeds_whom_and_timers_are_no_inputs() {
        let descriptor = serde_json::json!({
            "env": { "FLOW": "lossless" },
            "nodes": [
                { "id": "decode", "outputs": ["frame"], "inputs": { "tick": "dora/timer/secs/5" },
                  "env": { "SOURCE": "", "LOOP": true, "FRAME_RATE": 25, "GROUP": "" } },
                { "id": "a", "inputs": { "frame": { "source": "decode/frame", "queue_size": 4 } } },
                { "id": "b", "inputs": { "picture": "decode/frame", "found": "a/detections" } },
            ],
        });
        let expand = |key: &str| (key == "SOURCE").then(|| "$clip.mp4".to_owned());
        let decode = Topology::of("decode", &descriptor, expand);
        assert!(decode.inputs.is_empty());
        assert_eq!(decode.computing.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(decode.consumers["frame"], ["a/frame", "b/picture"]);
        let env: BTreeMap<_, _> = decode.env.into_iter().collect();
        assert_eq!(
            (env["SOURCE"].as_str(), env["LOOP"].as_str(), env["FRAME_RATE"].as_str()),
            ("$clip.mp4", "true", "25")
        );
        let defined = &decode.definition["node"]["env"];
        assert_eq!((&defined["SOURCE"], &defined["GROUP"]), (&"$clip.mp4".into(), &"".into()));
        assert_eq!(decode.root_env, [("FLOW".to_owned(), "lossless".to_owned())]);
        let mut b = Topology::of("b", &descriptor, |_| None);
        b.inputs.sort();
        assert_eq!(b.inputs, ["found", "picture"]);
        assert_eq!(b.sources["found"], "a/detections");
    }
}
