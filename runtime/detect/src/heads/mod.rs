//! From a network's raw output to boxes in the source's pixels.
//!
//! The head's arithmetic gives boxes in model pixels; those below the score are dropped, the best
//! `max_candidates` suppressed by class ([`crate::nms`]), the rest mapped through the letterbox and clipped to the
//! source. A number that is not finite never becomes a box, and is counted.

mod arithmetic;
#[cfg(test)]
mod tests;

use crate::model::{HeadSpec, Model, Thresholds};
use crate::nms::{self, Candidate};
use arithmetic::{Cell, Sink};
use millrace_frame::{DetBox, Letterbox, Size};
use std::sync::Arc;

/// One output of a network, contiguous.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Its name in the model file.
    pub name: &'a str,
    /// Extent of its axes.
    pub shape: &'a [usize],
    /// Its elements, the last axis fastest.
    pub data: &'a [f32],
}

/// Where boxes go from the model's pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mapping {
    /// From model pixels to the source's display pixels.
    pub source_from_model: Letterbox,
    /// Display size of the source.
    pub source_size: Size,
}

/// What was found in one picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boxes {
    /// By falling score.
    pub boxes: Vec<DetBox>,
    /// Candidates that were dropped because a coordinate or the score was NaN or infinite.
    pub not_finite: u64,
    /// Candidates that were dropped because there were more than `max_candidates`.
    pub over_limit: u64,
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
        "output '{output}' holds the score {value}, but head '{kind}' takes scores for probabilities from 0 to 1; \
         if the model ends without a sigmoid write `scores: logits` where the head has it, or export it with one"
    )]
    NotProbability { output: String, kind: &'static str, value: String },
}

/// Reads the outputs of one model. Holds buffers, so that a picture without boxes allocates nothing.
#[derive(Debug)]
pub struct Decoder {
    head: HeadSpec,
    thresholds: Thresholds,
    labels: Vec<Arc<str>>,
    input: Size,
    cells: Vec<Cell>,
    found: Vec<Candidate>,
    best: Vec<(f32, u32)>,
}

fn text_of(shape: &[Option<usize>]) -> String {
    let axes: Vec<String> = shape.iter().map(|d| d.map_or("?".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", axes.join(", "))
}

impl Decoder {
    /// A decoder for the outputs of `model`.
    pub fn new(model: &Model) -> Self {
        let input = Size::new(model.input.width_px, model.input.height_px);
        let cells = match &model.head {
            HeadSpec::Yolox { strides_px, .. } => arithmetic::cells(input, strides_px, 0.0),
            HeadSpec::Nanodet { strides_px, cell_offset, .. } => arithmetic::cells(input, strides_px, *cell_offset),
            _ => Vec::new(),
        };
        Self {
            head: model.head.clone(),
            thresholds: model.thresholds,
            labels: model.labels.clone(),
            input,
            cells,
            found: Vec::new(),
            best: Vec::new(),
        }
    }

    /// What counts as found, in place of what the model says.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Names of the outputs that it reads.
    pub fn outputs(&self) -> Vec<&str> {
        self.head.outputs()
    }

    /// What the shape of each output must be; `None` where any extent will do.
    fn expected(&self) -> Vec<(Vec<Option<usize>>, String)> {
        let c = self.labels.len();
        let (kind, size) = (self.head.kind(), self.input);
        let labels = if c == 1 { "1 label".to_owned() } else { format!("{c} labels") };
        let say = |shape: Vec<Option<usize>>, why: String| {
            let text = format!("head '{kind}' with {labels} at {size} expects {} ({why})", text_of(&shape));
            (shape, text)
        };
        match &self.head {
            HeadSpec::Centre { stride_px, .. } => {
                let (w, h) =
                    (size.width_px.div_ceil(*stride_px) as usize, size.height_px.div_ceil(*stride_px) as usize);
                let why = format!("4 + {labels}, then rows and columns of {stride_px} px cells");
                vec![say(vec![Some(1), Some(4 + c), Some(h), Some(w)], why)]
            }
            HeadSpec::Yolox { strides_px, .. } => {
                let why = format!("cells of {strides_px:?} px, then 5 + {labels}");
                vec![say(vec![Some(1), Some(self.cells.len()), Some(5 + c)], why)]
            }
            HeadSpec::Yolov5 { .. } => vec![say(vec![Some(1), None, Some(5 + c)], format!("boxes, then 5 + {labels}"))],
            HeadSpec::Yolov8 { .. } => vec![say(vec![Some(1), Some(4 + c), None], format!("4 + {labels}, then boxes"))],
            HeadSpec::Nanodet { strides_px, reg_max, .. } => {
                let width = c + 4 * (*reg_max as usize + 1);
                let why = format!("cells of {strides_px:?} px, then {labels} + 4 x (reg_max {reg_max} + 1)");
                vec![say(vec![Some(1), Some(self.cells.len()), Some(width)], why)]
            }
            HeadSpec::Rtdetr { .. } => vec![
                say(vec![Some(1), None, Some(4)], "queries, then a box".to_owned()),
                say(vec![Some(1), None, Some(c)], format!("queries, then {labels}")),
            ],
        }
    }

    /// Checks the shapes that a model file declares for [`Self::outputs`], in that order; `None` where it leaves an
    /// extent open. To be called when a model is opened, so that a wrong description is found before the first frame.
    ///
    /// # Errors
    /// [`HeadError::Shape`] with the found and the expected shape.
    pub fn check(&self, declared: &[Vec<Option<usize>>]) -> Result<(), HeadError> {
        for ((name, shape), (expected, text)) in self.head.outputs().iter().zip(declared).zip(self.expected()) {
            let fits = |(found, want): (&Option<usize>, &Option<usize>)| match (found, want) {
                (Some(found), Some(want)) => found == want,
                (Some(found), None) => *found > 0,
                (None, _) => true,
            };
            if shape.len() != expected.len() || !shape.iter().zip(&expected).all(fits) {
                return Err(HeadError::Shape { output: (*name).to_owned(), found: text_of(shape), expected: text });
            }
        }
        Ok(())
    }

    /// The output called `name`, its shape and length checked.
    fn pick<'a>(&self, outputs: &[RawTensor<'a>], at: usize) -> Result<RawTensor<'a>, HeadError> {
        let name = self.head.outputs()[at];
        let Some(tensor) = outputs.iter().find(|t| t.name == name).copied() else {
            let have = outputs.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
            return Err(HeadError::Missing { output: name.to_owned(), have });
        };
        let expected = tensor.shape.iter().copied().fold(1, usize::saturating_mul);
        if expected != tensor.data.len() {
            let (output, shape) = (name.to_owned(), format!("{:?}", tensor.shape));
            return Err(HeadError::Length { output, shape, expected, found: tensor.data.len() });
        }
        Ok(tensor)
    }

    /// All boxes of at least the score, in model pixels, by falling score, not yet suppressed.
    /// The second and third value are [`Boxes::not_finite`] and [`Boxes::over_limit`].
    ///
    /// # Errors
    /// When an output is missing, has another shape than the head's, or holds scores that are no probabilities.
    pub fn candidates(&mut self, outputs: &[RawTensor<'_>]) -> Result<(&[Candidate], u64, u64), HeadError> {
        let names = self.head.outputs().len();
        let mut first = None;
        let mut second = None;
        let mut shapes = Vec::with_capacity(names);
        for at in 0..names {
            let tensor = self.pick(outputs, at)?;
            shapes.push(tensor.shape.iter().map(|&d| Some(d)).collect::<Vec<_>>());
            if at == 0 { first = Some(tensor) } else { second = Some(tensor) }
        }
        self.check(&shapes)?;
        let Some(first) = first else { return Ok((&[], 0, 0)) };
        let classes = self.labels.len();
        self.found.clear();
        let mut sink = Sink::new(&mut self.found, self.thresholds.score);
        let mut max = self.thresholds.max_candidates as usize;
        match &self.head {
            HeadSpec::Centre { stride_px, .. } => {
                let columns = first.shape[3];
                arithmetic::centre(first.data, classes, columns, *stride_px as f32, &mut self.best, &mut sink);
            }
            HeadSpec::Yolox { scores, .. } => arithmetic::yolox(first.data, classes, &self.cells, *scores, &mut sink),
            HeadSpec::Yolov5 { .. } => arithmetic::yolov5(first.data, classes, &mut sink),
            HeadSpec::Yolov8 { .. } => arithmetic::yolov8(first.data, classes, &mut self.best, &mut sink),
            HeadSpec::Nanodet { reg_max, scores, .. } => {
                arithmetic::nanodet(first.data, classes, *reg_max as usize + 1, &self.cells, *scores, &mut sink);
            }
            HeadSpec::Rtdetr { top_k, scores, logits, .. } => {
                let logits_tensor = second.unwrap_or(first);
                if logits_tensor.shape[1] != first.shape[1] {
                    return Err(HeadError::Shape {
                        output: logits.clone(),
                        found: format!("{:?}", logits_tensor.shape),
                        expected: format!(
                            "output '{}' has {} queries, so this has as many",
                            first.name, first.shape[1]
                        ),
                    });
                }
                max = max.min(*top_k as usize);
                arithmetic::rtdetr(first.data, logits_tensor.data, classes, self.input, *scores, &mut sink);
            }
        }
        let (not_finite, above_one) = (sink.not_finite, sink.above_one);
        if let Some(value) = above_one {
            let output = self.head.outputs().last().map_or(String::new(), |n| (*n).to_owned());
            return Err(HeadError::NotProbability { output, kind: self.head.kind(), value: value.to_string() });
        }
        let over_limit = nms::keep_best(&mut self.found, max);
        Ok((&self.found, not_finite, over_limit))
    }

    /// The boxes of one picture, in the source's display pixels.
    ///
    /// # Errors
    /// As [`Self::candidates`].
    pub fn detect(&mut self, outputs: &[RawTensor<'_>], to: &Mapping) -> Result<Boxes, HeadError> {
        let (_, mut not_finite, over_limit) = self.candidates(outputs)?;
        if !matches!(self.head, HeadSpec::Rtdetr { .. }) {
            nms::suppress(&mut self.found, self.thresholds.iou);
        }
        let mut boxes = Vec::with_capacity(self.found.len());
        for one in &self.found {
            let [x1, y1, x2, y2] = to.clipped(one);
            if [x1, y1, x2, y2].iter().any(|v| !v.is_finite()) {
                not_finite += 1;
            } else if x2 > x1 && y2 > y1 {
                let label = self.labels.get(one.class_id as usize).map_or(String::new(), |l| l.to_string());
                let (score, class_id) = (one.score, one.class_id);
                boxes.push(DetBox { x1, y1, x2, y2, score, class_id, label, track_id: None });
            }
        }
        Ok(Boxes { boxes, not_finite, over_limit })
    }
}

impl Mapping {
    /// Left, top, right, bottom of a box in source pixels, clipped to the source.
    fn clipped(&self, one: &Candidate) -> [f32; 4] {
        let Letterbox { scale_x, scale_y, offset_x, offset_y } = self.source_from_model;
        let (w, h) = (f64::from(self.source_size.width_px), f64::from(self.source_size.height_px));
        let x = |v: f32| (f64::from(v) * scale_x + offset_x).clamp(0.0, w) as f32;
        let y = |v: f32| (f64::from(v) * scale_y + offset_y).clamp(0.0, h) as f32;
        [x(one.x1), y(one.y1), x(one.x2), y(one.y2)]
    }
}
