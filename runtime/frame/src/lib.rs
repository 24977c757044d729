//! What Millrace says about a frame: formats, planes, pitch, colour, time, detections, and the wire schema
//! that carries all of it between nodes.
//!
//! This crate holds descriptions, never pixels: the bytes stay in the pool that the description names.
#![forbid(unsafe_code)]

#[macro_use]
mod wire_enum;

pub mod camera;
pub mod colour;
pub mod detections;
pub mod format;
pub mod item;
pub mod orientation;
pub mod time;
pub mod wire;
mod words;

pub use camera::{CameraMessage, CameraState, CameraStatus};
pub use colour::{ChromaSiting, Colour, Matrix, Origin, Primaries, Range, Tagged, Transfer};
pub use detections::{ClassScore, DetBox, Detections, DetectionsMessage, Keypoint, Oriented};
pub use format::{
    ImageDesc, LayoutError, Letterbox, PacketCodec, PacketDesc, PixelFormat, Plane, Rect, Size, TensorDesc,
    TensorDtype, TensorLayout,
};
pub use item::{Device, Fence, Item, Payload, PayloadKind, SlotRef};
pub use orientation::Orientation;
pub use time::{Timebase, Timing, monotonic_ns, unix_ns};
pub use words::counted;
