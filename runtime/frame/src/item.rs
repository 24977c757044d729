//! One item that a node publishes to others: its slot and pool, its frame, and the contents of the slot.

use crate::{Detections, ImageDesc, LayoutError, PacketDesc, TensorDesc, Timing};
use serde::{Deserialize, Serialize};

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// Host memory.
    Host,
    /// The memory of the GPU with this ordinal.
    Cuda(u32),
}

/// What a reader waits for before the bytes are complete.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fence {
    /// Nothing: they are complete.
    Complete,
    /// An interprocess CUDA event, by its 64-byte handle.
    CudaEvent(Vec<u8>),
}

/// A slot of a pool, as one publication used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotRef {
    /// The pool, unique on this machine for as long as it runs.
    pub pool: u128,
    /// The process that owns the pool, where the pool is opened from.
    pub owner_pid: u32,
    /// The pool's file descriptor in that process.
    pub owner_fd: u32,
    /// Which run of its node made the pool: a restarted node has a higher one.
    pub incarnation: u64,
    /// Number of this publication on this pool, from 0 without gaps.
    pub ticket: u64,
    /// The slot.
    pub slot: u32,
    /// How often the slot had been reused.
    pub generation: u32,
}

/// What lies in the slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Pixels.
    Image(ImageDesc),
    /// A model's input.
    Tensor(TensorDesc),
    /// An encoded picture.
    Packet(PacketDesc),
    /// Detections in the compact encoding of [`crate::wire`].
    Detections {
        /// Length of the encoding.
        len_bytes: u32,
    },
}

/// The kind of a payload: what a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadKind {
    /// Pixels.
    Image,
    /// A model's input.
    Tensor,
    /// Encoded pictures.
    Packet,
    /// Detections.
    Detections,
}

impl Payload {
    /// The kind.
    pub const fn kind(&self) -> PayloadKind {
        match self {
            Self::Image(_) => PayloadKind::Image,
            Self::Tensor(_) => PayloadKind::Tensor,
            Self::Packet(_) => PayloadKind::Packet,
            Self::Detections { .. } => PayloadKind::Detections,
        }
    }

    /// The bytes that it is made of, rows without their padding: what a node that reads or writes it moves.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Image(image) => image.bytes(),
            Self::Tensor(tensor) => tensor.bytes(),
            Self::Packet(PacketDesc { len_bytes, .. }) | Self::Detections { len_bytes } => u64::from(*len_bytes),
        }
    }

    /// Where it ends in its slot, from the slot's start: more than [`bytes`](Self::bytes) where planes lie apart.
    pub fn end_bytes(&self) -> u64 {
        match self {
            Self::Image(image) => image.end_bytes(),
            _ => self.bytes(),
        }
    }

    /// Checks that all of it fits in a slot of `have_bytes`.
    pub fn validate(&self, have_bytes: u64) -> Result<(), LayoutError> {
        match self {
            Self::Image(image) => image.validate(have_bytes),
            Self::Tensor(tensor) => tensor.validate(have_bytes),
            Self::Packet(PacketDesc { len_bytes, .. }) | Self::Detections { len_bytes } => {
                let end_bytes = u64::from(*len_bytes);
                if end_bytes > have_bytes {
                    return Err(LayoutError::Outside { plane: 0, end_bytes, have_bytes });
                }
                Ok(())
            }
        }
    }
}

/// One publication: the frame's identity and times, and the contents of its slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Camera id.
    pub source: String,
    /// Number of the frame within its source, from 0 in presentation order.
    pub seq: u64,
    /// Times.
    pub timing: Timing,
    /// Where the bytes are.
    pub device: Device,
    /// What to wait for.
    pub fence: Fence,
    /// What lies in the slot.
    pub payload: Payload,
}

impl Item {
    /// A description of complete bytes in host memory.
    pub fn on_host(source: impl Into<String>, seq: u64, timing: Timing, payload: Payload) -> Self {
        Self { source: source.into(), seq, timing, device: Device::Host, fence: Fence::Complete, payload }
    }

    /// The detections' own item.
    pub fn of_detections(found: &Detections, timing: Timing, len_bytes: u32) -> Self {
        Self::on_host(found.source.clone(), found.seq, timing, Payload::Detections { len_bytes })
    }
}
