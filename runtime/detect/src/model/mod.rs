//! `model.yml`: what a model's file cannot say about itself.

mod fits;
mod read;
mod target;
#[cfg(test)]
mod tests;

pub use fits::Unfit;
pub use read::{labels_of, open_file};

use crate::Fault;
use crate::heads::{Head, Kind};
use millrace_frame::{TensorDtype, TensorLayout};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Order of the colour channels in the input tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// The tensor that the model takes: one picture, three channels.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// The input's name in the model file.
    pub name: String,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// Order of the axes.
    pub layout: TensorLayout,
    /// Type of the elements.
    pub dtype: TensorDtype,
    /// Order of the channels.
    pub order: ChannelOrder,
    /// Per channel, in the stated order: `value = (u8 - mean) * scale`.
    pub scale: [f32; 3],
    /// Per channel, in the stated order, in the units of an 8-bit sample.
    pub mean: [f32; 3],
}

impl InputSpec {
    /// Extent of the four axes of one picture, in the order of the layout.
    pub fn shape(&self) -> [u32; 4] {
        match self.layout {
            TensorLayout::Nchw => [1, 3, self.height_px, self.width_px],
            TensorLayout::Nhwc => [1, self.height_px, self.width_px, 3],
        }
    }
}

/// The picture's position in the model's input if their proportions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// In the middle, bars on both sides.
    Centre,
    /// In the top left corner.
    TopLeft,
}

/// How the picture is fitted into the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitSpec {
    /// Scaled with its proportions kept, the rest filled.
    Letterbox {
        /// Where the picture is.
        anchor: Anchor,
        /// Value of every channel outside the picture, as an 8-bit sample (before mean and scale).
        pad: u8,
    },
    /// Each axis scaled by a factor of its own, so that the picture fills the input.
    Stretch,
    /// The middle of the picture, of which the input's shorter side would be so many pixels.
    Crop {
        /// At least the input's shorter side.
        resize_px: u32,
    },
}

/// What the numbers that become scores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Probabilities: the model ends in a sigmoid.
    Probabilities,
    /// Logits: the sigmoid is applied here.
    Logits,
}

/// What the model's outputs mean: a head with what the description says of it.
#[derive(Clone, Debug)]
pub struct HeadSpec {
    kind: &'static Kind,
    head: Arc<dyn Head>,
}

impl HeadSpec {
    /// Its name in `model.yml`.
    pub fn kind(&self) -> &'static str {
        self.kind.name
    }
}

impl Deref for HeadSpec {
    type Target = dyn Head;

    fn deref(&self) -> &Self::Target {
        &*self.head
    }
}

/// What counts as found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Boxes that score less are dropped; 0 to 1.
    pub score: f32,
    /// Of two boxes of one class that overlap by more (intersection over union), the lower score is dropped; 0 to 1.
    pub iou: f32,
    /// How many candidates, the best first, suppression looks at; more are dropped and counted.
    pub max_candidates: u32,
}

/// A model's description.
#[derive(Clone, Debug)]
pub struct Model {
    /// Where the description is.
    pub path: PathBuf,
    /// The model's name, as detections carry it.
    pub name: String,
    /// What it is for, in a sentence for the user.
    pub about: Option<String>,
    /// The tensor that it takes.
    pub input: InputSpec,
    /// How pictures are fitted into it.
    pub fit: FitSpec,
    /// What its outputs mean.
    pub head: HeadSpec,
    /// What counts as found.
    pub thresholds: Thresholds,
    /// Names of the classes.
    pub labels: Vec<Arc<str>>,
    file: PathBuf,
    file_place: (usize, usize),
}

/// Why a model's description cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum ModelError {
    #[error(
        "{path}: cannot read the model's description: {cause}; MODEL is the path of a model.yml file, which `millrace model add` \
         writes for an .onnx file"
    )]
    Read { path: String, cause: String },
    #[error("{}", list(path, faults))]
    Faults { path: String, faults: Vec<Fault> },
}

fn list(path: &str, faults: &[Fault]) -> String {
    let lines: Vec<String> =
        faults.iter().map(|Fault { line, column, text }| format!("{path}:{line}:{column}: {text}")).collect();
    lines.join("\n")
}

impl Model {
    /// Reads the description at `path` and, where it names one, its file of labels.
    ///
    /// # Errors
    /// [`ModelError::Read`] when the file cannot be read, else [`ModelError::Faults`] with all its faults.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        read::load(path.as_ref())
    }

    /// The model file, checked to be there. [`Model::load`] does not look for it: who only prepares a model's input
    /// does not need it.
    ///
    /// # Errors
    /// [`ModelError::Faults`] with the place of `file:` when it names no file.
    pub fn file(&self) -> Result<&Path, ModelError> {
        let why = match std::fs::metadata(&self.file) {
            Ok(meta) if meta.is_file() && meta.len() > 0 => return Ok(&self.file),
            Ok(meta) if meta.is_file() => "is empty".to_owned(),
            Ok(_) => "is not a file".to_owned(),
            Err(e) => format!("cannot be read: {e}"),
        };
        let (line, column) = self.file_place;
        let text = format!(
            "the model file '{}' {why}; 'file' is the path of the .onnx, relative to this description",
            self.file.display()
        );
        Err(ModelError::Faults { path: self.path.display().to_string(), faults: vec![Fault { line, column, text }] })
    }
}
