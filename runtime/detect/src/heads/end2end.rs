//! `end2end`: the boxes that the network has chosen, one class each.

use super::extra::{self, Extra};
use super::kind::Keys;
use super::numbers::{four, from_centre};
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Shape, Sink, grid};
use crate::nms::Candidate;
use std::sync::Arc;

const NAME: &str = "end2end";

pub(super) const KIND: Kind = Kind {
    name: NAME,
    serves: "YOLOv10, YOLO26 exported with `nms=False`, any YOLO exported with `nms=True`; with their segmentation, pose and oriented models",
    outputs: "`[1, N, 6]`",
    numbers: "left, top, right, bottom in model pixels (`oriented`: centre x, y, width, height), score, number of the class. No suppression",
    keys: &[
        Key::OUTPUT,
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

/// More boxes than this are no list that a network has chosen.
const MOST: usize = 1000;

#[derive(Debug)]
struct End2end {
    output: String,
    extra: Extra,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, extra) = (keys.name("output"), Extra::read(keys));
    Some(Arc::new(End2end { output: output?, extra: extra? }))
}

fn guess(seen: &Seen<'_>) -> Option<Guess> {
    let output = seen.outputs.first()?;
    let [_, boxes, numbers] = output.extents::<3>()?;
    let (extra, text) = Extra::guess(seen)?;
    (boxes <= MOST && numbers == 6 + extra.numbers()).then(|| Guess {
        head: format!("{{kind: {NAME}, output: {}{text}}}", output.name),
        classes: None,
        recipe: Recipe::ULTRALYTICS,
    })
}

impl Head for End2end {
    fn outputs(&self) -> Vec<&str> {
        self.extra.outputs(&self.output)
    }

    fn expected(&self, _: &Canvas) -> Vec<Expected> {
        let why = format!("boxes, then 4 of its place + score + class{}", self.extra.text());
        self.extra.expected(grid::rows(Axis::Open, 6 + self.extra.numbers(), why))
    }

    fn read(&self, outputs: &[RawTensor<'_>], _: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        for (i, row) in outputs[0].data.chunks_exact(6 + self.extra.numbers()).enumerate() {
            if sink.wants_of_list(row[4]) {
                let class = sink.class(row[5])?;
                if self.extra.is_oriented() {
                    sink.push_turned(i, class, row[4], from_centre(four(row, 0)), row[6]);
                } else {
                    sink.push(i, class, row[4], four(row, 0));
                }
            }
        }
        Ok(())
    }

    fn suppresses(&self) -> bool {
        false
    }

    fn oriented(&self) -> bool {
        self.extra.is_oriented()
    }

    fn shape(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, of: &Candidate) -> Result<Shape, HeadError> {
        let numbers = 6 + self.extra.numbers();
        let row = &outputs[0].data[of.index as usize * numbers..][..numbers];
        self.extra.shape(NAME, row[6..].iter().copied(), outputs, canvas, of)
    }
}
