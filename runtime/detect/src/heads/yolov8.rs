//! `yolov8`: boxes that the graph has computed, a plane for each number.

use super::kind::Keys;
use super::numbers::{best_of_planes, from_centre};
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Sink, grid};
use crate::model::Scores;
use crate::signature::Port;
use millrace_frame::Size;
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "yolov8",
    serves: "YOLOv8, YOLOv9, YOLO11, YOLO12; the boxes of their segmentation and pose models",
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
        Key::EXTRA,
    ],
    read,
    guess,
};

#[derive(Debug)]
struct Yolov8 {
    output: String,
    strides_px: Option<Vec<u32>>,
    scores: Scores,
    extra: usize,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, strides_px) = (keys.name("output"), keys.strides());
    let (scores, extra) = (keys.scores(Scores::Probabilities), keys.extra());
    Some(Arc::new(Yolov8 { output: output?, strides_px: strides_px?, scores: scores?, extra: extra? }))
}

fn guess(outputs: &[Port], input: Size) -> Option<Guess> {
    let output = outputs.first()?;
    let [_, numbers, boxes] = output.extents::<3>()?;
    // a segmentation model has as many coefficients for each box as prototypes: the second output
    let masks = match &outputs[1..] {
        [] => 0,
        [prototypes] => prototypes.extents::<4>()?[1],
        _ => return None,
    };
    (boxes == grid::count(input, &[8, 16, 32]) && numbers > 4 + masks).then(|| {
        let extra = if masks > 0 { format!(", extra: {masks}") } else { String::new() };
        Guess {
            head: format!("{{kind: yolov8, output: {}{extra}}}", output.name),
            classes: Some(numbers - 4 - masks),
            recipe: Recipe::ULTRALYTICS,
        }
    })
}

impl Head for Yolov8 {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.output]
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let (boxes, why) = grid::boxes(canvas, self.strides_px.as_ref(), 1);
        let extra = if self.extra > 0 { format!(" + extra {}", self.extra) } else { String::new() };
        let numbers = Axis::Is(4 + canvas.classes + self.extra);
        vec![Expected::new([Axis::Is(1), numbers, boxes], format!("4 + {}{extra}, then {why}", canvas.labels()))]
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let data = outputs[0].data;
        let n = data.len() / (4 + canvas.classes + self.extra);
        let (boxes, scores) = data.split_at(4 * n);
        let mut best = std::mem::take(sink.best);
        best_of_planes(&scores[..canvas.classes * n], n, &mut best);
        for (i, &(score, class)) in best.iter().enumerate() {
            let score = sink.probability(score, self.scores);
            if sink.wants(score) {
                sink.push(i, class, score, from_centre([0, 1, 2, 3].map(|part| boxes[part * n + i])));
            }
        }
        *sink.best = best;
        Ok(())
    }
}
