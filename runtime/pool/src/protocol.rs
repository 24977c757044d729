//! The lease protocol: what the producer and the consumers of a pool do to its control block. The code here uses no
//! frame memory, no process and no clock, so that loom can try every interleaving of it (`tests/loom.rs`).
//!
//! A slot's state is one 64-bit word. The high half is the slot's generation: how often the slot was reused. The low
//! half has a bit for each process that uses the slot: bit `i` for consumer `i`, and the top bit for the producer while
//! it writes. Below, `(g, bits)` is a state.
//!
//! Each publication has a *ticket*: its number on the pool. In live flow a consumer leases a slot by setting its bit. In
//! lossless flow a publication sets the bits of all consumers, which reserves the frame for them until they release it.
//!
//! | step | state before | state after |
//! |---|---|---|
//! | [`acquire`] by the producer | `(g, 0)` | `(g + 1, WRITING)` |
//! | [`publish`], live | `(g, WRITING)` | `(g, 0)` |
//! | [`publish`], lossless | `(g, WRITING)` | `(g, one bit for each consumer)` |
//! | [`take`] by consumer `i`, live | `(g, any)` | `(g, any + i)` |
//! | [`take`] by consumer `i`, lossless | `(g, any + i)` | the same; without bit `i` there is no lease |
//! | [`release`] by consumer `i` | `(g, any + i)` | `(g, any)` |
//! | [`abandon`] by the producer | `(g, WRITING)` | `(g, 0)`, and the slot has no ticket |
//!
//! The producer acquires a slot only while no bit of it is set. Each slot also has a description, which includes the
//! ticket of the slot's latest publication. The description and the slot's bytes change only while the `WRITING` bit is
//! set, so a lease protects both.
//!
//! A consumer finds a ticket by searching the slots. If no slot has the ticket, then in live flow the frame was
//! overwritten, and in lossless flow the frame was not reserved for this consumer. A slot that is reserved for a
//! consumer keeps that consumer's bit, and so its ticket, for as long as the consumer needs.
//!
//! To clear a bit twice does no harm. So any process that has proven a consumer's death can clear that consumer's bits.
//!
//! A generation has 32 bits. At 1000 frames a second on two slots it wraps around after 99 days. That misleads only a
//! consumer that sleeps for exactly one such period between two instructions of [`take`]. A ticket has 64 bits.

use crate::Flow;
use crate::control::{Bell, Block, EXPECTED, FREE, ITEM_BYTES, LEFT, MAX_CONSUMERS, MAX_SLOTS, REAPING};
use crate::sync::{AtomicU64, Ordering, fence};

const WRITING: u64 = 1 << 31;
/// The most iterations of a loop that repeats while other processes change the same word.
const MOST_RACES: u32 = 1000;
const _: () = assert!(MAX_CONSUMERS <= 31); // the bits below WRITING
const _: () = assert!(ITEM_BYTES.is_multiple_of(8));

const fn state(generation: u32, bits: u64) -> u64 {
    (generation as u64) << 32 | bits
}

const fn generation_of(state: u64) -> u32 {
    (state >> 32) as u32
}

const fn bits_of(state: u64) -> u64 {
    state & 0xffff_ffff
}

/// The number of slots that the block states, limited to the number that a block can have. The number is not to be
/// trusted: every process that maps the block can write to it.
fn slots_of(block: &Block) -> u32 {
    block.header.slots.load(Ordering::Relaxed).min(MAX_SLOTS as u32)
}

/// A slot at one generation: the slot that the producer writes, or that a consumer leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// The slot.
    pub slot: u32,
    /// The generation of the publication in it.
    pub generation: u32,
}

/// Acquires, among the slots that no consumer leases, the one with the oldest publication. Returns `None` if no slot was
/// free. `slots` is the number of slots that the pool's memory has; it does not come from the block, which other
/// processes can change.
pub fn acquire(block: &Block, slots: u32) -> Option<Writing> {
    // A consumer may lease the slot between the load and the exchange; each such race costs one more iteration.
    for _ in 0..slots {
        let free = (0..slots).filter_map(|slot| {
            let seen = block.slots[slot as usize].load(Ordering::Relaxed);
            let ticket = block.descriptions[slot as usize].ticket.load(Ordering::Relaxed);
            (bits_of(seen) == 0).then_some((ticket, slot, seen))
        });
        let (_, slot, seen) = free.min()?;
        let generation = generation_of(seen).wrapping_add(1);
        // Acquire: the last reader's accesses happen before our writes.
        let exchanged = block.slots[slot as usize].compare_exchange(
            seen,
            state(generation, WRITING),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if exchanged.is_ok() {
            return Some(Writing { slot, generation });
        }
    }
    None
}

/// Publishes a written slot under the next ticket, and returns the ticket. Only the producer calls this, one call at a
/// time. `item` is the description; it has at most [`ITEM_BYTES`].
pub fn publish(block: &Block, flow: Flow, writing: Writing, item: &[u8]) -> u64 {
    debug_assert!(item.len() <= ITEM_BYTES);
    let ticket = block.header.head.load(Ordering::Relaxed);
    let description = &block.descriptions[writing.slot as usize];
    description.ticket.store(ticket + 1, Ordering::Relaxed);
    description.len.store(item.len() as u64, Ordering::Relaxed);
    store_bytes(&description.item, item);
    let bits = match flow {
        Flow::Live => 0,
        Flow::Lossless => {
            // Pairs with the fence in `attach`: if a consumer did not see the head that we stored last time, then we see
            // the consumer here.
            fence(Ordering::SeqCst);
            block
                .consumers
                .iter()
                .enumerate()
                .filter(|(_, c)| !matches!(c.owner.load(Ordering::Acquire), FREE | LEFT))
                .fold(0, |bits, (i, _)| bits | 1 << i)
        }
    };
    // Release: the writes to the slot's bytes and its description happen before any lease on them. This is a swap
    // because a consumer that leaves may clear its bit at the same time. A store would be correct on hardware too, but
    // loom orders only swaps among such writes.
    block.slots[writing.slot as usize].swap(state(writing.generation, bits), Ordering::Release);
    block.header.head.store(ticket + 1, Ordering::Release);
    ticket
}

/// Gives back a slot without publishing it.
pub fn abandon(block: &Block, writing: Writing) {
    // The description is still that of the previous frame, but the bytes are not.
    block.descriptions[writing.slot as usize].ticket.store(0, Ordering::Relaxed);
    block.slots[writing.slot as usize].swap(state(writing.generation, 0), Ordering::Release);
}

/// The result of [`take`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The ticket is not published yet.
    NotYet,
    /// In live flow: the slot of the ticket was reused. In lossless flow: the frame is not reserved for this consumer.
    /// Either it was published before the consumer attached, or a dead predecessor had given it back.
    Gone,
    /// The consumer has the lease: the slot with its generation, and the bytes of its description.
    Lease(Writing, Vec<u8>),
}

/// Leases the slot with the given ticket for consumer `index`. `slots` is the number of slots that the pool's memory has.
pub fn take(block: &Block, slots: u32, flow: Flow, index: usize, ticket: u64) -> Taken {
    // Acquire: the loads below see the slot's state and description as this ticket was published, or later ones.
    if ticket >= block.header.head.load(Ordering::Acquire) {
        return Taken::NotYet;
    }
    let slots = u64::from(slots);
    // The producer usually fills the slots in order; then the first slot that is looked at has the ticket.
    for slot in (0..slots).map(|i| (ticket % slots + i) % slots) {
        let slot = slot as usize;
        if let Some(generation) = take_slot(block, flow, index, ticket, slot) {
            let description = &block.descriptions[slot];
            let len = description.len.load(Ordering::Relaxed).min(ITEM_BYTES as u64) as usize;
            let item = load_bytes(&description.item, len);
            return Taken::Lease(Writing { slot: slot as u32, generation }, item);
        }
    }
    Taken::Gone
}

/// Leases `slot` if it has `ticket`, and returns the slot's generation.
fn take_slot(block: &Block, flow: Flow, index: usize, ticket: u64, slot: usize) -> Option<u32> {
    let word = &block.slots[slot];
    let bit = 1 << index;
    // Acquire, here and below: the producer's earlier writes happen before our reads.
    let mut seen = word.load(Ordering::Acquire);
    // Another consumer or the producer may change the word meanwhile. A word that changes more often than this is a
    // fault of one of them.
    for _ in 0..MOST_RACES {
        // A slot that is being written may still have its previous ticket.
        let has = block.descriptions[slot].ticket.load(Ordering::Relaxed) == ticket.wrapping_add(1);
        if bits_of(seen) & WRITING != 0 || !has {
            return None;
        }
        if seen & bit != 0 {
            return Some(generation_of(seen)); // lossless: the publication set our bit
        }
        if flow == Flow::Lossless {
            return None;
        }
        match word.compare_exchange_weak(seen, seen | bit, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => return Some(generation_of(seen)),
            Err(now) => seen = now,
        }
    }
    None
}

/// Gives back consumer `index`'s lease on a slot.
pub fn release(block: &Block, index: usize, slot: u32) {
    // Release: our reads happen before the producer's next writes.
    block.slots[slot as usize].fetch_and(!(1 << index), Ordering::Release);
}

/// Gives back every lease of consumer `index`, whose process is dead or has left.
pub fn release_all(block: &Block, index: usize) {
    for slot in 0..slots_of(block) {
        release(block, index, slot);
    }
}

/// Gives back the leases of consumer `index` on tickets before `cursor`, which are those of its predecessor. Only the
/// owner of the place calls this. So no other process gives these leases back meanwhile, and no slot with such a lease
/// is reused.
fn release_before(block: &Block, index: usize, cursor: u64) {
    for slot in 0..slots_of(block) {
        // Acquire: the ticket was written before the bit was set.
        let leased = block.slots[slot as usize].load(Ordering::Acquire) & (1 << index) != 0;
        if leased && block.descriptions[slot as usize].ticket.load(Ordering::Relaxed) <= cursor {
            release(block, index, slot);
        }
    }
}

/// Live flow: counts the frames that a dead consumer had leased as lost, and moves its cursor past them, so that its
/// successor starts behind them. The leases themselves remain until the caller releases them.
fn write_off(block: &Block, index: usize) {
    let place = &block.consumers[index];
    let mut next = place.next.load(Ordering::Acquire);
    for slot in 0..slots_of(block) as usize {
        // Acquire: the ticket was written before the bit was set.
        if block.slots[slot].load(Ordering::Acquire) & (1 << index) != 0 {
            place.lost.fetch_add(1, Ordering::AcqRel);
            // The consumer may have died between a lease and the store of `next`. The description has the ticket plus
            // one.
            next = next.max(block.descriptions[slot].ticket.load(Ordering::Relaxed));
        }
    }
    place.cursor.store(next, Ordering::Release);
}

/// The count of a bell. A process reads it before it checks whether there is work, and sleeps only while the count is
/// the same.
pub fn ring_count(bell: &Bell) -> u32 {
    bell.rung.load(Ordering::Acquire)
}

/// Records that the bell's process is about to sleep. It sleeps only while [`ring_count`] returns the count that it returned
/// before the process checked for work.
pub fn announce_sleep(bell: &Bell) {
    bell.asleep.store(1, Ordering::Relaxed);
    // Either this store comes first and `ring` sees it, or the sleeper's comparison sees the count of `ring`.
    fence(Ordering::SeqCst);
}

/// Records that the bell's process is awake.
pub fn announce_awake(bell: &Bell) {
    bell.asleep.store(0, Ordering::Relaxed);
}

/// Rings a bell after an event that its process may wait for. A producer waits for a lease that is given back, a cursor
/// that moves, and a consumer that attaches or leaves. A consumer waits for a publication. Returns `true` if the process
/// may be asleep and has to be woken.
pub fn ring(bell: &Bell) -> bool {
    bell.rung.fetch_add(1, Ordering::Release);
    fence(Ordering::SeqCst);
    bell.asleep.load(Ordering::Relaxed) == 1
}

/// How a process got its place in the control block. A place is the control block's record of one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The place was reserved for the process, or was free.
    Fresh,
    /// The place belonged to a process that is dead.
    Inherited {
        /// In live flow, the frames that the dead process had leased. 0 in lossless flow, where these frames are
        /// delivered again.
        lost: u64,
    },
}

/// Attaches the process `me` to the place `index`, if no living process has it. `Err` is the living owner, or
/// [`REAPING`] if the producer is clearing the place or if the owner keeps changing.
///
/// The first ticket of a consumer depends on how it got its place:
///
/// - A consumer that the graph names starts at the first ticket.
/// - In lossless flow, a consumer that inherits the place of a dead process starts at that process's cursor. The frames
///   that the dead process had not given back are delivered again.
/// - In live flow, a consumer that inherits a place starts at the first ticket that the dead process had not looked at.
///   The frames that the dead process had leased are lost; [`Attached::Inherited`] has their number.
/// - Every other consumer starts at the next ticket that is published.
pub fn attach(
    block: &Block,
    flow: Flow,
    index: usize,
    me: u64,
    is_dead: impl Fn(u64) -> bool,
) -> Result<Attached, u64> {
    let place = &block.consumers[index];
    for _ in 0..MOST_RACES {
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
        place.bell.store(0, Ordering::Relaxed); // a predecessor's bell wakes nobody any more
        if inherited && flow == Flow::Live {
            write_off(block, index);
        }
        let lost = place.lost.swap(0, Ordering::AcqRel);
        if !(seen == EXPECTED || inherited) {
            // Pairs with the fence in `publish`. If a publication raises the head and we do not see that here, then it is
            // either the publication in progress, or it sets our bit. So at most one ticket from the cursor on, the one
            // at the cursor, was published without our bit, and `take` returns `Gone` for it.
            fence(Ordering::SeqCst);
            place.cursor.store(block.header.head.load(Ordering::Acquire), Ordering::Release);
        }
        // Bits that were set for our predecessor at or after the cursor are ours. Nobody reads the older slots any more.
        release_before(block, index, place.cursor.load(Ordering::Acquire));
        let goes_on = inherited || lost > 0;
        return Ok(if goes_on { Attached::Inherited { lost } } else { Attached::Fresh });
    }
    Err(REAPING)
}

/// Detaches the process `me` from the place `index`. From here on no frame is reserved for it.
///
/// The leases are given back before the place is, so that this call cannot clear a lease of a successor. A publication at
/// the same time may still set the consumer's bit; the successor or the producer's [`reap`] clears it.
pub fn detach(block: &Block, index: usize, me: u64) {
    let place = &block.consumers[index];
    if place.owner.load(Ordering::Acquire) == me {
        release_all(block, index);
        let _ = place.owner.compare_exchange(me, LEFT, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Clears the leases of a place whose `owner`, as the caller has read it, is dead or [`LEFT`]. Only the producer calls
/// this, never at the same time as [`publish`]. Returns `false` if a successor has attached to the place meanwhile.
///
/// In live flow the place of a dead process is kept for its successor, which continues where that process stopped.
pub fn reap(block: &Block, flow: Flow, index: usize, owner: u64) -> bool {
    let place = &block.consumers[index];
    if place.owner.compare_exchange(owner, REAPING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    let kept = owner != LEFT && flow == Flow::Live;
    if kept {
        write_off(block, index);
    }
    release_all(block, index);
    place.owner.store(if kept { EXPECTED } else { LEFT }, Ordering::Release);
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
