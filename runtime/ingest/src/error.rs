//! What can stop ingest. Loss inside a stream is not an error: it is a counted [`crate::Loss`].

use millrace_frame::PacketCodec;
use std::borrow::Cow;
use std::path::PathBuf;

/// Why a source cannot be opened, read or decoded at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum IngestError {
    #[error(
        "cannot open '{path}': {cause}; SOURCE must name a video file that can be read, or an rtsp:// or http:// URL"
    )]
    Open { path: PathBuf, cause: std::io::Error },
    #[error("cannot read '{path}' at byte {offset_bytes}: {cause}")]
    Read { path: PathBuf, offset_bytes: u64, cause: std::io::Error },
    #[error(
        "'{path}' is {found}, not video that can be read here; \
         expected MP4/MOV, Matroska/WebM, an MPEG transport stream, AVI or a byte stream (Annex-B), of H.264, H.265 or \
         Motion JPEG, or a folder of JPEG or PNG pictures; \
         {fix}"
    )]
    NotVideo { path: PathBuf, found: Cow<'static, str>, fix: &'static str },
    #[error("MP4 file '{path}': {reason}; {fix}")]
    Container { path: PathBuf, reason: String, fix: &'static str },
    #[error("{container} '{path}': {reason}; {fix}")]
    Refused { container: &'static str, path: PathBuf, reason: String, fix: &'static str },
    #[error("{codec} stream {what}, which the software decoder cannot decode; {fix}")]
    Unsupported { codec: PacketCodec, what: String, fix: &'static str },
    #[error("camera {url}: {reason}; {fix}")]
    Camera { url: String, reason: String, fix: &'static str },
}

/// Why a picture could not be written into a slot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum WriteError {
    #[error("the picture is to be written as {expected}, the description says {described}")]
    Format { expected: millrace_frame::PixelFormat, described: millrace_frame::PixelFormat },
    #[error("the picture cannot be converted: {0}")]
    Convert(String),
    #[error("the picture shows {picture}, the description has {described}")]
    Size { picture: millrace_frame::Size, described: millrace_frame::Size },
    #[error(transparent)]
    Layout(#[from] millrace_frame::LayoutError),
}
