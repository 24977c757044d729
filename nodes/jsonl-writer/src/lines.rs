//! A file of JSON lines that holds whole lines only.
//!
//! Each line goes to the file by one `write`, unbuffered: a reader that follows the file (`tail -f`) sees a frame as soon as
//! it is written, a killed process loses nothing that it reported as written, and a full disk shows at the very
//! frame that no longer fits. At camera rates the system call costs nothing worth saving.

use millrace_frame::{Detections, counted};
use millrace_node::create_file;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    #[error("PATH: cannot create {path}: the folder {folder} does not exist; make it first, or choose another PATH")]
    NoFolder { path: PathBuf, folder: PathBuf },
    #[error("PATH: cannot open {path} for writing: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "PATH: {path} ends in the middle of a line, so nothing can be appended to it; \
         remove its last line, or choose another PATH"
    )]
    HalfLine { path: PathBuf },
    #[error(
        "cannot write {line_bytes} bytes (camera {camera}, frame {seq}) to {path} after {}, \
         {written_bytes} bytes: {source}",
        counted(*lines, "line", "lines")
    )]
    Write {
        path: PathBuf,
        camera: String,
        seq: u64,
        line_bytes: usize,
        lines: u64,
        written_bytes: u64,
        source: io::Error,
    },
    #[error("{path}: the last {} could not be brought to the disk: {source}", counted(*lines, "line", "lines"))]
    Sync { path: PathBuf, lines: u64, source: io::Error },
    #[error(
        "camera {camera}, frame {seq}: {what} has a coordinate or score that is not a finite number, \
         which JSON cannot say; the model or its model.yml is at fault"
    )]
    NotFinite { camera: String, seq: u64, what: String },
    #[error("camera {camera}, frame {seq}: {source}")]
    Json { camera: String, seq: u64, source: serde_json::Error },
}

/// An open file of JSON lines.
#[derive(Debug)]
pub(crate) struct JsonLines {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
    lines: u64,
    written_bytes: u64,
    /// Length of the file up to its last whole line; `None` for what has no length (a pipe, a device).
    whole_bytes: Option<u64>,
}

impl JsonLines {
    /// Opens `path`: emptied, or with `append` behind its last line.
    pub(crate) fn open(path: &Path, append: bool) -> Result<Self, LinesError> {
        let failed = |source: io::Error| {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
            match folder {
                Some(folder) if source.kind() == io::ErrorKind::NotFound && !folder.exists() => {
                    LinesError::NoFolder { path: path.into(), folder: folder.into() }
                }
                _ => LinesError::Open { path: path.into(), source },
            }
        };
        let mut file = create_file(path, append).map_err(failed)?;
        let regular = file.metadata().map_err(failed)?.is_file();
        let mut whole_bytes = None;
        if regular {
            let end = file.seek(SeekFrom::End(0)).map_err(failed)?;
            if end > 0 {
                let mut last = [0];
                file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
                if last != *b"\n" {
                    return Err(LinesError::HalfLine { path: path.into() });
                }
            }
            whole_bytes = Some(end);
        }
        Ok(Self { file, path: path.into(), line: Vec::new(), lines: 0, written_bytes: 0, whole_bytes })
    }

    /// Writes one frame as one line.
    pub(crate) fn write(&mut self, found: &Detections) -> Result<(), LinesError> {
        if let Some(what) = found.not_finite() {
            return Err(LinesError::NotFinite { camera: found.source.clone(), seq: found.seq, what });
        }
        self.line.clear();
        serde_json::to_writer(&mut self.line, found).map_err(|source| LinesError::Json {
            camera: found.source.clone(),
            seq: found.seq,
            source,
        })?;
        self.line.push(b'\n');
        if let Err(source) = self.file.write_all(&self.line) {
            // what a full disk took of the line would look like a line of another layout to a reader
            // what is more than that is another writer's
            let most = self.whole_bytes.map(|whole| (whole, whole + self.line.len() as u64));
            if let Some((whole, most)) = most
                && self.file.metadata().is_ok_and(|found| found.len() <= most)
            {
                let _ = self.file.set_len(whole);
            }
            return Err(LinesError::Write {
                path: self.path.clone(),
                camera: found.source.clone(),
                seq: found.seq,
                line_bytes: self.line.len(),
                lines: self.lines,
                written_bytes: self.written_bytes,
                source,
            });
        }
        let bytes = self.line.len() as u64;
        self.lines += 1;
        self.written_bytes += bytes;
        self.whole_bytes = self.whole_bytes.map(|n| n + bytes);
        Ok(())
    }

    /// Brings everything to the disk, where a file system may still find that there is no room.
    pub(crate) fn finish(&mut self) -> Result<(), LinesError> {
        if self.whole_bytes.is_none() {
            return Ok(());
        }
        self.file.sync_all().map_err(|source| LinesError::Sync { path: self.path.clone(), lines: self.lines, source })
    }

    /// Lines written since the file was opened.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }
}
