//! What a node says of settings that are each right: which exclude each other, which have no effect, where it listens. A
//! check asks the node's program (`NODE --check`), so that the rules are the node's own and are written once.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What a node is asked: it reads this from its standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The node's id.
    pub node: String,
    /// Its settings as text, those that the graph has for all nodes included.
    pub settings: BTreeMap<String, String>,
    /// Those of them that are given to this node alone.
    pub own: BTreeSet<String>,
}

/// What it answers, on its standard output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Remarks {
    /// Why the node would not start.
    #[serde(default)]
    pub refused: Vec<Remark>,
    /// What it would start with, and what is most likely not meant.
    #[serde(default)]
    pub warned: Vec<Remark>,
    /// Where it would listen.
    #[serde(default)]
    pub listens: Vec<Listener>,
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remark {
    /// The setting that it is about.
    pub setting: String,
    /// The remark, which names it.
    pub why: String,
}

/// A TCP address that a node listens on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// The setting that says so.
    pub setting: String,
    /// The address.
    pub at: SocketAddr,
}

impl Listener {
    /// Whether both cannot be there: one port, and one address or all of them.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        let any = self.at.ip().is_unspecified() || other.at.ip().is_unspecified();
        self.at.port() == other.at.port() && self.at.port() != 0 && (any || self.at.ip() == other.at.ip())
    }
}
