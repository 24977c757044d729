//! The wire schema: how an [`Item`](crate::Item) and [`Detections`](crate::Detections) cross from process to process.
//!
//! Two encodings of the same fields, both headed by [`SCHEMA`]:
//! - [`row`]: a single-row Arrow `StructArray`, the dora message. Any Arrow reader in any language understands it.
//! - [`compact`]: the encoding in a pool's control block and in the slots of detections.
//!
//! A field never changes its meaning. A change gets a new number, and a reader refuses a number that it does not know.

pub mod compact;
mod detections;
pub mod row;
mod shapes;

pub use detections::{detections_from_ipc, detections_to_ipc};

/// Version of the schema that this build writes, and the only one that it reads.
pub const SCHEMA: u32 = 1;

/// Why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum WireError {
    #[error(
        "the message has wire schema {found}, this node reads {SCHEMA}: build both nodes from the same Millrace version"
    )]
    Version { found: u32 },
    #[error("the message has no field '{field}' of type {expected}")]
    Field { field: &'static str, expected: &'static str },
    #[error("field '{field}' has the value {value}, which wire schema {SCHEMA} does not define")]
    Value { field: &'static str, value: String },
    #[error("the message is not one row of a struct, but {0}")]
    Shape(String),
    #[error("the encoding is damaged: {0}")]
    Damaged(String),
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
