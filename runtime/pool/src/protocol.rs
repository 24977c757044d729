//! The protocol, as operations on a control block. No memory, no process and no clock is known here, so that loom can
//! try every interleaving of it (`tests/loom.rs`).
//!
//! A slot's state is one word: its generation (how often it was reused) in the high half, and a bit for each party that
//! must not lose it in the low half: bit `i` for consumer `i`, the top bit for the producer while it writes.
//!
//! | step | state before | state after |
//! |---|---|---|
//! | [`acquire`] by the producer | `(g, 0)` | `(g + 1, WRITING)` |
//! | [`publish`], live | `(g, WRITING)` | `(g, 0)` |
//! | [`publish`], lossless | `(g, WRITING)` | `(g, one bit for each consumer)` |
//! | [`take`] by consumer `i`, live | `(g, any)` | `(g, any + i)` |
//! | [`take`] by consumer `i`, lossless | `(g, any + i)` | the same; refused where bit `i` is not set |
//! | [`release`] by consumer `i` | `(g, any + i)` | `(g, any)` |
//! | [`abandon`] by the producer | `(g, WRITING)` | `(g, 0)`, and the slot has no ticket |
//!
//! A slot is written only while no bit is set. Beside its state stands its description, with the ticket that it was
//! published under; both the description and the slot's bytes change in writing state only, so a lease covers both, and
//! a ticket is found by looking through the slots. One that is in none was overwritten, in live flow, and in lossless
//! flow is not owed: an owed slot keeps its bit and with it its ticket, however long its consumer stays away.
//!
//! Bits are idempotent: those of a dead consumer can be cleared by whoever proved its death, twice if need be.
//!
//! A generation has 32 bits: at 1000 frames a second on two slots it comes round after 99 days. That fools only a
//! consumer that sleeps for exactly one round between two instructions of [`take`]; the ticket has 64.

use crate::Flow;
use crate::control::{Bell, Block, EXPECTED, FREE, ITEM_BYTES, LEFT, MAX_CONSUMERS, MAX_SLOTS, REAPING};
use crate::sync::{AtomicU64, Ordering, fence};

const WRITING: u64 = 1 << 31;
/// Rounds of a loop that another party's step can prolong.
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

/// Slots that the block says it has, as far as it can have them: every process that maps it can write there.
fn slots_of(block: &Block) -> u32 {
    block.header.slots.load(Ordering::Relaxed).min(MAX_SLOTS as u32)
}

/// A slot that the producer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// The slot.
    pub slot: u32,
    /// The generation that its publication will have.
    pub generation: u32,
}

/// Acquires the slot with the oldest publication among those that no consumer leases. `None`: each slot was leased or
/// written when the producer looked at it. `slots` are as many as the memory has: the block may say anything later.
pub fn acquire(block: &Block, slots: u32) -> Option<Writing> {
    // A consumer may lease the slot between the look and the exchange; each such race costs one more round.
    for _ in 0..slots {
        let free = (0..slots).filter_map(|slot| {
            let seen = block.slots[slot as usize].load(Ordering::Relaxed);
            let ticket = block.descriptions[slot as usize].ticket.load(Ordering::Relaxed);
            (bits_of(seen) == 0).then_some((ticket, slot, seen))
        });
        let (_, slot, seen) = free.min()?;
        let generation = generation_of(seen).wrapping_add(1);
        // Acquire: the last reader's accesses come before our writes
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

/// Publishes a written slot under the next ticket, which is returned. Only the producer calls this, one call at a time.
/// `item` has at most [`ITEM_BYTES`].
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
            // Pairs with the fence in `attach`: one that did not see the head we stored last time is seen here.
            fence(Ordering::SeqCst);
            block
                .consumers
                .iter()
                .enumerate()
                .filter(|(_, c)| !matches!(c.owner.load(Ordering::Acquire), FREE | LEFT))
                .fold(0, |bits, (i, _)| bits | 1 << i)
        }
    };
    // Release: the slot's bytes and its description come before any lease on them. A swap, because one who leaves may
    // clear its bit at the same time: a store would do for the machine, but loom orders only swaps among such writes.
    block.slots[writing.slot as usize].swap(state(writing.generation, bits), Ordering::Release);
    block.header.head.store(ticket + 1, Ordering::Release);
    ticket
}

/// Gives back a slot unpublished.
pub fn abandon(block: &Block, writing: Writing) {
    // the description is still the former frame's, the bytes are not
    block.descriptions[writing.slot as usize].ticket.store(0, Ordering::Relaxed);
    block.slots[writing.slot as usize].swap(state(writing.generation, 0), Ordering::Release);
}

/// What became of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Not published yet.
    NotYet,
    /// In live flow its slot was reused. In lossless flow it is not owed to this consumer: it was published before this
    /// one counted, or a dead predecessor had given it back.
    Gone,
    /// Leased: where, and the description's bytes.
    Lease(Writing, Vec<u8>),
}

/// Takes a lease for consumer `index` on a ticket. `slots` are as many as the memory has.
pub fn take(block: &Block, slots: u32, flow: Flow, index: usize, ticket: u64) -> Taken {
    // Acquire: the state that this ticket was published with, and so its description, is seen below, or a later one
    if ticket >= block.header.head.load(Ordering::Acquire) {
        return Taken::NotYet;
    }
    let slots = u64::from(slots);
    // the producer goes round: where nothing was out of turn, the first look finds it
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

/// Takes the lease if `slot` has `ticket`, and says on which generation.
fn take_slot(block: &Block, flow: Flow, index: usize, ticket: u64, slot: usize) -> Option<u32> {
    let word = &block.slots[slot];
    let bit = 1 << index;
    // Acquire, here and below: what the producer wrote before comes before our reads
    let mut seen = word.load(Ordering::Acquire);
    // who changes the word meanwhile is another consumer or the producer: more often than this, it is somebody's fault
    for _ in 0..MOST_RACES {
        // A slot in writing state may still show the ticket that it is losing.
        let has = block.descriptions[slot].ticket.load(Ordering::Relaxed) == ticket.wrapping_add(1);
        if bits_of(seen) & WRITING != 0 || !has {
            return None;
        }
        if seen & bit != 0 {
            return Some(generation_of(seen)); // lossless: it was ours from the start
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
    // Release: our reads come before the producer's next writes
    block.slots[slot as usize].fetch_and(!(1 << index), Ordering::Release);
}

/// Gives back every lease of consumer `index`, which is dead or gone.
pub fn release_all(block: &Block, index: usize) {
    for slot in 0..slots_of(block) {
        release(block, index, slot);
    }
}

/// Gives back the leases of consumer `index` on tickets before `cursor`: its predecessor's. Called by the owner of the
/// place, so nobody else gives them back meanwhile, and no slot that has one is reused.
fn release_before(block: &Block, index: usize, cursor: u64) {
    for slot in 0..slots_of(block) {
        // Acquire: whoever set the bit had written the ticket
        let leased = block.slots[slot as usize].load(Ordering::Acquire) & (1 << index) != 0;
        if leased && block.descriptions[slot as usize].ticket.load(Ordering::Relaxed) <= cursor {
            release(block, index, slot);
        }
    }
}

/// Live flow: what a dead consumer had leased is lost, and its successor goes on behind it. The leases stand until the
/// caller releases them.
fn write_off(block: &Block, index: usize) {
    let place = &block.consumers[index];
    let mut next = place.next.load(Ordering::Acquire);
    for slot in 0..slots_of(block) as usize {
        // Acquire: whoever set the bit had written the ticket
        if block.slots[slot].load(Ordering::Acquire) & (1 << index) != 0 {
            place.lost.fetch_add(1, Ordering::AcqRel);
            // It may have died between a lease and the store of `next`. The description holds the ticket plus one.
            next = next.max(block.descriptions[slot].ticket.load(Ordering::Relaxed));
        }
    }
    place.cursor.store(next, Ordering::Release);
}

/// What a bell shows, to be read before its process looks for what it waits for.
pub fn heard(bell: &Bell) -> u32 {
    bell.rung.load(Ordering::Acquire)
}

/// The bell's process is about to sleep while [`heard`] shows what it showed before the look.
pub fn announce_sleep(bell: &Bell) {
    bell.asleep.store(1, Ordering::Relaxed);
    // Either this comes first and `ring` sees it, or `ring`'s count is seen by the sleeper's comparison.
    fence(Ordering::SeqCst);
}

/// The bell's process sleeps no more.
pub fn announce_awake(bell: &Bell) {
    bell.asleep.store(0, Ordering::Relaxed);
}

/// Rings a bell after something that its process may wait for. A producer waits for leases given back, cursors moved,
/// places taken and left; a consumer for publications. `true`: it may sleep and has to be woken.
pub fn ring(bell: &Bell) -> bool {
    bell.rung.fetch_add(1, Ordering::Release);
    fence(Ordering::SeqCst);
    bell.asleep.load(Ordering::Relaxed) == 1
}

/// How a process came by a place in the control block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The place stood ready for it or was free.
    Fresh,
    /// It had belonged to a process that is dead. In live flow `lost` frames were leased to it when it died.
    Inherited {
        /// Frames that the dead process was working on; 0 in lossless flow, where they are delivered again.
        lost: u64,
    },
}

/// Attaches the process `me` to the place `index`, if no living process has it. `Err` is the owner that is alive.
///
/// A consumer that the graph names starts at the first ticket. One that inherits the place of a dead process goes on where
/// that process stopped: in lossless flow at its cursor, so that what it had not given back is delivered once more; in live
/// flow at the first ticket that it had not looked at, and what it had leased is lost ([`Attached::Inherited`] counts it).
/// Every other consumer starts with the next ticket.
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
        place.bell.store(0, Ordering::Relaxed); // a predecessor's is nobody's now
        if inherited && flow == Flow::Live {
            write_off(block, index);
        }
        let lost = place.lost.swap(0, Ordering::AcqRel);
        if !(seen == EXPECTED || inherited) {
            // Pairs with the fence in `publish`: a publication that raises the head which we do not see here either is
            // the one under way, or counts us. So at most the ticket at the cursor was published without counting us,
            // and `take` refuses that one.
            fence(Ordering::SeqCst);
            place.cursor.store(block.header.head.load(Ordering::Acquire), Ordering::Release);
        }
        // What counted our predecessor and stands at or after the cursor is ours; what is older, nobody reads any more.
        release_before(block, index, place.cursor.load(Ordering::Acquire));
        let goes_on = inherited || lost > 0;
        return Ok(if goes_on { Attached::Inherited { lost } } else { Attached::Fresh });
    }
    Err(REAPING)
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
/// the same time as [`publish`]. `false`: a successor has attached to the place meanwhile.
///
/// In live flow the place of a dead process is kept for its successor, which goes on where that process stopped.
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
