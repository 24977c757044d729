//! NAL units from RTP payloads: RFC 6184 (H.264, single NAL unit and non-interleaved mode) and RFC 7798 (H.265 without
//! decoding order numbers).

use crate::syntax::annexb_nals;
use crate::syntax::nal::{find_start_code, trim};
use millrace_frame::PacketCodec;

/// A NAL unit of more bytes than this is none.
const LARGEST_NAL_BYTES: usize = 16 << 20;

/// A payload that does not form NAL units: what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadPayload(pub(super) &'static str);

/// Puts fragments together. One for each connection.
pub(super) struct Depacketizer {
    codec: PacketCodec,
    fragment: Vec<u8>,
    /// A NAL unit has begun and has no end yet.
    open: bool,
}

impl Depacketizer {
    pub(super) fn new(codec: PacketCodec) -> Self {
        Self { codec, fragment: Vec::new(), open: false }
    }

    /// Calls `each` with every NAL unit that the payload holds or completes.
    pub(super) fn push(&mut self, payload: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), BadPayload> {
        match self.codec {
            PacketCodec::H265 => self.h265(payload, each),
            _ => self.h264(payload, each),
        }
    }

    /// Whether a payload carries a slice. What cannot be read might.
    pub(super) fn has_slice(&self, payload: &[u8]) -> bool {
        let h265 = self.codec == PacketCodec::H265;
        self.any_nal(payload, true, &|nal_type| if h265 { nal_type < 32 } else { matches!(nal_type, 1..=5) })
    }

    /// Whether a payload carries an access unit delimiter, with which a picture begins.
    pub(super) fn has_delimiter(&self, payload: &[u8]) -> bool {
        let delimiter = if self.codec == PacketCodec::H265 { 35 } else { 9 };
        self.any_nal(payload, false, &|nal_type| nal_type == delimiter)
    }

    /// Whether a NAL unit, or a part of one, is of a wanted type; `unknown` where the types cannot be read.
    fn any_nal(&self, payload: &[u8], unknown: bool, wanted: &dyn Fn(u8) -> bool) -> bool {
        let h265 = self.codec == PacketCodec::H265;
        let of_header = |header: u8| if h265 { header >> 1 & 63 } else { header & 31 };
        let any_of =
            |rest| aggregated(rest).any(|nal| nal.first().map_or(unknown, |&header| wanted(of_header(header))));
        let Some(&header) = payload.first() else { return false };
        match (h265, of_header(header)) {
            (false, 28) => payload.get(1).map_or(unknown, |fu| wanted(fu & 31)),
            (true, 49) => payload.get(2).map_or(unknown, |fu| wanted(fu & 63)),
            (false, 24) => any_of(&payload[1..]),
            (true, 48) => any_of(payload.get(2..).unwrap_or_default()),
            (false, 25..=27 | 29) | (true, 50) => unknown,
            (_, single) => wanted(single),
        }
    }

    /// Packets are missing: a NAL unit that has begun stays without its end. True where there was one.
    pub(super) fn abandon(&mut self) -> bool {
        std::mem::take(&mut self.open)
    }

    /// The picture is over and nothing is missing: a NAL unit without the mark of its end ends here, as some cameras
    /// leave it out.
    pub(super) fn end(&mut self, each: &mut dyn FnMut(&[u8])) {
        if std::mem::take(&mut self.open) {
            give(&self.fragment, each);
        }
    }

    fn h264(&mut self, payload: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), BadPayload> {
        let Some(&header) = payload.first() else { return Ok(()) };
        match header & 31 {
            1..=23 => self.single(payload, each),
            24 => self.aggregate(&payload[1..], each),
            28 => {
                let Some(&fu) = payload.get(1) else { return Err(BadPayload("a fragment without a header")) };
                self.fragment(fu, &[header & 0xE0 | fu & 31], &payload[2..], each)
            }
            25..=27 | 29 => Err(BadPayload("interleaved packets (packetization-mode=2)")),
            // types that no standard knows: nothing of a picture
            _ => Ok(()),
        }
    }

    fn h265(&mut self, payload: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), BadPayload> {
        let &[first, second, ref rest @ ..] = payload else {
            return if payload.is_empty() { Ok(()) } else { Err(BadPayload("a NAL unit of one byte")) };
        };
        match first >> 1 & 63 {
            48 => self.aggregate(rest, each),
            49 => {
                let Some((&fu, data)) = rest.split_first() else {
                    return Err(BadPayload("a fragment without a header"));
                };
                self.fragment(fu, &[first & 0x81 | (fu & 63) << 1, second], data, each)
            }
            50 => Err(BadPayload("a PACI packet")),
            51.. => Ok(()),
            _ => self.single(payload, each),
        }
    }

    fn single(&mut self, nal: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), BadPayload> {
        let unfinished = self.abandon();
        give(nal, each);
        if unfinished { Err(BadPayload("a fragmented NAL unit without its end")) } else { Ok(()) }
    }

    fn aggregate(&mut self, mut rest: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), BadPayload> {
        let unfinished = self.abandon();
        while let Some((length, tail)) = rest.split_first_chunk() {
            let Some((nal, tail)) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
                return Err(BadPayload("an aggregated NAL unit that is longer than its packet"));
            };
            give(nal, each);
            rest = tail;
        }
        match (unfinished, rest.is_empty()) {
            (true, _) => Err(BadPayload("a fragmented NAL unit without its end")),
            (_, false) => Err(BadPayload("an aggregation packet with bytes behind its end")),
            _ => Ok(()),
        }
    }

    /// `fu` has the start bit, the end bit and the type; `header` is that of the whole NAL unit.
    fn fragment(&mut self, fu: u8, header: &[u8], data: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<(), BadPayload> {
        let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
        let mut result = Ok(());
        if start {
            if self.abandon() {
                result = Err(BadPayload("a fragmented NAL unit without its end"));
            }
            self.fragment.clear();
            self.fragment.extend_from_slice(header);
            self.open = true;
        } else if !self.open {
            // an empty fragment carries nothing that could be missing
            return if data.is_empty() { Ok(()) } else { Err(BadPayload("a fragmented NAL unit without its start")) };
        }
        if self.fragment.len() + data.len() > LARGEST_NAL_BYTES {
            self.abandon();
            return Err(BadPayload("a NAL unit of more than 16 MiB"));
        }
        self.fragment.extend_from_slice(data);
        if end {
            self.end(each);
        }
        result
    }
}

/// The NAL units of an aggregation packet. One that is longer than the packet is cut.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk()?;
        let (nal, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)).min(tail.len()));
        rest = tail;
        Some(nal)
    })
}

/// Some cameras put a byte stream with start codes into one NAL unit. A true one holds none: emulation prevention sees
/// to that.
fn give(nal: &[u8], each: &mut dyn FnMut(&[u8])) {
    match find_start_code(nal, 0) {
        None => {
            let nal = trim(nal);
            if !nal.is_empty() {
                each(nal);
            }
        }
        Some(code) => {
            let first = trim(&nal[..code]);
            if !first.is_empty() {
                each(first);
            }
            annexb_nals(&nal[code..]).for_each(each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nals(codec: PacketCodec, payloads: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<&'static str>) {
        let mut depacketizer = Depacketizer::new(codec);
        let (mut nals, mut bad) = (Vec::new(), Vec::new());
        for payload in payloads {
            let result = depacketizer.push(payload, &mut |nal| nals.push(nal.to_vec()));
            bad.extend(result.err().map(|BadPayload(what)| what));
        }
        (nals, bad)
    }

    #[test]
    fn h264_single_aggregated_and_fragmented() {
        let (got, bad) = nals(
            PacketCodec::H264,
            &[&[0x67, 1, 2], &[24, 0, 2, 0x68, 3, 0, 1, 0x06], &[0x7C, 0x85, 9], &[0x7C, 5], &[0x7C, 0x45, 8], &[]],
        );
        assert_eq!(got, [vec![0x67, 1, 2], vec![0x68, 3], vec![0x06], vec![0x65, 9, 8]]);
        assert!(bad.is_empty(), "{bad:?}");
    }

    #[test]
    fn h265_single_aggregated_and_fragmented() {
        let (got, bad) = nals(
            PacketCodec::H265,
            &[&[0x40, 1, 7], &[0x60, 1, 0, 3, 0x42, 1, 5], &[0x62, 1, 0x93, 9], &[0x62, 1, 0x53, 8]],
        );
        assert_eq!(got, [vec![0x40, 1, 7], vec![0x42, 1, 5], vec![0x26, 1, 9, 8]]);
        assert!(bad.is_empty(), "{bad:?}");
    }

    #[test]
    fn a_byte_stream_within_a_nal_unit_is_taken_apart() {
        let (got, _) = nals(PacketCodec::H264, &[&[0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 3]]);
        assert_eq!(got, [vec![0x67, 1], vec![0x68, 2], vec![0x65, 3]]);
    }

    #[test]
    fn fragments_that_miss_a_part_are_told() {
        let (got, bad) = nals(PacketCodec::H264, &[&[0x7C, 5, 1], &[0x7C, 0x85, 2], &[0x41, 3]]);
        assert_eq!(got, [[0x41, 3]]);
        assert_eq!(bad, ["a fragmented NAL unit without its start", "a fragmented NAL unit without its end"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            for codec in [PacketCodec::H264, PacketCodec::H265] {
                let (got, _) = nals(codec, &packets.iter().map(|p| &p[..]).collect::<Vec<_>>());
                prop_assert!(got.iter().all(|nal| !nal.is_empty()));
            }
        }
    }
}
