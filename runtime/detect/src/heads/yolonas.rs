//! `yolonas`: corners in pixels and a score per class, in two outputs.

use super::kind::Keys;
use super::numbers::{best_of, four};
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Sink, grid};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "yolonas",
    serves: "YOLO-NAS, PP-YOLOE; exported without suppression",
    outputs: "`[1, boxes, 4]` and `[1, boxes, C]`",
    numbers: "left, top, right, bottom in model pixels; a probability per class",
    keys: &[
        Key { name: "boxes", default: None, doc: "name of the output with the boxes" },
        Key { name: "scores", default: None, doc: "name of the output with the scores" },
    ],
    read,
    guess: |seen| guess(seen).into_iter().collect(),
};

#[derive(Debug)]
struct Yolonas {
    boxes: String,
    scores: String,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (boxes, scores) = (keys.name("boxes"), keys.name("scores"));
    Some(Arc::new(Yolonas { boxes: boxes?, scores: scores? }))
}

fn guess(&Seen { outputs, input, .. }: &Seen<'_>) -> Option<Guess> {
    let [first, second] = outputs else { return None };
    let (boxes, scores) = if first.extents::<3>()?[2] == 4 { (first, second) } else { (second, first) };
    let ([_, n, four], [_, places, classes]) = (boxes.extents::<3>()?, scores.extents::<3>()?);
    (four == 4 && n == places && n == grid::count(input, &[8, 16, 32])).then(|| Guess {
        head: format!("{{kind: yolonas, boxes: {}, scores: {}}}", boxes.name, scores.name),
        classes: Some(classes),
        recipe: Recipe::YOLO_NAS,
    })
}

impl Head for Yolonas {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.boxes, &self.scores]
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let (boxes, why) = grid::boxes(canvas, None, 1);
        let scores = format!("{why}; then {}", canvas.labels());
        vec![
            grid::rows(boxes.clone(), 4, format!("{why}; then four edges")),
            Expected::new([Axis::Is(1), boxes, Axis::Is(canvas.classes)], scores),
        ]
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let [boxes, scores] = outputs else { return Ok(()) };
        scores.as_many_as(boxes)?;
        for (i, row) in scores.data.chunks_exact(canvas.classes).enumerate() {
            let (score, class) = best_of(row);
            if sink.wants(score) {
                sink.push(i, class, score, four(boxes.data, 4 * i));
            }
        }
        Ok(())
    }
}
