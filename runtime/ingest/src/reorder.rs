//! From decoding order to presentation order.

use crate::Order;
use std::collections::BTreeMap;

/// Holds items back until nothing that is still to come can precede them (the bumping process of H.264 C.4.5.3 and
/// H.265 C.5.2.4, with the stream's own bound on reordering).
pub(crate) struct Reorder<T> {
    held: BTreeMap<(Order, u64), T>,
    arrivals: u64,
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), arrivals: 0 }
    }
}

impl<T> Reorder<T> {
    /// Takes `item` in and gives back what is now due, in presentation order. `depth` is how many items may precede an
    /// item in decoding order and follow it in presentation order.
    pub(crate) fn push(&mut self, order: Order, depth: u32, item: T) -> Vec<T> {
        let mut due = Vec::new();
        // a new coded video sequence: everything of the one before precedes it
        while self.held.first_key_value().is_some_and(|((first, _), _)| first.sequence < order.sequence) {
            due.extend(self.held.pop_first().map(|(_, item)| item));
        }
        self.held.insert((order, self.arrivals), item);
        self.arrivals += 1;
        while self.held.len() > depth as usize {
            due.extend(self.held.pop_first().map(|(_, item)| item));
        }
        due
    }

    /// Everything that is still held, in presentation order.
    pub(crate) fn flush(&mut self) -> Vec<T> {
        std::mem::take(&mut self.held).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(sequence: u64, poc: i32) -> Order {
        Order { sequence, poc }
    }

    #[test]
    fn a_pyramid_of_b_pictures_comes_out_in_order_with_two_held_back() {
        let mut r = Reorder::default();
        let mut out = Vec::new();
        // I0 P8 B4 b2 b6, then an IDR: as x264 codes it
        for poc in [0, 8, 4, 2, 6] {
            out.extend(r.push(order(1, poc), 2, poc));
        }
        assert_eq!(out, [0, 2, 4], "held back no longer than the bound needs");
        out.extend(r.push(order(2, 0), 2, 100));
        assert_eq!(out, [0, 2, 4, 6, 8]);
        out.extend(r.flush());
        assert_eq!(out, [0, 2, 4, 6, 8, 100]);
    }

    proptest! {
        /// Shuffle a row of pictures so that none is overtaken by more than `depth` others: it comes out sorted.
        #[test]
        fn any_stream_that_keeps_its_bound_comes_out_sorted(
            keys in prop::collection::vec(0u32..5, 1..60), depth in 0u32..5,
        ) {
            // picture i is sent after at most `depth` later ones
            let mut sent: Vec<(u32, i32)> =
                keys.iter().enumerate().map(|(i, k)| (i as u32 + k.min(&depth), i as i32)).collect();
            sent.sort();
            let mut r = Reorder::default();
            let mut out = Vec::new();
            for &(_, poc) in &sent {
                out.extend(r.push(order(0, poc), depth, poc));
            }
            out.extend(r.flush());
            prop_assert_eq!(out, (0..sent.len() as i32).collect::<Vec<_>>());
        }
    }
}
