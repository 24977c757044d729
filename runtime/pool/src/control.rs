//! The control block: the state of a pool that the producer and its consumers share.
//!
//! It is one `repr(C)` struct of atomics, so that a mapping of it is a plain reference. It has offsets and indices, but
//! no pointers.

use crate::sync::{AtomicU32, AtomicU64};

/// `MILLRACE` as a big-endian number.
pub const MAGIC: u64 = 0x4d49_4c4c_5241_4345;
/// Version of the layout below. A block with another version is refused.
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

// loom's state space grows with every atomic, so loom checks the protocol on the smallest block that can go wrong.
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
    /// The facts of the pool, which do not change after it was made, and the words that all processes watch.
    pub header: Header,
    /// One state word a slot; see [`crate::protocol`].
    pub slots: [AtomicU64; MAX_SLOTS],
    /// The consumers' places.
    pub consumers: [Consumer; MAX_CONSUMERS],
    /// The description of each slot. It changes only while the slot is written, so a lease on the slot protects it too.
    pub descriptions: [Description; MAX_SLOTS],
}

/// The first part of the block.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// [`MAGIC`], stored last, after all other fields.
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
    /// The number of tickets published so far, which is the number of the next ticket.
    pub head: AtomicU64,
    /// The producer's bell. Consumers ring it when they give a lease back, move their cursor, attach or leave.
    pub bell: Bell,
}

/// The wake-up counter that one process sleeps on and other processes ring.
#[repr(C)]
#[derive(Debug)]
pub struct Bell {
    /// How often the bell was rung.
    pub rung: AtomicU32,
    /// 1 while the bell's process sleeps, or is about to.
    pub asleep: AtomicU32,
}

impl Default for Bell {
    fn default() -> Self {
        Self { rung: AtomicU32::new(0), asleep: AtomicU32::new(0) }
    }
}

/// The place of one consumer.
#[repr(C)]
#[derive(Debug)]
pub struct Consumer {
    /// [`FREE`], [`EXPECTED`], [`LEFT`], or the process.
    pub owner: AtomicU64,
    /// The lowest ticket that this consumer has not finished.
    pub cursor: AtomicU64,
    /// The next ticket that this consumer will look at. Tickets from the cursor up to it are leased or finished.
    pub next: AtomicU64,
    /// In live flow, the number of frames that dead predecessors had leased. A successor counts them and sets this to 0.
    pub lost: AtomicU64,
    /// The file descriptor of the consumer's own bell in its process, plus one; 0 for none.
    pub bell: AtomicU64,
    /// `node/input`, padded with zeros.
    pub name: [AtomicU64; NAME_BYTES / 8],
}

/// The owner of a place that no consumer has.
pub const FREE: u64 = 0;
/// The owner of a place that is reserved for a consumer which the graph names and which has not attached yet.
pub const EXPECTED: u64 = 1;
/// The owner of a place whose consumer has detached.
pub const LEFT: u64 = 2;
/// The value of [`Header::closed`] before the slots' memory is freed. A consumer that attaches later must not map the
/// memory.
pub const FREED: u32 = 2;
/// The owner of a place while the producer clears its leases.
pub const REAPING: u64 = u64::MAX;

/// The description of a slot's contents.
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
