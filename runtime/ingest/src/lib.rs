//! Encoded video from files and cameras: sources, demultiplexing, access units with their presentation times, and
//! software decoding to NV12.
//!
//! Two halves that know nothing of each other: [`Ingest`] turns a source into [`AccessUnit`]s in decoding order, for any
//! decoder; [`SoftwareDecoder`] turns access units into [`Picture`]s in presentation order. [`PacedSource`] gives a source's
//! units out at their times, again and again where that is asked for, and [`Admission`] decides which of them a decoder
//! outside of this crate gets: what the nodes that decode have in common. Loss inside a stream never
//! ends it: it comes out as a counted [`Loss`], and pictures go on at the next key picture.
#![forbid(unsafe_code)]

mod admission;
mod bgr;
mod decode;
mod error;
mod ingest;
mod paced_source;
mod picture;
mod ranks;
mod reorder;
mod settings;
mod source;
mod state;
mod syntax;
mod turn;

pub use admission::{Admission, Admitted, AdmittedUnit};
pub use decode::{Decoded, SoftwareDecoder};
pub use error::{IngestError, WriteError};
pub use ingest::{
    AccessUnit, CAMERA_STOPPED, Event, FRAME_RATE_IGNORED, Ingest, IngestOptions, Loss, LossOf, RtspTransport,
};
pub use paced_source::{AfterEnd, PacedSource, PacedSourceError, PacedStep};
pub use picture::Picture;
pub use reorder::{BoundOrigin, PresentationOrder, Pushed, Reorder, ReorderPolicy};
pub use settings::{FrameFormat, MatrixName, OrientationName, Pace, RangeName, SourceSettings, Transport};
#[cfg(fuzzing)]
pub use source::fuzzing;
pub use source::{check_source, is_camera_url, redact_url};
pub use state::{Counted, SourceState};
pub use syntax::{Order, StreamInfo, annexb_nals};
