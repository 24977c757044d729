//! What `millrace model` writes over: what it wrote itself, and with `--force` another file of the same kind. Never what it
//! reads, and never a file of another kind, such as a model or a graph.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// In the pictures that are drawn here, in a segment for applications.
pub(super) const MARK: &[u8] = b"millrace model\0";
/// Number of the segment.
pub(super) const SEGMENT: u8 = 15;
/// The mark is among the first segments.
const HEAD_BYTES: u64 = 4096;

/// A file to be written, and what the command reads.
pub(super) struct Target<'a> {
    /// Where.
    pub(super) path: &'a Path,
    /// The option that names it.
    pub(super) option: &'static str,
    /// `--force`.
    pub(super) force: bool,
    /// What is read: each with what it is.
    pub(super) read: &'a [(&'static str, &'a Path)],
}

impl Target<'_> {
    /// Whether a picture with boxes can be written there.
    ///
    /// # Errors
    /// What is there, and what to do.
    pub(super) fn is_for_a_picture(&self) -> Result<(), String> {
        self.check("picture", |head| contains(head, MARK), is_picture)
    }

    /// Whether the description of a model can be written there.
    ///
    /// # Errors
    /// As above. None is known to be this command's own: users complete them.
    pub(super) fn is_for_a_description(&self) -> Result<(), String> {
        self.check("description of a model", |_| false, is_description)
    }

    fn check(
        &self,
        kind: &str,
        is_ours: impl Fn(&[u8]) -> bool,
        is_alike: impl Fn(&[u8]) -> bool,
    ) -> Result<(), String> {
        let Self { path, option, force, read } = self;
        let (shown, other) = (path.display(), format!("give another path with {option}"));
        let found = match std::fs::metadata(path) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(format!("'{shown}' cannot be written: {e}; {other}")),
        };
        let same = |of: &Path| {
            std::fs::metadata(of).is_ok_and(|of| (of.dev(), of.ino()) == (found.dev(), found.ino()) && found.is_file())
        };
        if let Some((what, _)) = read.iter().find(|(_, of)| same(of)) {
            return Err(format!("'{shown}' is {what}, which is not written over; {other}"));
        }
        if found.is_dir() {
            return Err(format!("'{shown}' is a folder; {other}"));
        }
        // what a device or a pipe gets is lost to nobody, and so is nothing
        if !found.is_file() || found.len() == 0 {
            return Ok(());
        }
        let mut head = Vec::new();
        File::open(path)
            .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head))
            .map_err(|e| format!("'{shown}' exists and cannot be read: {e}; {other}"))?;
        match (is_ours(&head), *force, is_alike(&head)) {
            (true, ..) | (false, true, true) => Ok(()),
            (false, true, false) => {
                Err(format!("'{shown}' exists and is no {kind}, so that --force does not replace it; {other}"))
            }
            (false, false, true) => Err(format!("'{shown}' exists; {other}, or replace it with --force")),
            (false, false, false) => Err(format!("'{shown}' exists and is no {kind}; {other}")),
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn is_picture(head: &[u8]) -> bool {
    head.starts_with(b"\xff\xd8\xff") || head.starts_with(super::picture::PNG_START)
}

/// By the keys at the start of lines: one that cannot be read any more is a description, too.
fn is_description(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let has = |key: &str| text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
    has("schema") && (has("file") || has("head")) && !has("nodes")
}
