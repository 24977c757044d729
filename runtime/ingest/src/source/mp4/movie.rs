//! The track that is read, of all that a file has.

use super::boxes::{FourCc, TopBox, child, children};
use super::edits::{self, Edit};
use super::entry::{self, Entry};
use super::fragments::{Fault, Fragments};
use super::index::{self, Index};
use super::samples::{Sample, Samples};
use super::{Refusal, matrix, projection, tables};
use crate::Counted;
use crate::source::ORIENTATION_FIX;
use millrace_frame::{Orientation, PacketCodec};
use mp4_atom::{Atom, Matrix, Mdhd, Mvhd, Tkhd};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

pub(super) struct Track {
    pub timescale: u32,
    pub entries: Vec<Entry>,
    pub samples: Vec<Sample>,
    /// The samples have times that differ.
    pub timed: bool,
    pub edits: Vec<Edit>,
    /// What has to be done to its pictures so that they are upright.
    pub orientation: Result<Orientation, Refusal>,
    /// What is worth a counter.
    pub counted: Vec<Counted>,
    /// Why fragments cannot be read, by where they begin.
    pub damaged: BTreeMap<u64, String>,
}

pub(super) const DAMAGED: &str = "the file is damaged; remux it with another tool";

/// A video track as its header describes it.
struct Header<'a> {
    id: u32,
    enabled: bool,
    timescale: u32,
    entries: Vec<Entry>,
    stbl: &'a [u8],
    elst: Option<&'a [u8]>,
    matrix: Matrix,
    not_flat: Option<String>,
}

impl Header<'_> {
    fn is_jpeg(&self) -> bool {
        let of = |entry: &Entry| matches!(entry, Entry::Video(video) if video.codec == PacketCodec::Jpeg);
        self.entries.iter().any(of)
    }
}

/// Reads the first enabled video track that can be read and has samples, else the first that can be read.
pub(super) fn read(file: &File, index: &Index, len: u64) -> io::Result<Result<Track, Refusal>> {
    let mut headers = Vec::new();
    let mut refusal = None;
    for (kind, trak) in children(&index.moov) {
        let handler = handler(trak).filter(|_| &kind.0 == b"trak");
        // A track is not looked at beyond its handler where it is no video: what is wrong with it spoils nothing.
        if handler.is_some_and(|handler| &handler.0 == b"vide") {
            match header(trak) {
                Ok(header) => headers.push(header),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
    }
    // beside other video, Motion JPEG is a preview
    headers.sort_by_key(|header| (header.is_jpeg(), !header.enabled));
    let alike = headers.iter().filter(|header| header.is_jpeg() == headers[0].is_jpeg()).count();
    let others = alike.saturating_sub(1) as u64;
    let mut empty = None;
    for header in headers {
        let id = header.id;
        match track(file, index, len, header)? {
            Ok(track) if track.samples.is_empty() => empty = empty.or(Some(track)),
            Ok(mut track) => {
                if others > 0 {
                    let detail = format!("the file has {} video tracks, of which track {id} is read", others + 1);
                    track.counted.push(Counted { name: "other_video_tracks", count: others, detail });
                }
                return Ok(Ok(track));
            }
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    Ok(empty.ok_or_else(|| refusal.unwrap_or_else(|| no_video(&index.moov))))
}

fn handler(trak: &[u8]) -> Option<FourCc> {
    let hdlr = child(child(trak, b"mdia")?, b"hdlr")?;
    hdlr.get(8..)?.first_chunk().map(|kind| FourCc(*kind))
}

fn no_video(moov: &[u8]) -> Refusal {
    let traks = children(moov).filter(|(kind, _)| &kind.0 == b"trak");
    let found: Vec<String> = traks
        .map(|(_, trak)| match handler(trak) {
            Some(FourCc([b's', b'o', b'u', b'n'])) => "sound".to_owned(),
            Some(FourCc([b't', b'e', b'x', b't'] | [b's', b'b', b't', b'l'])) => "text".to_owned(),
            Some(kind) => format!("'{kind}'"),
            None => "damaged".to_owned(),
        })
        .collect();
    let reason = match &found[..] {
        [] if child(moov, b"cmov").is_some() => "its index is compressed (cmov)".to_owned(),
        [] => "it has no track".to_owned(),
        found => format!("it has no video track; its tracks are: {}", found.join(", ")),
    };
    Refusal {
        reason,
        fix: "a file with H.264 (avc1, avc3), H.265 (hvc1, hev1) or Motion JPEG (jpeg) video is expected",
    }
}

fn header(trak: &[u8]) -> Result<Header<'_>, Refusal> {
    let damaged = |reason: &str| Refusal { reason: format!("its video track {reason}"), fix: DAMAGED };
    let missing = |name: &str| damaged(&format!("has no readable '{name}'"));
    let tkhd = child(trak, b"tkhd").and_then(|mut body| Tkhd::decode_body(&mut body).ok());
    let tkhd = tkhd.ok_or_else(|| missing("tkhd"))?;
    let mdia = child(trak, b"mdia").ok_or_else(|| missing("mdia"))?;
    let mdhd = child(mdia, b"mdhd").and_then(|mut body| Mdhd::decode_body(&mut body).ok());
    let mdhd = mdhd.ok_or_else(|| missing("mdhd"))?;
    if mdhd.timescale == 0 {
        return Err(damaged("has a time scale of 0"));
    }
    let minf = child(mdia, b"minf").ok_or_else(|| missing("minf"))?;
    if is_elsewhere(minf) {
        let fix = "export it as a file that has its pictures inside ('self-contained')";
        return Err(Refusal { reason: "its pictures are in another file".to_owned(), fix });
    }
    let stbl = child(minf, b"stbl").ok_or_else(|| missing("stbl"))?;
    let stsd = child(stbl, b"stsd").unwrap_or_default();
    let entries = entry::entries(stsd);
    let first_other = entries.iter().find_map(|entry| match entry {
        Entry::Other(why) => Some(why.clone()),
        Entry::Video(_) => None,
    });
    if !entries.iter().any(|entry| matches!(entry, Entry::Video(_))) {
        return Err(first_other.unwrap_or_else(|| missing("stsd")));
    }
    let elst = child(trak, b"edts").and_then(|edts| child(edts, b"elst"));
    Ok(Header {
        id: tkhd.track_id,
        enabled: tkhd.enabled,
        timescale: mdhd.timescale,
        entries,
        stbl,
        elst,
        matrix: tkhd.matrix,
        not_flat: projection::not_flat(trak, stsd),
    })
}

/// Whether all data references of a track name other files. One that names none is this file, whatever its flag says.
fn is_elsewhere(minf: &[u8]) -> bool {
    let dref = child(minf, b"dinf").and_then(|dinf| child(dinf, b"dref")?.get(8..)).unwrap_or_default();
    let mut references = children(dref).peekable();
    references.peek().is_some() && references.all(|(_, body)| body.len() > 5 && body[3] & 1 == 0)
}

fn track(file: &File, index: &Index, len: u64, header: Header<'_>) -> io::Result<Result<Track, Refusal>> {
    let refused = |reason, fix| Ok(Err(Refusal { reason, fix }));
    let Header { id, timescale, entries, stbl, elst, matrix, not_flat, .. } = header;
    let mut samples = Samples::new(len, &entries, timescale);
    if let Err(reason) = tables::read(stbl, &mut samples) {
        return refused(reason, DAMAGED);
    }
    let index_end = (!index.fragments.is_empty()).then(|| samples.next_dts());
    let mut fragments = Fragments::new(id, &index.moov);
    let mut damaged = BTreeMap::new();
    let mut counted = Vec::new();
    let (mut back, mut first_back) = (0, 0);
    for fragment in &index.fragments {
        let start = fragment.start;
        let read = match index::body(file, fragment, len)? {
            Some(moof) => fragments.read(&moof, start, &mut samples),
            None => Err(Fault::Damaged("it is larger than any index".to_owned())),
        };
        let read = match read {
            Err(Fault::Damaged(why)) => {
                damaged.insert(start, why);
                samples.push_damaged_fragment(start).map(|()| false).map_err(Fault::from)
            }
            read => read,
        };
        match read {
            Ok(false) => {}
            Ok(true) => {
                first_back = if back == 0 { start } else { first_back };
                back += 1;
            }
            Err(_) => return refused("it names more samples than the file can hold".to_owned(), DAMAGED),
        }
    }
    if back > 0 {
        let detail =
            format!("the fragment at byte {first_back} states a time that cannot follow; it follows the one before it");
        counted.push(Counted { name: "fragment_time_ignored", count: back, detail });
    }
    if !index.fragments.is_empty() {
        let unnamed = unnamed_data(index, fragments.places, &damaged);
        if let Some(first) = unnamed.first() {
            samples.insert_unnamed(first.start, u32::try_from(unnamed.len()).unwrap_or(u32::MAX));
        }
    }
    let damaged_offsets = samples.bound_offsets();
    if damaged_offsets > 0 {
        let detail = "the table of composition offsets leads out of the recording; the first picture's offset is used";
        counted.push(Counted { name: "time_order_ignored", count: damaged_offsets, detail: detail.to_owned() });
    }
    let (samples, timed) = samples.finish();
    let movie = child(&index.moov, b"mvhd").and_then(|mut body| Mvhd::decode_body(&mut body).ok());
    let elst = elst.filter(|_| timed);
    let orientation = match not_flat {
        Some(reason) => Err(Refusal { reason, fix: ORIENTATION_FIX }),
        None => matrix::orientation(&matrix, movie.as_ref().map(|movie| &movie.matrix)),
    };
    let edits = match edits::read(elst, movie.map(|movie| movie.timescale), timescale, &samples, index_end) {
        Ok(edits) => edits,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(Ok(Track { timescale, entries, samples, timed, edits, orientation, counted, damaged }))
}

/// The boxes of data that neither the index nor a fragment refers to, of any track: what referred to them is damaged or
/// missing. The data of a fragment of which that is known are none of them. In a file without fragments, such data are what
/// an editor has cut out.
fn unnamed_data<'a>(index: &'a Index, mut places: Vec<u64>, damaged: &BTreeMap<u64, String>) -> Vec<&'a TopBox> {
    let traks = children(&index.moov).filter(|(kind, _)| &kind.0 == b"trak");
    let tables = traks.filter_map(|(_, trak)| child(child(child(trak, b"mdia")?, b"minf")?, b"stbl"));
    tables.for_each(|stbl| places.extend(tables::chunks(stbl).unwrap_or_default()));
    places.sort_unstable();
    let is_named = |data: &TopBox| {
        let first = places.partition_point(|place| *place < data.body);
        places.get(first).is_some_and(|place| *place < data.end)
    };
    let is_known = |data: &TopBox| {
        let of = index.fragments.partition_point(|fragment| fragment.start < data.start);
        of > 0 && damaged.contains_key(&index.fragments[of - 1].start)
    };
    index.data.iter().filter(|data| !is_named(data) && !is_known(data)).collect()
}
