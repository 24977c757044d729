//! Where the index and the fragments of a file are.

use super::Refusal;
use super::boxes::{Found, TopBox, behind_zeros, top_box};
use crate::source::probe::{self, PROBE_BYTES};
use mp4_atom::{Atom, Sidx};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// More than the index of any recording, and what a file of few bytes on the disk cannot make us allocate.
const MOST_INDEX_BYTES: u64 = 512 << 20;
/// More boxes of data than any recording has. Of further ones nobody asks who refers to them.
const MOST_DATA_BOXES: usize = 1_000_000;
/// A table of 65535 rows of 12 bytes, and its head.
const MOST_SIDX_BYTES: u64 = 1 << 20;

/// The boxes of a file that matter.
pub(super) struct Index {
    /// The body of `moov`.
    pub moov: Vec<u8>,
    pub fragments: Vec<TopBox>,
    /// The boxes that hold data.
    pub data: Vec<TopBox>,
    /// The file is shorter than it says.
    pub short: Option<String>,
    /// The same by its last box, which matters where no sample is missing: what it swallows is not known.
    pub cut: Option<String>,
    /// Why what follows the last fragment is not read.
    pub lost: Option<String>,
    /// Another recording that follows within this file.
    pub unread: Option<String>,
}

/// The body of a box that is read whole; `None` where it is larger than any index.
pub(super) fn body(file: &File, at: &TopBox, len: u64) -> io::Result<Option<Vec<u8>>> {
    let bytes = at.end.min(len).saturating_sub(at.body);
    if bytes > MOST_INDEX_BYTES {
        return Ok(None);
    }
    let mut body = vec![0; bytes as usize];
    file.read_exact_at(&mut body, at.body)?;
    Ok(Some(body))
}

/// Looks over the boxes of a file of `len` bytes.
pub(super) fn read(file: &File, len: u64) -> io::Result<Result<Index, Refusal>> {
    let (mut moov, mut fragments, mut lost, mut at) = (None, Vec::new(), None, 0);
    let (mut cut_in, mut further, mut data_behind) = (None, Vec::new(), false);
    let (mut data, mut stated_end, mut began, mut strange) = (Vec::new(), 0, None, None);
    loop {
        let found = match top_box(file, at, len)? {
            Found::Box(found) if moov.is_some() && !found.can_be(len) => Found::Junk,
            found => found,
        };
        match found {
            Found::End => {
                if let Some(data) = behind_zeros(file, at, len)? {
                    lost = Some(format!(
                        "the bytes at {at} are zeros, and at {data} there are data; fragments behind them are not read"
                    ));
                }
                break;
            }
            Found::Junk => {
                strange = Some(at);
                lost = Some(match len - at {
                    0..8 => format!("the file ends early at byte {len}, inside of the head of a box"),
                    _ => format!("the bytes at {at} are no box; fragments behind them are not read"),
                });
                break;
            }
            Found::Box(found) => {
                match &found.kind.0 {
                    b"moov" if moov.is_none() => moov = Some(found),
                    // of the same data, a second one would contradict the first
                    b"moov" if data_behind => further.push((found, began.take().unwrap_or(found.start))),
                    // a file begins within the file
                    b"ftyp" if moov.is_some() => (data_behind, began) = (true, Some(found.start)),
                    b"mdat" => data_behind |= moov.is_some(),
                    b"moof" if found.end > found.body => fragments.push(found),
                    b"sidx" => stated_end = stated_end.max(indexed_end(file, &found, len)?),
                    _ => {}
                }
                if &found.kind.0 == b"mdat" && found.end > found.body && data.len() < MOST_DATA_BOXES {
                    data.push(found);
                }
                if found.end > len {
                    cut_in = Some(found);
                    if &found.kind.0 == b"moof" {
                        lost = Some(format!(
                            "the file ends early at byte {len}, inside of the fragment at {}",
                            found.start
                        ));
                        fragments.pop();
                    }
                }
                at = found.end;
            }
        }
    }
    let refused = |reason: String, fix| Ok(Err(Refusal { reason, fix }));
    let cut =
        cut_in.map_or_else(String::new, |of| format!(", and it ends early at byte {len}, inside of its '{}'", of.kind));
    let Some(moov) = moov else {
        if !fragments.is_empty() {
            let fix = "it is a segment of a stream; put the initialization segment in front of it";
            return refused("it has fragments but no index".to_owned(), fix);
        }
        let fix = "the recording was cut short before its index (moov) was written; recover it with another tool";
        return refused(format!("it has no index{cut}"), fix);
    };
    if moov.end > len {
        let fix = "the recording or its copy was cut short; copy it again, or recover it with another tool";
        return refused(format!("its index is not whole: it ends early at byte {len}"), fix);
    }
    let Some(body) = body(file, &moov, len)? else {
        let reason = format!("its index claims {} bytes, more than {MOST_INDEX_BYTES}", moov.end - moov.body);
        return refused(reason, "the file is damaged");
    };
    let other = strange.map(|at| recording(file, at)).transpose()?.flatten();
    let lost = lost.filter(|_| (!fragments.is_empty() || cut_in.is_some()) && other.is_none());
    let is_short = stated_end > len && lost.is_none() && cut_in.is_none();
    let short = is_short.then(|| {
        format!("the file ends early at byte {len}: its index of fragments (sidx) has them up to byte {stated_end}")
    });
    let cut = cut_in.filter(|_| !fragments.is_empty() && lost.is_none() && short.is_none()).map(|of| {
        let TopBox { kind, start, end, .. } = of;
        format!("the file ends early at byte {len}: its box '{kind}' at {start} claims to end at byte {end}")
    });
    let mut unread = strange.zip(other).map(|(at, kind)| {
        format!(
            "{kind} follows within this file at byte {at}, and is not read; split them, or join them with a tool that knows \
             both"
        )
    });
    for (other, begins) in further {
        // in front of a further part of a stream there may be its initialization segment once more
        if fragments.is_empty() || !is_alike(file, &body, &other, len)? {
            unread = Some(format!(
                "another recording follows within this file, whose index is at byte {}, and is not read; split them, or join \
                 them with a tool that knows MP4",
                other.start
            ));
            fragments.retain(|fragment| fragment.start < begins);
            data.retain(|data| data.start < begins);
            break;
        }
    }
    Ok(Ok(Index { moov: body, fragments, data, short, cut, lost, unread }))
}

/// The kind of recording that begins at `at`.
fn recording(file: &File, at: u64) -> io::Result<Option<&'static str>> {
    let mut head = vec![0; PROBE_BYTES as usize];
    let bytes = file.read_at(&mut head, at)?;
    Ok(probe::recording(&head[..bytes]))
}

/// Whether a further index is the first one again.
fn is_alike(file: &File, first: &[u8], other: &TopBox, len: u64) -> io::Result<bool> {
    let is_as_long = other.end.min(len).saturating_sub(other.body) == first.len() as u64;
    Ok(is_as_long && body(file, other, len)?.is_some_and(|other| other == first))
}

/// Where the fragments of an index of them end (ISO/IEC 14496-12, 8.16.3): their sizes are counted from behind the box.
fn indexed_end(file: &File, at: &TopBox, len: u64) -> io::Result<u64> {
    if at.end > len || at.end - at.body > MOST_SIDX_BYTES {
        return Ok(0);
    }
    let sidx = body(file, at, len)?.and_then(|body| Sidx::decode_body(&mut &body[..]).ok());
    Ok(sidx.map_or(0, |sidx| {
        let bytes: u64 = sidx.references.iter().map(|part| u64::from(part.referenced_size)).sum();
        at.end.saturating_add(sidx.first_offset).saturating_add(bytes)
    }))
}
