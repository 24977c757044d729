//! What a file is, by its content.

use super::ts::Layout;
use crate::IngestError;
use crate::syntax::annexb_nals;
use millrace_frame::PacketCodec;
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mp4,
    Matroska,
    Ts(Layout),
    AnnexB(PacketCodec),
}

/// A stream that was cut out of the middle of a recording may begin far from its first parameter set.
const PROBE_BYTES: u64 = 4 << 20;

/// Reads the beginning of `file` and leaves it rewound.
pub(crate) fn probe(file: &mut File, path: &Path) -> Result<Kind, IngestError> {
    let mut head = Vec::new();
    let read = file.take(PROBE_BYTES).read_to_end(&mut head).and_then(|_| file.rewind());
    read.map_err(|cause| IngestError::Read { path: path.into(), offset_bytes: 0, cause })?;
    kind_of(&head).map_err(|found| IngestError::NotVideo { path: path.into(), found })
}

fn kind_of(head: &[u8]) -> Result<Kind, Cow<'static, str>> {
    if let Some(b"ftyp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide" | b"styp" | b"pnot") = head.get(4..8) {
        return Ok(Kind::Mp4);
    }
    if head.starts_with(b"\x1a\x45\xdf\xa3") {
        return Ok(Kind::Matroska);
    }
    if let Some(other) = other_format(head) {
        return Err(other.into());
    }
    if let Some(layout) = Layout::of(head) {
        return Ok(Kind::Ts(layout));
    }
    let mut unreadable = None;
    for nal in annexb_nals(head) {
        let mut h264 = crate::syntax::H264::default();
        let mut h265 = crate::syntax::H265::default();
        if h264.knows_sps(nal) {
            return Ok(Kind::AnnexB(PacketCodec::H264));
        }
        if h265.knows_sps(nal) {
            return Ok(Kind::AnnexB(PacketCodec::H265));
        }
        unreadable = unreadable.or(h264.take_unreadable()).or(h265.take_unreadable());
    }
    if let Some(why) = unreadable {
        return Err(format!("a byte stream with no readable parameter set ({why})").into());
    }
    let found = if annexb_nals(head).next().is_some() {
        "a byte stream with no readable sequence parameter set"
    } else if head.iter().all(|&b| b == b'\n' || b == b'\r' || b == b'\t' || (b' '..=b'~').contains(&b)) {
        "text"
    } else {
        "in a format that is not known here"
    };
    Err(found.into())
}

/// Formats that users are likely to try, so that the message can name them.
fn other_format(head: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 11] = [
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"\x89PNG", "a PNG picture"),
        (b"GIF8", "a GIF picture"),
        (b"FLV\x01", "Flash video"),
        (b"\x00\x00\x01\xba", "an MPEG program stream"),
        (b"\x00\x00\x01\xb3", "an MPEG-2 video stream"),
        (b"DKIF", "an IVF file"),
        (b"OggS", "an Ogg file"),
        (b"\x7fELF", "a program"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"%PDF", "a PDF document"),
    ];
    if head.is_empty() {
        return Some("empty");
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") {
        return Some("an AVI file");
    }
    MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_video_is_named() {
        let refused = |head: &[u8]| kind_of(head).err().map(Cow::into_owned).unwrap_or_default();
        assert_eq!(refused(b""), "empty");
        assert_eq!(refused(b"hello, world\n"), "text");
        assert_eq!(refused(&[0xfe; 300]), "in a format that is not known here");
        assert_eq!(refused(&[0, 0, 1, 9, 0x10]), "a byte stream with no readable sequence parameter set");
        assert_eq!(
            refused(&[0, 0, 1, 0x67, 66, 0, 30, 0, 0, 1]),
            "a byte stream with no readable parameter set \
             (the stream's sequence parameter set cannot be read: it ends inside of seq_parameter_set_id)"
        );
        assert_eq!(kind_of(b"\0\0\0\x18ftypisom"), Ok(Kind::Mp4));
    }
}
