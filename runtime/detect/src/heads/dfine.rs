//! `dfine`: classes, boxes and scores that the model's own post-processing has chosen.

use super::kind::Keys;
use super::numbers::four;
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Sink, grid};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "dfine",
    serves: "D-FINE, DEIM, RT-DETR as their authors export them, with the input `orig_target_sizes`",
    outputs: "`[1, Q]`, `[1, Q, 4]` and `[1, Q]`",
    numbers: "number of the class; left, top, right, bottom in pixels of the size that is given to the second input, which is the \
              model's own; score. No suppression",
    keys: &[
        Key { name: "labels", default: Some("`labels`"), doc: "name of the output with the classes" },
        Key { name: "boxes", default: Some("`boxes`"), doc: "name of the output with the boxes" },
        Key { name: "scores", default: Some("`scores`"), doc: "name of the output with the scores" },
        Key {
            name: "sizes",
            default: Some("`orig_target_sizes`"),
            doc: "name of the input, `i64` `[1, 2]`, that the width and height of the boxes' canvas are given to",
        },
    ],
    read,
    guess: |seen| guess(seen).into_iter().collect(),
};

#[derive(Debug)]
struct Dfine {
    labels: String,
    boxes: String,
    scores: String,
    sizes: String,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (labels, boxes) = (keys.name_or("labels", "labels"), keys.name_or("boxes", "boxes"));
    let (scores, sizes) = (keys.name_or("scores", "scores"), keys.name_or("sizes", "orig_target_sizes"));
    Some(Arc::new(Dfine { labels: labels?, boxes: boxes?, scores: scores?, sizes: sizes? }))
}

fn guess(&Seen { outputs, .. }: &Seen<'_>) -> Option<Guess> {
    let find = |name: &str| outputs.iter().find(|port| port.name == name);
    let (labels, boxes, scores) = (find("labels")?, find("boxes")?, find("scores")?);
    // 0 is an axis that is left open, as in the files that the authors' script writes
    let of_boxes = matches!(boxes.extents::<3>()?, [_, _, 0 | 4]);
    let fits = labels.extents::<2>().is_some() && scores.extents::<2>().is_some() && of_boxes;
    fits.then(|| Guess { head: "{kind: dfine}".to_owned(), classes: None, recipe: Recipe::STRETCHED })
}

impl Head for Dfine {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.labels, &self.boxes, &self.scores]
    }

    fn expected(&self, _: &Canvas) -> Vec<Expected> {
        let list = |what: &str| Expected::new([Axis::Is(1), Axis::Open], format!("queries: {what}"));
        vec![
            list("the number of its class"),
            grid::rows(Axis::Open, 4, "queries, then four edges".to_owned()),
            list("its score"),
        ]
    }

    fn read(&self, outputs: &[RawTensor<'_>], _: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let [labels, boxes, scores] = outputs else { return Ok(()) };
        labels.as_many_as(boxes)?;
        scores.as_many_as(boxes)?;
        for (i, (&label, &score)) in labels.data.iter().zip(scores.data).enumerate() {
            if sink.wants_of_list(score) {
                let class = sink.class(label)?;
                sink.push(i, class, score, four(boxes.data, 4 * i));
            }
        }
        Ok(())
    }

    fn suppresses(&self) -> bool {
        false
    }

    fn size_input(&self) -> Option<&str> {
        Some(&self.sizes)
    }
}
