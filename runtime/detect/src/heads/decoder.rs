//! From the outputs of one picture to its boxes.

use super::{Canvas, Expected, Grid, HeadError, RawTensor, Shape, Sink, mask, shape_text};
use crate::doubt::{Doubt, Tally};
use crate::model::{HeadSpec, Model, Thresholds};
use crate::nms::{self, Candidate};
use millrace_frame::{ClassScore, DetBox, Keypoint, Letterbox, Oriented, Size};
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
    /// What a classifier says of the whole picture, by falling score.
    pub classes: Vec<ClassScore>,
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
            canvas: Canvas::new(size, model.labels.len()),
            found: Vec::new(),
            best: Vec::new(),
            doubt: Doubt::default(),
        }
    }

    /// What counts as found, in place of what the model says.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Forgets what it has seen: a run on zeros, say, which is no picture.
    pub fn begin(&mut self) {
        self.doubt = Doubt::default();
    }

    /// What an engine has to know to leave out candidates that cannot become boxes.
    pub fn grid(&self) -> Option<Grid> {
        self.head.grid(&self.canvas)
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
            let (expected, found) = (tensor.elements_here(elements), tensor.data.len());
            if expected != found {
                return Err(HeadError::Length {
                    output: name.to_owned(),
                    shape: format!("{shape:?}"),
                    expected,
                    found,
                });
            }
            Ok(tensor)
        };
        self.head.outputs().into_iter().zip(self.head.expected(&self.canvas)).map(one).collect()
    }

    /// Fills `found` with the best boxes of at least the score, in model pixels, by falling score, not yet suppressed.
    fn candidates(&mut self, outputs: &[RawTensor<'_>]) -> Result<Dropped, HeadError> {
        self.found.clear();
        let mut sink = Sink::new(&mut self.found, &mut self.best, self.canvas, self.thresholds.score);
        self.head.read(outputs, &self.canvas, &mut sink)?;
        if let (Some(kept), Some(grid)) = (outputs.first().and_then(|output| output.kept), self.head.grid(&self.canvas))
        {
            sink.left_out(kept, grid.scores);
        }
        sink.judge(self.head.kind())?;
        let tally = sink.tally;
        let most = self.head.most().min(self.thresholds.max_candidates as usize);
        let over_limit = nms::keep_best(&mut self.found, most);
        Ok(Dropped { over_limit, tally })
    }

    /// What was found in one picture, in the source's display pixels.
    ///
    /// # Errors
    /// When an output is missing, has another shape than the head's, or holds numbers that the head does not expect.
    pub fn detect(&mut self, outputs: &[RawTensor<'_>], to: &Mapping) -> Result<Boxes, HeadError> {
        let outputs = self.pick(outputs)?;
        let Dropped { over_limit, tally } = self.candidates(&outputs)?;
        let not_finite = tally.not_finite;
        self.canvas.picture = to.picture();
        if self.head.classifies() {
            let class = |c: &Candidate| ClassScore { class_id: c.class_id, label: self.label(c), score: c.score };
            let classes = self.found.iter().map(class).collect();
            return Ok(Boxes { classes, not_finite, tally, ..Boxes::default() });
        }
        if self.head.suppresses() {
            let overlap = if self.head.oriented() { nms::prob_iou } else { nms::iou };
            nms::suppress(&mut self.found, self.thresholds.iou, overlap);
        }
        let doubt = self.doubt.add(&tally, self.thresholds.score, self.head.suppresses());
        let mut found = Boxes { not_finite, over_limit, tally, doubt, ..Boxes::default() };
        found.boxes.reserve(self.found.len());
        for one in &self.found {
            let b = self.report(&outputs, one, to)?;
            if !b.is_finite() {
                found.not_finite += 1;
            } else if b.x2 > b.x1 && b.y2 > b.y1 {
                found.boxes.push(b);
            }
        }
        Ok(found)
    }

    fn label(&self, of: &Candidate) -> String {
        self.labels.get(of.class_id as usize).map_or(String::new(), |label| label.to_string())
    }

    /// The box as the source sees it.
    fn report(&self, outputs: &[RawTensor<'_>], one: &Candidate, to: &Mapping) -> Result<DetBox, HeadError> {
        let oriented = self.head.oriented().then(|| to.turned(one));
        let [[x1, y1], [x2, y2]] = match oriented {
            None => [[one.x1, one.y1], [one.x2, one.y2]].map(|corner| to.point(corner)),
            Some(turned) => {
                let corners = turned.corners().map(|corner| to.clipped(corner));
                // of NaN and a number either is the number
                let end =
                    |of: fn(f32, f32) -> f32| [0, 1].map(|axis| corners.iter().map(|c| c[axis]).fold(f32::NAN, of));
                [end(f32::min), end(f32::max)]
            }
        };
        let mut b = DetBox { x1, y1, x2, y2, score: one.score, class_id: one.class_id, oriented, ..DetBox::default() };
        if b.is_finite() && x2 > x1 && y2 > y1 {
            b.label = self.label(one);
            match self.head.shape(outputs, &self.canvas, one)? {
                Shape::None => {}
                Shape::Keypoints(points) => {
                    let point = |(point, score)| {
                        let [x, y] = to.point(point);
                        Keypoint { x, y, score }
                    };
                    b.keypoints = points.into_iter().map(point).collect();
                }
                Shape::Mask(rings) => {
                    // tenths of a pixel: a model does not know more, and text is shorter
                    let tenths = |v: f32| (v * 10.0).round() / 10.0;
                    let place = |ring: Vec<[f32; 2]>| {
                        let mut points: Vec<_> = ring.into_iter().map(|point| to.point(point).map(tenths)).collect();
                        points.dedup();
                        points
                    };
                    // of a ring in the padding nothing is left; NaN is, and is counted
                    let rings = rings.into_iter().map(place).filter(|ring| mask::area(ring) != 0.0);
                    b.mask = rings.map(Vec::into_flattened).collect();
                }
            }
        }
        Ok(b)
    }
}

impl Mapping {
    /// A point of the model's input in source pixels, clipped to the source.
    fn point(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let Letterbox { scale_x, scale_y, offset_x, offset_y } = self.source_from_model;
        self.clipped([(f64::from(x) * scale_x + offset_x) as f32, (f64::from(y) * scale_y + offset_y) as f32])
    }

    /// Left, top, right, bottom of the source in the model's input, in model pixels.
    fn picture(&self) -> [f32; 4] {
        let Letterbox { scale_x, scale_y, offset_x, offset_y } = self.source_from_model;
        let Size { width_px, height_px } = self.source_size;
        let [right, bottom] =
            [(width_px, offset_x, scale_x), (height_px, offset_y, scale_y)].map(|(end, o, s)| (f64::from(end) - o) / s);
        [-offset_x / scale_x, -offset_y / scale_y, right, bottom].map(|v| v as f32)
    }

    fn clipped(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [x.clamp(0.0, self.source_size.width_px as f32), y.clamp(0.0, self.source_size.height_px as f32)]
    }

    /// A box turned about its centre, in source pixels. It may reach outside the source.
    fn turned(&self, one: &Candidate) -> Oriented {
        let Letterbox { scale_x, scale_y, offset_x, offset_y } = self.source_from_model;
        let [x1, y1, x2, y2] = [one.x1, one.y1, one.x2, one.y2].map(f64::from);
        let (sin, cos) = f64::from(one.angle_rad).sin_cos();
        Oriented {
            x: ((x1 + x2) / 2.0 * scale_x + offset_x) as f32,
            y: ((y1 + y2) / 2.0 * scale_y + offset_y) as f32,
            width: ((x2 - x1) * (cos * scale_x).hypot(sin * scale_y)) as f32,
            height: ((y2 - y1) * (sin * scale_x).hypot(cos * scale_y)) as f32,
            angle_rad: (sin * scale_y).atan2(cos * scale_x) as f32,
        }
    }
}
