//! What a put carries.

use crate::config::Encodings;
use millrace_frame::{CameraMessage, CameraStatus, Detections, DetectionsMessage, wire};
use serde::Serialize;

/// The encoding field of JSON.
pub(crate) const JSON: &str = "application/json";
/// The encoding field of an Arrow IPC stream of the detections schema, version 1.
pub(crate) const ARROW: &str = "application/vnd.apache.arrow.stream;schema=millrace.detections.v1";

/// Why a frame could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(
        "camera {camera}, frame {seq}: {what} has a coordinate or score that is not a finite number; \
         the model or its model.yml is at fault"
    )]
    NotFinite { camera: String, seq: u64, what: String },
    #[error("camera {camera}, frame {seq}: {source}")]
    Json { camera: String, seq: u64, source: serde_json::Error },
    #[error("camera {camera}, frame {seq}: {source}")]
    Arrow { camera: String, seq: u64, source: wire::WireError },
}

/// `found` in each encoding that is wanted, with the encoding's name.
pub(crate) fn encode(found: &Detections, wanted: Encodings) -> Result<Vec<(&'static str, Vec<u8>)>, MessageError> {
    let (camera, seq) = (|| found.source.clone(), found.seq);
    if let Some(what) = found.not_finite() {
        return Err(MessageError::NotFinite { camera: camera(), seq, what });
    }
    let mut out = Vec::with_capacity(2);
    if wanted != Encodings::Arrow {
        let json = serde_json::to_vec(&DetectionsMessage::from(found)).map_err(|source| MessageError::Json {
            camera: camera(),
            seq,
            source,
        })?;
        out.push((JSON, json));
    }
    if wanted != Encodings::Json {
        let ipc =
            wire::detections_to_ipc(found).map_err(|source| MessageError::Arrow { camera: camera(), seq, source })?;
        out.push((ARROW, ipc));
    }
    Ok(out)
}

/// A camera's state, as JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "state")]
struct StateMessage<'a> {
    schema: u32,
    #[serde(flatten)]
    camera: CameraMessage<'a>,
}

/// The message on a camera's `state` key.
pub(crate) fn encode_state(status: &CameraStatus) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&StateMessage { schema: Detections::SCHEMA, camera: status.into() })
}
