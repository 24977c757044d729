//! `yolov5`: boxes that the graph has computed, with an objectness.

use super::kind::Keys;
use super::numbers::{best_of, four, from_centre};
use super::{Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Sink, grid};
use crate::model::Scores;
use crate::signature::Port;
use millrace_frame::Size;
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "yolov5",
    serves: "YOLOv5, YOLOv6, YOLOv7",
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
        Key::EXTRA,
    ],
    read,
    guess,
};

/// Anchors of a cell at most.
const ANCHORS: usize = 9;

#[derive(Debug)]
struct Yolov5 {
    output: String,
    strides_px: Option<Vec<u32>>,
    scores: Scores,
    extra: usize,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, strides_px) = (keys.name("output"), keys.strides());
    let (scores, extra) = (keys.scores(Scores::Probabilities), keys.extra());
    Some(Arc::new(Yolov5 { output: output?, strides_px: strides_px?, scores: scores?, extra: extra? }))
}

fn guess(outputs: &[Port], input: Size) -> Option<Guess> {
    let output = outputs.first()?;
    let [_, boxes, numbers] = output.extents::<3>()?;
    let cells = grid::count(input, &[8, 16, 32]);
    (outputs.len() == 1 && numbers > 5 && (boxes == 3 * cells || boxes == cells)).then(|| Guess {
        head: format!("{{kind: yolov5, output: {}}}", output.name),
        classes: Some(numbers - 5),
        recipe: Recipe::ULTRALYTICS,
    })
}

impl Head for Yolov5 {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.output]
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let (boxes, why) = grid::boxes(canvas, self.strides_px.as_ref(), ANCHORS);
        let extra = if self.extra > 0 { format!(" + extra {}", self.extra) } else { String::new() };
        let why = format!("{why}; then 5 + {}{extra}", canvas.labels());
        vec![grid::rows(boxes, 5 + canvas.classes + self.extra, why)]
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let classes = canvas.classes;
        for (i, row) in outputs[0].data.chunks_exact(5 + classes + self.extra).enumerate() {
            let object = sink.probability(row[4], self.scores);
            if sink.wants(object) {
                let (class_score, class) = best_of(&row[5..5 + classes]);
                let score = object * sink.probability(class_score, self.scores);
                if sink.wants_again(score) {
                    sink.push(i, class, score, from_centre(four(row, 0)));
                }
            }
        }
        Ok(())
    }
}
