//! The elements of an EBML file (RFC 8794), one after the other, whether or not they say how long they are.

use mkv_element::io::blocking_impl::ReadFrom as _;
use mkv_element::prelude::{Cluster, Element as _, Header, Segment, VInt64};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// An identifier has at most four bytes, a size eight.
const MAX_HEADER_BYTES: usize = 12;
/// More than any level allows for a picture, and more than any list of tracks needs.
const MAX_BODY_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub(super) id: VInt64,
    pub(super) body_at: u64,
    /// `None`: it ends where something begins that cannot be in it.
    pub(super) size: Option<u64>,
}

/// What begins at a position of the file.
#[derive(Debug)]
pub(super) enum NextElement {
    Element(Element),
    /// What is here is no element.
    Damaged,
    End,
}

pub(super) struct Elements {
    file: File,
    len: u64,
    pub(super) at: u64,
    /// Where the last segment ends, by its own word.
    segment_end: Option<u64>,
}

impl Elements {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len, at: 0, segment_end: None })
    }

    /// The element that begins here. Its body is next: [`Self::skip`] or [`Self::body`] go past it.
    pub(super) fn next(&mut self) -> io::Result<NextElement> {
        let mut bytes = [0; MAX_HEADER_BYTES];
        let there = read_up_to(&self.file, &mut bytes, self.at)?;
        if there == 0 {
            return Ok(NextElement::End);
        }
        let mut rest = &bytes[..there];
        let Ok(Header { id, size }) = Header::read_from(&mut rest) else { return Ok(NextElement::Damaged) };
        self.at += (there - rest.len()) as u64;
        // all bits of a size set: unknown
        let size = (!size.is_unknown && *size < (1 << 56) - 1).then_some(*size);
        if id == Segment::ID {
            self.segment_end = size.and_then(|size| self.at.checked_add(size));
        }
        Ok(NextElement::Element(Element { id, body_at: self.at, size }))
    }

    /// Where the segment ends that the file does not hold to its end.
    pub(super) fn is_cut_before(&self) -> Option<u64> {
        self.segment_end.filter(|&end| end > self.len)
    }

    /// Whether the whole element is in the file.
    pub(super) fn holds(&self, element: &Element) -> bool {
        element.size.is_some_and(|size| element.body_at.checked_add(size).is_some_and(|end| end <= self.len))
    }

    pub(super) fn skip(&mut self, element: &Element) {
        self.at = element.body_at.saturating_add(element.size.unwrap_or(0));
    }

    /// The element's body; `None` where it is not whole, or too long to be meant.
    pub(super) fn body(&mut self, element: &Element) -> io::Result<Option<Vec<u8>>> {
        let Some(size) = element.size.filter(|&size| self.holds(element) && size <= MAX_BODY_BYTES) else {
            return Ok(None);
        };
        let mut body = vec![0; size as usize];
        let there = read_up_to(&self.file, &mut body, element.body_at)?;
        self.skip(element);
        Ok((there == body.len()).then_some(body))
    }

    /// Goes to the next cluster from `from` on; whether there is one.
    pub(super) fn find_cluster(&mut self, from: u64) -> io::Result<bool> {
        let id = (Cluster::ID.as_encoded() as u32).to_be_bytes();
        let mut chunk = vec![0; 256 << 10];
        let mut at = from;
        loop {
            let there = read_up_to(&self.file, &mut chunk, at)?;
            if let Some(found) = chunk[..there].windows(id.len()).position(|w| w == id) {
                self.at = at + found as u64;
                return Ok(true);
            }
            if there < chunk.len() {
                self.at = self.len;
                return Ok(false);
            }
            // an identifier may be in two chunks
            at += (there - (id.len() - 1)) as u64;
        }
    }
}

/// As much as the file has.
fn read_up_to(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match file.read_at(&mut buf[got..], at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
