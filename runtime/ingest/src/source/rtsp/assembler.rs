//! Access units from RTP packets: where a picture ends, what of it is missing, and its times.

use super::clock::{MediaClock, SenderClock};
use super::depacketizer::{BadPayload, Depacketizer};
use crate::source::SourceEvent;
use crate::syntax::{ParsedUnit, UnitBuilder};
use crate::{Counted, Loss, LossOf};
use millrace_frame::{PacketCodec, Timebase, Timing};

/// What the assembler needs of an RTP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// RTP time in ticks, without wrapping.
    pub(super) ticks: i64,
    pub(super) marker: bool,
    /// Packets missing before this one.
    pub(super) lost: u16,
    pub(super) payload: &'a [u8],
    pub(super) arrived: Arrived,
}

/// When something arrived, by both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    pub(super) unix_ns: i64,
    pub(super) monotonic_ns: i64,
}

impl Arrived {
    pub(super) fn now() -> Self {
        Self { unix_ns: millrace_frame::unix_ns(), monotonic_ns: millrace_frame::monotonic_ns() }
    }
}

/// What a camera means by the marker bit, learned from the packets behind it. It should end a picture; some cameras set it
/// on every NAL unit, and others never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Markers {
    /// Not known: the picture's end is where the next begins.
    Unknown,
    /// They end pictures: nothing has to be waited for.
    EndPictures,
    /// They do not.
    Meaningless,
}

/// A picture of more bytes than this is none.
const LARGEST_UNIT_BYTES: usize = 32 << 20;

/// Assembles the access units of one connection.
pub(super) struct Assembler {
    codec: PacketCodec,
    timebase: Timebase,
    depacketizer: Depacketizer,
    units: UnitBuilder,
    sender: SenderClock,
    markers: Markers,
    /// RTP time of the packets that are collected.
    ticks: Option<i64>,
    /// When the last of them arrived.
    arrived: Arrived,
    /// A marker was seen behind the picture that is collected.
    marked: bool,
    /// The picture of this RTP time was given out because of a marker.
    ended_by_marker: bool,
    /// Of the picture that is collected, a part did not arrive.
    damaged: bool,
    /// Packets are missing before the first slice of the picture that is collected.
    doubtful: bool,
    /// What no picture came of, at this RTP time.
    unreadable: Option<&'static str>,
    /// Packets are missing at this RTP time, or may be: those before its first packet and behind its last one.
    incomplete: bool,
    /// A part of a picture of this RTP time has arrived, and how many of its pictures were given out or counted as lost.
    has_arrived: bool,
    settled: u64,
    /// Its delimiter has arrived: where its slices did not, they are missing.
    is_announced: bool,
    after_loss: bool,
    /// A key picture of this connection was given out.
    has_begun: bool,
    events: Vec<SourceEvent>,
}

impl Assembler {
    /// `parameter_sets` are those of the session description.
    pub(super) fn new(codec: PacketCodec, timebase: Timebase, parameter_sets: &[Vec<u8>]) -> Self {
        let mut units = UnitBuilder::new(codec);
        parameter_sets.iter().for_each(|set| units.out_of_band(set));
        Self {
            codec,
            timebase,
            depacketizer: Depacketizer::new(codec),
            units,
            sender: SenderClock::default(),
            markers: Markers::Unknown,
            ticks: None,
            arrived: Arrived::default(),
            marked: false,
            ended_by_marker: false,
            damaged: false,
            doubtful: false,
            unreadable: None,
            incomplete: false,
            has_arrived: false,
            settled: 0,
            is_announced: false,
            after_loss: false,
            has_begun: false,
            events: Vec::new(),
        }
    }

    /// Takes in the next packet. What it leads to is fetched with [`Self::take`].
    pub(super) fn packet(&mut self, packet: &Packet<'_>, clock: &mut MediaClock) {
        let continues = self.ticks == Some(packet.ticks);
        if packet.lost > 0 {
            self.lost_packets(packet, continues);
        }
        if !continues {
            self.begin(packet, clock);
        }
        self.has_arrived |= self.depacketizer.has_slice(packet.payload);
        self.is_announced |= self.depacketizer.has_delimiter(packet.payload);
        let mut nals = std::mem::replace(&mut self.depacketizer, Depacketizer::new(self.codec));
        let result = nals.push(packet.payload, &mut |nal| self.nal(nal, clock));
        self.depacketizer = nals;
        if let Err(BadPayload(what)) = result {
            // packets that are missing are the reason, and are counted
            self.damaged = true;
            if !self.incomplete {
                self.unreadable = Some(what);
            }
        }
        self.arrived = packet.arrived;
        if packet.marker && self.units.has_slices() {
            self.marked = true;
            if self.markers == Markers::EndPictures {
                self.end_fragment(clock);
                self.ended_by_marker = true;
                self.finish(clock);
            }
        }
        if self.units.pending_bytes() > LARGEST_UNIT_BYTES {
            self.units.discard();
            self.after_loss = true;
            if self.settled == 0 {
                self.lose(Loss::new("oversized_unit", 1, "more than 32 MiB without a picture's end"));
            }
        }
    }

    /// Takes in a sender report.
    pub(super) fn sender_report(&mut self, ticks: i64, ntp: u64) {
        self.sender.report(self.timebase.to_ns(ticks), ntp);
    }

    /// The connection has ended: the picture that is collected comes out where all of it arrived.
    pub(super) fn end(&mut self, clock: &mut MediaClock) {
        // a fragment that has no end yet was cut off
        let cut = self.depacketizer.abandon();
        self.damaged |= cut;
        if self.units.has_slices() && !self.damaged && self.is_whole() {
            self.finish(clock);
        }
        let only_announced = self.is_announced && !self.has_arrived;
        self.incomplete |= only_announced;
        let begun = cut && self.has_arrived || only_announced;
        let began = begun && self.settled == 0 && self.unreadable.is_none() && self.units.knows_sps();
        if self.units.has_slices() || began {
            self.units.discard();
            self.lose(Loss::new("cut_off", 1, "a picture of which a part had not arrived when the connection ended"));
        }
        self.settle();
        (self.has_arrived, self.is_announced, self.settled) = (false, false, 0);
    }

    /// What came of the packets so far.
    pub(super) fn take(&mut self) -> Vec<SourceEvent> {
        std::mem::take(&mut self.events)
    }

    fn lost_packets(&mut self, packet: &Packet<'_>, continues: bool) {
        let detail = "RTP packets that did not arrive";
        let loss = Loss::of(LossOf::Packets, "rtp_loss", u64::from(packet.lost), detail);
        self.events.push(SourceEvent::Loss(loss));
        self.incomplete |= continues || !self.is_whole();
        let cut = self.depacketizer.abandon();
        self.damaged |= cut || self.units.has_slices() && (continues || !self.is_whole());
        self.after_loss = true;
        self.doubtful = true;
    }

    /// A marker says that nothing is missing at the end of the picture that is collected.
    fn is_whole(&self) -> bool {
        self.marked && self.markers != Markers::Meaningless
    }

    /// Another RTP time: another picture.
    fn begin(&mut self, packet: &Packet<'_>, clock: &mut MediaClock) {
        if self.markers == Markers::Unknown && self.marked && self.units.has_slices() {
            self.markers = Markers::EndPictures;
        }
        self.end_fragment(clock);
        self.finish(clock);
        self.settle();
        self.ticks = Some(packet.ticks);
        (self.marked, self.ended_by_marker) = (false, false);
        // of what was collected no picture came: it does not make the next one damaged
        self.damaged = false;
        self.doubtful = packet.lost > 0;
        (self.incomplete, self.has_arrived, self.settled) = (packet.lost > 0, false, 0);
        self.is_announced = false;
    }

    fn nal(&mut self, nal: &[u8], clock: &mut MediaClock) {
        let Some(slice) = first_slice(self.codec, nal) else {
            // a parameter set, delimiter or SEI
            if let Some(unit) = self.units.push(nal) {
                self.give(unit, clock);
            }
            return;
        };
        if self.marked && !slice && self.markers != Markers::Meaningless {
            // a slice of a picture that a marker should have ended
            tracing::debug!("markers do not end this camera's pictures: a picture ends where the next one begins");
            self.markers = Markers::Meaningless;
            if self.ended_by_marker {
                self.after_loss = true;
                self.unreadable = Some("a picture that a marker had ended too early");
            }
        }
        if std::mem::take(&mut self.doubtful) && !slice && !self.units.has_slices() {
            self.damaged = true;
        }
        let damaged_before = self.damaged;
        if let Some(unit) = self.units.push(nal) {
            // it was the picture before this slice that was damaged
            self.give(unit, clock);
            self.damaged = damaged_before && !slice;
        }
    }

    fn end_fragment(&mut self, clock: &mut MediaClock) {
        let mut nals = std::mem::replace(&mut self.depacketizer, Depacketizer::new(self.codec));
        nals.end(&mut |nal| self.nal(nal, clock));
        self.depacketizer = nals;
    }

    /// Ends the picture that is collected. What stands in front of a picture stays.
    fn finish(&mut self, clock: &mut MediaClock) {
        if self.units.has_slices()
            && let Some(unit) = self.units.finish()
        {
            self.give(unit, clock);
        }
    }

    /// Counts what no picture came of, at the end of an RTP time: one picture, of which a part had arrived. What is
    /// left over beside a picture is a part of it.
    fn settle(&mut self) {
        let unreadable = self.units.take_lost() > 0;
        let what = self.unreadable.take().or(unreadable.then_some("an RTP frame without a readable picture"));
        let has_arrived = self.has_arrived || self.is_announced && self.incomplete;
        if !has_arrived || what.is_none() && self.settled > 0 {
            return;
        }
        self.after_loss |= self.has_begun;
        let what = what.unwrap_or("a picture without an end");
        let loss = if self.settled > 0 {
            self.units.loss(LossOf::Parts, "damaged_slice", 1, what)
        } else if !self.units.knows_sps() {
            // a set that cannot be read has its own name
            self.units.loss(LossOf::Pictures, "waiting_for_key", 1, "pictures before the stream's parameter sets")
        } else if self.incomplete {
            Loss::new("incomplete_picture", 1, "pictures of which packets did not arrive")
        } else {
            self.units.loss(LossOf::Pictures, "damaged_sample", 1, what)
        };
        self.lose(loss);
    }

    fn lose(&mut self, loss: Loss) {
        self.settled += loss.pictures();
        self.events.push(SourceEvent::Loss(loss));
    }

    fn give(&mut self, mut unit: ParsedUnit, clock: &mut MediaClock) {
        let Some(ticks) = self.ticks else { return };
        self.settled += 1;
        // what made it damaged is counted with it
        self.unreadable = None;
        unit.damaged_nals += u32::from(std::mem::take(&mut self.damaged));
        let rtp_ns = self.timebase.to_ns(ticks);
        let placed = clock.place(rtp_ns, unit.facts.order, self.arrived.monotonic_ns);
        if placed.jumped {
            self.sender.forget();
            let detail = "the camera's RTP clock jumped: times go on by its pictures' arrival".into();
            self.events.push(SourceEvent::Counted(Counted { name: "clock_jump", count: 1, detail }));
        }
        let timing = Timing {
            pts_ns: placed.pts_ns,
            timebase: self.timebase,
            capture_ns: self.arrived.unix_ns,
            arrival_ns: self.arrived.monotonic_ns,
            ready_ns: 0,
            sender_ns: self.sender.unix_ns_at(rtp_ns),
        };
        // A decoder that has not begun waits for a key picture: what is before one is not decoded in any case.
        unit.facts.gap &= self.has_begun;
        let after_loss = self.after_loss && self.has_begun || unit.facts.key && !self.has_begun;
        self.has_begun |= unit.facts.key;
        self.after_loss = false;
        self.events.push(SourceEvent::Arrived { unit, timing, after_loss });
    }
}

/// Of a slice, whether it is the first of its picture; nothing for other NAL units. Where the order of slices is arbitrary
/// (H.264 Baseline) the answer is a guess, which only matters where packets are missing or markers mean nothing.
fn first_slice(codec: PacketCodec, nal: &[u8]) -> Option<bool> {
    match codec {
        PacketCodec::H265 => (nal.first()? >> 1 & 63 < 32).then(|| nal.get(2).is_some_and(|b| b & 0x80 != 0)),
        _ => matches!(nal.first()? & 31, 1..=5).then(|| nal.get(1).is_some_and(|b| b & 0x80 != 0)),
    }
}
