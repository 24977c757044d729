//! A lock that one process of a node holds at a time. `dora node replace` starts the new process before it stops the old one,
//! and many things that a node opens exist only once, such as a port or an output file. So a node opens nothing before its
//! predecessor has released the lock.
//!
//! The lock is a socket's abstract name. The kernel frees the name when the process ends, for whatever reason.

use crate::link::Topology;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Longer than dora lets a process live that was asked to stop, 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);
/// The pause between two attempts to get the lock.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// The lock, held while the node has files and ports open.
#[derive(Debug)]
pub(crate) struct NodeLock {
    _socket: UnixDatagram,
}

impl NodeLock {
    /// Waits for the lock of a node of a dataflow. Returns `None` if the lock is not free within `patience`, or if the system
    /// has no abstract names. Then an error of what the node opens shows whether that matters.
    pub(crate) fn acquire(graph: &Topology, patience: Duration) -> Option<Self> {
        let Topology { dataflow, node, .. } = graph;
        if dataflow.is_empty() {
            return None; // without dora there is no process to replace
        }
        let user = rustix::process::getuid().as_raw();
        // a socket's name has room for 107 bytes, a node's may be longer
        let address = SocketAddr::from_abstract_name(format!("millrace/{user}/{dataflow}/{:016x}", hash(node)));
        let address = address.ok()?;
        let began = Instant::now();
        let mut logged = false;
        loop {
            match UnixDatagram::bind_addr(&address) {
                Ok(socket) => return Some(Self { _socket: socket }),
                Err(e) if e.kind() == ErrorKind::AddrInUse && began.elapsed() < patience => {
                    if !std::mem::replace(&mut logged, true) {
                        tracing::info!(
                            "waiting until the process that this one replaces has closed its files and ports"
                        );
                    }
                    std::thread::sleep(TRY_AGAIN);
                }
                Err(e) => {
                    tracing::warn!("going on beside another process of this node, it seems: {e}");
                    return None;
                }
            }
        }
    }
}

/// FNV-1a: the same in every build.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_lock_is_acquired_when_its_predecessor_has_released_it() {
        let graph = |node: &str| Topology {
            node: node.to_owned(),
            dataflow: format!("test-{}", std::process::id()),
            ..Topology::default()
        };
        let long = graph(&"n".repeat(300));
        let first = NodeLock::acquire(&long, PATIENCE).unwrap();
        assert!(NodeLock::acquire(&graph("other"), Duration::ZERO).is_some(), "another node");
        assert!(NodeLock::acquire(&long, Duration::from_millis(30)).is_none());
        let began = Instant::now();
        let leaver = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        assert!(NodeLock::acquire(&long, PATIENCE).is_some());
        assert!(began.elapsed() < PATIENCE);
        leaver.join().unwrap();
    }
}
