//! What a Matroska file says of itself in front of its pictures: how long a tick is, and its tracks.

use super::elements::{Element, Elements, NextElement};
use super::ticks;
use crate::IngestError;
use crate::syntax::config::Config;
use crate::syntax::{StatedSize, UnitBuilder, annexb_nals, contained};
use millrace_frame::{Orientation, PacketCodec, Timebase};
use mkv_element::io::blocking_impl::ReadFrom as _;
use mkv_element::prelude::{
    BlockGroup, Cluster, ContentEncoding, Element as _, Header as ElementHeader, Info, Segment, SimpleBlock, Timestamp,
    TrackEntry, Tracks, Video,
};
use std::path::Path;

/// The track that is read.
pub(super) struct Track {
    pub(super) number: u64,
    pub(super) codec: PacketCodec,
    /// How long the lengths of its NAL units are; `None` where they have start codes.
    pub(super) length_bytes: Option<usize>,
    /// What each of its frames begins with, left out of the file.
    pub(super) prefix: Vec<u8>,
    /// How long a picture is shown.
    pub(super) frame_ticks: Option<i64>,
    /// What has to be done to its pictures so that they are upright; else why that cannot be done here.
    pub(super) orientation: Result<Orientation, String>,
    pub(super) units: UnitBuilder,
}

pub(super) struct Header {
    pub(super) timebase: Timebase,
    pub(super) track: Track,
    /// Where the first cluster is.
    pub(super) cluster_at: u64,
    /// The time that counts as 0.
    pub(super) origin_ticks: i64,
}

const VIDEO: u64 = 1;

/// Reads up to the first cluster; farther, where the tracks are behind it.
pub(super) fn read(elements: &mut Elements, path: &Path) -> Result<Header, IngestError> {
    let refused = |reason: String, fix| refusal(path, reason, fix);
    let (mut tick_ns, mut track, mut cluster_at) = (1_000_000, None, None);
    while track.is_none() || cluster_at.is_none() {
        let at = elements.at;
        let io = |cause| IngestError::Read { path: path.into(), offset_bytes: at, cause };
        let NextElement::Element(element) = elements.next().map_err(io)? else { break };
        if element.id == Segment::ID {
            continue;
        }
        if element.id == Info::ID {
            let body = elements.body(&element).map_err(io)?.unwrap_or_default();
            if let Ok(info) = contained(|| Info::decode_body(&mut &body[..])) {
                tick_ns = (*info.timestamp_scale).max(1);
            }
        } else if element.id == Tracks::ID {
            let Some(body) = elements.body(&element).map_err(io)? else { break };
            track = Some(choose(&body, path)?);
        } else if element.id == Cluster::ID {
            cluster_at = cluster_at.or(Some(at));
            if element.size.is_none() {
                break;
            }
        }
        if elements.at == element.body_at {
            if element.size.is_none() {
                break;
            }
            elements.skip(&element);
        }
    }
    let remux = "the recording was cut short, or is damaged; remux it with another tool";
    let mut track = track.ok_or_else(|| refused("it has no whole list of tracks".into(), remux))?;
    let cluster_at = cluster_at.ok_or_else(|| refused("it has no pictures (no cluster)".into(), remux))?;
    let timebase = timebase(tick_ns);
    track.frame_ticks = track.frame_ticks.map(|ns| ticks(timebase, ns));
    elements.at = cluster_at;
    let first_ticks = first_ticks(elements).map_err(|cause| IngestError::Read {
        path: path.into(),
        offset_bytes: cluster_at,
        cause,
    })?;
    // The first part of a recording begins about 0, a later one where the one before it ended.
    let origin_ticks = Some(first_ticks).filter(|&first| first > ticks(timebase, 1_000_000_000)).unwrap_or(0);
    Ok(Header { timebase, track, cluster_at, origin_ticks })
}

/// The time of the cluster that begins here.
fn first_ticks(elements: &mut Elements) -> std::io::Result<i64> {
    elements.next()?;
    while let NextElement::Element(element) = elements.next()? {
        if element.id == Timestamp::ID {
            let body = elements.body(&element)?.unwrap_or_default();
            let ticks = contained(|| Timestamp::decode_body(&mut &body[..]));
            return Ok(ticks.ok().and_then(|ticks| i64::try_from(*ticks).ok()).unwrap_or(0));
        }
        if element.id == SimpleBlock::ID || element.id == BlockGroup::ID || !elements.holds(&element) {
            break;
        }
        elements.skip(&element);
    }
    Ok(0)
}

/// Ticks of a file as a fraction of a second.
fn timebase(tick_ns: u64) -> Timebase {
    let (mut a, mut b) = (tick_ns, 1_000_000_000);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    match (u32::try_from(tick_ns / a), u32::try_from(1_000_000_000 / a)) {
        (Ok(num), Ok(den)) => Timebase { num, den },
        // no file has ticks of more than four seconds
        _ => Timebase { num: 1, den: 1000 },
    }
}

pub(super) fn refusal(path: &Path, reason: String, fix: &'static str) -> IngestError {
    IngestError::Refused { container: "Matroska file", path: path.into(), reason, fix }
}

/// The first video track that can be read.
fn choose(body: &[u8], path: &Path) -> Result<Track, IngestError> {
    let entries = entries(body);
    let is_video = |e: &&TrackEntry| *e.track_type == VIDEO && codec(e).is_some();
    let mut videos: Vec<&TrackEntry> = entries.iter().filter(is_video).collect();
    // beside other video, Motion JPEG is a preview
    videos.sort_by_key(|e| codec(e) == Some(PacketCodec::Jpeg));
    if let [first, others @ ..] = &videos[..] {
        if !others.is_empty() {
            let others: Vec<u64> = others.iter().map(|e| *e.track_number).collect();
            tracing::warn!(path = %path.display(), ?others, "of several video tracks the first is read");
        }
        return track(first, path);
    }
    let of_kind = |video: bool| entries.iter().filter(move |e| (*e.track_type == VIDEO) == video).map(codec_name);
    let (videos, others): (Vec<String>, Vec<String>) = (of_kind(true).collect(), of_kind(false).collect());
    let fix =
        "H.264 (V_MPEG4/ISO/AVC), H.265 (V_MPEGH/ISO/HEVC) or Motion JPEG (V_MJPEG) is expected; transcode the video";
    Err(refusal(
        path,
        match (videos.is_empty(), others.is_empty()) {
            (false, _) => format!("its video is {}", videos.join(", ")),
            (true, false) => format!("it has no video, only {}", others.join(", ")),
            (true, true) => "its list of tracks is empty or not readable".into(),
        },
        fix,
    ))
}

/// The entries of the list of tracks that can be read: a damaged one does not spoil the others.
fn entries(body: &[u8]) -> Vec<TrackEntry> {
    let mut entries = Vec::new();
    let mut rest = body;
    while let Ok(header) = ElementHeader::read_from(&mut rest) {
        let Some((entry, tail)) = usize::try_from(*header.size).ok().and_then(|size| rest.split_at_checked(size))
        else {
            break;
        };
        if header.id == TrackEntry::ID {
            entries.extend(contained(|| TrackEntry::decode_body(&mut &entry[..])));
        }
        rest = tail;
    }
    entries
}

fn codec(entry: &TrackEntry) -> Option<PacketCodec> {
    match &entry.codec_id[..] {
        "V_MPEG4/ISO/AVC" => Some(PacketCodec::H264),
        "V_MPEGH/ISO/HEVC" => Some(PacketCodec::H265),
        "V_MJPEG" => Some(PacketCodec::Jpeg),
        "V_MS/VFW/FOURCC" if fourcc(entry).is_some_and(|name| name.eq_ignore_ascii_case(b"MJPG")) => {
            Some(PacketCodec::Jpeg)
        }
        _ => None,
    }
}

/// What a track out of an AVI file is in.
fn fourcc(entry: &TrackEntry) -> Option<&[u8]> {
    entry.codec_private.as_deref().and_then(|private| private.get(16..20))
}

/// The codec's own name; tracks out of AVI have it in their private data.
fn codec_name(entry: &TrackEntry) -> String {
    let id = &entry.codec_id[..];
    match fourcc(entry).filter(|_| id == "V_MS/VFW/FOURCC") {
        Some(fourcc) => format!("'{id}' ({})", fourcc.escape_ascii()),
        None => format!("'{id}'"),
    }
}

fn track(entry: &TrackEntry, path: &Path) -> Result<Track, IngestError> {
    let codec = codec(entry).unwrap_or(PacketCodec::H264);
    let encodings = entry.content_encodings.as_ref().map_or(&[][..], |e| &e.content_encoding[..]);
    let stripped = stripped(encodings).map_err(|what| {
        refusal(path, format!("its video track is {what}"), "remux it with another tool, without compression")
    })?;
    let mut private = entry.codec_private.as_deref().unwrap_or_default().to_vec();
    if stripped.of_private {
        private.splice(0..0, stripped.prefix.iter().copied());
    }
    let mut units = UnitBuilder::new(codec);
    if let Some(size) = entry.video.as_ref().and_then(size) {
        units.stated = size;
    }
    let has_start_codes = codec == PacketCodec::Jpeg
        || private.is_empty()
        || private.starts_with(&[0, 0, 0, 1])
        || private.starts_with(&[0, 0, 1]);
    let length_bytes = if has_start_codes {
        if codec != PacketCodec::Jpeg {
            annexb_nals(&private).for_each(|set| units.out_of_band(set));
        }
        None
    } else {
        let config = Config::parse(codec, &private).ok_or_else(|| {
            let fix = "the file is damaged; remux it with another tool";
            refusal(path, "the codec's private data of its video track ends within a field".into(), fix)
        })?;
        config.sets.iter().for_each(|set| units.out_of_band(set));
        Some(config.length_bytes)
    };
    Ok(Track {
        number: *entry.track_number,
        codec,
        length_bytes,
        prefix: if stripped.of_frames { stripped.prefix } else { Vec::new() },
        // nanoseconds yet
        frame_ticks: entry.default_duration.as_ref().and_then(|d| i64::try_from(**d).ok()).filter(|&ns| ns > 0),
        orientation: orientation(entry),
        units,
    })
}

/// `PixelWidth` and `PixelHeight`.
fn size(video: &Video) -> Option<StatedSize> {
    let px = |value: u64| u32::try_from(value).ok();
    Some(StatedSize::new(px(*video.pixel_width)?, px(*video.pixel_height)?))
}

/// How a track's projection turns its pictures: `ProjectionPoseYaw` mirrors them, then `ProjectionPoseRoll` turns them
/// counter-clockwise.
fn orientation(entry: &TrackEntry) -> Result<Orientation, String> {
    let Some(projection) = entry.video.as_ref().and_then(|video| video.projection.as_ref()) else {
        return Ok(Orientation::Upright);
    };
    let kind = *projection.projection_type;
    if kind != 0 {
        return Err(format!("its pictures are not flat (projection {kind})"));
    }
    let [yaw, pitch, roll] =
        [*projection.projection_pose_yaw, *projection.projection_pose_pitch, *projection.projection_pose_roll];
    let sign = match yaw.abs() {
        0.0 => 1.0,
        180.0 => -1.0,
        _ => 0.0,
    };
    let (sin, cos) = roll.to_radians().sin_cos();
    let steps = ([sign * cos, -sign * sin], [sin, cos]);
    let turned = Orientation::from_steps(steps.0, steps.1).filter(|_| pitch == 0.0);
    turned.ok_or_else(|| format!("its projection (yaw {yaw}, pitch {pitch}, roll {roll}) is no turn by 90 degrees"))
}

#[derive(Default)]
struct Stripped {
    prefix: Vec<u8>,
    of_frames: bool,
    of_private: bool,
}

/// What was left out at the beginning of each frame (header stripping), or, in words, how the frames are changed otherwise.
fn stripped(encodings: &[ContentEncoding]) -> Result<Stripped, String> {
    let encoding = match encodings {
        [] => return Ok(Stripped::default()),
        [one] => one,
        _ => return Err("compressed or encrypted in several steps".into()),
    };
    if *encoding.content_encoding_type != 0 {
        return Err("encrypted".into());
    }
    let compression = encoding.content_compression.as_ref();
    match compression.map_or(0, |c| *c.content_comp_algo) {
        3 => {
            let prefix = compression.and_then(|c| c.content_comp_settings.as_deref()).unwrap_or_default();
            let scope = *encoding.content_encoding_scope;
            Ok(Stripped { prefix: prefix.to_vec(), of_frames: scope & 1 != 0, of_private: scope & 2 != 0 })
        }
        0 => Err("compressed by zlib".into()),
        1 => Err("compressed by bzlib".into()),
        2 => Err("compressed by lzo1x".into()),
        other => Err(format!("compressed by the unknown method {other}")),
    }
}

/// Whether an element begins another file behind the first one.
pub(super) fn begins_file(element: &Element) -> bool {
    element.id == mkv_element::prelude::Ebml::ID
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkv_element::prelude::{
        Projection, ProjectionPosePitch, ProjectionPoseRoll, ProjectionPoseYaw, ProjectionType,
    };

    /// The examples are those of RFC 9559, 5.1.4.1.28.43 to 46.
    #[test]
    fn a_projection_mirrors_and_turns_counter_clockwise() {
        let of = |kind: u64, yaw: f64, pitch: f64, roll: f64| {
            let projection = Projection {
                projection_type: ProjectionType(kind),
                projection_pose_yaw: ProjectionPoseYaw(yaw),
                projection_pose_pitch: ProjectionPosePitch(pitch),
                projection_pose_roll: ProjectionPoseRoll(roll),
                ..Projection::default()
            };
            let video = Video { projection: Some(projection), ..Video::default() };
            orientation(&TrackEntry { video: Some(video), ..TrackEntry::default() })
        };
        assert_eq!(orientation(&TrackEntry::default()), Ok(Orientation::Upright));
        assert_eq!(of(0, 0.0, 0.0, 0.0), Ok(Orientation::Upright));
        assert_eq!(of(0, 0.0, 0.0, 90.0), Ok(Orientation::Turn270));
        assert_eq!(of(0, 0.0, 0.0, -90.0), Ok(Orientation::Turn90));
        assert_eq!(of(0, 0.0, 0.0, 180.0), Ok(Orientation::Turn180));
        assert_eq!(of(0, 180.0, 0.0, 0.0), Ok(Orientation::Mirror), "flipped horizontally");
        assert_eq!(of(0, -180.0, 0.0, -180.0), Ok(Orientation::Mirror180), "flipped vertically");
        for (kind, yaw, pitch, roll) in [(0, 0.0, 0.0, 30.0), (0, 90.0, 0.0, 0.0), (0, 0.0, 45.0, 0.0)] {
            let why = of(kind, yaw, pitch, roll).err().unwrap_or_default();
            assert!(why.starts_with("its projection (yaw "), "{why}");
        }
        let why = of(1, 0.0, 0.0, 0.0).err().unwrap_or_default();
        assert_eq!(why, "its pictures are not flat (projection 1)");
    }
}
