//! The protocol, as operations on a control block. No memory, no process and no clock is known here, so that loom can
//! try every interleaving of it (`tests/loom.rs`).
//!
//! A slot's state is one word: its generation in the high half, and a bit for each party that must not lose it in the
//! low half: bit `i` for consumer `i`, the top bit for the producer while it writes.
//!
//! | step | state before | state after |
//! |---|---|---|
//! | [`acquire`] by the producer | `(g, 0)` | `(g + 1, WRITING)` |
//! | [`publish`], live | `(g, WRITING)` | `(g, 0)` |
//! | [`publish`], lossless | `(g, WRITING)` | `(g, one bit for each consumer)` |
//! | [`take`] by consumer `i`, who names `g` | `(g, any)` | `(g, any + i)`; refused for any other generation |
//! | [`release`] by consumer `i` | `(g, any + i)` | `(g, any)` |
//! | [`abandon`] by the producer | `(g, WRITING)` | `(g, 0)`; nobody knows this generation |
//!
//! So a lease names a generation, a slot is written only while no bit is set, and an old description can never name
//! a new frame: its generation is gone. Bits are idempotent: those of a dead consumer can be cleared by whoever proved
//! its death, twice if need be.

use crate::Flow;
use crate::control::{Block, EXPECTED, Entry, FREE, ITEM_BYTES, LEFT, MAX_CONSUMERS, REAPING, RING};
use crate::sync::{AtomicU64, Ordering, fence};

const WRITING: u64 = 1 << 31;
const LEASES: u64 = WRITING - 1;
const _: () = assert!(MAX_CONSUMERS <= 31);

const fn state(generation: u32, bits: u64) -> u64 {
    (generation as u64) << 32 | bits
}

const fn generation_of(state: u64) -> u32 {
    (state >> 32) as u32
}

const fn bits_of(state: u64) -> u64 {
    state & 0xffff_ffff
}

/// A slot that the producer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// The slot.
    pub slot: u32,
    /// The generation that its publication will have.
    pub generation: u32,
}

/// Takes a slot that nobody has, looking first at `from`: the producer goes round, so that is the oldest.
/// `None`: every slot is leased.
pub fn acquire(block: &Block, from: u32) -> Option<Writing> {
    let slots = block.header.slots.load(Ordering::Relaxed);
    (0..slots).map(|i| (from + i) % slots).find_map(|slot| {
        let word = &block.slots[slot as usize];
        let seen = word.load(Ordering::Relaxed);
        if bits_of(seen) != 0 {
            return None;
        }
        let generation = generation_of(seen).wrapping_add(1);
        // Acquire: the last reader's accesses come before our writes
        word.compare_exchange(seen, state(generation, WRITING), Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Writing { slot, generation })
    })
}

/// Publishes a written slot under the next ticket, which is returned. Only the producer calls this, one call at a time.
/// `item` has at most [`ITEM_BYTES`].
pub fn publish(block: &Block, flow: Flow, writing: Writing, item: &[u8]) -> u64 {
    debug_assert!(item.len() <= ITEM_BYTES);
    let ticket = block.header.head.load(Ordering::Relaxed);
    write_entry(&block.ring[(ticket % RING as u64) as usize], ticket, writing, item);
    let bits = match flow {
        Flow::Live => 0,
        Flow::Lossless => block
            .consumers
            .iter()
            .enumerate()
            .filter(|(_, c)| !matches!(c.owner.load(Ordering::Acquire), FREE | LEFT))
            .fold(0, |bits, (i, _)| bits | 1 << i),
    };
    // Release: the slot's bytes and its entry come before any lease on them
    block.slots[writing.slot as usize].store(state(writing.generation, bits), Ordering::Release);
    block.header.head.store(ticket + 1, Ordering::Release);
    ticket
}

/// Gives back a slot unpublished.
pub fn abandon(block: &Block, writing: Writing) {
    block.slots[writing.slot as usize].store(state(writing.generation, 0), Ordering::Release);
}

fn write_entry(entry: &Entry, ticket: u64, writing: Writing, item: &[u8]) {
    entry.version.store(2 * ticket + 1, Ordering::Relaxed);
    fence(Ordering::Release);
    entry.slot.store(u64::from(writing.generation) << 32 | u64::from(writing.slot), Ordering::Relaxed);
    entry.len.store(item.len() as u64, Ordering::Relaxed);
    store_bytes(&entry.item, item);
    entry.version.store(2 * ticket + 2, Ordering::Release);
}

/// What stands in the control block of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Not published yet.
    NotYet,
    /// Its description was overwritten, so its slot was reused long ago.
    Overwritten,
    /// Published: where, and the description's bytes.
    Entry(Writing, Vec<u8>),
}

/// Reads the description of a ticket.
pub fn read(block: &Block, ticket: u64) -> Read {
    if ticket >= block.header.head.load(Ordering::Acquire) {
        return Read::NotYet;
    }
    let entry = &block.ring[(ticket % RING as u64) as usize];
    let complete = 2 * ticket + 2;
    if entry.version.load(Ordering::Acquire) != complete {
        return Read::Overwritten;
    }
    let slot = entry.slot.load(Ordering::Relaxed);
    let len = entry.len.load(Ordering::Relaxed).min(ITEM_BYTES as u64) as usize;
    let item = load_bytes(&entry.item, len);
    fence(Ordering::Acquire);
    if entry.version.load(Ordering::Relaxed) != complete {
        return Read::Overwritten;
    }
    Read::Entry(Writing { slot: slot as u32, generation: (slot >> 32) as u32 }, item)
}

/// Takes a lease for consumer `index` on one generation of a slot. `false`: the frame is gone.
pub fn take(block: &Block, index: usize, of: Writing) -> bool {
    let slots = block.header.slots.load(Ordering::Relaxed);
    if of.slot >= slots {
        return false;
    }
    let word = &block.slots[of.slot as usize];
    let bit = 1 << index;
    let mut seen = word.load(Ordering::Acquire);
    loop {
        if generation_of(seen) != of.generation || bits_of(seen) & WRITING != 0 {
            return false;
        }
        if seen & bit != 0 {
            return true; // lossless: it was ours from the start
        }
        match word.compare_exchange_weak(seen, seen | bit, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
}

/// Gives back consumer `index`'s lease on a slot.
pub fn release(block: &Block, index: usize, slot: u32) {
    // Release: our reads come before the producer's next writes
    block.slots[slot as usize].fetch_and(!(1 << index), Ordering::Release);
    block.header.bell.fetch_add(1, Ordering::SeqCst);
}

/// Gives back every lease of consumer `index`, which is dead or gone.
pub fn release_all(block: &Block, index: usize) {
    for slot in 0..block.header.slots.load(Ordering::Relaxed) {
        release(block, index, slot);
    }
}

/// Slots that some consumer has or is owed.
pub fn leased(block: &Block) -> u32 {
    let slots = block.header.slots.load(Ordering::Relaxed) as usize;
    block.slots[..slots].iter().filter(|s| s.load(Ordering::Relaxed) & LEASES != 0).count() as u32
}

/// How a process came by a place in the control block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The place stood ready for it or was free.
    Fresh,
    /// It had belonged to a process that is dead.
    Inherited,
}

/// Takes the place `index` for the process `me`, if nobody alive has it. `Err` is the owner that is alive.
///
/// A consumer that the graph names starts at the first ticket. A lossless one that inherits its place goes on at its
/// predecessor's cursor: what that had not given back comes once more. Every other one starts at the newest frame.
pub fn attach(
    block: &Block,
    flow: Flow,
    index: usize,
    me: u64,
    is_dead: impl Fn(u64) -> bool,
) -> Result<Attached, u64> {
    let place = &block.consumers[index];
    loop {
        let seen = place.owner.load(Ordering::Acquire);
        let inherited = match seen {
            FREE | EXPECTED | LEFT => false,
            REAPING => return Err(REAPING),
            owner if is_dead(owner) => true,
            owner => return Err(owner),
        };
        if place.owner.compare_exchange(seen, me, Ordering::AcqRel, Ordering::Acquire).is_err() {
            continue;
        }
        let goes_on = seen == EXPECTED || (inherited && flow == Flow::Lossless);
        if !goes_on {
            // The cursor first: a publication that still counted our predecessor has either raised the head that we
            // read here, and its bit is cleared below, or comes to us as a ticket at or after the cursor.
            place.cursor.store(block.header.head.load(Ordering::Acquire), Ordering::Release);
            release_all(block, index);
        }
        return Ok(if inherited { Attached::Inherited } else { Attached::Fresh });
    }
}

/// Says goodbye: the place `index` of the process `me` owes and is owed nothing from here on.
///
/// The leases go back before the place does, so that a successor cannot lose its own to this sweep. A publication that
/// counted us meanwhile leaves a bit behind, which the successor or the producer's [`reap`] clears.
pub fn detach(block: &Block, index: usize, me: u64) {
    let place = &block.consumers[index];
    if place.owner.load(Ordering::Acquire) == me {
        release_all(block, index);
        let _ = place.owner.compare_exchange(me, LEFT, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Takes back the leases of a place whose owner, as read, is dead or [`LEFT`]. Only the producer calls this, never at
/// the same time as [`publish`]. `false`: a successor has taken the place meanwhile.
pub fn reap(block: &Block, index: usize, owner: u64) -> bool {
    let place = &block.consumers[index];
    if place.owner.compare_exchange(owner, REAPING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    release_all(block, index);
    place.owner.store(LEFT, Ordering::Release);
    true
}

pub(crate) fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    for (word, chunk) in words.iter().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
    }
}

pub(crate) fn load_bytes(words: &[AtomicU64], len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        words[..len.div_ceil(8)].iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}
