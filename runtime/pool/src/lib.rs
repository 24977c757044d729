//! Frame pools: how a frame stays where it was produced while other processes read it.
//!
//! Each camera has one pool on each output port of a node. A pool is N equal slots of memory ([`MemorySpec`]: host shared
//! memory, or a GPU's) and a control block in host shared memory ([`control`]). The producer writes a slot and its
//! description, and publishes both under the next *ticket*. A consumer leases the slot of a ticket, reads its bytes in
//! place, and gives the lease back. No bytes are copied and no messages are exchanged: each step is one atomic operation
//! on the slot's state word ([`protocol`]).
//!
//! - [`Flow::Live`]: the producer reuses the slot with the oldest frame among those that no consumer leases. Frames that
//!   a consumer has not leased yet wait in the pool, so frames of a burst are lost only if the burst has more frames than
//!   the pool has slots.
//! - [`Flow::Lossless`]: each publication is leased to every consumer at once, so the producer waits for the slowest.
//!
//! Pools have no names in `/dev/shm`. The control block and the slots are memfds, which the kernel frees when the last
//! process that has them open ends, also by a crash. A consumer opens them through the owner's `/proc/<pid>/fd`.

pub mod control;
pub mod protocol;
mod sync;

#[cfg(not(loom))]
mod bell;
#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod letterbox;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
mod producer;
#[cfg(not(loom))]
mod room;

#[cfg(not(loom))]
pub use bell::Bell;
#[cfg(not(loom))]
pub use consumer::{PollResult, Reader, SlotLease};
#[cfg(not(loom))]
pub use letterbox::receive_bells;
#[cfg(not(loom))]
pub use memory::{MemorySpec, Share};
#[cfg(not(loom))]
pub use producer::{Pool, PoolSpec, Slot};

/// Who waits when a consumer is slower than the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nobody waits. The oldest frame is overwritten, and the consumer counts the frames that it missed.
    Live,
    /// The producer waits. Every frame arrives at every consumer exactly once.
    Lossless,
}

/// Why a pool could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum PoolError {
    #[error("pool {name}: {slots} slots asked for, 2 to {} are possible", control::MAX_SLOTS)]
    Slots { name: String, slots: u32 },
    #[error("pool {name}: a slot of 0 bytes holds no frame")]
    SlotBytes { name: String },
    #[error("pool {name}: {count} consumers, at most {} are possible", control::MAX_CONSUMERS)]
    Consumers { name: String, count: usize },
    #[error("{call}({bytes} B) for {what}: {source}; {hint}")]
    Memory { call: &'static str, bytes: u64, what: String, source: std::io::Error, hint: &'static str },
    #[error(
        "pool {name}: consumer '{consumer}' is named twice, or not told from another by its first {} bytes",
        control::NAME_BYTES
    )]
    SameName { name: String, consumer: String },
    #[error("no room for the {bytes} B of {what}: {limit} leaves {left} B; lower SLOTS, or raise that limit")]
    Room { bytes: u64, what: String, left: u64, limit: String },
    #[error(
        "cannot open pool {pool:032x} of process {pid}: {source}; its node has ended, or runs as another user or in another container"
    )]
    Open { pool: u128, pid: u32, source: std::io::Error },
    #[error("pool {pool:032x} of process {pid} has ended")]
    Ended { pool: u128, pid: u32 },
    #[error("what process {pid} has at descriptor {fd} is not pool {pool:032x}: {why}")]
    NotAPool { pool: u128, pid: u32, fd: u32, why: String },
    #[error("consumer '{name}' is attached to pool {pool:032x} already, by process {pid}, which is alive")]
    NameTaken { name: String, pool: u128, pid: u32 },
    #[error("pool {pool:032x} has {} consumers already, '{name}' finds no place", control::MAX_CONSUMERS)]
    Full { name: String, pool: u128 },
    #[error("this process cannot prove itself alive to others: {source}; mount this container's own /proc")]
    Proc { source: std::io::Error },
    #[error("pool {name}: the slot to publish was acquired from another pool, perhaps one that this one replaced")]
    ForeignSlot { name: String },
    #[cfg(not(loom))]
    #[error(transparent)]
    Cuda(#[from] millrace_cuda::CudaError),
    #[error("a description of {found} bytes does not fit the control block's {} bytes", control::ITEM_BYTES)]
    Description { found: usize },
}
