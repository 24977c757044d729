//! A look over an MP4 file's boxes before they are parsed in earnest: how long the file says it is, and whether its sample
//! counts are sane. The parser allocates for as many samples as a box claims, and refuses a file that was cut short.

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
        let want = Outline { declared_end: whole, samples: 4_000_000_000, has_index: true };
        assert_eq!(outline(&mut Cursor::new(&file), whole).unwrap(), want);
        file.truncate(file.len() - 50);
        let cut = file.len() as u64;
        assert_eq!(outline(&mut Cursor::new(&file), cut).unwrap(), want, "cut in the media data");
        assert!(outline(&mut Cursor::new(&file[..40]), 40).unwrap().has_index);
    }
}
