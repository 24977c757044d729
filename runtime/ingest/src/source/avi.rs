//! AVI files (also those of several parts, OpenDML): the first video stream that can be read.
//!
//! The file is read from front to back, chunk by chunk; its indexes and the sizes of its lists are not relied on, so that a
//! recording that was cut short plays up to its last whole chunk. AVI has no times: a chunk is a picture's time, also one
//! that is empty.

use super::jpegs::unreadable;
use super::{Source, SourceEvent};
use crate::syntax::config::Config;
use crate::syntax::nal::{find_start_code, length_prefixed};
use crate::syntax::still::StillReader;
use crate::syntax::{UnitBuilder, annexb_nals};
use crate::{IngestError, Loss, LossOf};
use millrace_frame::{PacketCodec, Timebase};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// More than the headers of any recording, and than any picture.
const MAX_HEADER_BYTES: u64 = 16 << 20;
const MAX_CHUNK_BYTES: u32 = 64 << 20;
/// How much is read at once where a chunk is looked for behind damage.
const SEARCH_BYTES: usize = 1 << 20;

pub(super) struct Avi {
    file: File,
    path: PathBuf,
    len_bytes: u64,
    at: u64,
    /// Where its pictures end, by the word of the lists that hold them.
    stated_end: u64,
    stream: Stream,
    units: UnitBuilder,
    stills: StillReader,
    after_loss: bool,
}

/// The stream that is read.
struct Stream {
    /// The two digits that its chunks begin with.
    number: [u8; 2],
    codec: PacketCodec,
    timebase: Option<Timebase>,
    /// The file has no other stream.
    is_alone: bool,
    /// How long the lengths of its NAL units are, where its header says so.
    length_bytes: Option<usize>,
    sets: Vec<Vec<u8>>,
}

type FourCc = [u8; 4];

impl Avi {
    pub(super) fn open(file: File, path: &Path) -> Result<Self, IngestError> {
        let read = |cause| IngestError::Read { path: path.into(), offset_bytes: 0, cause };
        let refused = |(reason, fix)| IngestError::Refused { container: "AVI file", path: path.into(), reason, fix };
        let len_bytes = file.metadata().map_err(read)?.len();
        let (header, at) = header(&file, len_bytes).map_err(read)?.ok_or_else(|| {
            refused(("it has no list of its streams (hdrl)".into(), "the recording was cut short; record it again"))
        })?;
        let stream = choose(&header).map_err(refused)?;
        let mut units = UnitBuilder::new(stream.codec);
        stream.sets.iter().for_each(|set| units.out_of_band(set));
        let path = path.into();
        Ok(Self {
            file,
            path,
            len_bytes,
            at,
            stated_end: 0,
            stream,
            units,
            stills: StillReader::default(),
            after_loss: false,
        })
    }

    /// What is at this place, and moves on behind it. `None` for what is of no interest.
    fn chunk(&mut self) -> std::io::Result<Option<SourceEvent>> {
        let at = self.at;
        let mut head = [0; 12];
        let left = self.len_bytes.saturating_sub(at);
        if left < 8 {
            return Ok(Some(self.end()));
        }
        self.file.read_exact_at(&mut head[..left.min(12) as usize], at)?;
        let [k0, k1, k2, k3, s0, s1, s2, s3, list @ ..] = head;
        let (kind, size) = ([k0, k1, k2, k3], u32::from_le_bytes([s0, s1, s2, s3]));
        if matches!(&kind, b"RIFF" | b"LIST") && matches!(&list, b"AVI " | b"AVIX" | b"movi" | b"rec ") {
            self.at += 12;
            // a recorder that cannot go back in its file leaves all bits set
            if size != u32::MAX {
                self.stated_end = self.stated_end.max(at + 8 + u64::from(size));
            }
            return Ok(None);
        }
        if !kind.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ') {
            return self.resume().map(Some);
        }
        let end = at + 8 + u64::from(size);
        let is_ours = kind[..2] == self.stream.number && matches!(&kind[2..], b"dc" | b"db");
        if end > self.len_bytes && (1..=self.len_bytes + 1).contains(&self.stated_end) {
            // the file is as long as it says, so the length of the chunk is wrong
            return self.resume().map(Some);
        }
        if end > self.len_bytes {
            (self.at, self.stated_end) = (self.len_bytes, 0);
            let detail = format!("the file ends early at byte {}, within the chunk at byte {at}", self.len_bytes);
            let of = if is_ours { LossOf::Pictures } else { LossOf::Parts };
            return Ok(Some(self.lose(Loss::of(of, "truncated", 1, detail))));
        }
        // chunks begin at even places
        self.at = end + u64::from(size & 1);
        if !is_ours {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(SourceEvent::Repeated));
        }
        if size > MAX_CHUNK_BYTES {
            let detail = format!("the chunk at byte {at} has {size} bytes");
            return Ok(Some(self.lose(Loss::new("oversized_unit", 1, detail))));
        }
        let mut body = vec![0; size as usize];
        self.file.read_exact_at(&mut body, at + 8)?;
        Ok(Some(self.picture(body, at)))
    }

    /// The end of the file, which may be an early one.
    fn end(&mut self) -> SourceEvent {
        let stated = std::mem::take(&mut self.stated_end);
        // the last chunk may lack its byte to an even place
        if stated <= self.len_bytes + 1 {
            return SourceEvent::End;
        }
        let detail = format!("the file ends early at byte {}: its pictures end at byte {stated}", self.len_bytes);
        SourceEvent::Loss(Loss::of(LossOf::Parts, "truncated", 1, detail))
    }

    fn picture(&mut self, body: Vec<u8>, at: u64) -> SourceEvent {
        if self.stream.codec == PacketCodec::Jpeg {
            return match self.stills.unit(PacketCodec::Jpeg, body) {
                Ok(unit) => SourceEvent::Unit { unit, times: None, after_loss: false },
                Err(why) => {
                    let loss = unreadable(&why);
                    SourceEvent::Loss(Loss { detail: format!("the chunk at byte {at}: {}", loss.detail), ..loss })
                }
            };
        }
        let (nals, is_cut) = nals(&body, self.stream.length_bytes);
        let (unit, lost) = self.units.sample(nals);
        let lost = lost + u64::from(is_cut);
        let detail = format!("the chunk at byte {at} does not hold exactly one readable picture");
        match unit.filter(|_| lost == 0) {
            Some(unit) => {
                let after_loss = std::mem::take(&mut self.after_loss);
                SourceEvent::Unit { unit, times: None, after_loss }
            }
            None => {
                let loss = self.units.loss(LossOf::Pictures, "damaged_sample", 1, detail);
                self.lose(loss)
            }
        }
    }

    /// What is here is no chunk: goes on with the next of the stream.
    fn resume(&mut self) -> std::io::Result<SourceEvent> {
        let from = self.at;
        let mut window = vec![0; SEARCH_BYTES];
        let [n0, n1] = self.stream.number;
        self.at += 1;
        while self.at < self.len_bytes {
            let len = (self.len_bytes - self.at).min(SEARCH_BYTES as u64) as usize;
            self.file.read_exact_at(&mut window[..len], self.at)?;
            let found =
                window[..len].windows(4).position(|w| matches!(w, [a, b, b'd', b'c' | b'b'] if (*a, *b) == (n0, n1)));
            if let Some(found) = found {
                self.at += found as u64;
                break;
            }
            // a chunk may begin in the last three bytes
            self.at += (len as u64).saturating_sub(3).max(1);
        }
        let detail = format!("what is at byte {from} is no chunk; reading goes on at byte {}", self.at);
        // without another stream it was a picture, or time that passes
        let of = if self.stream.is_alone { LossOf::Pictures } else { LossOf::Parts };
        Ok(self.lose(Loss::of(of, "damaged_chunk", 1, detail)))
    }

    fn lose(&mut self, loss: Loss) -> SourceEvent {
        self.after_loss = true;
        SourceEvent::Loss(loss)
    }
}

impl Source for Avi {
    fn frame_rate(&self) -> Option<Timebase> {
        self.stream.timebase
    }

    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        loop {
            let offset_bytes = self.at;
            match self.chunk() {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(cause) => return Err(IngestError::Read { path: self.path.clone(), offset_bytes, cause }),
            }
        }
    }
}

/// The NAL units of a chunk: behind their lengths, where the header says how long those are and the chunk has them, else
/// behind start codes. A length of 256 to 511 begins as a start code of three bytes does; one of four is no length.
fn nals(chunk: &[u8], length_bytes: Option<usize>) -> (Vec<&[u8]>, bool) {
    let has_start_code = find_start_code(chunk, 0).is_some_and(|code| chunk[..code].iter().all(|&byte| byte == 0));
    let (nals, is_cut) = match length_bytes {
        None if has_start_code => (Vec::new(), true),
        length_bytes => length_prefixed(chunk, length_bytes.unwrap_or(4)),
    };
    let is_byte_stream = has_start_code && (length_bytes.is_none() || chunk.starts_with(&[0, 0, 0, 1]));
    if is_cut && is_byte_stream { (annexb_nals(chunk).collect(), false) } else { (nals, is_cut) }
}

/// The list of the streams, and where it ends.
fn header(file: &File, len: u64) -> std::io::Result<Option<(Vec<u8>, u64)>> {
    let mut at = 12;
    while at + 12 <= len {
        let mut head = [0; 12];
        file.read_exact_at(&mut head, at)?;
        let [k0, k1, k2, k3, s0, s1, s2, s3, list @ ..] = head;
        let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        let end = at + 8 + size;
        if (&[k0, k1, k2, k3], &list) == (b"LIST", b"hdrl") && end <= len && (4..MAX_HEADER_BYTES).contains(&size) {
            let mut body = vec![0; (size - 4) as usize];
            file.read_exact_at(&mut body, at + 12)?;
            return Ok(Some((body, end + (size & 1))));
        }
        at = end + (size & 1);
    }
    Ok(None)
}

/// The chunks inside of a list. A chunk that claims more bytes than there are gets those that there are.
fn chunks(mut list: &[u8]) -> impl Iterator<Item = (FourCc, &[u8])> + Clone {
    std::iter::from_fn(move || {
        let (&[k0, k1, k2, k3, s0, s1, s2, s3], rest) = list.split_first_chunk::<8>()?;
        let size = (u32::from_le_bytes([s0, s1, s2, s3]) as usize).min(rest.len());
        let body = &rest[..size];
        list = rest.get(size + (size & 1)..).unwrap_or_default();
        Some(([k0, k1, k2, k3], body))
    })
}

/// The first video stream whose codec is known here; else what there is.
fn choose(header: &[u8]) -> Result<Stream, (String, &'static str)> {
    let lists = chunks(header).filter_map(|(kind, body)| body.strip_prefix(b"strl").filter(|_| &kind == b"LIST"));
    let is_alone = lists.clone().count() == 1;
    let mut videos = Vec::new();
    let mut others = 0;
    for (number, list) in (0u8..100).zip(lists) {
        let of = |wanted: &[u8; 4]| chunks(list).find(|(kind, _)| kind == wanted).map_or(&[][..], |(_, body)| body);
        let (strh, strf) = (of(b"strh"), of(b"strf"));
        if !strh.starts_with(b"vids") {
            others += 1;
            continue;
        }
        let word = |from: &[u8], at: usize| from.get(at..at + 4)?.first_chunk().copied();
        // what the pictures are in, by the format; by the handler, where the format says nothing
        let names = [word(strf, 16), word(strh, 4)].into_iter().flatten().filter(|name| name != &[0; 4]);
        let names: Vec<FourCc> = names.collect();
        let Some(codec) = names.iter().find_map(codec) else {
            videos.push(names.first().map_or("not named".into(), |name| format!("'{}'", name.escape_ascii())));
            continue;
        };
        let [scale, rate] = [20, 24].map(|at| word(strh, at).map_or(0, u32::from_le_bytes));
        let fits = scale > 0 && rate / 1000 <= scale && scale / 1000 <= rate;
        let timebase = fits.then_some(Timebase { num: scale, den: rate });
        let private = strf.get(40..).unwrap_or_default();
        let config = (private.first() == Some(&1)).then(|| Config::parse(codec, private)).flatten();
        let (length_bytes, sets) = match config {
            Some(config) => (Some(config.length_bytes), config.sets),
            None => (None, annexb_nals(private).collect()),
        };
        let sets = sets.into_iter().map(<[u8]>::to_vec).collect();
        let number = [b'0' + number / 10, b'0' + number % 10];
        return Ok(Stream { number, codec, timebase, is_alone, length_bytes, sets });
    }
    let fix = "H.264, H.265 or Motion JPEG is expected; transcode the video";
    Err(match videos.is_empty() {
        false => (format!("its video is {}", videos.join(", ")), fix),
        true => (format!("it has no video among its {others} streams"), fix),
    })
}

fn codec(name: &FourCc) -> Option<PacketCodec> {
    match &name.map(|byte| byte.to_ascii_uppercase()) {
        b"MJPG" | b"JPEG" | b"DMB1" | b"AVDJ" => Some(PacketCodec::Jpeg),
        b"H264" | b"X264" | b"AVC1" | b"DAVC" | b"SMV2" | b"VSSH" | b"Q264" | b"V264" | b"GAVC" | b"UMSV" | b"TSHD"
        | b"INMC" => Some(PacketCodec::H264),
        b"H265" | b"X265" | b"HEVC" | b"HVC1" | b"HEV1" => Some(PacketCodec::H265),
        _ => None,
    }
}
