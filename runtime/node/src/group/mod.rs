//! Several nodes in one process ([ADR 0027](../../../../docs/adr/0027-stages-in-one-process.md)).
//!
//! dora starts a process for each node, whatever its setting `PROCESS` says. One that has the setting hands the node over
//! ([`member`]): to the process of the group ([`host`]), which runs the node as a *stage*, a thread of its own. Then it sleeps
//! until that stage has ended, and ends with its exit code. The first of a group starts the group's process.
//!
//! They meet at a socket with an abstract name, which the kernel frees with the process. A connection is a member's life: when
//! it closes on one side, the other knows.

mod host;
mod member;
mod wire;

pub use host::{Stage, host};

use crate::launch::Launch;
use crate::link::dora::{CONFIG, given};
use crate::node_lock::hash;
use millrace_graph::describe::{GROUP_PROGRAM as PROGRAM, GROUP_SETTING as SETTING};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

/// The group that a node belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    name: String,
    node: String,
    dataflow: String,
}

impl Group {
    /// The group of the node that this process was started for; `None` where it has a process of its own. What the graph
    /// says of all its nodes concerns those that can `share` a process.
    pub(crate) fn asked(launch: &Launch, shares: bool) -> Option<Self> {
        // a graph is long, and few have groups
        launch.variable(CONFIG).filter(|text| text.contains(SETTING))?;
        let graph = given(launch)?;
        // the node's own `env:` decides, as for every setting
        let of_all = graph.root_env.iter().filter(|_| shares);
        let name = graph.env.iter().chain(of_all).find(|(key, _)| key == SETTING)?.1.clone();
        (!name.is_empty()).then_some(Self { name, node: graph.node, dataflow: graph.dataflow })
    }

    /// Where its members and its process meet.
    fn address(&self) -> io::Result<SocketAddr> {
        let user = rustix::process::getuid().as_raw();
        let Self { name, dataflow, .. } = self;
        // a socket's name has room for 107 bytes, a group's may be longer
        SocketAddr::from_abstract_name(format!("millrace/{user}/{dataflow}/{:016x}/process", hash(name)))
    }
}

#[cfg(test)]
mod tests;
