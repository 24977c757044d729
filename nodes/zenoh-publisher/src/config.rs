//! The settings of `zenoh-publisher`.

use crate::link::configuration;
use millrace_node::Findings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Settings of `zenoh-publisher`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Name of the graph in the keys: `millrace/<graph>/<camera>/detections`.
    #[serde(default = "default_graph")]
    pub(crate) graph: String,
    /// How detections are written. With `both`, each frame is put twice on its key; the encoding field says which is
    /// which.
    #[serde(default)]
    pub(crate) encodings: Encodings,
    /// `peer` sends to subscribers directly, `client` through a zenoh router.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// Endpoints to connect to, separated by commas, such as `tcp/192.168.1.5:7447`.
    #[serde(default)]
    pub(crate) connect: String,
    /// Endpoints to listen on as a peer, separated by commas. The default is a free port on the loopback address, which
    /// only subscribers on this machine can reach. With `tcp/0.0.0.0:7447` every machine of its networks can connect.
    /// Empty for none.
    #[serde(default = "default_listen")]
    pub(crate) listen: String,
    /// Find subscribers and routers of the local network by multicast.
    #[serde(default = "default_true")]
    pub(crate) scouting: bool,
    /// With `true`, slow subscribers delay the pipeline, and no frame is dropped. With `false`, the oldest waiting
    /// frames are dropped and counted.
    #[serde(default)]
    pub(crate) reliable: bool,
    /// The most frames that wait to be sent.
    #[serde(default = "default_queue_frames")]
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) queue_frames: u32,
}

/// Which encodings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encodings {
    /// `application/json`.
    Json,
    /// An Arrow IPC stream.
    Arrow,
    /// Both.
    #[default]
    Both,
}

/// How the session takes part in the zenoh network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Talks to subscribers directly.
    #[default]
    Peer,
    /// Talks through a router.
    Client,
}

fn default_graph() -> String {
    "millrace".into()
}
fn default_listen() -> String {
    "tcp/127.0.0.1:0".into()
}
fn default_true() -> bool {
    true
}
fn default_queue_frames() -> u32 {
    64
}

impl Settings {
    /// Which of them zenoh does not take, and where it would listen.
    pub(crate) fn check(&self, findings: &mut Findings<'_>) {
        if self.graph.is_empty() {
            findings.refuse("GRAPH", "GRAPH is empty: it is the second part of every key, such as 'yard'");
        }
        if let Err((setting, why)) = configuration(self) {
            findings.refuse(setting, why);
        }
        for (setting, list) in [("CONNECT", &self.connect), ("LISTEN", &self.listen)] {
            if let Some(wrong) = endpoints(list).find(|endpoint| port(endpoint) == Some(None)) {
                let why =
                    format!("{setting}: the endpoint '{wrong}' has no port from 0 to 65535, as tcp/127.0.0.1:7447 has");
                findings.refuse(setting, why);
            }
        }
        let alone = endpoints(&self.connect).next().is_none() && !self.scouting;
        match self.mode {
            Mode::Client if alone => findings.refuse(
                "MODE",
                "MODE is client, and no router can be found: CONNECT names none, and SCOUTING is false",
            ),
            Mode::Peer if alone && endpoints(&self.listen).next().is_none() => findings
                .warn("LISTEN", "nobody can subscribe: LISTEN and CONNECT name no endpoint, and SCOUTING is false"),
            _ => {}
        }
        match self.mode {
            Mode::Client => findings.no_effect(&["LISTEN"], "where MODE is client"),
            Mode::Peer => {
                let at = |endpoint: &str| endpoint.strip_prefix("tcp/").and_then(|at| at.parse::<SocketAddr>().ok());
                endpoints(&self.listen).filter_map(at).for_each(|at| findings.listens("LISTEN", at));
            }
        }
    }
}

/// The endpoints of a list.
pub(crate) fn endpoints(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty())
}

/// The port of an endpoint whose protocol has ports; `Some(None)` where it is none.
fn port(endpoint: &str) -> Option<Option<u16>> {
    let (protocol, address) = endpoint.split_once('/')?;
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let has_ports = ["tcp", "udp", "tls", "quic", "ws"].contains(&protocol);
    has_ports.then(|| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()))
}
