//! Sample descriptions: which codec the samples are in, and its parameter sets.

use super::Refusal;
use super::boxes::{FourCc, child, children};
use millrace_frame::PacketCodec;
use mp4_atom::{Atom, Hvcc};

/// What comes before the boxes of a video's sample description.
pub(super) const VISUAL_BYTES: usize = 78;

/// One entry of the sample description box.
#[derive(Debug)]
pub(super) enum Entry {
    Video(Video),
    /// Not read here, and why.
    Other(Refusal),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Video {
    pub codec: PacketCodec,
    /// Bytes of the length in front of each NAL unit. Without a configuration box, the samples themselves show whether they
    /// have lengths of four bytes or start codes.
    pub length_bytes: Option<usize>,
    /// Those outside of the samples. With avc3 and hev1 they may all be inside.
    pub sets: Vec<Vec<u8>>,
    /// Width and height in pixels.
    pub size_px: [u16; 2],
}

/// The entries of an `stsd` box.
pub(super) fn entries(stsd: &[u8]) -> Vec<Entry> {
    // version, flags and the number of entries: the boxes themselves say how many there are
    children(stsd.get(8..).unwrap_or_default()).map(|(fourcc, body)| entry(fourcc, body)).collect()
}

fn entry(fourcc: FourCc, body: &[u8]) -> Entry {
    let boxes = body.get(VISUAL_BYTES..).unwrap_or_default();
    let video = match &fourcc.0 {
        b"avc1" | b"avc3" => child(boxes, b"avcC").map_or_else(|| Ok(Video::bare(PacketCodec::H264)), avc),
        b"hvc1" | b"hev1" => child(boxes, b"hvcC").map_or_else(|| Ok(Video::bare(PacketCodec::H265)), hevc),
        b"jpeg" | b"mjpg" | b"MJPG" | b"dmb1" => Ok(Video::bare(PacketCodec::Jpeg)),
        b"mp4v" if child(boxes, b"esds").and_then(object_type) == Some(JPEG_OBJECT) => {
            Ok(Video::bare(PacketCodec::Jpeg))
        }
        _ => return Entry::Other(other_codec(fourcc, boxes)),
    };
    match video {
        Ok(mut video) => {
            video.size_px = size(body);
            Entry::Video(video)
        }
        Err(why) => {
            let reason = format!("the parameter sets of its '{fourcc}' video cannot be read: {why}");
            Entry::Other(Refusal { reason, fix: "the file is damaged; remux it with another tool" })
        }
    }
}

/// `width` and `height` of a visual sample entry (ISO/IEC 14496-12, 12.1.3.2); 0 where the entry ends before them.
fn size(body: &[u8]) -> [u16; 2] {
    [24, 26].map(|at| body.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes)))
}

impl Video {
    fn bare(codec: PacketCodec) -> Self {
        Self { codec, length_bytes: None, sets: Vec::new(), size_px: [0; 2] }
    }
}

/// What a stream's descriptors say of its codec (ISO/IEC 14496-1, 7.2.6.6): an `esds` box holds an ES descriptor (tag 3), and
/// that a decoder's configuration (tag 4).
fn object_type(esds: &[u8]) -> Option<u8> {
    let mut stream = descriptor(esds.get(4..)?, 3)?;
    let flags = *stream.get(2)?;
    stream = stream.get(3..)?;
    if flags & 0x80 != 0 {
        stream = stream.get(2..)?;
    }
    if flags & 0x40 != 0 {
        stream = stream.get(1 + usize::from(*stream.first()?)..)?;
    }
    if flags & 0x20 != 0 {
        stream = stream.get(2..)?;
    }
    descriptor(stream, 4)?.first().copied()
}

/// `objectTypeIndication` of Motion JPEG.
const JPEG_OBJECT: u8 = 0x6c;

/// The body of the descriptor that is here, behind its tag and its length of up to four bytes of seven bits.
fn descriptor(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(&[tag])?;
    for _ in 0..4 {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(rest)
}

/// An `avcC` box (ISO/IEC 14496-15, 5.3.3.1), which may be empty with avc3. What follows the picture parameter sets is not
/// needed, and some recorders write it wrong.
fn avc(body: &[u8]) -> Result<Video, String> {
    if body.len() < 7 {
        return Ok(Video::bare(PacketCodec::H264));
    }
    let record = h264_reader::avcc::AvcDecoderConfigurationRecord::try_from(body).map_err(|e| format!("{e:?}"))?;
    let sets = record.sequence_parameter_sets().chain(record.picture_parameter_sets()).flatten();
    Ok(Video {
        codec: PacketCodec::H264,
        length_bytes: Some(usize::from(record.length_size_minus_one()) + 1),
        sets: sets.map(<[u8]>::to_vec).collect(),
        size_px: [0; 2],
    })
}

/// An `hvcC` box (ISO/IEC 14496-15, 8.3.3.1), which may be empty with hev1.
fn hevc(mut body: &[u8]) -> Result<Video, String> {
    if body.len() < 23 {
        return Ok(Video::bare(PacketCodec::H265));
    }
    let record = Hvcc::decode_body(&mut body).map_err(|e| e.to_string())?;
    Ok(Video {
        codec: PacketCodec::H265,
        length_bytes: Some(usize::from(record.length_size_minus_one) + 1),
        sets: record.arrays.into_iter().flat_map(|array| array.nalus).collect(),
        size_px: [0; 2],
    })
}

fn other_codec(fourcc: FourCc, boxes: &[u8]) -> Refusal {
    if &fourcc.0 == b"encv" {
        let sinf = child(boxes, b"sinf").unwrap_or_default();
        let original = child(sinf, b"frma").and_then(<[u8]>::first_chunk).map(|f| format!(", in fact {}", FourCc(*f)));
        let scheme =
            child(sinf, b"schm").and_then(|b| b.get(4..)?.first_chunk()).map(|s| format!(" by {}", FourCc(*s)));
        let (scheme, original) = (scheme.unwrap_or_default(), original.unwrap_or_default());
        let reason = format!("its video is encrypted{scheme} ('encv'{original})");
        return Refusal { reason, fix: "export it without encryption; no key can be given here" };
    }
    let name = match &fourcc.0 {
        b"mjpa" | b"mjpb" => " (Motion JPEG of two fields)",
        b"mp4v" => " (MPEG-4 Part 2)",
        b"s263" | b"h263" => " (H.263)",
        b"av01" => " (AV1)",
        b"vp08" => " (VP8)",
        b"vp09" => " (VP9)",
        b"vvc1" | b"vvi1" => " (H.266)",
        b"dvh1" | b"dvhe" | b"dva1" | b"dvav" => " (Dolby Vision)",
        b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => " (ProRes)",
        b"raw " | b"2vuy" | b"yuv2" | b"v210" | b"v308" => " (uncompressed)",
        _ => "",
    };
    let reason = format!("its video is '{fourcc}'{name}");
    Refusal { reason, fix: "H.264 (avc1, avc3), H.265 (hvc1, hev1) or Motion JPEG (jpeg) is expected; transcode it" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visual(fourcc: &[u8; 4], boxes: &[u8]) -> Entry {
        entry(FourCc(*fourcc), &[&[0; VISUAL_BYTES][..], boxes].concat())
    }

    #[test]
    fn configurations_without_parameter_sets_are_video_all_the_same() {
        let bare = [(b"avc3", PacketCodec::H264, b"avcC"), (b"hev1", PacketCodec::H265, b"hvcC")];
        for (fourcc, codec, config) in bare {
            for boxes in [vec![], [&b"\0\0\0\x08"[..], config].concat()] {
                let want = Video { codec, length_bytes: None, sets: vec![], size_px: [0; 2] };
                assert!(matches!(visual(fourcc, &boxes), Entry::Video(video) if video == want), "{codec} {boxes:?}");
            }
        }
        let avcc = b"\0\0\0\x0favcC\x01\x64\0\x0c\xfd\xe0\0";
        let want = Video { codec: PacketCodec::H264, length_bytes: Some(2), sets: vec![], size_px: [0; 2] };
        assert!(matches!(visual(b"avc3", avcc), Entry::Video(video) if video == want));
    }

    #[test]
    fn motion_jpeg_has_a_name_of_its_own_or_one_in_its_descriptors() {
        let esds = |object: u8| {
            let config = [0x04, 0x80, 0x80, 0x0d, object, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let stream = [&[0x03, 0x14, 0, 1, 0][..], &config].concat();
            [&[0, 0, 0, 12 + stream.len() as u8][..], b"esds", &[0; 4], &stream].concat()
        };
        let is_jpeg = |entry: &Entry| matches!(entry, Entry::Video(Video { codec: PacketCodec::Jpeg, .. }));
        assert!(is_jpeg(&visual(b"jpeg", b"")));
        assert!(is_jpeg(&visual(b"mp4v", &esds(0x6c))));
        for boxes in [esds(0x20), esds(0x6c)[..20].to_vec(), vec![]] {
            assert!(matches!(visual(b"mp4v", &boxes), Entry::Other(_)), "{boxes:?}");
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        let reason = |fourcc, boxes: &[u8]| match visual(fourcc, boxes) {
            Entry::Other(refusal) => refusal.reason,
            Entry::Video(video) => format!("{video:?}"),
        };
        assert_eq!(reason(b"mjpa", b""), "its video is 'mjpa' (Motion JPEG of two fields)");
        assert_eq!(reason(b"\xa9xy ", b""), "its video is '\\xa9xy '");
        let sinf = b"\0\0\0\x28sinf\0\0\0\x0cfrmahvc1\0\0\0\x14schm\0\0\0\0cbcs\0\x01\0\0";
        assert_eq!(reason(b"encv", sinf), "its video is encrypted by cbcs ('encv', in fact hvc1)");
        assert_eq!(reason(b"encv", b""), "its video is encrypted ('encv')");
        let cut = b"\0\0\0\x10avcC\x01\x64\0\x0c\xff\xe1\0\x20";
        assert!(reason(b"avc1", cut).starts_with("the parameter sets of its 'avc1' video cannot be read: "));
    }
}
