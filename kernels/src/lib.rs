//! What Millrace does to pixels: from a decoded frame to a model's input tensor, in one pass.
//!
//! | module | what |
//! |---|---|
//! | [`geometry`] | the picture's position in the model's input, and the way back for boxes |
//! | [`target`] | what a model wants: size, layout, element type, channel order, normalization |
//! | [`convert`] | the fused pass: colour, resize, letterbox, normalization, layout |
//! | [`cuda`] | the same pass on a GPU, many frames in one launch; and the way of a detector's outputs from there |
//! | [`passes`] | the same job as separate passes over full-size RGB: the baseline of an A/B run |
//! | [`reference`](mod@reference) | the same job in `f64`, written from the formulas, that tests compare with |
//!
//! Contract of every operation: the caller's bytes come with an [`ImageDesc`](millrace_frame::ImageDesc), which is
//! validated once, when a converter is made; a call then checks only the lengths of the two slices. Nothing is assumed to be even,
//! aligned or packed. A converter holds its scratch rows, so that a call allocates nothing.

pub mod convert;
pub mod cuda;
pub mod geometry;
pub mod passes;
pub mod reference;
pub mod target;

pub use convert::{ConvertError, Converter};
pub use geometry::{Anchor, Fit, Placement, Rounding, place};
pub use passes::SeparatePasses;
pub use target::{ChannelOrder, Target, TargetError};
