//! Puts RTP packets that arrive by UDP into the order of their sequence numbers. A packet that arrives in order is given
//! out at once; only behind a gap do packets wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long packets wait for one before them.
pub(super) const WINDOW: Duration = Duration::from_millis(50);
/// How many packets wait at most.
const MOST: usize = 512;
/// A packet whose number is further away than this is not of the same run of numbers, or a sender's pause lies between.
const FAR: u16 = 3000;
/// The first number, so that none before it is negative.
const ORIGIN: u64 = 1 << 32;

/// What a packet's sequence number says about its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketOrder {
    InOrder,
    /// A packet behind it in the stream arrived before it.
    Overtaken,
    /// It arrived before.
    Duplicate,
    /// It was given up for lost.
    Late,
}

/// A packet that waits behind a gap.
struct HeldPacket<T> {
    item: T,
    arrived: Instant,
}

pub(super) struct Sorter<T> {
    /// The number that is given out next, continued past 16 bits. At the beginning nothing is known of what came before.
    next: Option<u64>,
    newest: u64,
    held: BTreeMap<u64, HeldPacket<T>>,
    /// Which numbers before `next` arrived; bit 0 is the last of them.
    history: u128,
}

impl<T> Default for Sorter<T> {
    fn default() -> Self {
        Self { next: None, newest: 0, held: BTreeMap::new(), history: 0 }
    }
}

impl<T> Sorter<T> {
    /// Whether a packet of this number hardly belongs to the packets so far.
    pub(super) fn is_far(&self, sequence: u16) -> bool {
        self.expected().is_some_and(|expected| !near(expected as u16, sequence))
    }

    /// Whether the number is before the one that is expected.
    pub(super) fn is_behind(&self, sequence: u16) -> bool {
        self.expected().is_some_and(|expected| step(expected as u16, sequence) < 0)
    }

    /// Sorts a packet in. A duplicate and one that is late are dropped.
    pub(super) fn push(&mut self, sequence: u16, item: T, arrived: Instant) -> PacketOrder {
        let expected = self.expected().unwrap_or(ORIGIN | u64::from(sequence));
        let number = expected.wrapping_add_signed(i64::from(step(expected as u16, sequence)));
        if let Some(next) = self.next
            && number < next
        {
            let known = u32::try_from(next - 1 - number).ok().and_then(|bit| self.history.checked_shr(bit));
            return if known.is_some_and(|bits| bits & 1 == 1) { PacketOrder::Duplicate } else { PacketOrder::Late };
        }
        if self.held.contains_key(&number) {
            return PacketOrder::Duplicate;
        }
        let overtaken = number < self.newest;
        self.newest = self.newest.max(number);
        self.held.insert(number, HeldPacket { item, arrived });
        if overtaken { PacketOrder::Overtaken } else { PacketOrder::InOrder }
    }

    /// The next packet that need not wait at `now`, and how many are missing before it.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(T, u64)> {
        let in_order = self.next.is_some() && self.held.keys().next().copied() == self.next;
        if in_order || self.held.len() > MOST || self.due().is_some_and(|due| due <= now) {
            return self.pop_first();
        }
        None
    }

    /// The next packet, whatever is missing before it.
    pub(super) fn pop_first(&mut self) -> Option<(T, u64)> {
        let (number, held) = self.held.pop_first()?;
        let missing = number - self.next.unwrap_or(number);
        let moved = u32::try_from(missing).ok().and_then(|missing| self.history.checked_shl(missing + 1));
        self.history = moved.unwrap_or(0) | 1;
        self.next = Some(number + 1);
        Some((held.item, missing))
    }

    /// When a packet has waited long enough, where one waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.values().map(|held| held.arrived + WINDOW).min()
    }

    fn expected(&self) -> Option<u64> {
        self.next.or_else(|| self.held.keys().next().copied())
    }
}

/// From one sequence number to another.
fn step(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from) as i16
}

/// Whether two sequence numbers may be of the same run.
pub(super) fn near(a: u16, b: u16) -> bool {
    step(a, b).unsigned_abs() <= FAR
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What came out of a sorter that is driven as a camera's task drives it.
    #[derive(Default)]
    struct Run {
        out: Vec<u64>,
        missing: u64,
        places: Vec<PacketOrder>,
        longest_wait: Duration,
        most_held: usize,
    }

    /// Packets are (arrival in microseconds, number of the packet, from 0); sequence numbers begin at `first`.
    fn run(first: u16, mut packets: Vec<(u64, u64)>) -> Run {
        packets.sort();
        let began = Instant::now();
        let mut sorter = Sorter::default();
        let mut run = Run::default();
        let drain = |sorter: &mut Sorter<(u64, Instant)>, now: Instant, run: &mut Run| {
            while let Some(((number, arrived), missing)) = sorter.pop(now) {
                run.out.push(number);
                run.missing += missing;
                run.longest_wait = run.longest_wait.max(now - arrived);
            }
            run.most_held = run.most_held.max(sorter.held.len());
        };
        for (at, number) in packets {
            let now = began + Duration::from_micros(at);
            while let Some(due) = sorter.due().filter(|due| *due < now) {
                drain(&mut sorter, due, &mut run);
            }
            let sequence = first.wrapping_add(number as u16);
            run.places.push(sorter.push(sequence, (number, now), now));
            drain(&mut sorter, now, &mut run);
        }
        while let Some(due) = sorter.due() {
            drain(&mut sorter, due, &mut run);
        }
        run
    }

    fn count(run: &Run, wanted: PacketOrder) -> usize {
        run.places.iter().filter(|place| **place == wanted).count()
    }

    /// How often each of the packets, one a millisecond, arrives, and how late.
    fn network(delay_us: u64) -> impl Strategy<Value = Vec<Vec<u64>>> {
        let copies = prop_oneof![1 => Just(0usize), 7 => Just(1), 1 => Just(2), 1 => Just(3)];
        let packet = copies.prop_flat_map(move |n| prop::collection::vec(0..delay_us, n));
        prop::collection::vec(packet, 1..300)
    }

    fn arrivals(delays: &[Vec<u64>]) -> Vec<(u64, u64)> {
        let sent = delays.iter().zip(0u64..);
        sent.flat_map(|(delays, n)| delays.iter().map(move |delay| (n * 1000 + delay, n))).collect()
    }

    proptest! {
        /// The model of a network within the window: each packet that arrives comes out once, in order.
        #[test]
        fn what_a_network_disorders_within_the_window_comes_out_in_order(first: u16, delays in network(49_000)) {
            let packets = arrivals(&delays);
            let run = run(first, packets.clone());
            let arrived: BTreeSet<u64> = packets.iter().map(|(_, n)| *n).collect();
            let in_order: Vec<u64> = arrived.iter().copied().collect();
            prop_assert_eq!(&run.out, &in_order);
            let lost = in_order.last().map_or(0, |last| last - in_order[0] + 1 - in_order.len() as u64);
            prop_assert_eq!(run.missing, lost);
            // a copy that comes later than 128 packets is only late
            prop_assert_eq!(count(&run, PacketOrder::Duplicate), packets.len() - in_order.len());
            prop_assert_eq!(count(&run, PacketOrder::Late), 0);
            prop_assert!(run.longest_wait <= WINDOW);
        }

        /// Whatever a network does: nothing comes out twice or out of order, and every packet is accounted for.
        #[test]
        fn every_packet_is_given_out_or_counted(first: u16, delays in network(400_000)) {
            let packets = arrivals(&delays);
            let run = run(first, packets.clone());
            prop_assert!(run.out.windows(2).all(|pair| pair[0] < pair[1]));
            let dropped = count(&run, PacketOrder::Duplicate) + count(&run, PacketOrder::Late);
            prop_assert_eq!(run.out.len() + dropped, packets.len());
            if let (Some(from), Some(to)) = (run.out.first(), run.out.last()) {
                prop_assert_eq!(run.missing, to - from + 1 - run.out.len() as u64);
            }
            prop_assert!(run.longest_wait <= WINDOW);
        }
    }

    #[test]
    fn packets_in_order_never_wait_once_the_stream_has_begun() {
        let run = run(65_000, (0..2000).map(|n| (n * 100, n)).collect());
        assert_eq!(run.out, (0..2000).collect::<Vec<_>>());
        let now = Instant::now();
        let mut sorter = Sorter::default();
        sorter.push(7, (), now);
        assert!(sorter.pop(now).is_none(), "an earlier packet may still come");
        assert!(sorter.pop(now + WINDOW).is_some());
        sorter.push(8, (), now);
        assert!(sorter.pop(now).is_some());
    }

    #[test]
    fn a_packet_that_overtook_others_is_named() {
        let run = run(65_535, vec![(0, 0), (1, 2), (2, 1), (3, 3), (4, 3)]);
        use PacketOrder::{Duplicate, InOrder, Overtaken};
        assert_eq!(run.places, [InOrder, InOrder, Overtaken, InOrder, Duplicate]);
    }

    #[test]
    fn a_burst_behind_a_gap_is_bounded() {
        let run = run(0, (0..3000).filter(|n| *n != 1000).map(|n| (n / 100, n)).collect());
        assert_eq!((run.out.len(), run.missing), (2999, 1));
        assert!(run.most_held <= MOST, "{}", run.most_held);
    }

    #[test]
    fn numbers_that_are_far_away_are_known_as_such() {
        let mut sorter = Sorter::default();
        let now = Instant::now();
        assert!(!sorter.is_far(40_000));
        sorter.push(65_530, (), now);
        assert!(!sorter.is_far(100) && !sorter.is_behind(100));
        assert!(!sorter.is_far(65_000) && sorter.is_behind(65_000));
        assert!(sorter.is_far(5000) && sorter.is_far(60_000) && sorter.is_behind(60_000));
    }
}
