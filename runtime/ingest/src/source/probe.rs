//! What a file is, by its content.

use super::ts::Layout;
use crate::IngestError;
use crate::syntax::annexb_nals;
use crate::syntax::still::JPEG_START;
use millrace_frame::PacketCodec;
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mp4,
    Matroska,
    Ts(Layout),
    Avi,
    /// One JPEG picture, or several in a row.
    Jpeg,
    Png,
    AnnexB(PacketCodec),
}

/// A stream that was cut out of the middle of a recording may begin far from its first parameter set.
pub(super) const PROBE_BYTES: u64 = 4 << 20;

/// What an HLS playlist begins with (RFC 8216, 4.3.1.1).
const HLS: &[u8] = b"#EXTM3U";

/// What an MP4 or QuickTime file may begin with.
const MP4_BOXES: [&[u8; 4]; 11] =
    [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot", b"uuid", b"moof", b"sidx"];

pub(super) const CONVERT: &str = "convert it with another tool, or name another file";
const SERVE_V4L2: &str = "let a program serve the camera as RTSP or as Motion JPEG over HTTP (MediaMTX, ustreamer and others \
                          do), and name its rtsp:// or http:// URL";
pub(super) const RECORD_HLS: &str = "let a server between read it and serve it as RTSP (MediaMTX and others do), and name its \
                                     rtsp:// URL; or record it to a file: ffmpeg -i PLAYLIST -c copy clip.ts";

/// The major number of video devices (Linux, Documentation/admin-guide/devices.txt).
const VIDEO4LINUX: u64 = 81;

fn is_v4l2(device: &std::fs::Metadata) -> bool {
    device.file_type().is_char_device() && device.rdev() >> 8 & 0xfff == VIDEO4LINUX
}

/// Opens a file, and nothing else: a pipe or a device may never give a byte.
pub(crate) fn open(path: &Path) -> Result<File, IngestError> {
    let not_open = |cause| IngestError::Open { path: path.into(), cause };
    let metadata = std::fs::metadata(path).map_err(not_open)?;
    let kind = metadata.file_type();
    let (found, fix) = match () {
        () if kind.is_file() => return File::open(path).map_err(not_open),
        () if kind.is_fifo() => ("a pipe (FIFO)", "write what comes out of it to a file, and name that"),
        () if kind.is_socket() => ("a socket", "name a file, or the rtsp:// or http:// URL of a camera"),
        () if is_v4l2(&metadata) => ("a camera of this machine (V4L2)", SERVE_V4L2),
        () => ("a device", "name a file, or the rtsp:// or http:// URL of a camera"),
    };
    Err(IngestError::NotVideo { path: path.into(), found: found.into(), fix })
}

/// Reads the beginning of `file` and leaves it rewound.
pub(crate) fn probe(file: &mut File, path: &Path) -> Result<Kind, IngestError> {
    let mut head = Vec::new();
    let read = file.take(PROBE_BYTES).read_to_end(&mut head).and_then(|_| file.rewind());
    read.map_err(|cause| IngestError::Read { path: path.into(), offset_bytes: 0, cause })?;
    kind_of(&head).map_err(|found| {
        let fix = if head.starts_with(HLS) { RECORD_HLS } else { CONVERT };
        IngestError::NotVideo { path: path.into(), found, fix }
    })
}

/// The kind of recording that begins so.
pub(super) fn recording(head: &[u8]) -> Option<&'static str> {
    Some(match kind_of(head).ok()? {
        Kind::Mp4 => "an MP4 file",
        Kind::Matroska => "a Matroska file",
        Kind::Ts(_) => "an MPEG transport stream",
        Kind::Avi => "an AVI file",
        Kind::Jpeg => "a JPEG picture",
        Kind::Png => "a PNG picture",
        Kind::AnnexB(PacketCodec::H265) => "an H.265 stream",
        Kind::AnnexB(_) => "an H.264 stream",
    })
}

fn kind_of(head: &[u8]) -> Result<Kind, Cow<'static, str>> {
    if head.get(4..8) == Some(b"ftyp")
        && let Some(picture) = head.get(8..12).and_then(picture_brand)
    {
        return Err(picture.into());
    }
    if head.get(4..8).is_some_and(|kind| MP4_BOXES.iter().any(|known| kind == *known)) {
        return Ok(Kind::Mp4);
    }
    if head.starts_with(b"\x1a\x45\xdf\xa3") {
        return Ok(Kind::Matroska);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") {
        return Ok(Kind::Avi);
    }
    if head.starts_with(&JPEG_START) {
        return Ok(Kind::Jpeg);
    }
    if head.starts_with(b"\x89PNG") {
        return Ok(Kind::Png);
    }
    if let Some(other) = other_format(head) {
        return Err(other);
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
fn other_format(head: &[u8]) -> Option<Cow<'static, str>> {
    const MAGIC: [(&[u8], &str); 25] = [
        (b"GIF8", "a GIF picture"),
        (b"BM", "a BMP picture"),
        (b"II*\0", "a TIFF picture"),
        (b"MM\0*", "a TIFF picture"),
        (b"FLV\x01", "Flash video (FLV)"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file (WMV, ASF)"),
        (b"\x00\x00\x01\xba", "an MPEG program stream"),
        (b"\x00\x00\x01\xb3", "an MPEG-2 video stream"),
        (b"\x00\x00\x01\xb0", "an MPEG-4 Visual video stream"),
        (b"\x06\x0e\x2b\x34", "an MXF file"),
        (b".RMF", "a RealMedia file"),
        (b"YUV4MPEG2", "uncompressed video (Y4M)"),
        (b"DKIF", "an IVF file"),
        (b"OggS", "an Ogg file"),
        (b"ID3", "an MP3 sound file"),
        (b"\xff\xfb", "an MP3 sound file"),
        (b"fLaC", "a FLAC sound file"),
        (HLS, "an HLS playlist"),
        (b"v=0\r\n", "a session description (SDP)"),
        (b"version https://git-lfs", "a Git LFS pointer, not the file itself (git lfs pull)"),
        (b"\x7fELF", "a program"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"Rar!", "a RAR archive"),
        (b"%PDF", "a PDF document"),
    ];
    if head.is_empty() {
        return Some("empty".into());
    }
    if head.iter().all(|&byte| byte == 0) {
        return Some("nothing but zeros".into());
    }
    if head.starts_with(b"RIFF") {
        return match head.get(8..12)? {
            b"WAVE" => Some("a WAV sound file".into()),
            b"WEBP" => Some("a WebP picture".into()),
            _ => None,
        };
    }
    MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, name)| name.into())
}

/// A file of boxes that holds a picture and no video.
fn picture_brand(brand: &[u8]) -> Option<&'static str> {
    match brand {
        b"heic" | b"heix" | b"mif1" => Some("a HEIF picture"),
        b"avif" => Some("an AVIF picture"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_video_is_named() {
        let refused = |head: &[u8]| kind_of(head).err().map(Cow::into_owned).unwrap_or_default();
        assert_eq!(refused(b""), "empty");
        assert_eq!(refused(b"hello, world\n"), "text");
        assert_eq!(refused(&[0; 4096]), "nothing but zeros");
        assert_eq!(refused(b"\0\0\0\x18ftypheic\0\0\0\0"), "a HEIF picture");
        assert_eq!(refused(b"RIFF\x10\x20\0\0WEBPVP8 "), "a WebP picture");
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
