//! Which access units a decoder outside of this crate gets, and what it owes for them.
//!
//! The rules are those of [`SoftwareDecoder`](crate::SoftwareDecoder): after anything that is missing or damaged nothing
//! is decoded until the next key picture, since a picture that refers to what is not there would be wrong without anyone
//! knowing; and everything that is left out is counted.

use crate::{AccessUnit, Loss, Order, PresentationOrder, StreamInfo};
use millrace_frame::Timing;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What is to be done with an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Decode it under this number.
    Decode(i64),
    /// Flush the decoder and tell [`Admission::ended`], then decode it under this number: a stream begins with it.
    Begin(i64),
    /// Flush the decoder and tell [`Admission::ended`]: the unit is lost, and so are those up to the next key picture.
    Stop,
    /// Leave it.
    Leave,
}

/// An access unit that was given to the decoder.
#[derive(Clone, Debug)]
pub struct AdmittedUnit {
    /// Its times, as the access unit had them.
    pub timing: Timing,
    /// What the stream's parameter sets say.
    pub info: Arc<StreamInfo>,
    /// Its place in presentation order, for a decoder that gives its pictures in decoding order: see
    /// [`Reorder`](crate::Reorder).
    pub place: PresentationOrder,
    /// False for a picture that is only decoded.
    pub shown: bool,
}

/// A decoder gives a picture for each unit at most a picture buffer and its own delay later; what has not come by then
/// never will.
const MOST_IN_FLIGHT: usize = 64;

/// Decides which access units of a stream are decoded, and keeps the table of those that are in the decoder.
#[derive(Debug, Default)]
pub struct Admission {
    number: i64,
    /// The decoder has begun with a key picture.
    running: bool,
    /// The next unit that goes to the decoder is the one that it begins with.
    begins: bool,
    /// A decoder that begins at an open key picture cannot decode what is shown before it.
    leading_before: Option<Order>,
    in_flight: BTreeMap<i64, AdmittedUnit>,
    /// Left out since the last key picture.
    waiting: u64,
    losses: VecDeque<Loss>,
}

impl Admission {
    /// Decides over the next unit in decoding order.
    pub fn admit(&mut self, unit: &AccessUnit) -> Admitted {
        // one that is decoded and not shown is none that anybody misses
        let one = u64::from(unit.shown);
        if unit.after_loss && !unit.key {
            return self.lose(Loss::new("missing_reference", one, "a picture that may refer to one that was lost"));
        }
        if unit.damaged {
            return self.lose(Loss::new("decode_error", one, "a slice of the picture is not readable"));
        }
        let begins = unit.key && (!self.running || unit.after_loss);
        if begins {
            self.report_waiting();
            (self.running, self.begins) = (true, true);
            self.leading_before = (!unit.closed).then_some(unit.order);
        }
        // not decoded at all: its references lie before the start
        if !self.running || self.leading_before.is_some_and(|key| unit.order < key) {
            self.waiting += one;
            return Admitted::Leave;
        }
        if unit.key {
            self.leading_before = self.leading_before.filter(|key| unit.order <= *key);
        }
        self.number += 1;
        if begins { Admitted::Begin(self.number) } else { Admitted::Decode(self.number) }
    }

    /// The unit goes to the decoder now.
    pub fn decoding(&mut self, number: i64, unit: &AccessUnit) {
        let place = unit.place(std::mem::take(&mut self.begins));
        let shown = AdmittedUnit { timing: unit.timing, info: unit.info.clone(), place, shown: unit.shown };
        self.in_flight.insert(number, shown);
        while self.in_flight.len() > MOST_IN_FLIGHT {
            let overdue = self.in_flight.pop_first().is_some_and(|(_, unit)| unit.shown);
            self.report(Loss::new("decode_error", u64::from(overdue), "the decoder gave no picture for it"));
        }
    }

    /// The decoder gave a picture; nothing when it is not to be shown.
    pub fn came_out(&mut self, number: i64) -> Option<AdmittedUnit> {
        self.decoded(number).filter(|unit| unit.shown)
    }

    /// The decoder gave a picture, perhaps one that is not to be shown; nothing when no unit has this number.
    pub fn decoded(&mut self, number: i64) -> Option<AdmittedUnit> {
        self.in_flight.remove(&number)
    }

    /// The decoder gave up at a unit: flush it and call [`ended`](Self::ended). A stream begins with the next key picture.
    pub fn failed(&mut self, detail: impl Into<String>) {
        self.running = false;
        // the unit that it failed with is the last that went in
        let failed = self.in_flight.remove(&self.number).is_some_and(|unit| unit.shown);
        self.report(Loss::new("decode_error", u64::from(failed), detail));
    }

    /// The decoder was flushed: what has not come out never will.
    pub fn ended(&mut self) {
        let missing = std::mem::take(&mut self.in_flight).into_values().filter(|unit| unit.shown).count() as u64;
        self.report(Loss::new("decode_error", missing, "the decoder gave no picture"));
    }

    /// The source has ended, and the decoder was flushed: a further unit begins a stream.
    pub fn finish(&mut self) {
        self.ended();
        self.running = false;
        self.report_waiting();
    }

    /// What was lost, one by one.
    pub fn take_loss(&mut self) -> Option<Loss> {
        self.losses.pop_front()
    }

    fn lose(&mut self, loss: Loss) -> Admitted {
        self.report(loss);
        if std::mem::replace(&mut self.running, false) { Admitted::Stop } else { Admitted::Leave }
    }

    fn report_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.report(Loss::new(
            "waiting_for_key",
            waiting,
            "pictures that cannot be decoded before the next key picture",
        ));
    }

    fn report(&mut self, loss: Loss) {
        if loss.count > 0 {
            self.losses.push_back(loss);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Event, Ingest, IngestOptions, SoftwareDecoder};
    use std::path::Path;

    fn units(name: &str) -> Vec<AccessUnit> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let mut ingest = Ingest::open(path.to_str().unwrap(), &IngestOptions::default()).unwrap();
        let mut units = Vec::new();
        loop {
            match ingest.next_event().unwrap() {
                Event::Unit(unit) => units.push(*unit),
                Event::End => return units,
                other => panic!("{other:?}"),
            }
        }
    }

    /// What is decided for a sequence of units, for a decoder that returns each picture at once.
    fn admission(units: &[AccessUnit]) -> (Vec<i64>, Vec<(&'static str, u64)>) {
        let mut admission = Admission::default();
        let mut shown = Vec::new();
        for unit in units {
            match admission.admit(unit) {
                Admitted::Decode(number) => {
                    admission.decoding(number, unit);
                    shown.extend(admission.came_out(number).map(|s| s.timing.pts_ns));
                }
                Admitted::Begin(number) => {
                    admission.ended();
                    admission.decoding(number, unit);
                    shown.extend(admission.came_out(number).map(|s| s.timing.pts_ns));
                }
                Admitted::Stop => admission.ended(),
                Admitted::Leave => {}
            }
        }
        admission.finish();
        shown.sort();
        (shown, std::iter::from_fn(|| admission.take_loss()).map(|l| (l.cause, l.count)).collect())
    }

    /// What the software decoder makes of the same row.
    fn software(units: &[AccessUnit]) -> (Vec<i64>, Vec<(&'static str, u64)>) {
        let mut decoder = SoftwareDecoder::new(crate::ReorderPolicy::Lossless);
        for unit in units {
            decoder.push(unit).unwrap();
        }
        decoder.flush();
        let (mut shown, mut lost) = (Vec::new(), Vec::new());
        while let Some(out) = decoder.take() {
            match out {
                crate::Decoded::Picture(picture) => shown.push(picture.timing.pts_ns),
                crate::Decoded::Loss(loss) => lost.push((loss.cause, loss.count)),
            }
        }
        shown.sort();
        (shown, lost)
    }

    #[test]
    fn it_decides_as_the_software_decoder_does() {
        for name in ["open_gop.264", "closed_gop.265", "pyramid.264", "crop_b.mp4", "edit_list.mp4"] {
            let whole = units(name);
            assert_eq!(admission(&whole), software(&whole), "{name}");
            assert_eq!(admission(&whole).1, [], "{name}");
            let late = &whole[3..];
            assert_eq!(admission(late), software(late), "{name}, joined late");
            for at in [2, whole.len() / 2] {
                let mut gap = whole.clone();
                gap.remove(at);
                gap[at].after_loss = true;
                assert_eq!(admission(&gap), software(&gap), "{name}, without unit {at}");
                let mut damaged = whole.clone();
                damaged[at].damaged = true;
                assert_eq!(admission(&damaged), software(&damaged), "{name}, damaged at {at}");
            }
        }
    }

    #[test]
    fn a_picture_that_a_decoder_begins_with_is_shown_first() {
        // joined late, at a key picture of an open group: what is shown before it is left out
        let whole = units("open_gop.264");
        let mut admission = Admission::default();
        let mut places = Vec::new();
        for unit in &whole[3..] {
            if let Admitted::Begin(number) | Admitted::Decode(number) = admission.admit(unit) {
                admission.decoding(number, unit);
                places.extend(admission.came_out(number).map(|shown| (unit.closed, shown.place.first_shown)));
            }
        }
        assert_eq!(places[0], (false, true), "it is no IDR");
        assert!(places[1..].iter().all(|(_, first_shown)| !first_shown));
    }

    #[test]
    fn what_never_comes_out_is_counted() {
        let whole = units("open_gop.264");
        let mut admission = Admission::default();
        let number = match admission.admit(&whole[0]) {
            Admitted::Begin(number) => number,
            other => panic!("{other:?}"),
        };
        admission.decoding(number, &whole[0]);
        admission.failed("no memory");
        admission.ended();
        assert_eq!(admission.take_loss().map(|l| (l.cause, l.count, l.detail)).unwrap().2, "no memory");
        assert_eq!(admission.take_loss(), None, "the unit that failed is counted once");
        assert_eq!(admission.admit(&whole[1]), Admitted::Leave, "no key picture");
        assert!(matches!(admission.admit(&whole[0]), Admitted::Begin(_)));
        for n in 0..=MOST_IN_FLIGHT as i64 {
            admission.decoding(1000 + n, &whole[0]);
        }
        let lost: Vec<_> = std::iter::from_fn(|| admission.take_loss()).map(|l| (l.cause, l.count)).collect();
        assert_eq!(lost, [("waiting_for_key", 1), ("decode_error", 1)]);
    }
}
