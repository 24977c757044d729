//! From the outputs of one picture to its boxes.

use super::{Canvas, Expected, HeadError, RawTensor, Sink, shape_text};
use crate::doubt::{Doubt, Tally};
use crate::model::{HeadSpec, Model, Thresholds};
use crate::nms::{self, Candidate};
use millrace_frame::{DetBox, Letterbox, Size};
use std::sync::Arc;

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
    /// How many candidates there were, and how many that no picture has.
    pub tally: Tally,
    /// Once, a sentence that says why the boxes are most likely wrong.
    pub doubt: Option<String>,
}

/// Reads the outputs of one model. Holds buffers, so that a picture without boxes allocates little.
#[derive(Debug)]
pub struct Decoder {
    head: HeadSpec,
    thresholds: Thresholds,
    labels: Vec<Arc<str>>,
    canvas: Canvas,
    found: Vec<Candidate>,
    best: Vec<(f32, u32)>,
    doubt: Doubt,
}

/// What [`Decoder::candidates`] dropped, and what it counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dropped {
    over_limit: u64,
    tally: Tally,
}

impl Decoder {
    /// A decoder for the outputs of `model`.
    pub fn new(model: &Model) -> Self {
        let size = Size::new(model.input.width_px, model.input.height_px);
        Self {
            head: model.head.clone(),
            thresholds: model.thresholds,
            labels: model.labels.clone(),
            canvas: Canvas { size, classes: model.labels.len() },
            found: Vec::new(),
            best: Vec::new(),
            doubt: Doubt::default(),
        }
    }

    /// What counts as found, in place of what the model says.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    fn misshapen(&self, output: &str, found: String, expected: &Expected) -> HeadError {
        let Canvas { size, .. } = self.canvas;
        let (kind, labels) = (self.head.kind(), self.canvas.labels());
        let expected = format!("head '{kind}' with {labels} at {size} expects {}", expected.text());
        HeadError::Shape { output: output.to_owned(), found, expected }
    }

    /// Checks the shapes that a model file declares for the outputs of the head, in its order; `None` where it leaves an
    /// extent open. To be called when a model is opened, so that a wrong description is found before the first frame.
    ///
    /// # Errors
    /// [`HeadError::Shape`] with the found and the expected shape.
    pub fn check(&self, declared: &[Vec<Option<usize>>]) -> Result<(), HeadError> {
        for ((name, shape), expected) in self.head.outputs().iter().zip(declared).zip(self.head.expected(&self.canvas))
        {
            let fits = shape.len() == expected.axes.len()
                && shape.iter().zip(&expected.axes).all(|(found, axis)| found.is_none_or(|found| axis.fits(found)));
            if !fits {
                return Err(self.misshapen(name, shape_text(shape), &expected));
            }
        }
        Ok(())
    }

    /// The outputs that the head reads, in its order, their shapes and lengths checked.
    fn pick<'a>(&self, outputs: &[RawTensor<'a>]) -> Result<Vec<RawTensor<'a>>, HeadError> {
        let one = |(name, expected): (&str, Expected)| {
            let Some(tensor) = outputs.iter().find(|t| t.name == name).copied() else {
                let have = outputs.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
                return Err(HeadError::Missing { output: name.to_owned(), have });
            };
            let (shape, axes) = (tensor.shape, &expected.axes);
            if shape.len() != axes.len() || !shape.iter().zip(axes).all(|(&found, axis)| axis.fits(found)) {
                return Err(self.misshapen(name, format!("{shape:?}"), &expected));
            }
            let elements = shape.iter().copied().fold(1, usize::saturating_mul);
            if elements != tensor.data.len() {
                let (output, shape, found) = (name.to_owned(), format!("{shape:?}"), tensor.data.len());
                return Err(HeadError::Length { output, shape, expected: elements, found });
            }
            Ok(tensor)
        };
        self.head.outputs().into_iter().zip(self.head.expected(&self.canvas)).map(one).collect()
    }

    /// Fills `found` with the best boxes of at least the score, in model pixels, by falling score, not yet suppressed.
    fn candidates(&mut self, outputs: &[RawTensor<'_>]) -> Result<Dropped, HeadError> {
        let outputs = self.pick(outputs)?;
        self.found.clear();
        let mut sink = Sink::new(&mut self.found, &mut self.best, self.canvas, self.thresholds.score);
        self.head.read(&outputs, &self.canvas, &mut sink)?;
        sink.judge(self.head.kind())?;
        let tally = sink.tally;
        let most = self.head.most().min(self.thresholds.max_candidates as usize);
        let over_limit = nms::keep_best(&mut self.found, most);
        Ok(Dropped { over_limit, tally })
    }

    /// The boxes of one picture, in the source's display pixels.
    ///
    /// # Errors
    /// When an output is missing, has another shape than the head's, or holds scores that the head does not expect.
    pub fn detect(&mut self, outputs: &[RawTensor<'_>], to: &Mapping) -> Result<Boxes, HeadError> {
        let Dropped { over_limit, tally } = self.candidates(outputs)?;
        let mut not_finite = tally.not_finite;
        if self.head.suppresses() {
            nms::suppress(&mut self.found, self.thresholds.iou);
        }
        let doubt = self.doubt.add(&tally, self.thresholds.score, self.head.suppresses());
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
        Ok(Boxes { boxes, not_finite, over_limit, tally, doubt })
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
