//! `yolox`: centre and size relative to each cell (Ge et al., YOLOX, 2021).

use super::kind::Keys;
use super::numbers::{best_of, from_centre};
use super::{Axis, Canvas, Expected, Grid, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Sink, grid};
use crate::model::Scores;
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "yolox",
    serves: "YOLOX",
    outputs: "`[1, cells, 5 + C]`",
    numbers: "centre `(xy + cell) * stride`, size `exp(wh) * stride`, score `objectness * class`",
    keys: &[
        Key::OUTPUT,
        Key { name: "strides_px", default: Some("`[8, 16, 32]`"), doc: "model pixels per cell of each level" },
        Key::SCORES,
    ],
    read,
    guess,
};

#[derive(Debug)]
struct Yolox {
    output: String,
    strides_px: Vec<u32>,
    scores: Scores,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, strides_px) = (keys.name("output"), keys.strides());
    let scores = keys.scores(Scores::Probabilities);
    let strides_px = strides_px?.unwrap_or_else(|| vec![8, 16, 32]);
    keys.in_order(&strides_px)?;
    Some(Arc::new(Yolox { output: output?, strides_px, scores: scores? }))
}

/// YOLOX, and YOLOX that was exported with `decode_in_inference`: its graph computes the boxes, as YOLOv5's does.
fn guess(&Seen { outputs, input, .. }: &Seen<'_>) -> Vec<Guess> {
    // YOLOv6 has as many boxes, and its authors another name for the output
    let [output] = outputs else { return Vec::new() };
    let Some([_, cells, numbers]) = output.extents::<3>().filter(|_| output.name == "output") else {
        return Vec::new();
    };
    // four such levels and so many numbers has NanoDet-Plus
    let is_other = |strides: &&[u32]| *strides == [8, 16, 32, 64] && numbers > 4 * 8;
    let strides = grid::levels(input, cells).filter(|strides| numbers > 5 && !is_other(strides));
    let Some(strides) = strides else { return Vec::new() };
    let usual = strides == [8, 16, 32];
    let of_cells = if usual { String::new() } else { format!(", strides_px: {strides:?}") };
    let one = |head: String| Guess { head, classes: Some(numbers - 5), recipe: Recipe::YOLOX };
    let name = &output.name;
    vec![
        one(format!("{{kind: yolox, output: {name}{of_cells}}}")),
        one(format!("{{kind: yolov5, output: {name}{of_cells}}}")),
    ]
}

impl Head for Yolox {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.output]
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let why = format!("cells of {:?} px, then 5 + {}", self.strides_px, canvas.labels());
        let cells = Axis::Is(grid::count(canvas.size, &self.strides_px));
        vec![grid::rows(cells, 5 + canvas.classes, why)]
    }

    fn grid(&self, canvas: &Canvas) -> Option<Grid> {
        // a class's probability is at most 1, so the score is at most the objectness
        Some(Grid::rows(5 + canvas.classes, 4..5, self.scores))
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let cells = outputs[0].here(grid::cells(canvas.size, &self.strides_px, 0.0));
        for (i, (row, cell)) in outputs[0].data.chunks_exact(5 + canvas.classes).zip(cells).enumerate() {
            let object = sink.probability(row[4], self.scores);
            if sink.wants(object) {
                let (class_score, class) = best_of(&row[5..]);
                let score = object * sink.probability(class_score, self.scores);
                if sink.wants_again(score) {
                    let s = cell.stride_px;
                    let (x, y) = (row[0] * s + cell.x_px, row[1] * s + cell.y_px);
                    sink.push(i, class, score, from_centre([x, y, row[2].exp() * s, row[3].exp() * s]));
                }
            }
        }
        Ok(())
    }
}
