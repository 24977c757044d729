//! Writes MP4 files box by box, as ISO/IEC 14496-12 has them: what a test wants to be odd, it replaces.

use super::{own_data, reference};
use millrace_ingest::{Event, Ingest, IngestOptions, annexb_nals};
use std::collections::BTreeMap;

/// A coded picture: its NAL units, its place in presentation order, and whether a decoder can start at it.
#[derive(Clone)]
pub(crate) struct Coded {
    pub(crate) nals: Vec<Vec<u8>>,
    pub(crate) rank: i64,
    pub(crate) key: bool,
}

/// The pictures of a byte stream of the test data in decoding order, and FFmpeg's checksums in presentation order.
pub(crate) fn coded(name: &str) -> (Vec<Coded>, Vec<String>) {
    let options = IngestOptions { frame_rate: Some(25.0), ..IngestOptions::default() };
    let mut ingest = Ingest::open(own_data(name).to_str().unwrap(), &options).unwrap();
    let mut pictures = Vec::new();
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => pictures.push(Coded {
                nals: annexb_nals(&unit.data).map(<[u8]>::to_vec).collect(),
                rank: unit.timing.pts_ns / 40_000_000,
                key: unit.key,
            }),
            Event::End => break,
            other => panic!("{other:?}"),
        }
    }
    let md5s = reference(&own_data(&format!("{name}.framemd5"))).1.into_iter().map(|frame| frame.md5).collect();
    (pictures, md5s)
}

pub(crate) fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
}

/// Numbers of four bytes, one after the other.
pub(crate) fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_be_bytes).collect()
}

/// A table: version and flags, the number of rows, the rows.
pub(crate) fn table(version: u32, rows: usize, of: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words([version << 24, rows as u32].into_iter().chain(of))
}

#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    pub(crate) duration: u32,
    pub(crate) offset: i32,
    pub(crate) sync: bool,
    pub(crate) description: u32,
}

/// A file with one video track, in ticks of 1/1000 s, 40 a frame.
#[derive(Clone)]
pub(crate) struct Movie {
    pub(crate) samples: Vec<Sample>,
    /// The boxes inside of `stsd`.
    pub(crate) descriptions: Vec<Vec<u8>>,
    pub(crate) samples_in_chunk: usize,
    pub(crate) timescale: u32,
    /// The body of boxes by their kind, in place of what would be written; `None` leaves the box out.
    pub(crate) instead: BTreeMap<[u8; 4], Option<Vec<u8>>>,
    /// Tracks in front of the video.
    pub(crate) tracks: Vec<Vec<u8>>,
}

fn is_set(nal: &[u8], h265: bool) -> bool {
    if h265 { matches!(nal[0] >> 1 & 63, 32..=34) } else { matches!(nal[0] & 31, 7 | 8) }
}

/// A sample description; `sets` go into its configuration.
pub(crate) fn description(fourcc: &[u8; 4], length_bytes: u8, sets: &[Vec<u8>]) -> Vec<u8> {
    let h265 = matches!(fourcc, b"hvc1" | b"hev1");
    let with_length = |nal: &Vec<u8>| [&(nal.len() as u16).to_be_bytes()[..], nal].concat();
    let of = |kind: u8| -> Vec<Vec<u8>> {
        let of_kind = sets.iter().filter(|nal| if h265 { nal[0] >> 1 & 63 == kind } else { nal[0] & 31 == kind });
        of_kind.map(with_length).collect()
    };
    let config = if h265 {
        let mut body = vec![1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0];
        body.extend_from_slice(&[0x0c | (length_bytes - 1), 3]);
        for kind in 32..=34 {
            let nals = of(kind);
            body.push(0x80 | kind);
            body.extend_from_slice(&(nals.len() as u16).to_be_bytes());
            body.extend(nals.concat());
        }
        boxed(b"hvcC", &body)
    } else {
        let (sps, pps) = (of(7), of(8));
        let head = [1, 100, 0, 12, 0xfc | (length_bytes - 1), 0xe0 | sps.len() as u8];
        boxed(b"avcC", &[&head[..], &sps.concat(), &[pps.len() as u8], &pps.concat()].concat())
    };
    visual(fourcc, &config)
}

/// A sample description of a video with these boxes inside.
pub(crate) fn visual(fourcc: &[u8; 4], boxes: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 78];
    body[7] = 1;
    body[24..28].copy_from_slice(&[0, 96, 0, 64]);
    body.extend_from_slice(boxes);
    boxed(fourcc, &body)
}

impl Movie {
    /// The pictures with their parameter sets in the sample description, as most programs write them.
    pub(crate) fn of(pictures: &[Coded], h265: bool) -> Self {
        Self::with_lengths(pictures, h265, 4)
    }

    pub(crate) fn with_lengths(pictures: &[Coded], h265: bool, length_bytes: u8) -> Self {
        let sets: Vec<Vec<u8>> = pictures[0].nals.iter().filter(|nal| is_set(nal, h265)).cloned().collect();
        let fourcc = if h265 { b"hvc1" } else { b"avc1" };
        let samples = Self::samples(pictures, h265, length_bytes, false);
        Self::of_samples(samples, vec![description(fourcc, length_bytes, &sets)])
    }

    pub(crate) fn of_samples(samples: Vec<Sample>, descriptions: Vec<Vec<u8>>) -> Self {
        let (instead, tracks) = (BTreeMap::new(), Vec::new());
        Self { samples, descriptions, samples_in_chunk: 5, timescale: 1000, instead, tracks }
    }

    /// Samples of 40 ticks; parameter sets are left out, or stay where they are.
    pub(crate) fn samples(pictures: &[Coded], h265: bool, length_bytes: u8, sets_inside: bool) -> Vec<Sample> {
        let samples = pictures.iter().enumerate().map(|(n, picture)| Sample {
            bytes: picture
                .nals
                .iter()
                .filter(|nal| sets_inside || !is_set(nal, h265))
                .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[4 - usize::from(length_bytes)..], nal].concat())
                .collect(),
            duration: 40,
            offset: ((picture.rank - n as i64) * 40) as i32,
            sync: picture.key,
            description: 1,
        });
        samples.collect()
    }

    pub(crate) fn put(mut self, kind: &[u8; 4], body: Vec<u8>) -> Self {
        self.instead.insert(*kind, Some(body));
        self
    }

    pub(crate) fn without(mut self, kind: &[u8; 4]) -> Self {
        self.instead.insert(*kind, None);
        self
    }

    /// With an edit list: duration in ticks of the movie (1/600 s), media time, rate in 1/65536.
    pub(crate) fn edits(self, edits: &[(u32, i32, u32)]) -> Self {
        let rows = edits.iter().flat_map(|&(duration, time, rate)| [duration, time as u32, rate]);
        let elst = boxed(b"elst", &table(0, edits.len(), rows));
        self.put(b"edts", elst)
    }

    fn boxed(&self, kind: &[u8; 4], body: Vec<u8>) -> Vec<u8> {
        match self.instead.get(kind) {
            Some(None) => Vec::new(),
            Some(Some(body)) => boxed(kind, body),
            None => boxed(kind, &body),
        }
    }

    /// `ftyp`, the samples, and the index behind them.
    pub(crate) fn file(&self) -> Vec<u8> {
        let data: Vec<u8> = self.samples.iter().flat_map(|sample| sample.bytes.clone()).collect();
        let mut file = self.boxed(b"ftyp", b"isom\0\0\x02\0isom".to_vec());
        let data_at = file.len() + 8;
        file.extend(self.boxed(b"mdat", data));
        file.extend(self.index(data_at as u32));
        file
    }

    /// The index, of samples that begin at this place of the file.
    pub(crate) fn index(&self, data_at: u32) -> Vec<u8> {
        let samples = &self.samples;
        let mut chunks = Vec::new();
        let mut at = data_at;
        for chunk in samples.chunks(self.samples_in_chunk) {
            chunks.push((at, chunk.len() as u32, chunk[0].description));
            at += chunk.iter().map(|sample| sample.bytes.len() as u32).sum::<u32>();
        }
        let alike = (1u32..).zip(&chunks).flat_map(|(n, &(_, count, description))| [n, count, description]);
        let descriptions = [words([0, self.descriptions.len() as u32]), self.descriptions.concat()].concat();
        let sync: Vec<u32> = (1u32..).zip(samples).filter(|(_, s)| s.sync).map(|(n, _)| n).collect();
        let mut stbl = self.boxed(b"stsd", descriptions);
        let durations = samples.iter().flat_map(|s| [1, s.duration]);
        stbl.extend(self.boxed(b"stts", table(0, samples.len(), durations)));
        let offsets = samples.iter().flat_map(|s| [1, s.offset as u32]);
        stbl.extend(self.boxed(b"ctts", table(1, samples.len(), offsets)));
        stbl.extend(self.boxed(b"stss", table(0, sync.len(), sync)));
        stbl.extend(self.boxed(b"stsc", table(0, chunks.len(), alike)));
        let sizes = [0, 0, samples.len() as u32].into_iter().chain(samples.iter().map(|s| s.bytes.len() as u32));
        stbl.extend(self.boxed(b"stsz", words(sizes)));
        stbl.extend(self.boxed(b"stco", table(0, chunks.len(), chunks.iter().map(|chunk| chunk.0))));
        let mut moov = self.boxed(b"mvhd", mvhd());
        moov.extend(self.tracks.concat());
        moov.extend(self.track(1, stbl));
        moov.extend(self.boxed(b"mvex", boxed(b"trex", &words([0, 1, 1, 0, 0, 0]))));
        self.boxed(b"moov", moov)
    }

    fn track(&self, id: u32, stbl: Vec<u8>) -> Vec<u8> {
        let total: u32 = self.samples.iter().map(|s| s.duration).sum();
        let minf = [boxed(b"vmhd", &words([1, 0, 0])), self.boxed(b"stbl", stbl)].concat();
        let mdia = [
            self.boxed(b"mdhd", words([0, 0, 0, self.timescale, total, 0x55c4_0000])),
            self.boxed(b"hdlr", [&words([0, 0])[..], b"vide", &[0; 13]].concat()),
            self.boxed(b"minf", minf),
        ];
        let mut trak = self.boxed(b"tkhd", tkhd(id, true));
        if self.instead.contains_key(b"edts") {
            trak.extend(self.boxed(b"edts", Vec::new()));
        }
        trak.extend(self.boxed(b"mdia", mdia.concat()));
        self.boxed(b"trak", trak)
    }
}

const IDENTITY: [u32; 9] = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000];

fn mvhd() -> Vec<u8> {
    let mut body = words([0, 0, 0, 600, 600, 0x10000, 0x0100_0000, 0, 0]);
    body.extend(words(IDENTITY));
    body.extend(words([0, 0, 0, 0, 0, 0, 99]));
    body
}

pub(crate) fn tkhd(id: u32, enabled: bool) -> Vec<u8> {
    let mut body = words([6 | u32::from(enabled), 0, 0, id, 0, 600, 0, 0, 0, 0]);
    body.extend(words(IDENTITY));
    body.extend(words([96 << 16, 64 << 16]));
    body
}

/// A track of another kind. What is inside of its `stbl` is damaged, unless it is given.
pub(crate) fn other_track(id: u32, handler: &[u8; 4], stbl: &[u8]) -> Vec<u8> {
    let mdia = [
        boxed(b"mdhd", &words([0, 0, 0, 48000, 0, 0])),
        boxed(b"hdlr", &[&words([0, 0])[..], handler, &[0; 12]].concat()),
        boxed(b"minf", &boxed(b"stbl", stbl)),
    ];
    boxed(b"trak", &[boxed(b"tkhd", &tkhd(id, true)), boxed(b"mdia", &mdia.concat())].concat())
}

/// A file of fragments of so many samples each.
pub(crate) fn fragmented(movie: &Movie, each: usize, how: impl Fn(usize) -> Fragment) -> Vec<u8> {
    let mut file = boxed(b"ftyp", b"isom\0\0\x02\0isom");
    let index = Movie { samples: Vec::new(), ..movie.clone() };
    file.extend(index.index(0));
    for (n, samples) in movie.samples.chunks(each).enumerate() {
        file.extend(fragment(samples, file.len(), how(n)));
    }
    file
}

/// How a fragment is written.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fragment {
    /// `tfdt`, where there is one.
    pub(crate) time: Option<u64>,
    /// Where the data are counted from: the fragment's own place in the file, or the end of the data before, as old
    /// recorders do.
    pub(crate) base: Base,
    /// A track in front of the video, with this many bytes of data.
    pub(crate) other_bytes: Option<u32>,
    pub(crate) description: Option<u32>,
    /// Further samples are in a second `trun`, which does not say where its data are.
    pub(crate) runs: bool,
    /// Its number among the fragments.
    pub(crate) number: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Base {
    #[default]
    Moof,
    Stated,
    Implied,
}

/// A `moof` of samples and their data, at this place of the file.
pub(crate) fn fragment(samples: &[Sample], at: usize, how: Fragment) -> Vec<u8> {
    // twice, since where the data are depends on how long the box is
    let length = moof(samples, at, 0, how).len();
    let data: Vec<u8> = samples.iter().flat_map(|s| s.bytes.clone()).collect();
    let other = vec![0xab; how.other_bytes.unwrap_or(0) as usize];
    let mdat = boxed(b"mdat", &[other, data].concat());
    [moof(samples, at, length, how), mdat].concat()
}

fn moof(samples: &[Sample], at: usize, length: usize, how: Fragment) -> Vec<u8> {
    let mut body = boxed(b"mfhd", &words([0, how.number]));
    let data_at = (length + 8) as u32;
    if let Some(bytes) = how.other_bytes {
        let flags = if how.base == Base::Moof { 0x2_0000 } else { 0 };
        let tfhd = boxed(b"tfhd", &words([flags, 2]));
        // one sample, of which its own run says how large it is
        body.extend(boxed(b"traf", &[tfhd, boxed(b"trun", &words([0x201, 1, data_at, bytes]))].concat()));
    }
    let own_at = data_at + how.other_bytes.unwrap_or(0);
    let description = how.description.map_or(0, |_| 2);
    let tfhd = match how.base {
        Base::Moof => words([0x2_0000 | description, 1].into_iter().chain(how.description)),
        Base::Stated => words([1 | description, 1, 0, at as u32].into_iter().chain(how.description)),
        Base::Implied => words([description, 1].into_iter().chain(how.description)),
    };
    let mut traf = boxed(b"tfhd", &tfhd);
    if let Some(time) = how.time {
        traf.extend(boxed(b"tfdt", &words([1 << 24, (time >> 32) as u32, time as u32])));
    }
    let rows = |samples: &[Sample]| -> Vec<u32> {
        let row = |s: &Sample| [s.duration, s.bytes.len() as u32, u32::from(!s.sync) << 16, s.offset as u32];
        samples.iter().flat_map(row).collect()
    };
    let (first, second) = samples.split_at(if how.runs { samples.len() / 2 } else { samples.len() });
    // with another track's data before, and nothing said of a base, those follow it
    let stated = (how.base != Base::Implied || how.other_bytes.is_none()).then_some(own_at);
    let flags = 0x0100_0f00 | u32::from(stated.is_some());
    traf.extend(boxed(b"trun", &words([flags, first.len() as u32].into_iter().chain(stated).chain(rows(first)))));
    if how.runs {
        traf.extend(boxed(b"trun", &words([0x0100_0f00, second.len() as u32].into_iter().chain(rows(second)))));
    }
    body.extend(boxed(b"traf", &traf));
    boxed(b"moof", &body)
}
