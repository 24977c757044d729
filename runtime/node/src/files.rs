//! Files that nodes write.

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens `path` to be written: emptied, or with `append` behind what it holds, also where another process writes to it.
///
/// # Errors
/// The system's; of a pipe that nobody reads, where the system would wait without a word.
pub fn create_file(path: &Path, append: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    // a device or a pipe can't be read; a file's last line is looked at before anything is appended
    let regular = std::fs::metadata(path).is_ok_and(|found| found.is_file());
    if append {
        options.append(true).read(regular);
    } else {
        options.write(true).truncate(true);
    }
    let file = options.open(path).map_err(|error| {
        let is_pipe = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        if is_pipe && error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) {
            io::Error::other("nobody reads this pipe; start its reader first")
        } else {
            error
        }
    })?;
    // the flag was for the opening alone: a slow reader of a pipe is waited for
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::io::{Read, Write};

    #[test]
    fn what_is_there_is_emptied_or_continued_whoever_else_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        create_file(&path, false).unwrap().write_all(b"old\n").unwrap();
        let (mut a, mut b) = (create_file(&path, true).unwrap(), create_file(&path, true).unwrap());
        a.write_all(b"a\n").unwrap();
        b.write_all(b"b\n").unwrap();
        a.write_all(b"c\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\na\nb\nc\n");
        create_file(&path, false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_pipe_is_written_where_somebody_reads_it_and_refused_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for append in [false, true] {
            assert!(create_file(&path, append).unwrap_err().to_string().contains("nobody reads this pipe"));
        }
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
                text
            })
        };
        let mut file = loop {
            match create_file(&path, false) {
                Ok(file) => break file,
                Err(_) => std::thread::yield_now(),
            }
        };
        // more than a pipe holds: it is waited for
        let long = "x".repeat(1 << 18);
        file.write_all(long.as_bytes()).unwrap();
        drop(file);
        assert_eq!(reader.join().unwrap(), long);
    }
}
