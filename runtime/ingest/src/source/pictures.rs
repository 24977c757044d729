//! A folder of JPEG and PNG pictures, which are played in the natural order of their names: 2 before 10.

use super::jpegs::unreadable;
use super::{Source, SourceEvent, probe};
use crate::syntax::ParsedUnit;
use crate::syntax::still::{JPEG_START, PNG_START, StillReader, further_png};
use crate::{IngestError, Loss, LossOf};
use millrace_frame::PacketCodec;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

/// More than any picture; what is larger is something else.
const MAX_PICTURE_BYTES: u64 = 512 << 20;
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "jpe", "png"];

pub(super) struct Pictures {
    paths: IntoIter<PathBuf>,
    reader: StillReader,
    /// What is reported behind the last picture.
    queued: Option<Loss>,
}

impl Pictures {
    /// The pictures of a folder. `by_exif`: they are turned as they say.
    pub(super) fn folder(path: &Path, by_exif: bool) -> Result<Self, IngestError> {
        let not_open = |cause| IngestError::Open { path: path.into(), cause };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(path).map_err(not_open)? {
            let entry = entry.map_err(not_open)?.path();
            // a link to nothing, say, is a picture that is lost, and says so
            if is_picture(&entry) && !entry.is_dir() {
                paths.push(entry);
            }
        }
        if paths.is_empty() {
            let found = "a folder without JPEG or PNG pictures (.jpg, .jpeg, .png)".into();
            return Err(IngestError::NotVideo { path: path.into(), found, fix: probe::CONVERT });
        }
        paths.sort_by(|a, b| natural(name(a), name(b)));
        Ok(Self::of(paths, by_exif))
    }

    /// These pictures.
    pub(super) fn of(paths: Vec<PathBuf>, by_exif: bool) -> Self {
        Self { paths: paths.into_iter(), reader: StillReader::new(by_exif), queued: None }
    }

    fn picture(&mut self, path: &Path) -> Result<SourceEvent, Loss> {
        let lost = |why: String| Loss::new("damaged_sample", 1, format!("'{}': {why}", path.display()));
        let file = std::fs::metadata(path).map_err(|e| lost(e.to_string()))?;
        if !file.is_file() {
            return Err(lost("it is not a file".into())); // a pipe would be waited for
        }
        let bytes = file.len();
        if bytes > MAX_PICTURE_BYTES {
            return Err(Loss::new("oversized_unit", 1, format!("'{}' has {bytes} bytes", path.display())));
        }
        let data = std::fs::read(path).map_err(|e| lost(e.to_string()))?;
        let codec = match &data {
            data if data.starts_with(&JPEG_START) => PacketCodec::Jpeg,
            data if data.starts_with(&PNG_START) => PacketCodec::Png,
            _ => return Err(lost("it is neither a JPEG nor a PNG picture".into())),
        };
        let further = if codec == PacketCodec::Png { further_png(&data) } else { 0 };
        if further > 0 {
            let detail = format!("'{}' holds {further} more (an animation, or files that were joined)", path.display());
            self.queued = Some(Loss::of(LossOf::Parts, "unread_picture", further, detail));
        }
        let unit = self.reader.unit(codec, data).map_err(|why| lost(unreadable(&why).detail))?;
        let unit = ParsedUnit { path: Some(path.into()), ..unit };
        Ok(SourceEvent::Unit { unit, times: None, after_loss: false })
    }
}

impl Source for Pictures {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        if let Some(loss) = self.queued.take() {
            return Ok(SourceEvent::Loss(loss));
        }
        let Some(path) = self.paths.next() else { return Ok(SourceEvent::End) };
        Ok(self.picture(&path).unwrap_or_else(SourceEvent::Loss))
    }
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let is_hidden = name(path).starts_with(b".");
    !is_hidden && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn name(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_bytes()
}

/// Names in the order in which people count: numbers in them by their value.
fn natural(a: &[u8], b: &[u8]) -> Ordering {
    let (mut left, mut right) = (a, b);
    while let (Some(&l), Some(&r)) = (left.first(), right.first()) {
        let order = if l.is_ascii_digit() && r.is_ascii_digit() {
            let (l, r) = (number(&mut left), number(&mut right));
            l.len().cmp(&r.len()).then_with(|| l.cmp(r))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            l.cmp(&r)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    // the shorter first; of names that differ in zeros alone, by their bytes
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// The digits that a name goes on with, without zeros in front.
fn number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, tail) = rest.split_at(len);
    *rest = tail;
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_in_which_people_count() {
        let sorted = ["1.jpg", "01.jpg", "2.jpg", "10.jpg", "a.jpg", "a2b3.jpg", "a2b10.jpg", "a10b1.jpg", "b.jpg"];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|a, b| natural(a.as_bytes(), b.as_bytes()));
        let mut want = sorted;
        want.swap(0, 1);
        assert_eq!(names, want);
        let long = "9".repeat(40);
        assert_eq!(natural(long.as_bytes(), format!("1{long}").as_bytes()), Ordering::Less);
    }
}
