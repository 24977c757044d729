//! Settings of a node: from the text in the graph's `env:`, and of `dora param set`, to the node's type, all faults at once.

use crate::describe::schema;
use crate::link::Topology;
use millrace_graph::settings::{self, SettingDoc, SettingFault};
use millrace_pool::Flow;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The settings that every node has.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct CommonSettings {
    /// Who waits when a consumer is slower: nobody (`live`; a camera's oldest waiting frame is lost and counted) or the
    /// producer (`lossless`, every frame arrives at every consumer exactly once).
    #[serde(default)]
    #[schemars(extend("x-millrace-live" = true))]
    pub(crate) flow: FlowSetting,
    /// In lossless flow, whether the node's exit code is 0 although it lost frames. Without it, a lost frame makes the node end
    /// with exit code 1, once all others are through, and the reason is shown.
    #[serde(default)]
    pub(crate) allow_loss: bool,
    /// Slots of each camera's pool of images or tensors that this node fills, 2 to 64.
    #[serde(default = "default_slots")]
    #[schemars(range(min = 2, max = 64))]
    pub(crate) slots: u32,
    /// The most memory that the pools of one output port use together, in MiB. A camera that finds too little left gets
    /// fewer slots; its frames are lost (`pool_budget`) where not even three have room. By default only the machine's
    /// memory limits them.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(crate) pool_mib: Option<u64>,
    /// In live flow, how many frames of each camera may wait for this node at an input of images or tensors. A longer
    /// backlog loses its oldest frame (`backlog`). Left out, two fewer than the slots of the camera's pool, and at least 2:
    /// 6 where the producer has `SLOTS` of 8.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64), extend("x-millrace-live" = true))]
    pub(crate) backlog: Option<u32>,
    /// In live flow, how long a frame may have been under way when this node starts work on it, in milliseconds since it
    /// was decoded. An older one is lost (`late`). Detections may be twice as old, since the work on their frame has taken
    /// its time.
    #[serde(default = "default_max_age_ms")]
    #[schemars(range(min = 1), extend("x-millrace-live" = true))]
    pub(crate) max_age_ms: u64,
    /// In live flow, how long consumers that do not move may hold every slot of a camera's pool, in milliseconds. Then the
    /// camera gets a new pool, and frames go on to the other consumers.
    #[serde(default = "default_lease_timeout_ms")]
    #[schemars(range(min = 10), extend("x-millrace-live" = true))]
    pub(crate) lease_timeout_ms: u64,
    /// The process that the node runs in: nodes of a graph that name the same one run in it as threads, and share a CUDA
    /// context. An error of one, or a crash, ends them all. Left out, the node has a process of its own.
    #[serde(default)]
    #[expect(dead_code, reason = "it decides before there is a node: `Group::asked` reads it")]
    pub(crate) process: Option<String>,
    /// What the node's process gives up before it reads what strangers send: everything that it can on this machine
    /// (`auto`), nothing (`off`), or all of it, and the node does not start where that cannot be (`required`). It concerns
    /// the decoders; a node with inputs has no sandbox.
    #[serde(default)]
    pub(crate) sandbox: SandboxSetting,
    /// When a dora message tells of a publication: only where a consumer cannot be woken through the pool, and twice a
    /// second (`needed`), or at each one (`always`, for dora nodes that the graph does not name and tools that count).
    #[serde(default)]
    #[schemars(extend("x-millrace-live" = true))]
    pub(crate) doorbell: Doorbell,
    /// How frames cross to the next process: in memory that both have mapped (`shared`), or copied into the slot by the
    /// producer and out of it by the consumer, as a message would be (`copy`, the slower arm of a comparison). Frames in
    /// host memory alone.
    #[serde(default)]
    pub(crate) exchange: Exchange,
    /// What a producer does after a publication: it goes on, and is woken by events (`event`), or it waits until every
    /// consumer has given the frame back (`blocking`, the slower arm of a comparison: stages of a chain never overlap).
    #[serde(default)]
    #[schemars(extend("x-millrace-live" = true))]
    pub(crate) handover: Handover,
    /// How much the node logs.
    #[serde(default)]
    #[schemars(extend("x-millrace-live" = true))]
    pub(crate) log: LogLevel,
    /// How long a source waits at its first frame for its consumers to open their models and attach, in milliseconds.
    /// In live flow it goes on without the missing ones after that, in lossless flow it ends with an error.
    #[serde(default = "default_start_ms")]
    pub(crate) start_timeout_ms: u64,
    /// How long a lossless producer waits for a consumer that crashed to be started again, in milliseconds, before it
    /// ends with an error.
    #[serde(default = "default_restart_ms")]
    #[schemars(extend("x-millrace-live" = true))]
    pub(crate) restart_timeout_ms: u64,
}

fn default_slots() -> u32 {
    8
}
fn default_max_age_ms() -> u64 {
    750
}
fn default_lease_timeout_ms() -> u64 {
    2_000
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

/// Whether the process is put into a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SandboxSetting {
    #[default]
    Auto,
    Off,
    Required,
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

/// The settings of a node as text, before they are parsed: those of the graph, and those that were set since the node
/// started.
#[derive(Clone, Debug)]
pub(crate) struct RawSettings {
    node: String,
    own: Value,
    common: Value,
    given: Vec<(String, String)>,
    own_keys: Vec<String>,
    set: BTreeMap<String, String>,
}

impl RawSettings {
    /// The graph's settings for a node whose own settings are `S`.
    pub(crate) fn new<S: JsonSchema>(graph: &Topology) -> Self {
        let (own, common) = (schema::<S>(), schema::<CommonSettings>());
        let known = |key: &str| has(&own, key) || has(&common, key);
        // the graph's own `env:` is for all nodes: a name that this node does not know is some other node's
        let root = graph.root_env.iter().filter(|(key, _)| known(key));
        let node = graph.env.iter().filter(|(key, _)| !settings::is_environment(key) || has(&own, key));
        let mut given: Vec<(String, String)> = Vec::new();
        for (key, value) in root.chain(node) {
            given.retain(|(k, _)| k != key);
            given.push((key.clone(), value.clone()));
        }
        let own_keys = graph.env.iter().filter(|(_, value)| !value.is_empty()).map(|(key, _)| key.clone()).collect();
        Self { node: graph.node.clone(), own, common, given, own_keys, set: BTreeMap::new() }
    }

    /// The node's id.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// The settings that the graph gives to this node alone.
    pub(crate) fn own_keys(&self) -> &[String] {
        &self.own_keys
    }

    /// The same with another value of one setting; `None` puts the graph's back.
    pub(crate) fn with(&self, key: &str, value: Option<String>) -> Self {
        let mut changed = self.clone();
        match value {
            Some(value) => changed.set.insert(key.to_owned(), value),
            None => changed.set.remove(key),
        };
        changed
    }

    /// The setting is one of the node's own.
    pub(crate) fn is_own(&self, key: &str) -> bool {
        has(&self.own, key)
    }

    /// What the node says of all its settings.
    pub(crate) fn document(&self) -> Vec<SettingDoc> {
        settings::document(&settings::merge(&self.own, &self.common))
    }

    /// A setting's value as it may be shown.
    pub(crate) fn displayed(&self, key: &str) -> String {
        let given = || self.given.iter().find(|(k, _)| k == key).map(|(_, value)| value);
        match self.set.get(key).or_else(given) {
            Some(text) if !text.is_empty() => settings::redacted(key, text),
            _ => {
                let schema = if self.is_own(key) { &self.own } else { &self.common };
                settings::defaults(schema).get(key).map_or("unset".to_owned(), settings::to_text)
            }
        }
    }

    /// Both kinds of settings, typed.
    pub(crate) fn read<S: DeserializeOwned>(&self) -> Result<(S, CommonSettings), Unread> {
        let standing = self.given.iter().filter(|(key, _)| !self.set.contains_key(key));
        let all = standing.map(|(key, value)| (key.as_str(), value.as_str()));
        let all = all.chain(self.set.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let (common, own): (Vec<_>, Vec<_>) = all.partition(|(key, _)| has(&self.common, key) && !self.is_own(key));
        match (settings::resolve(&self.own, own), settings::resolve(&self.common, common)) {
            (Ok(own), Ok(common)) => {
                Ok((serde_json::from_value(Value::Object(own))?, serde_json::from_value(Value::Object(common))?))
            }
            (own, common) => Err(Unread::Faults(own.err().into_iter().chain(common.err()).flatten().collect())),
        }
    }
}

/// A node's settings from texts that no graph gives, for what its program does beside being a node.
///
/// # Errors
/// All that is wrong with them, a line each.
pub fn settings_from<S: JsonSchema + DeserializeOwned>(given: &[(String, String)]) -> Result<S, String> {
    let pairs = given.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let settings = settings::resolve(&schema::<S>(), pairs).map_err(|faults| lines(&faults))?;
    serde_json::from_value(Value::Object(settings)).map_err(|e| e.to_string())
}

/// Whether a schema has this setting.
pub(crate) fn has(schema: &Value, key: &str) -> bool {
    schema["properties"].get(key).is_some()
}

/// Why settings are not what the node takes: all that is wrong with them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("{}", lines(.0))]
    Faults(Vec<SettingFault>),
    #[error(transparent)]
    Typed(#[from] serde_json::Error),
}

fn lines(faults: &[SettingFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
