//! `rtdetr`: queries, each with a box in fractions and a score per class (Zhao et al., RT-DETR, 2023).

use super::kind::Keys;
use super::numbers::{four, from_centre};
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Sink, grid};
use crate::model::Scores;
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "rtdetr",
    serves: "RF-DETR; RT-DETR, D-FINE and DEIM exported without their post-processing",
    outputs: "`[1, Q, 4]` and `[1, Q, C]`; or both in one `[1, Q, 4 + C]`",
    numbers: "centre x, y, width, height as fractions of the input; a score per class. The best `top_k` pairs of query and class, \
              no suppression",
    keys: &[
        Key { name: "boxes", default: Some("none"), doc: "name of the output with boxes; required without `output`" },
        Key { name: "logits", default: Some("none"), doc: "name of the output with scores; required without `output`" },
        Key { name: "output", default: Some("none"), doc: "name of the one output that has both" },
        Key { name: "top_k", default: Some("300"), doc: "pairs of query and class that are kept" },
        Key {
            name: "scores",
            default: Some("`logits`, with `output` `probabilities`"),
            doc: "`probabilities` when the model ends in a sigmoid",
        },
    ],
    read,
    guess: |seen| guess(seen).into_iter().collect(),
};

#[derive(Debug)]
enum Outputs {
    Joined(String),
    Apart { boxes: String, logits: String },
}

#[derive(Debug)]
struct Rtdetr {
    outputs: Outputs,
    top_k: usize,
    scores: Scores,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (outputs, usual) = if !keys.has("output") {
        let (boxes, logits) = (keys.name("boxes"), keys.name("logits"));
        let outputs = || Some(Outputs::Apart { boxes: boxes?, logits: logits? });
        (outputs(), Scores::Logits)
    } else if keys.has("boxes") || keys.has("logits") {
        keys.refuse("'head' has 'output', which joins both, and 'boxes' or 'logits'; remove one or the other");
        (None, Scores::Logits)
    } else {
        (keys.name("output").map(Outputs::Joined), Scores::Probabilities)
    };
    let (top_k, scores) = (keys.integer("top_k", Some(300), 1..=100_000), keys.scores(usual));
    Some(Arc::new(Rtdetr { outputs: outputs?, top_k: top_k? as usize, scores: scores? }))
}

/// The family has 300 queries, or 900. More than this are the cells of a grid, whose numbers mean something else.
const MOST: usize = 1000;

fn guess(&Seen { outputs, input, .. }: &Seen<'_>) -> Option<Guess> {
    if let [output] = outputs {
        let [_, queries, numbers] = output.extents::<3>()?;
        // as many numbers as a grid has cells are a plane for each number: YOLOv8's
        let is_plane = grid::levels(input, numbers).is_some();
        return (queries <= MOST && numbers > 6 && !is_plane).then(|| Guess {
            head: format!("{{kind: rtdetr, output: {}}}", output.name),
            classes: Some(numbers - 4),
            recipe: Recipe::STRETCHED,
        });
    }
    let [first, second] = outputs else { return None };
    let (boxes, logits) = if first.extents::<3>()?[2] == 4 { (first, second) } else { (second, first) };
    let ([_, n, four], [_, queries, classes]) = (boxes.extents::<3>()?, logits.extents::<3>()?);
    (four == 4 && n == queries && n <= MOST).then(|| Guess {
        head: format!("{{kind: rtdetr, boxes: {}, logits: {}}}", boxes.name, logits.name),
        classes: Some(classes),
        // RF-DETR, by the names of its outputs
        recipe: if boxes.name == "dets" { Recipe::RF_DETR } else { Recipe::STRETCHED },
    })
}

impl Head for Rtdetr {
    fn outputs(&self) -> Vec<&str> {
        match &self.outputs {
            Outputs::Joined(output) => vec![output],
            Outputs::Apart { boxes, logits } => vec![boxes, logits],
        }
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let labels = canvas.labels();
        match &self.outputs {
            Outputs::Joined(_) => {
                vec![grid::rows(
                    Axis::UpTo(MOST),
                    4 + canvas.classes,
                    format!("up to {MOST} queries, then a box + {labels}"),
                )]
            }
            Outputs::Apart { .. } => vec![
                grid::rows(Axis::UpTo(MOST), 4, format!("up to {MOST} queries, then a box")),
                grid::rows(Axis::UpTo(MOST), canvas.classes, format!("up to {MOST} queries, then {labels}")),
            ],
        }
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let classes = canvas.classes;
        match outputs {
            [joined] => {
                for (q, row) in joined.data.chunks_exact(4 + classes).enumerate() {
                    self.query(q, four(row, 0), &row[4..], canvas, sink);
                }
            }
            [boxes, logits] => {
                logits.as_many_as(boxes)?;
                for (q, row) in logits.data.chunks_exact(classes).enumerate() {
                    self.query(q, four(boxes.data, 4 * q), row, canvas, sink);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn suppresses(&self) -> bool {
        false
    }

    fn most(&self) -> usize {
        self.top_k
    }
}

impl Rtdetr {
    /// Every class of a query is a candidate.
    fn query(&self, q: usize, [x, y, w, h]: [f32; 4], row: &[f32], canvas: &Canvas, sink: &mut Sink<'_>) {
        let (width, height) = (canvas.size.width_px as f32, canvas.size.height_px as f32);
        for (class, &score) in row.iter().enumerate() {
            let score = sink.probability(score, self.scores);
            if sink.wants(score) {
                let edges = from_centre([x * width, y * height, w * width, h * height]);
                sink.push(q * row.len() + class, class as u32, score, edges);
            }
        }
    }
}
