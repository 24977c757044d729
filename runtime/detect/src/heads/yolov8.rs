//! `yolov8`: boxes that the graph has computed, a plane for each number.

use super::extra::{self, Extra};
use super::kind::Keys;
use super::numbers::{best_of_planes, from_centre};
use super::{
    Axis, Canvas, Expected, Grid, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Shape, Sink, grid,
};
use crate::model::Scores;
use crate::nms::Candidate;
use std::sync::Arc;

const NAME: &str = "yolov8";

pub(super) const KIND: Kind = Kind {
    name: NAME,
    serves: "YOLOv8, YOLOv9, YOLO11, YOLO12, YOLO26 as it is exported by default; with their segmentation, pose and oriented models",
    outputs: "`[1, 4 + C, boxes]`",
    numbers: "centre x, y, width, height in model pixels; a probability per class",
    keys: &[
        Key::OUTPUT,
        Key {
            name: "strides_px",
            default: Some("those of a known model"),
            doc: "model pixels per cell of each level; the number of boxes is checked by it: one for each cell",
        },
        Key::SCORES,
        extra::MASKS,
        extra::COEFFICIENTS,
        extra::KEYPOINTS,
        extra::KEYPOINT_NUMBERS,
        extra::ORIENTED,
        extra::UNREAD,
    ],
    read,
    guess: |seen| guess(seen).into_iter().collect(),
};

#[derive(Debug)]
struct Yolov8 {
    output: String,
    strides_px: Option<Vec<u32>>,
    scores: Scores,
    extra: Extra,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, strides_px) = (keys.name("output"), keys.strides());
    let (scores, extra) = (keys.scores(Scores::Probabilities), Extra::read(keys));
    Some(Arc::new(Yolov8 { output: output?, strides_px: strides_px?, scores: scores?, extra: extra? }))
}

fn guess(seen: &Seen<'_>) -> Option<Guess> {
    let output = seen.outputs.first()?;
    let [_, numbers, boxes] = output.extents::<3>()?;
    let (extra, text) = Extra::guess(seen)?;
    let classes = numbers.checked_sub(4 + extra.numbers()).filter(|classes| *classes > 0)?;
    (boxes == grid::count(seen.input, &[8, 16, 32])).then(|| Guess {
        head: format!("{{kind: {NAME}, output: {}{text}}}", output.name),
        classes: Some(classes),
        recipe: Recipe::ULTRALYTICS,
    })
}

impl Yolov8 {
    /// How many numbers a box has.
    fn numbers(&self, canvas: &Canvas) -> usize {
        4 + canvas.classes + self.extra.numbers()
    }
}

impl Head for Yolov8 {
    fn outputs(&self) -> Vec<&str> {
        self.extra.outputs(&self.output)
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let (boxes, why) = grid::boxes(canvas, self.strides_px.as_ref(), 1);
        let why = format!("4 + {}{}, then {why}", canvas.labels(), self.extra.text());
        self.extra.expected(Expected::new([Axis::Is(1), Axis::Is(self.numbers(canvas)), boxes], why))
    }

    fn grid(&self, canvas: &Canvas) -> Option<Grid> {
        Some(Grid::planes(self.numbers(canvas), 4..4 + canvas.classes, self.scores))
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let data = outputs[0].data;
        let n = data.len() / self.numbers(canvas);
        let (boxes, scores) = data.split_at(4 * n);
        let mut best = std::mem::take(sink.best);
        best_of_planes(&scores[..canvas.classes * n], n, &mut best);
        for (i, &(score, class)) in best.iter().enumerate() {
            let score = sink.probability(score, self.scores);
            if sink.wants(score) {
                let angle = if self.extra.is_oriented() { scores[canvas.classes * n + i] } else { 0.0 };
                let edges = from_centre([0, 1, 2, 3].map(|part| boxes[part * n + i]));
                sink.push_turned(i, class, score, edges, angle);
            }
        }
        *sink.best = best;
        Ok(())
    }

    fn oriented(&self) -> bool {
        self.extra.is_oriented()
    }

    fn shape(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, of: &Candidate) -> Result<Shape, HeadError> {
        let data = outputs[0].data;
        let n = data.len() / self.numbers(canvas);
        let numbers = data[(4 + canvas.classes) * n..].iter().skip(of.index as usize).step_by(n).copied();
        self.extra.shape(NAME, numbers, outputs, canvas, of)
    }
}
