//! Decoder configuration records (ISO/IEC 14496-15): the parameter sets of a track, and how long the lengths in front of
//! its NAL units are.

use millrace_frame::PacketCodec;

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config<'a> {
    pub(crate) length_bytes: usize,
    pub(crate) sets: Vec<&'a [u8]>,
}

impl<'a> Config<'a> {
    /// `None` for a record that ends within a field.
    pub(crate) fn parse(codec: PacketCodec, record: &'a [u8]) -> Option<Self> {
        match codec {
            PacketCodec::H265 => Self::hvcc(record),
            _ => Self::avcc(record),
        }
    }

    /// 5.3.3.1. What follows the parameter sets in some profiles is not needed.
    fn avcc(record: &'a [u8]) -> Option<Self> {
        let length_bytes = usize::from(record.get(4)? & 3) + 1;
        let mut rest = record.get(6..)?;
        let mut sets = Vec::new();
        for _ in 0..record[5] & 31 {
            sets.push(set(&mut rest)?);
        }
        let (&count, mut rest) = rest.split_first()?;
        for _ in 0..count {
            sets.push(set(&mut rest)?);
        }
        Some(Self { length_bytes, sets })
    }

    /// 8.3.3.1.
    fn hvcc(record: &'a [u8]) -> Option<Self> {
        let length_bytes = usize::from(record.get(21)? & 3) + 1;
        let mut rest = record.get(23..)?;
        let mut sets = Vec::new();
        for _ in 0..record[22] {
            let count = u16::from_be_bytes([*rest.get(1)?, *rest.get(2)?]);
            rest = &rest[3..];
            for _ in 0..count {
                sets.push(set(&mut rest)?);
            }
        }
        Some(Self { length_bytes, sets })
    }
}

/// A parameter set behind its length of two bytes.
fn set<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_at_checked(2)?;
    let (set, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([len[0], len[1]])))?;
    *rest = tail;
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_both_codecs_by_hand() {
        let avcc = [1, 100, 0, 30, 0xff, 0xe1, 0, 2, 0x67, 1, 1, 0, 3, 0x68, 2, 3, 0xfd];
        let config = Config { length_bytes: 4, sets: vec![&[0x67, 1][..], &[0x68, 2, 3]] };
        assert_eq!(Config::parse(PacketCodec::H264, &avcc), Some(config));
        let mut hvcc = vec![0; 21];
        hvcc.extend([0xfd, 2, 0x20, 0, 1, 0, 2, 0x40, 9, 0x21, 0, 1, 0, 1, 0x42]);
        let config = Config { length_bytes: 2, sets: vec![&[0x40, 9][..], &[0x42]] };
        assert_eq!(Config::parse(PacketCodec::H265, &hvcc), Some(config));
        for len in 0..13 {
            assert_eq!(Config::parse(PacketCodec::H264, &avcc[..len]), None, "{len}");
        }
        for len in 0..hvcc.len() {
            assert_eq!(Config::parse(PacketCodec::H265, &hvcc[..len]), None, "{len}");
        }
    }
}
