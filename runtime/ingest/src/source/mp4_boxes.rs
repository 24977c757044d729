//! A look over an MP4 file's boxes before they are parsed in earnest: how long the file says it is, and whether its sample
//! counts are sane. The parser allocates for as many samples as a box claims, refuses a file that was cut short, and goes
//! round in circles where a box claims to be shorter than its own header.

use std::io::{Read, Result, Seek, SeekFrom};

/// A day of video at 100 frames a second has 9 million.
pub(super) const MAX_SAMPLES: u64 = 20_000_000;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    /// Where the last box says it ends.
    pub declared_end: u64,
    /// Samples of all tracks.
    pub samples: u64,
    pub has_index: bool,
    /// Bytes of media data, which the parser steps over.
    pub media_bytes: u64,
}

/// A reader that refuses after a number of calls: what a parser needs for as many bytes, and no circle.
pub(super) struct Bounded<R> {
    inner: R,
    calls_left: u64,
}

impl<R> Bounded<R> {
    /// Enough calls for `index_bytes` of boxes. Tables are read in steps of four bytes or more, the smallest box has eight,
    /// and takes fewer than ten calls.
    pub(super) fn new(inner: R, index_bytes: u64) -> Self {
        Self { inner, calls_left: index_bytes.saturating_mul(2).saturating_add(10_000) }
    }

    fn count(&mut self) -> Result<()> {
        let circle = || std::io::Error::other("its boxes lead back to where they began");
        self.calls_left = self.calls_left.checked_sub(1).ok_or_else(circle)?;
        Ok(())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.count()?;
        self.inner.read(buf)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.count()?;
        self.inner.seek(to)
    }
}

/// Walks the boxes of a file of `len` bytes. Damage ends the walk, it is no error.
pub(super) fn outline<R: Read + Seek>(reader: &mut R, len: u64) -> Result<Outline> {
    let mut outline = Outline::default();
    walk(reader, 0, len, 0, &mut outline)?;
    Ok(outline)
}

fn walk<R: Read + Seek>(r: &mut R, mut at: u64, end: u64, depth: u32, out: &mut Outline) -> Result<()> {
    while end.saturating_sub(at) >= 8 {
        r.seek(SeekFrom::Start(at))?;
        let (mut size, kind) = (u64::from(be32(r)?), be32(r)?.to_be_bytes());
        let mut header = 8;
        if size == 1 {
            size = u64::from(be32(r)?) << 32 | u64::from(be32(r)?);
            header = 16;
        }
        if size == 0 {
            size = end - at;
        }
        let next = at.saturating_add(size);
        if size < header {
            return Ok(());
        }
        if depth == 0 {
            out.declared_end = next;
            if &kind == b"mdat" {
                out.media_bytes += next.min(end) - at;
            }
        }
        out.has_index |= &kind == b"moov";
        match &kind {
            b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"moof" | b"traf" if depth < 6 => {
                walk(r, at + header, next.min(end), depth + 1, out)?;
            }
            b"stsz" if next - at >= header + 12 => {
                be32(r)?; // version and flags
                be32(r)?; // the size of all samples
                out.samples += u64::from(be32(r)?);
            }
            b"trun" if next - at >= header + 8 => {
                be32(r)?;
                out.samples += u64::from(be32(r)?);
            }
            _ => {}
        }
        at = next;
    }
    Ok(())
}

fn be32(r: &mut impl Read) -> Result<u32> {
    let mut b = [0; 4];
    r.read_exact(&mut b)?;
    Ok(u32::from_be_bytes(b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Cursor;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    }

    #[test]
    fn counts_and_length_are_what_the_boxes_claim() {
        let stsz = boxed(b"stsz", &[[0; 4], 9u32.to_be_bytes(), 4_000_000_000u32.to_be_bytes()].concat());
        let nested = [b"stbl", b"minf", b"mdia", b"trak", b"moov"].iter().fold(stsz, |b, kind| boxed(kind, &b));
        let mut file = [boxed(b"ftyp", b"isom"), nested, boxed(b"mdat", &[7; 90])].concat();
        let whole = file.len() as u64;
        let want = Outline { declared_end: whole, samples: 4_000_000_000, has_index: true, media_bytes: 98 };
        assert_eq!(outline(&mut Cursor::new(&file), whole).unwrap(), want);
        file.truncate(file.len() - 50);
        let cut = file.len() as u64;
        let want = Outline { media_bytes: 48, ..want };
        assert_eq!(outline(&mut Cursor::new(&file), cut).unwrap(), want, "cut in the media data");
        assert!(outline(&mut Cursor::new(&file[..40]), 40).unwrap().has_index);
    }

    #[test]
    fn a_bounded_reader_gives_everything_once_and_no_circle() {
        let data = vec![7u8; 5000];
        let mut reader = Bounded::new(Cursor::new(&data), data.len() as u64);
        for _ in 0..data.len() / 4 {
            assert_eq!(be32(&mut reader).unwrap(), 0x0707_0707);
        }
        let refused = (0..100_000).find_map(|_| reader.seek(SeekFrom::Start(0)).err());
        assert_eq!(refused.unwrap().to_string(), "its boxes lead back to where they began");
    }
}
