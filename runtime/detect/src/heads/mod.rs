//! From a network's raw output to boxes in the source's pixels.
//!
//! A [`Head`] reads the outputs of one family of detectors into candidates, boxes in model pixels. The [`Decoder`] around it
//! drops those below the score, keeps the best `max_candidates`, suppresses by class ([`crate::nms`]) where the head says
//! so, asks the head for the shapes of those that are left, and maps them to the source. A number that is not finite never
//! becomes a box, and is counted.
//!
//! A head is one file here and one line in [`KINDS`]: its keys in `model.yml`, its arithmetic, its rows of the documentation
//! and what a model file of its family looks like.

mod centre;
mod classify;
mod decoder;
mod dfine;
mod end2end;
mod extra;
mod grid;
mod kept;
mod kind;
mod mask;
mod nanodet;
mod numbers;
mod rtdetr;
mod sink;
#[cfg(test)]
mod tests;
mod yolonas;
mod yolov5;
mod yolov8;
mod yolox;

pub use decoder::{Boxes, Decoder, Mapping};
pub use kept::Grid;
pub(crate) use kind::Keys;
pub use kind::{Guess, Key, Kind, Recipe, Seen, Task};
pub use sink::Sink;

use crate::nms::Candidate;
use millrace_frame::{Size, counted};
use millrace_kernels::cuda::KeptPlaces;
use std::fmt::Debug;

/// All heads, in the order of the documentation.
pub const KINDS: &[Kind] = &[
    centre::KIND,
    yolox::KIND,
    yolov5::KIND,
    yolov8::KIND,
    end2end::KIND,
    yolonas::KIND,
    nanodet::KIND,
    rtdetr::KIND,
    dfine::KIND,
    classify::KIND,
];

/// What a model may be of which this was seen, the likeliest first.
pub fn guesses(seen: &Seen<'_>) -> Vec<Guess> {
    KINDS.iter().flat_map(|kind| (kind.guess)(seen)).collect()
}

/// What a box is beside its edges, in model pixels.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Nothing.
    None,
    /// Points, each with the confidence that it is visible where the model says one.
    Keypoints(Vec<([f32; 2], Option<f32>)>),
    /// Rings of points, filled by the even-odd rule.
    Mask(Vec<Vec<[f32; 2]>>),
}

/// How the outputs of one family of models spell what they found, with what its `head` in `model.yml` says.
pub trait Head: Debug + Send + Sync {
    /// Names of the outputs that [`read`](Self::read) gets, in its order.
    fn outputs(&self) -> Vec<&str>;

    /// The shape that each of these outputs has for this canvas.
    fn expected(&self, canvas: &Canvas) -> Vec<Expected>;

    /// Hands every box to the sink. The shapes are as [`expected`](Self::expected).
    ///
    /// # Errors
    /// What contradicts itself in the outputs.
    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError>;

    /// How the first output spells candidates, where each has a score of its own. An engine may leave out those that cannot become
    /// boxes, and [`read`](Self::read) gets the others, as an output with fewer candidates.
    fn grid(&self, canvas: &Canvas) -> Option<Grid> {
        let _ = canvas;
        None
    }

    /// Whether boxes of one object are still to be suppressed. Where not, the network has chosen.
    fn suppresses(&self) -> bool {
        true
    }

    /// Whether its boxes are rotated rectangles.
    fn oriented(&self) -> bool {
        false
    }

    /// Whether its candidates are classes of the whole picture and no boxes.
    fn classifies(&self) -> bool {
        false
    }

    /// What the box is beside its edges. The outputs are those of [`read`](Self::read), which made the candidate.
    ///
    /// # Errors
    /// Numbers that the head does not expect.
    fn shape(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, of: &Candidate) -> Result<Shape, HeadError> {
        let _ = (outputs, canvas, of);
        Ok(Shape::None)
    }

    /// How many candidates are kept at most, below `max_candidates`.
    fn most(&self) -> usize {
        usize::MAX
    }

    /// Name of the model's input that the size of its boxes' canvas is given to.
    fn size_input(&self) -> Option<&str> {
        None
    }
}

/// What a head knows of the model around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Canvas {
    /// Size of the model's input picture.
    pub size: Size,
    /// Left, top, right, bottom of the source's picture in it, in model pixels. Around it is the letterbox's padding.
    pub picture: [f32; 4],
    /// How many labels the model has.
    pub classes: usize,
}

impl Canvas {
    /// A canvas that a picture fills.
    pub(crate) fn new(size: Size, classes: usize) -> Self {
        let picture = [0.0, 0.0, size.width_px as f32, size.height_px as f32];
        Self { size, picture, classes }
    }

    /// The number of labels in words.
    fn labels(&self) -> String {
        counted(self.classes, "label", "labels")
    }
}

/// The extent of an output's axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    /// This and no other.
    Is(usize),
    /// Any but 0.
    Open,
    /// At least 1, at most this.
    UpTo(usize),
    /// One of these.
    Among(Vec<usize>),
}

impl Axis {
    fn fits(&self, found: usize) -> bool {
        match self {
            Self::Is(want) => found == *want,
            Self::Open => found > 0,
            Self::UpTo(most) => (1..=*most).contains(&found),
            Self::Among(all) => all.contains(&found),
        }
    }
}

/// The shape that an output has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    axes: Vec<Axis>,
    why: String,
}

impl Expected {
    fn new(axes: impl Into<Vec<Axis>>, why: impl Into<String>) -> Self {
        Self { axes: axes.into(), why: why.into() }
    }

    fn text(&self) -> String {
        let extent = |axis: &Axis| match axis {
            Axis::Is(n) => Some(*n),
            Axis::Open | Axis::UpTo(_) | Axis::Among(_) => None,
        };
        format!("{} ({})", shape_text(&self.axes.iter().map(extent).collect::<Vec<_>>()), self.why)
    }
}

/// One output of a network, contiguous. Its shape is that of the whole also where candidates were left out ([`Head::grid`]).
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Its name in the model file.
    pub name: &'a str,
    /// Extent of its axes.
    pub shape: &'a [usize],
    /// Its elements, the last axis fastest.
    pub data: &'a [f32],
    /// Where candidates were left out, which ones the elements are of.
    pub kept: Option<KeptPlaces<'a>>,
}

impl RawTensor<'_> {
    /// That this output and `other` speak of as many boxes.
    fn as_many_as(&self, other: &Self) -> Result<(), HeadError> {
        if self.shape.get(1) == other.shape.get(1) {
            return Ok(());
        }
        let expected = format!("output '{}' has shape {:?}, so this speaks of as many boxes", other.name, other.shape);
        Err(HeadError::Shape { output: self.name.to_owned(), found: format!("{:?}", self.shape), expected })
    }
}

/// Why an output cannot be read as the head that `model.yml` names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum HeadError {
    #[error(
        "output '{output}' of the model has shape {found}; {expected}. Correct 'head', 'labels' or 'input' of model.yml"
    )]
    Shape { output: String, found: String, expected: String },
    #[error("the head reads output '{output}', which was not computed; there are: {have}")]
    Missing { output: String, have: String },
    #[error("output '{output}' has {found} elements, its shape {shape} says {expected}")]
    Length { output: String, shape: String, expected: usize, found: usize },
    #[error(
        "the model's outputs hold the score {value}, but head '{kind}' expects probabilities from 0 to 1; if the model ends \
         without a sigmoid write `scores: logits` where the head has that key, else 'head' in model.yml is not the model's"
    )]
    NotProbability { kind: &'static str, value: String },
    #[error(
        "all {scores} scores of the model lie between 0 and 1, but head '{kind}' is set to `scores: logits`, which are mostly \
         negative; the model ends in a sigmoid or softmax: write `scores: probabilities`"
    )]
    NotLogits { kind: &'static str, scores: u64 },
    #[error(
        "a key point of the model has the confidence {value}, but head '{kind}' expects one from 0 to 1: correct 'keypoints' and \
         'keypoint_numbers' in model.yml"
    )]
    NotVisibility { kind: &'static str, value: String },
    #[error(
        "the model's outputs hold the class {value}, but model.yml has {labels} for classes 0 to {last}; give 'labels' one name \
         for each class, or correct 'head'"
    )]
    NotAClass { value: String, labels: String, last: usize },
}

/// A shape as messages show it, `?` for an axis that is open.
pub fn shape_text(shape: &[Option<usize>]) -> String {
    let axes: Vec<String> = shape.iter().map(|d| d.map_or("?".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", axes.join(", "))
}
