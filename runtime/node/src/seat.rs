//! One process of a node at a time. `dora node replace` starts the new process before it stops the old one, and what a node
//! opens is often there once: a port, a file that is written. So a node opens nothing before its predecessor has let go.
//!
//! The seat is a socket's abstract name, which the kernel frees with the process, whatever it died of.

use crate::link::Topology;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Longer than dora lets a process live that was asked to stop, 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);
/// How often the seat is asked for.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Held while a node has things open.
#[derive(Debug)]
pub(crate) struct Seat {
    _socket: UnixDatagram,
}

impl Seat {
    /// Takes the seat of a node of a dataflow, as soon as it is free. `None` where it does not become free in time, or there
    /// are no abstract names: what the node opens will tell whether that matters.
    pub(crate) fn take(graph: &Topology, patience: Duration) -> Option<Self> {
        let Topology { dataflow, node, .. } = graph;
        if dataflow.is_empty() {
            return None; // no dora, and nobody to take the place of
        }
        let user = rustix::process::getuid().as_raw();
        // a socket's name has room for 107 bytes, a node's may be longer
        let address = SocketAddr::from_abstract_name(format!("millrace/{user}/{dataflow}/{:016x}", hash(node)));
        let address = address.ok()?;
        let began = Instant::now();
        let mut told = false;
        loop {
            match UnixDatagram::bind_addr(&address) {
                Ok(socket) => return Some(Self { _socket: socket }),
                Err(e) if e.kind() == ErrorKind::AddrInUse && began.elapsed() < patience => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("waiting until the process that this one takes the place of has let go");
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
    fn a_seat_is_taken_when_its_predecessor_has_left() {
        let graph = |node: &str| Topology {
            node: node.to_owned(),
            dataflow: format!("test-{}", std::process::id()),
            ..Topology::default()
        };
        let long = graph(&"n".repeat(300));
        let first = Seat::take(&long, PATIENCE).unwrap();
        assert!(Seat::take(&graph("other"), Duration::ZERO).is_some(), "another node");
        assert!(Seat::take(&long, Duration::from_millis(30)).is_none());
        let began = Instant::now();
        let leaver = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        assert!(Seat::take(&long, PATIENCE).is_some());
        assert!(began.elapsed() < PATIENCE);
        leaver.join().unwrap();
    }
}
