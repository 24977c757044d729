//! Settings of a node: from the text in the graph's `env:` to the node's type, all faults at once.

use crate::describe::schema;
use crate::link::Topology;
use millrace_graph::settings;
use millrace_pool::Flow;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// What every node understands.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Common {
    /// Who waits when a consumer is slower: nobody (`live`, the oldest frame is overwritten and counted) or the
    /// producer (`lossless`, every frame arrives at every consumer exactly once).
    #[serde(default)]
    pub(crate) flow: FlowSetting,
    /// Slots of each pool of images and tensors that this node fills, 2 to 64.
    #[serde(default = "default_slots")]
    #[schemars(range(min = 2, max = 64))]
    pub(crate) slots: u32,
    /// When a dora message tells of a publication: only where a consumer cannot be woken through the pool, and twice a
    /// second (`needed`), or at each one (`always`, for dora nodes that the graph does not name and tools that count).
    #[serde(default)]
    pub(crate) doorbell: Doorbell,
    /// How frames cross to the next process: in memory that both have mapped (`shared`), or copied into the slot by the
    /// producer and out of it by the consumer, as a message would be (`copy`, the slower arm of a comparison). Frames in
    /// host memory alone.
    #[serde(default)]
    pub(crate) exchange: Exchange,
    /// What a producer does after a publication: it goes on, and is woken by events (`event`), or it waits until every
    /// consumer has given the frame back (`blocking`, the slower arm of a comparison: stages of a chain never overlap).
    #[serde(default)]
    pub(crate) handover: Handover,
    /// How much the node logs.
    #[serde(default)]
    pub(crate) log: LogLevel,
    /// How long a source waits at its first frame for its consumers to open their models and attach, in milliseconds.
    /// In live flow it goes on without the missing ones after that, in lossless flow it ends with an error.
    #[serde(default = "default_start_ms")]
    pub(crate) start_timeout_ms: u64,
    /// How long a lossless producer waits for a consumer that crashed to be started again, in milliseconds, before it
    /// ends with an error.
    #[serde(default = "default_restart_ms")]
    pub(crate) restart_timeout_ms: u64,
}

fn default_slots() -> u32 {
    8
}
fn default_start_ms() -> u64 {
    30_000
}
fn default_restart_ms() -> u64 {
    10_000
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlowSetting {
    #[default]
    Live,
    Lossless,
}

impl From<FlowSetting> for Flow {
    fn from(flow: FlowSetting) -> Self {
        match flow {
            FlowSetting::Live => Self::Live,
            FlowSetting::Lossless => Self::Lossless,
        }
    }
}

/// How frames cross to the next process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exchange {
    #[default]
    Shared,
    Copy,
}

/// What a producer does after a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Handover {
    #[default]
    Event,
    Blocking,
}

/// When a dora message tells of a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doorbell {
    #[default]
    Needed,
    Always,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Reads both kinds of settings from the graph's text.
pub(crate) fn read<S: DeserializeOwned + JsonSchema>(graph: &Topology) -> Result<(S, Common), String> {
    let (own, common) = (schema::<S>(), schema::<Common>());
    let names = |schema: &Value| -> BTreeSet<String> {
        schema["properties"].as_object().map(|p| p.keys().cloned().collect()).unwrap_or_default()
    };
    let (own_names, common_names) = (names(&own), names(&common));
    // the graph's own `env:` is for all nodes: a name that this node does not know is some other node's
    let root = graph.root_env.iter().filter(|(key, _)| own_names.contains(key) || common_names.contains(key));
    let node = graph.env.iter().filter(|(key, _)| !settings::is_environment(key) || own_names.contains(key));
    let mut given: Vec<(&str, &str)> = Vec::new();
    for (key, value) in root.chain(node) {
        given.retain(|(k, _)| k != key);
        given.push((key, value));
    }
    let (common_given, own_given): (Vec<_>, Vec<_>) =
        given.into_iter().partition(|(key, _)| common_names.contains(*key) && !own_names.contains(*key));
    let resolved = (settings::resolve(&own, own_given), settings::resolve(&common, common_given));
    let (own, common) = match resolved {
        (Ok(own), Ok(common)) => (own, common),
        (own, common) => {
            let faults = own.err().into_iter().chain(common.err()).flatten();
            let faults: Vec<String> = faults.map(|f| format!("{}: {f}", graph.node)).collect();
            return Err(faults.join("\n"));
        }
    };
    let typed = |e: serde_json::Error| format!("{}: {e}", graph.node);
    Ok((
        serde_json::from_value(Value::Object(own)).map_err(typed)?,
        serde_json::from_value(Value::Object(common)).map_err(typed)?,
    ))
}
