//! The packetized elementary stream of one PID: its bytes, the times in its headers, and what is missing of it.

use mpeg2ts_reader::packet::Packet;
use mpeg2ts_reader::pes::{PesContents, PesHeader, PesLength, PtsDts};

/// The times in the header of a PES packet, in ticks of 90 kHz modulo 2^33.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps {
    pub(super) pts: u64,
    pub(super) dts: u64,
}

/// What a packet means for the elementary stream, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// So many packets are missing before this one.
    pub(super) lost: u32,
    /// It is scrambled: it and what follows are of no use up to the next PES packet.
    pub(super) scrambled: bool,
    /// The stream says that its clock changes here.
    pub(super) clock_changes: bool,
    /// A PES packet begins; its times, where it has some.
    pub(super) begins: Option<Option<Stamps>>,
    /// The next bytes of the elementary stream.
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Until a PES packet begins.
    Waiting,
    /// A header that is not complete yet.
    Header(Vec<u8>),
    /// So many bytes follow; as many as come where the header does not say.
    Payload(Option<usize>),
}

pub(super) struct Pes {
    state: State,
    counter: Option<u8>,
    last_payload: Vec<u8>,
}

impl Pes {
    pub(super) fn new() -> Self {
        Self { state: State::Waiting, counter: None, last_payload: Vec::new() }
    }

    /// The next packet of the PID.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> Step {
        let clock_changes = packet.adaptation_field().is_some_and(|field| field.discontinuity_indicator());
        let mut step = Step { clock_changes, ..Step::default() };
        let payload = packet.payload().unwrap_or_default();
        let counter = packet.continuity_counter().count();
        if packet.adaptation_control().has_payload() {
            let before = self.counter.replace(counter).filter(|_| !step.clock_changes);
            if before == Some(counter) && self.last_payload == payload {
                return Step::default(); // a packet may be sent twice
            }
            step.lost = before.map_or(0, |before| u32::from(counter.wrapping_sub(before + 1) & 15));
            self.last_payload.clear();
            self.last_payload.extend_from_slice(payload);
        }
        if packet.transport_error_indicator() {
            step.lost += 1;
        }
        step.scrambled = packet.transport_scrambling_control().is_scrambled() && !payload.is_empty();
        if step.lost > 0 || step.scrambled {
            self.state = State::Waiting;
        }
        if step.scrambled || packet.transport_error_indicator() {
            return step;
        }
        if packet.payload_unit_start_indicator() {
            self.state = State::Header(Vec::new());
        }
        self.payload(payload, &mut step);
        step
    }

    fn payload(&mut self, payload: &[u8], step: &mut Step) {
        match &mut self.state {
            State::Waiting => {}
            State::Payload(left) => {
                let take = left.map_or(payload.len(), |left| left.min(payload.len()));
                *left = left.map(|left| left - take);
                step.bytes.extend_from_slice(&payload[..take]);
            }
            State::Header(head) => {
                head.extend_from_slice(payload);
                // three bytes of flags and lengths follow the fixed part, and say how long the rest is
                if head.len() < 9 || head.len() < 9 + usize::from(head[8]) {
                    return;
                }
                let head = std::mem::take(head);
                self.state = State::Waiting;
                let Some(header) = PesHeader::from_bytes(&head) else { return };
                let PesContents::Parsed(Some(contents)) = header.contents() else { return };
                step.begins = Some(stamps(contents.pts_dts().ok()));
                let body = contents.payload();
                let in_header = head.len() - 6 - body.len();
                self.state = State::Payload(match header.pes_packet_length() {
                    PesLength::Unbounded => None,
                    PesLength::Bounded(len) => Some(usize::from(len.get()).saturating_sub(in_header)),
                });
                self.payload(body, step);
            }
        }
    }
}

fn stamps(times: Option<PtsDts>) -> Option<Stamps> {
    match times? {
        PtsDts::PtsOnly(pts) => pts.ok().map(|pts| Stamps { pts: pts.value(), dts: pts.value() }),
        PtsDts::Both { pts, dts } => {
            let pts = pts.ok()?.value();
            Some(Stamps { pts, dts: dts.map_or(pts, |dts| dts.value()) })
        }
        _ => None,
    }
}
