//! `centre`: distances to the four sides from the centre of each cell.

use super::kind::Keys;
use super::numbers::best_of_planes;
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Sink};
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "centre",
    serves: "the demo model",
    outputs: "`[1, 4 + C, H, W]`",
    numbers: "distances left, top, right, bottom from the centre of the cell in model pixels; a probability per class",
    keys: &[Key::OUTPUT, Key { name: "stride_px", default: None, doc: "model pixels per cell" }],
    read,
    guess: |seen| guess(seen).into_iter().collect(),
};

#[derive(Debug)]
struct Centre {
    output: String,
    stride_px: u32,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, stride_px) = (keys.name("output"), keys.integer("stride_px", None, 1..=1024));
    Some(Arc::new(Centre { output: output?, stride_px: stride_px? }))
}

fn guess(&Seen { outputs, input, .. }: &Seen<'_>) -> Option<Guess> {
    let [output] = outputs else { return None };
    let [_, numbers, rows, columns] = output.extents::<4>()?;
    let stride = input.width_px.checked_div(u32::try_from(columns).ok()?)?;
    let whole = columns as u32 * stride == input.width_px && rows as u32 * stride == input.height_px;
    (numbers > 4 && whole).then(|| Guess {
        head: format!("{{kind: centre, output: {}, stride_px: {stride}}}", output.name),
        classes: Some(numbers - 4),
        recipe: Recipe::ULTRALYTICS,
    })
}

impl Head for Centre {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.output]
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let (size, stride) = (canvas.size, self.stride_px);
        let [rows, columns] = [size.height_px, size.width_px].map(|px| Axis::Is(px.div_ceil(stride) as usize));
        let why = format!("4 + {}, then rows and columns of {stride} px cells", canvas.labels());
        vec![Expected::new([Axis::Is(1), Axis::Is(4 + canvas.classes), rows, columns], why)]
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let (data, columns) = (outputs[0].data, outputs[0].shape[3]);
        let n = data.len() / (4 + canvas.classes);
        let (distances, scores) = data.split_at(4 * n);
        let mut best = std::mem::take(sink.best);
        best_of_planes(scores, n, &mut best);
        for (i, &(score, class)) in best.iter().enumerate() {
            if sink.wants(score) {
                let [x, y] = [i % columns, i / columns].map(|v| (v as f32 + 0.5) * self.stride_px as f32);
                let [l, t, r, b] = [0, 1, 2, 3].map(|side| distances[side * n + i]);
                sink.push(i, class, score, [x - l, y - t, x + r, y + b]);
            }
        }
        *sink.best = best;
        Ok(())
    }
}
