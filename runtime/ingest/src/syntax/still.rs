//! Pictures that each stand alone, JPEG and PNG: what their headers say.

use super::{Order, ParsedUnit, PictureFacts, StreamInfo, contained};
use crate::reorder::BoundOrigin;
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder};
use millrace_frame::{
    ChromaSiting, Colour, Matrix, Orientation, PacketCodec, Primaries, Range, Rect, Size, Tagged, Transfer,
};
use std::sync::Arc;

/// What any picture may be, before memory is allocated for it.
const MOST_PX: usize = 32_768;
const MOST_PIXELS: u64 = 1 << 27;

/// The bounds of a JPEG picture.
pub(crate) fn limits() -> DecodeLimits {
    DecodeLimits {
        max_width: MOST_PX,
        max_height: MOST_PX,
        max_pixels: MOST_PIXELS,
        max_scans: 200,
        ..DecodeLimits::default()
    }
}

/// What the header of a picture says.
struct Header {
    size: Size,
    profile: &'static str,
    unsupported: Option<&'static str>,
    exif: Orientation,
}

/// Makes access units of pictures.
#[derive(Default)]
pub(crate) struct StillReader {
    /// A picture's own EXIF orientation counts: a photograph's does, where no container says anything.
    by_exif: bool,
    number: u64,
    last: Option<Arc<StreamInfo>>,
}

impl StillReader {
    /// A reader of pictures that no container says anything of.
    pub(crate) fn new(by_exif: bool) -> Self {
        Self { by_exif, ..Self::default() }
    }

    /// The access unit of a picture.
    ///
    /// # Errors
    /// Why its header cannot be read.
    pub(crate) fn unit(&mut self, codec: PacketCodec, data: Vec<u8>) -> Result<ParsedUnit, String> {
        let header = match codec {
            PacketCodec::Png => png(&data),
            _ => contained(|| jpeg(&data)),
        }?;
        let info = info(codec, &header);
        let info = if self.by_exif { info.oriented(header.exif) } else { info };
        // what knows a stream by its description sees one stream
        let info = match self.last.take() {
            Some(last) if *last == info => last,
            _ => Arc::new(info),
        };
        self.last = Some(info.clone());
        self.number += 1;
        let facts = PictureFacts {
            info,
            order: Order { sequence: self.number, poc: 0 },
            key: true,
            intra: true,
            closed: true,
            first_shown: true,
            recovery_frames: None,
            frame: self.number,
            gap: false,
            output: true,
            unsupported: None,
        };
        Ok(ParsedUnit { data, facts, damaged_nals: 0, path: None })
    }
}

fn info(codec: PacketCodec, header: &Header) -> StreamInfo {
    let Size { width_px, height_px } = header.size;
    // JFIF: full range, BT.601, chroma in the middle. What a PNG holds is converted to the same.
    let colour = Colour {
        matrix: Tagged::bitstream(Matrix::Bt601),
        range: Tagged::bitstream(Range::Full),
        primaries: Tagged::assumed(Primaries::Bt709),
        transfer: Tagged::assumed(Transfer::Srgb),
        siting: Tagged::bitstream(ChromaSiting::Centre),
    };
    StreamInfo {
        codec,
        profile: header.profile,
        coded: header.size,
        display: Rect { x_px: 0, y_px: 0, width_px, height_px },
        colour,
        bit_depth: 8,
        max_reorder: 0,
        max_reorder_origin: BoundOrigin::Impossible,
        frame_rate: None,
        unsupported: header.unsupported,
        slice_groups: false,
        orientation: Orientation::Upright,
    }
}

fn jpeg(data: &[u8]) -> Result<Header, String> {
    let decoder = Decoder::new_with_limits(data, limits()).map_err(|e| e.to_string())?;
    let frame = decoder.header();
    let samplings: Vec<(u8, u8)> =
        frame.components.iter().map(|c| (c.horizontal_sampling, c.vertical_sampling)).collect();
    let two_fields = match jpeg_end(data, JPEG_FIRST) {
        JpegEnd::At(end) => data[end..].windows(3).any(|bytes| bytes == JPEG_START),
        JpegEnd::CutAt(_) => true,
        JpegEnd::Open(_) => false,
    };
    let luma_is_finest = samplings.iter().all(|s| s.0 <= samplings[0].0 && s.1 <= samplings[0].1);
    let unsupported = match decoder.jpeg_color_space() {
        _ if frame.is_lossless => Some("is lossless"),
        _ if decoder.is_arithmetic() => Some("has arithmetic coding"),
        _ if frame.precision != 8 => Some("has more than 8 bits a sample"),
        _ if two_fields => Some("has two fields in a sample (interlaced)"),
        ColorSpace::Grayscale => None,
        ColorSpace::YCbCr if samplings.len() == 3 && luma_is_finest => None,
        ColorSpace::YCbCr => Some("has more chroma than luma samples"),
        ColorSpace::Rgb => Some("is stored as RGB"),
        ColorSpace::Cmyk | ColorSpace::Ycck => Some("is stored as CMYK"),
        ColorSpace::Unknown => Some("is in no known colour space"),
    };
    let profile = if frame.is_progressive { "Progressive" } else { "Sequential" };
    let exif = match decoder.exif_orientation() {
        Some(2) => Orientation::Mirror,
        Some(3) => Orientation::Turn180,
        Some(4) => Orientation::Mirror180,
        Some(5) => Orientation::Mirror270,
        Some(6) => Orientation::Turn90,
        Some(7) => Orientation::Mirror90,
        Some(8) => Orientation::Turn270,
        _ => Orientation::Upright,
    };
    Ok(Header { size: Size::new(frame.width.into(), frame.height.into()), profile, unsupported, exif })
}

/// Its first chunk has what is needed (PNG, 11.2.2).
fn png(data: &[u8]) -> Result<Header, String> {
    let header = data.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR").ok_or("it does not begin as a PNG picture")?;
    let word = |at: usize| header.get(at..at + 4)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let (width, height) = word(0).zip(word(4)).ok_or("it ends in its header")?;
    let px = MOST_PX as u32;
    let fits = (1..=px).contains(&width) && (1..=px).contains(&height);
    if !fits || u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(format!("it claims {width}x{height} pixels"));
    }
    let size = Size::new(width, height);
    Ok(Header { size, profile: "PNG", unsupported: None, exif: Orientation::Upright })
}

/// How many pictures are behind the first one of a PNG file: those of an animation (PNG, 11.3.4.1), and further files.
pub(crate) fn further_png(data: &[u8]) -> u64 {
    let mut at = PNG_START.len();
    let mut animated = 0;
    while let Some(&[l0, l1, l2, l3, ref kind @ ..]) = data.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let body = at + 8;
        match kind {
            b"acTL" => {
                let frames = data.get(body..).and_then(<[u8]>::first_chunk).map_or(0, |n| u32::from_be_bytes(*n));
                animated = u64::from(frames.saturating_sub(1));
            }
            b"IEND" => {
                let behind = data.get(body..).unwrap_or_default();
                return animated + behind.windows(PNG_START.len()).filter(|bytes| *bytes == PNG_START).count() as u64;
            }
            _ => {}
        }
        at = body.saturating_add(u32::from_be_bytes([l0, l1, l2, l3]) as usize).saturating_add(4);
    }
    animated
}

/// What a JPEG picture begins with: a marker, and the beginning of the next.
pub(crate) const JPEG_START: [u8; 3] = [0xff, 0xd8, 0xff];
/// The eight bytes that a PNG picture begins with.
pub(crate) const PNG_START: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Where its first marker behind that is.
pub(crate) const JPEG_FIRST: usize = 2;

/// Where a JPEG picture ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JpegEnd {
    /// Behind its last marker.
    At(usize),
    /// It has none: here the next picture begins.
    CutAt(usize),
    /// Not in these bytes: with more of them it is to be looked for from here.
    Open(usize),
}

/// Where the JPEG picture ends that `data` begins with. It is looked for from a place on that is not inside a segment:
/// [`JPEG_FIRST`], or what [`JpegEnd::Open`] says of fewer of its bytes.
pub(crate) fn jpeg_end(data: &[u8], mut from: usize) -> JpegEnd {
    loop {
        // in front of a marker there may be any number of further 0xff
        let Some(&[marker, kind]) = data.get(from..from + 2) else { return JpegEnd::Open(from) };
        match (marker, kind) {
            (0xff, 0xff) => from += 1,
            (0xff, 0xd8) => return JpegEnd::CutAt(from),
            (0xff, 0xd9) => return JpegEnd::At(from + 2),
            (0xff, 0x01 | 0xd0..=0xd7) => from += 2,
            (0xff, 0x02..) => {
                let Some(&[high, low]) = data.get(from + 2..from + 4) else { return JpegEnd::Open(from) };
                from += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
            // no marker: it is looked for. In coded data, 0xff is followed by 0 or by a restart marker
            _ => match data[from + 1..].iter().position(|&byte| byte == 0xff) {
                Some(at) => from += 1 + at,
                None => return JpegEnd::Open(data.len()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_picture_ends_at_its_own_last_marker() {
        let segment = [0xff, 0xfe, 0, 6, 0xff, 0xd9, 0xff, 0xd9];
        let scan = [0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4];
        let whole = [&[0xff, 0xd8][..], &segment, &scan, &[0xff, 0xff, 0xd9], b"tail"].concat();
        let end = whole.len() - 4;
        assert_eq!(jpeg_end(&whole, JPEG_FIRST), JpegEnd::At(end));
        // the same, whatever pieces it comes in
        let mut from = JPEG_FIRST;
        for len in 0..end {
            let JpegEnd::Open(again) = jpeg_end(&whole[..len], JPEG_FIRST) else { panic!("{len}") };
            from = from.max(again);
            assert_eq!(jpeg_end(&whole, from), JpegEnd::At(end), "{len}");
        }
        let cut = [&whole[..end - 3], &whole].concat();
        assert_eq!(jpeg_end(&cut, JPEG_FIRST), JpegEnd::CutAt(end - 3));
    }
}
