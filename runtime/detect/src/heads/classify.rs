//! `classify`: a score for each class, of the whole picture.

use super::kind::Keys;
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Sink, Task};
use crate::model::Scores;
use std::sync::Arc;

const NAME: &str = "classify";

pub(super) const KIND: Kind = Kind {
    name: NAME,
    serves: "classifiers: YOLOv8-cls and later, those of torchvision and timm",
    outputs: "`[1, C]`",
    numbers: "a score per class of the whole picture. No boxes",
    keys: &[
        Key::OUTPUT,
        Key {
            name: "scores",
            default: Some("`probabilities`"),
            doc: "`logits` when the model ends without a softmax, which is computed then",
        },
        Key {
            name: "top_k",
            default: Some("5"),
            doc: "classes of a picture that are reported at most, those of at least `score`",
        },
    ],
    read,
    guess,
};

#[derive(Debug)]
struct Classify {
    output: String,
    scores: Scores,
    top_k: usize,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, scores) = (keys.name("output"), keys.scores(Scores::Probabilities));
    let top_k = keys.integer("top_k", Some(5), 1..=1000);
    Some(Arc::new(Classify { output: output?, scores: scores?, top_k: top_k? as usize }))
}

/// Shapes do not say whether the model ends in a softmax; its numbers do.
fn guess(seen: &Seen<'_>) -> Vec<Guess> {
    let [output] = seen.outputs else { return Vec::new() };
    let classes = match (output.extents::<2>(), seen.task) {
        (Some([_, classes]), None | Some(Task::Classify)) if classes > 1 => classes,
        _ => return Vec::new(),
    };
    let recipe = if seen.task.is_some() { Recipe::CROPPED } else { Recipe::of_classifier(seen.input) };
    let one = |scores: &str| Guess {
        head: format!("{{kind: {NAME}, output: {}, scores: {scores}}}", output.name),
        classes: Some(classes),
        recipe: recipe.clone(),
    };
    vec![one("probabilities"), one("logits")]
}

/// The sum of probabilities is 1 up to this.
const ROUNDING: f64 = 1e-3;

impl Head for Classify {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.output]
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        vec![Expected::new([Axis::Is(1), Axis::Is(canvas.classes)], format!("a score for each of {}", canvas.labels()))]
    }

    fn read(&self, outputs: &[RawTensor<'_>], _: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let data = outputs[0].data;
        let logits = self.scores == Scores::Logits;
        let sum: f64 = data.iter().map(|&v| f64::from(v)).sum();
        if logits && data.len() > 1 && data.iter().all(|v| (0.0..=1.0).contains(v)) && (sum - 1.0).abs() < ROUNDING {
            return Err(HeadError::NotLogits { kind: NAME, scores: data.len() as u64 });
        }
        // of the largest the exponential is 1, so that none overflows
        let most = data.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let part = |v: f32| f64::from(v - most).exp();
        let whole: f64 = data.iter().map(|&v| part(v)).sum();
        for (class, &score) in (0..).zip(data) {
            let score = if logits { (part(score) / whole) as f32 } else { score };
            if sink.wants(score) {
                sink.push_class(class, score);
            }
        }
        Ok(())
    }

    fn suppresses(&self) -> bool {
        false
    }

    fn classifies(&self) -> bool {
        true
    }

    fn most(&self) -> usize {
        self.top_k
    }
}
