//! `yolov5`: boxes that the graph has computed, with an objectness.

use super::extra::{self, Extra};
use super::kind::Keys;
use super::numbers::{best_of, four, from_centre};
use super::{Canvas, Expected, Grid, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Shape, Sink, grid};
use crate::model::Scores;
use crate::nms::Candidate;
use std::sync::Arc;

const NAME: &str = "yolov5";

pub(super) const KIND: Kind = Kind {
    name: NAME,
    serves: "YOLOv5, YOLOv6, YOLOv7; with the segmentation models of YOLOv5",
    outputs: "`[1, boxes, 5 + C]`",
    numbers: "centre x, y, width, height in model pixels, score `objectness * class`",
    keys: &[
        Key::OUTPUT,
        Key {
            name: "strides_px",
            default: Some("those of a known model"),
            doc: "model pixels per cell of each level; the number of boxes is checked by it: 1 to 9 for each cell",
        },
        Key::SCORES,
        extra::MASKS,
        extra::COEFFICIENTS,
        extra::KEYPOINTS,
        extra::KEYPOINT_NUMBERS,
        extra::UNREAD,
    ],
    read,
    guess: |seen| guess(seen).into_iter().collect(),
};

/// Anchors of a cell at most.
const ANCHORS: usize = 9;

#[derive(Debug)]
struct Yolov5 {
    output: String,
    strides_px: Option<Vec<u32>>,
    scores: Scores,
    extra: Extra,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, strides_px) = (keys.name("output"), keys.strides());
    let (scores, extra) = (keys.scores(Scores::Probabilities), Extra::read(keys));
    Some(Arc::new(Yolov5 { output: output?, strides_px: strides_px?, scores: scores?, extra: extra? }))
}

fn guess(seen: &Seen<'_>) -> Option<Guess> {
    let output = seen.outputs.first()?;
    let [_, boxes, numbers] = output.extents::<3>()?;
    let cells = grid::count(seen.input, &[8, 16, 32]);
    let (extra, text) = Extra::guess(seen).filter(|(extra, _)| !extra.is_oriented())?;
    let classes = numbers.checked_sub(5 + extra.numbers()).filter(|classes| *classes > 0)?;
    (boxes == 3 * cells || boxes == cells).then(|| Guess {
        head: format!("{{kind: {NAME}, output: {}{text}}}", output.name),
        classes: Some(classes),
        recipe: Recipe::ULTRALYTICS,
    })
}

impl Yolov5 {
    /// How many numbers a box has.
    fn numbers(&self, canvas: &Canvas) -> usize {
        5 + canvas.classes + self.extra.numbers()
    }
}

impl Head for Yolov5 {
    fn outputs(&self) -> Vec<&str> {
        self.extra.outputs(&self.output)
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let (boxes, why) = grid::boxes(canvas, self.strides_px.as_ref(), ANCHORS);
        let why = format!("{why}; then 5 + {}{}", canvas.labels(), self.extra.text());
        self.extra.expected(grid::rows(boxes, self.numbers(canvas), why))
    }

    fn grid(&self, canvas: &Canvas) -> Option<Grid> {
        Some(Grid::rows(self.numbers(canvas), 4..5, self.scores))
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        for (i, row) in outputs[0].data.chunks_exact(self.numbers(canvas)).enumerate() {
            let object = sink.probability(row[4], self.scores);
            if sink.wants(object) {
                let (class_score, class) = best_of(&row[5..5 + canvas.classes]);
                let score = object * sink.probability(class_score, self.scores);
                if sink.wants_again(score) {
                    sink.push(i, class, score, from_centre(four(row, 0)));
                }
            }
        }
        Ok(())
    }

    fn shape(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, of: &Candidate) -> Result<Shape, HeadError> {
        let row = &outputs[0].data[of.index as usize * self.numbers(canvas)..][..self.numbers(canvas)];
        self.extra.shape(NAME, row[5 + canvas.classes..].iter().copied(), outputs, canvas, of)
    }
}
