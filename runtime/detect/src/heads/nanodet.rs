//! `nanodet`: a distribution over distances for each side of each cell (Li et al., Generalized Focal Loss, 2020).

use super::grid::Cell;
use super::kind::Keys;
use super::numbers::best_of;
use super::{Axis, Canvas, Expected, Grid, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Seen, Sink, grid};
use crate::model::Scores;
use crate::signature::Port;
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "nanodet",
    serves: "NanoDet, NanoDet-Plus",
    outputs: "`[1, cells, C + 4 (reg_max + 1)]`; or for each stride `[1, cells, C]` and `[1, cells, 4 (reg_max + 1)]`",
    numbers: "a score per class; for left, top, right, bottom the logits of a distribution over 0 to `reg_max` cells, whose mean \
              is the distance",
    keys: &[
        Key {
            name: "output",
            default: Some("none"),
            doc: "name of the output that has all; required without the two below",
        },
        Key {
            name: "classes",
            default: Some("none"),
            doc: "names of the outputs with scores, in the order of `strides_px`, for a model with an output for each stride",
        },
        Key { name: "distances", default: Some("none"), doc: "names of the outputs with distances, in the same order" },
        Key {
            name: "strides_px",
            default: Some("`[8, 16, 32, 64]`, with `classes` `[8, 16, 32]`"),
            doc: "model pixels per cell of each level: four for NanoDet-Plus, `[8, 16, 32]` for NanoDet",
        },
        Key { name: "reg_max", default: Some("7"), doc: "largest distance in cells" },
        Key {
            name: "cell_offset",
            default: Some("0.5 with three strides, else 0"),
            doc: "where in a cell distances start, in cells: 0 for NanoDet-Plus, 0.5 for NanoDet",
        },
        Key::SCORES,
    ],
    read,
    guess: |seen| guess(seen).into_iter().collect(),
};

#[derive(Debug)]
enum Outputs {
    Joined(String),
    Apart { classes: Vec<String>, distances: Vec<String> },
}

#[derive(Debug)]
struct Nanodet {
    outputs: Outputs,
    strides_px: Vec<u32>,
    bins: usize,
    cell_offset: f32,
    scores: Scores,
}

fn outputs(keys: &mut Keys<'_, '_>) -> Option<Outputs> {
    if !keys.has("classes") && !keys.has("distances") {
        return keys.name("output").map(Outputs::Joined);
    }
    if keys.has("output") {
        keys.refuse("'head' has 'output', which joins all, and outputs for each stride; remove one or the other");
        return None;
    }
    let (classes, distances) = (keys.names("classes"), keys.names("distances"));
    Some(Outputs::Apart { classes: classes?, distances: distances? })
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (outputs, strides_px) = (outputs(keys), keys.strides());
    let reg_max = keys.integer("reg_max", Some(7), 1..=64);
    let (cell_offset, scores) = (keys.number("cell_offset", 0.0..=1.0), keys.scores(Scores::Probabilities));
    let outputs = outputs?;
    let default: &[u32] = if matches!(outputs, Outputs::Apart { .. }) { &[8, 16, 32] } else { &[8, 16, 32, 64] };
    let strides_px = strides_px?.unwrap_or_else(|| default.to_vec());
    if let Outputs::Apart { classes, distances } = &outputs
        && (classes.len() != strides_px.len() || distances.len() != strides_px.len())
    {
        let (c, d, s) = (classes.len(), distances.len(), strides_px.len());
        keys.refuse(&format!(
            "'head' names {c} outputs with classes and {d} with distances for {s} strides; give each stride one of both"
        ));
        return None;
    }
    if let Outputs::Joined(_) = &outputs {
        keys.in_order(&strides_px)?;
    }
    let usual = if strides_px.len() == 3 { 0.5 } else { 0.0 };
    let cell_offset = cell_offset?.unwrap_or(usual);
    Some(Arc::new(Nanodet { outputs, strides_px, bins: reg_max? as usize + 1, cell_offset, scores: scores? }))
}

fn guess(&Seen { outputs, input, .. }: &Seen<'_>) -> Option<Guess> {
    const SIDES: usize = 4 * 8;
    if let [output] = outputs {
        let [_, cells, numbers] = output.extents::<3>()?;
        let strides = [&[8, 16, 32, 64][..], &[8, 16, 32]].into_iter().find(|s| grid::count(input, s) == cells)?;
        // of the same shape as YOLOX, but for the name
        return (numbers > SIDES && output.name != "output0").then(|| Guess {
            head: format!("{{kind: nanodet, output: {}, strides_px: {strides:?}}}", output.name),
            classes: Some(numbers - SIDES),
            recipe: Recipe::NANODET,
        });
    }
    let strides = [8, 16, 32];
    let at = |stride: u32, distances: bool| {
        let fits = |port: &&Port| {
            port.extents::<3>().is_some_and(|[_, cells, numbers]| {
                cells == grid::count(input, &[stride]) && distances == (numbers == SIDES)
            })
        };
        outputs.iter().find(fits)
    };
    let names = |distances| {
        let all: Option<Vec<&str>> = strides.iter().map(|&s| Some(at(s, distances)?.name.as_str())).collect();
        all.map(|all| all.join(", "))
    };
    let (classes, distances) = (names(false)?, names(true)?);
    (outputs.len() == 2 * strides.len()).then(|| Guess {
        head: format!("{{kind: nanodet, classes: [{classes}], distances: [{distances}]}}"),
        classes: at(8, false).and_then(|port| port.extents::<3>()).map(|[.., classes]| classes),
        recipe: Recipe::NANODET,
    })
}

impl Head for Nanodet {
    fn outputs(&self) -> Vec<&str> {
        match &self.outputs {
            Outputs::Joined(output) => vec![output],
            Outputs::Apart { classes, distances } => classes.iter().chain(distances).map(String::as_str).collect(),
        }
    }

    fn expected(&self, canvas: &Canvas) -> Vec<Expected> {
        let (labels, max) = (canvas.labels(), self.bins - 1);
        let cells = |strides: &[u32]| Axis::Is(grid::count(canvas.size, strides));
        match &self.outputs {
            Outputs::Joined(_) => {
                let why = format!("cells of {:?} px, then {labels} + 4 x (reg_max {max} + 1)", self.strides_px);
                vec![grid::rows(cells(&self.strides_px), canvas.classes + 4 * self.bins, why)]
            }
            Outputs::Apart { .. } => {
                let level = |numbers: usize, what: &str| -> Vec<Expected> {
                    let of = |s: &u32| grid::rows(cells(&[*s]), numbers, format!("cells of {s} px, then {what}"));
                    self.strides_px.iter().map(of).collect()
                };
                let mut all = level(canvas.classes, &labels);
                all.extend(level(4 * self.bins, &format!("4 x (reg_max {max} + 1)")));
                all
            }
        }
    }

    fn grid(&self, canvas: &Canvas) -> Option<Grid> {
        let joined = matches!(self.outputs, Outputs::Joined(_));
        joined.then(|| Grid::rows(canvas.classes + 4 * self.bins, 0..canvas.classes, self.scores))
    }

    fn read(&self, outputs: &[RawTensor<'_>], canvas: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        let (classes, sides) = (canvas.classes, 4 * self.bins);
        let cells = outputs[0].here(grid::cells(canvas.size, &self.strides_px, self.cell_offset));
        match &self.outputs {
            Outputs::Joined(_) => {
                let rows = outputs[0].data.chunks_exact(classes + sides).map(|row| row.split_at(classes));
                self.rows(rows, cells, sink);
            }
            Outputs::Apart { .. } => {
                let (scores, distances) = outputs.split_at(self.strides_px.len());
                let scores = scores.iter().flat_map(|level| level.data.chunks_exact(classes));
                let distances = distances.iter().flat_map(|level| level.data.chunks_exact(sides));
                self.rows(scores.zip(distances), cells, sink);
            }
        }
        Ok(())
    }
}

impl Nanodet {
    /// The scores and the sides' logits of each cell.
    fn rows<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [f32], &'a [f32])>,
        cells: impl Iterator<Item = Cell>,
        sink: &mut Sink<'_>,
    ) {
        for (i, ((scores, sides), cell)) in rows.zip(cells).enumerate() {
            let (score, class) = best_of(scores);
            let score = sink.probability(score, self.scores);
            if sink.wants(score) {
                let distance = |side: usize| mean_bin(&sides[side * self.bins..][..self.bins]) * cell.stride_px;
                let [l, t, r, b] = [0, 1, 2, 3].map(distance);
                sink.push(i, class, score, [cell.x_px - l, cell.y_px - t, cell.x_px + r, cell.y_px + b]);
            }
        }
    }
}

/// The mean of 0, 1, … under the softmax of `logits`.
fn mean_bin(logits: &[f32]) -> f32 {
    // shifted by the largest, so that no exponential overflows
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut mean) = (0.0, 0.0);
    for (bin, &logit) in logits.iter().enumerate() {
        let weight = (logit - top).exp();
        sum += weight;
        mean += weight * bin as f32;
    }
    mean / sum
}
