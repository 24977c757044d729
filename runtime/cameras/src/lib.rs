//! Many cameras in one decoder process: what every node that decodes has in common.
//!
//! A node is a [`Backend`] (a kind of decoder) and its settings; [`Decode`] is the rest of it: which cameras there are, from
//! its settings or from a cameras file that may change while the node runs, two threads for each camera, a bounded queue
//! for each camera to the node's event loop, and each camera's state.
//!
//! Architecture invariant: a camera's threads wait for nothing of another camera. They share no lock, no channel and no
//! decoder; what one of them does (a panic, a hang, a flood) reaches the event loop through its own bounded queue.
#![forbid(unsafe_code)]

mod backend;
mod camera;
mod camera_run;
mod config;
mod counters;
mod feeding;
mod mapping;
mod node;
mod queue;
mod reach;
mod settings;
mod thinning;
mod timeline;
mod watch;

#[cfg(test)]
mod tests;

pub use backend::{Backend, Decoder, Frame, Output, PictureInfo, Sink, Unmapped};
pub use config::{Config, Origin};
pub use node::Decode;
pub use settings::{CameraSettings, Members};
