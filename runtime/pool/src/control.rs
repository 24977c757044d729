//! The control block: what the processes that share a pool know of each other.
//!
//! It is one `repr(C)` struct of atomics, so that a mapping of it is a plain reference. Offsets and indices stand in it,
//! pointers never.

use crate::sync::{AtomicU32, AtomicU64};

/// `MILLRACE` as a big-endian number.
pub const MAGIC: u64 = 0x4d49_4c4c_5241_4345;
/// Version of the layout below; another one is refused.
pub const LAYOUT: u32 = 4;

/// The most slots of a pool.
#[cfg(not(loom))]
pub const MAX_SLOTS: usize = 64;
/// The most consumers of a pool: one bit each in a slot's state, and one for the producer.
#[cfg(not(loom))]
pub const MAX_CONSUMERS: usize = 31;
/// Bytes of a description.
#[cfg(not(loom))]
pub const ITEM_BYTES: usize = millrace_frame::wire::compact::ITEM_MAX_BYTES;
/// Bytes of a consumer's name.
#[cfg(not(loom))]
pub const NAME_BYTES: usize = 96;
/// Bytes of a memory's export (a CUDA IPC handle has 64).
#[cfg(not(loom))]
pub const EXPORT_BYTES: usize = 128;

// loom's state space grows with every atomic: the same protocol on the smallest block that can go wrong
#[cfg(loom)]
#[allow(missing_docs)]
pub const MAX_SLOTS: usize = 2;
#[cfg(loom)]
#[allow(missing_docs)]
pub const MAX_CONSUMERS: usize = 2;
#[cfg(loom)]
#[allow(missing_docs)]
pub const ITEM_BYTES: usize = 16;
#[cfg(loom)]
#[allow(missing_docs)]
pub const NAME_BYTES: usize = 8;
#[cfg(loom)]
#[allow(missing_docs)]
pub const EXPORT_BYTES: usize = 8;

/// The whole block.
#[repr(C)]
#[derive(Debug)]
pub struct Block {
    /// What does not change after the pool was made, and the two words that all sides watch.
    pub header: Header,
    /// One state word a slot; see [`crate::protocol`].
    pub slots: [AtomicU64; MAX_SLOTS],
    /// Those who read.
    pub consumers: [Consumer; MAX_CONSUMERS],
    /// What lies in each slot; changed in writing state only, so whoever may read the slot may read this.
    pub descriptions: [Description; MAX_SLOTS],
}

/// The head of the block.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// [`MAGIC`], stored last, when all else is in place.
    pub magic: AtomicU64,
    /// [`LAYOUT`].
    pub layout: AtomicU32,
    /// Slots in use, at most [`MAX_SLOTS`].
    pub slots: AtomicU32,
    /// Size of a slot.
    pub slot_bytes: AtomicU64,
    /// The pool's id, high and low half.
    pub pool: [AtomicU64; 2],
    /// Which run of its node made the pool.
    pub incarnation: AtomicU64,
    /// The producer, as [`crate::process::Owner`] encodes it.
    pub producer: AtomicU64,
    /// 0 live, 1 lossless.
    pub flow: AtomicU32,
    /// Kind of the slots' memory.
    pub memory_kind: AtomicU32,
    /// Bytes used of `export`.
    pub export_len: AtomicU32,
    /// 1 when no further ticket will come; [`FREED`] when the producer is about to free the slots.
    pub closed: AtomicU32,
    /// How the slots' memory is opened.
    pub export: [AtomicU64; EXPORT_BYTES / 8],
    /// Tickets published so far: the next one's number.
    pub head: AtomicU64,
    /// The producer's bell. Consumers ring it when they give a lease back, move their cursor, attach or leave.
    pub bell: Bell,
}

/// What one process sleeps on and others ring.
#[repr(C)]
#[derive(Debug)]
pub struct Bell {
    /// How often it was rung.
    pub rung: AtomicU32,
    /// 1 while its process sleeps, or is about to.
    pub asleep: AtomicU32,
}

impl Default for Bell {
    fn default() -> Self {
        Self { rung: AtomicU32::new(0), asleep: AtomicU32::new(0) }
    }
}

/// One who reads.
#[repr(C)]
#[derive(Debug)]
pub struct Consumer {
    /// [`FREE`], [`EXPECTED`], [`LEFT`], or the process.
    pub owner: AtomicU64,
    /// The lowest ticket that this consumer has not done with.
    pub cursor: AtomicU64,
    /// The next ticket that this consumer will look at; those from the cursor up to it are leased or done with.
    pub next: AtomicU64,
    /// Frames that dead predecessors had leased in live flow, until a successor counts them.
    pub lost: AtomicU64,
    /// The descriptor, plus one, at which its process has its own bell; 0 for none.
    pub bell: AtomicU64,
    /// `node/input`, padded with zeros.
    pub name: [AtomicU64; NAME_BYTES / 8],
}

/// A place for a consumer that nobody has.
pub const FREE: u64 = 0;
/// A place for a consumer that the graph names and that has not come yet.
pub const EXPECTED: u64 = 1;
/// A consumer that said goodbye.
pub const LEFT: u64 = 2;
/// What [`Header::closed`] shows before the slots' memory is freed: a consumer that attaches from then on must not map it.
pub const FREED: u32 = 2;
/// A place whose leases the producer takes back right now.
pub const REAPING: u64 = u64::MAX;

/// What lies in a slot.
#[repr(C)]
#[derive(Debug)]
pub struct Description {
    /// The ticket that the slot was published under, plus one; 0 for none.
    pub ticket: AtomicU64,
    /// Bytes used of `item`.
    pub len: AtomicU64,
    /// The description, [`millrace_frame::wire::compact`].
    pub item: [AtomicU64; ITEM_BYTES / 8],
}

impl Default for Block {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            header: Header {
                magic: AtomicU64::new(0),
                layout: AtomicU32::new(0),
                slots: AtomicU32::new(0),
                slot_bytes: AtomicU64::new(0),
                pool: std::array::from_fn(zero),
                incarnation: AtomicU64::new(0),
                producer: AtomicU64::new(0),
                flow: AtomicU32::new(0),
                memory_kind: AtomicU32::new(0),
                export_len: AtomicU32::new(0),
                closed: AtomicU32::new(0),
                export: std::array::from_fn(zero),
                head: AtomicU64::new(0),
                bell: Bell::default(),
            },
            slots: std::array::from_fn(zero),
            consumers: std::array::from_fn(|_| Consumer {
                owner: AtomicU64::new(FREE),
                cursor: AtomicU64::new(0),
                next: AtomicU64::new(0),
                lost: AtomicU64::new(0),
                bell: AtomicU64::new(0),
                name: std::array::from_fn(zero),
            }),
            descriptions: std::array::from_fn(|_| Description {
                ticket: AtomicU64::new(0),
                len: AtomicU64::new(0),
                item: std::array::from_fn(zero),
            }),
        }
    }
}
