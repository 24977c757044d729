//! The inputs of a node: a lease on a frame, or detections.

use crate::NodeError;
use millrace_cuda::{Gpu, Span, Stream};
use millrace_frame::{Detections, Item};
use std::borrow::Cow;
use std::sync::Arc;

/// One item that a node received.
#[derive(Clone, Debug)]
pub enum Input {
    /// An image, a tensor or a packet, in its slot.
    Frame(FrameLease),
    /// Detections. Their slot was given back when they were read.
    Detections(Detections),
}

impl Input {
    /// The camera that it is of.
    pub fn source(&self) -> &str {
        match self {
            Self::Frame(lease) => &lease.item().source,
            Self::Detections(found) => &found.source,
        }
    }

    /// Its frame's number within the camera.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Frame(lease) => lease.item().seq,
            Self::Detections(found) => found.seq,
        }
    }
}

/// The right to read one frame: its checked description, and a lease on its slot or a copy of its bytes. Clones are
/// cheap. The drop of the last clone gives the slot back, so keep a clone no longer than the work on the frame lasts.
#[derive(Clone, Debug)]
pub struct FrameLease {
    pub(super) item: Arc<Item>,
    pub(super) bytes: FrameBytes,
}

/// Where the frame's bytes are.
#[derive(Clone, Debug)]
pub(super) enum FrameBytes {
    /// In its producer's slot.
    InSlot(millrace_pool::SlotLease),
    /// In memory of this process. The slot was given back (`EXCHANGE: copy`).
    Copied(Arc<Vec<u8>>),
}

impl FrameLease {
    /// What it is. Checked against the slot's size: every plane and row that it names is there.
    pub fn item(&self) -> &Item {
        &self.item
    }

    /// The slot's bytes, from its start.
    ///
    /// # Panics
    /// When they are in a GPU's memory, which only a port with `on_gpu` accepts.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            FrameBytes::InSlot(lease) => lease.bytes(),
            FrameBytes::Copied(bytes) => bytes,
        }
    }

    /// The slot's bytes in host memory: in place, or a copy of a frame on a GPU, which this thread waits for.
    ///
    /// # Errors
    /// Those of the GPU: the frame is lost, as `copy`.
    pub fn on_host(&self) -> Result<Cow<'_, [u8]>, NodeError> {
        let lost = |e| NodeError::frame("copy", &self.item.source, format!("frame {}: {e}", self.item.seq));
        match &self.bytes {
            FrameBytes::InSlot(lease) if lease.gpu().is_some() => {
                lease.read(&self.item.fence, lease.slot_bytes() as usize).map(Cow::Owned).map_err(lost)
            }
            _ => Ok(Cow::Borrowed(self.bytes())),
        }
    }

    /// Waits, in this thread, until the frame is complete, and touches no byte of it: for nodes that only look when.
    ///
    /// # Errors
    /// Those of the GPU: the frame is lost, as `fence`.
    pub fn complete(&self) -> Result<(), NodeError> {
        let lost = |e| NodeError::frame("fence", &self.item.source, format!("frame {}: {e}", self.item.seq));
        match &self.bytes {
            FrameBytes::InSlot(lease) => lease.complete(&self.item.fence).map_err(lost),
            FrameBytes::Copied(_) => Ok(()),
        }
    }

    /// The GPU whose memory has the frame; `None` for host memory.
    pub fn gpu(&self) -> Option<&Gpu> {
        match &self.bytes {
            FrameBytes::InSlot(lease) => lease.gpu(),
            FrameBytes::Copied(_) => None,
        }
    }

    /// The slot's address on its GPU. Work that is queued in `stream` from here on begins when the frame is complete; the lease
    /// is to be held until that work is done ([`Outputs::hold`](crate::Outputs::hold)).
    ///
    /// # Errors
    /// The frame is in host memory, or its producer's event cannot be opened: the frame is lost, as `fence`.
    pub fn span(&self, stream: &Stream) -> Result<Span, NodeError> {
        let lost = |e: String| NodeError::frame("fence", &self.item.source, format!("frame {}: {e}", self.item.seq));
        match &self.bytes {
            FrameBytes::InSlot(lease) => lease.span(&self.item.fence, stream).map_err(|e| lost(e.to_string())),
            FrameBytes::Copied(_) => Err(lost("it was copied to host memory, by EXCHANGE=copy".to_owned())),
        }
    }
}
