//! Boxes: those of a file, read one header at a time, and those inside of a box that is in memory.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// The four characters that name a box, a handler or a codec.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{self}'")
    }
}

/// The boxes inside of a box, in their order. The walk ends where there is no room for a further header. A box that claims
/// more bytes than there are gets those that there are: its own reader knows what it lacks.
pub(super) fn children(mut body: &[u8]) -> impl Iterator<Item = (FourCc, &[u8])> {
    std::iter::from_fn(move || {
        let (&head, rest) = body.split_first_chunk::<8>()?;
        let [s0, s1, s2, s3, kind @ ..] = head;
        let (header, size) = match u32::from_be_bytes([s0, s1, s2, s3]) {
            0 => (8, body.len() as u64),
            1 => (16, u64::from_be_bytes(*rest.first_chunk()?)),
            size => (8, u64::from(size)),
        };
        let end = usize::try_from(size).unwrap_or(usize::MAX).min(body.len());
        let content = body.get(header..end)?;
        body = &body[end..];
        Some((FourCc(kind), content))
    })
}

/// The first box of a kind inside of a box.
pub(super) fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(body).find(|(found, _)| &found.0 == kind).map(|(_, body)| body)
}

/// A box of the file itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopBox {
    pub kind: FourCc,
    pub start: u64,
    pub body: u64,
    /// Where it says that it ends, which may be behind the end of the file.
    pub end: u64,
}

impl TopBox {
    /// Whether it can be a box behind the index of a file of `len` bytes: one of an unknown kind that would be larger than the
    /// file, or whose name cannot be read, is the first bytes of something else.
    pub(super) fn can_be(&self, len: u64) -> bool {
        const KNOWN: [&[u8; 4]; 8] = [b"mdat", b"moof", b"moov", b"mfra", b"free", b"skip", b"uuid", b"styp"];
        let is_name = self.kind.0.iter().all(|byte| (b' '..=b'~').contains(byte));
        is_name && (self.end <= len || KNOWN.contains(&&self.kind.0))
    }
}

/// What is at a place of the file where a box is expected.
pub(super) enum Found {
    Box(TopBox),
    /// Nothing more: the end of the file, or the zeros that some recorders fill a file up with.
    End,
    /// Bytes that are the header of no box.
    Junk,
}

/// Reads the header at `at` in a file of `len` bytes.
pub(super) fn top_box(file: &File, at: u64, len: u64) -> io::Result<Found> {
    let mut head = [0; 16];
    let left = len.saturating_sub(at);
    let known = &mut head[..left.min(16) as usize];
    match file.read_exact_at(known, at) {
        // shortened since it was opened
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Found::End),
        read => read?,
    }
    if head[..8] == [0; 8] {
        return Ok(Found::End);
    }
    if left < 8 {
        return Ok(Found::Junk);
    }
    let [s0, s1, s2, s3, k0, k1, k2, k3, large @ ..] = head;
    let (header, size) = match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => (8, left),
        1 => (16, u64::from_be_bytes(large)),
        size => (8, u64::from(size)),
    };
    if size < header {
        return Ok(Found::Junk);
    }
    let kind = FourCc([k0, k1, k2, k3]);
    Ok(Found::Box(TopBox { kind, start: at, body: at + header, end: at.saturating_add(size) }))
}

/// Where data follow behind the zeros at `at`.
pub(super) fn behind_zeros(file: &File, mut at: u64, len: u64) -> io::Result<Option<u64>> {
    let mut part = vec![0; 1 << 20];
    while at < len {
        let bytes = file.read_at(&mut part, at)?;
        match part[..bytes].iter().position(|byte| *byte != 0) {
            Some(place) => return Ok(Some(at + place as u64)),
            None if bytes == 0 => break,
            None => at += bytes as u64,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_every_size_field_are_walked_and_none_leads_back() {
        let mut body = b"\0\0\0\x0aaaaaxy".to_vec();
        body.extend_from_slice(b"\0\0\0\x01bbbb\0\0\0\0\0\0\0\x11z");
        body.extend_from_slice(b"\0\0\0\0ccccrest");
        let found: Vec<_> = children(&body).map(|(kind, body)| (kind.to_string(), body)).collect();
        let want: [(&str, &[u8]); 3] = [("aaaa", b"xy"), ("bbbb", b"z"), ("cccc", b"rest")];
        assert_eq!(found, want.map(|(kind, body)| (kind.to_owned(), body)));
        for short in 1..8 {
            assert_eq!(children(&[0, 0, 0, short, b'a', b'a', b'a', b'a', 0]).count(), 0, "size {short}");
        }
        let claims_more: Vec<_> = children(b"\0\0\x01\0aaaaxy").collect();
        assert_eq!(claims_more, [(FourCc(*b"aaaa"), &b"xy"[..])]);
        // QuickTime ends some lists with a size of 0 and no kind
        assert_eq!(children(&[0; 4]).count(), 0);
    }
}
