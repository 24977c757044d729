//! Engines that were built, kept in a folder.
//!
//! An engine is machine code: TensorRT believes it. So a file has a header of ours, and one that is cut short, changed or
//! made for anything else is built again. Only the user can access the folder: a process that can write to it can run
//! code as the user.

use md5::{Digest, Md5};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"millrace engine 1\n";
const MD5_BYTES: usize = 16;

/// Where the engine of `key` is kept. Keys are texts that name all that an engine depends on.
pub(crate) fn file_of(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{:x}.engine", Md5::digest(key)))
}

/// `MAGIC`, length and text of the key, length and MD5 of the engine; then follows the engine.
fn header(key: &str, engine_bytes: usize, engine_md5: &[u8]) -> Vec<u8> {
    let lengths = [key.len() as u64, engine_bytes as u64].map(u64::to_le_bytes);
    [MAGIC, &lengths[0], key.as_bytes(), &lengths[1], engine_md5].concat()
}

/// The engine that is kept for `key`; `None` where there is none.
///
/// # Errors
/// Why the file that is there is not believed.
pub(crate) fn read(folder: &Path, key: &str) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = match std::fs::read(file_of(folder, key)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let header_bytes = header(key, 0, &[0; MD5_BYTES]).len();
    let engine = bytes.get(header_bytes..).ok_or("it is shorter than its header")?;
    if engine.is_empty() || bytes[..header_bytes] != header(key, engine.len(), &Md5::digest(engine)) {
        return Err("it is damaged, or of something else".to_owned());
    }
    bytes.drain(..header_bytes);
    Ok(Some(bytes))
}

/// Keeps an engine. Whoever reads sees the whole file or none.
///
/// # Errors
/// The file system's.
pub(crate) fn write(folder: &Path, key: &str, engine: &[u8]) -> std::io::Result<PathBuf> {
    let file = file_of(folder, key);
    put(folder, &file, &[&header(key, engine.len(), &Md5::digest(engine)), engine])?;
    Ok(file)
}

/// Notes under `kin`, a text that engines have in common which can serve in each other's place, the key of the last one.
///
/// # Errors
/// The file system's.
pub(crate) fn note_last(folder: &Path, kin: &str, key: &str) -> std::io::Result<()> {
    if last(folder, kin).as_deref() == Some(key) {
        return Ok(());
    }
    put(folder, &note_of(folder, kin), &[key.as_bytes()])
}

/// The key that was noted last under `kin`. Of a damaged note there is no engine.
pub(crate) fn last(folder: &Path, kin: &str) -> Option<String> {
    std::fs::read_to_string(note_of(folder, kin)).ok()
}

fn note_of(folder: &Path, kin: &str) -> PathBuf {
    file_of(folder, kin).with_extension("last")
}

fn put(folder: &Path, file: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let written = (|| {
        let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        parts.iter().try_for_each(|part| to.write_all(part))?;
        to.sync_all()?;
        std::fs::rename(&part, file)?;
        // the name too
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}
