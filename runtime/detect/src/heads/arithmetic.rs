//! The arithmetic of each head. Shapes were checked before; every function reads one picture.

use crate::model::Scores;
use crate::nms::Candidate;
use millrace_frame::Size;

/// One cell of a level's grid: where its distances start, and its size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    x_px: f32,
    y_px: f32,
    stride_px: f32,
}

/// The cells of all levels, level by level, row by row. A level has as many cells as cover the input.
pub(super) fn cells(input: Size, strides_px: &[u32], offset: f32) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &stride in strides_px {
        let stride_px = stride as f32;
        for y in 0..input.height_px.div_ceil(stride) {
            for x in 0..input.width_px.div_ceil(stride) {
                cells.push(Cell {
                    x_px: (x as f32 + offset) * stride_px,
                    y_px: (y as f32 + offset) * stride_px,
                    stride_px,
                });
            }
        }
    }
    cells
}

/// Takes boxes: drops those below the score, those that are not finite (counted) and those without area.
pub(super) struct Sink<'a> {
    found: &'a mut Vec<Candidate>,
    min_score: f32,
    pub(super) not_finite: u64,
    /// A score that is above 1 by more than rounding: the model's scores are no probabilities.
    pub(super) above_one: Option<f32>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(found: &'a mut Vec<Candidate>, min_score: f32) -> Self {
        Self { found, min_score, not_finite: 0, above_one: None }
    }

    /// Whether a box of this score is wanted. What is not a number is counted here.
    fn wants(&mut self, score: f32) -> bool {
        if !score.is_finite() {
            self.not_finite += 1;
            return false;
        }
        if score > 1.001 {
            self.above_one = Some(score);
        }
        score >= self.min_score
    }

    fn push(&mut self, index: usize, class_id: u32, score: f32, [x1, y1, x2, y2]: [f32; 4]) {
        if [x1, y1, x2, y2].iter().any(|v| !v.is_finite()) {
            self.not_finite += 1;
        } else if x2 > x1 && y2 > y1 {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.found.push(Candidate { x1, y1, x2, y2, score: score.min(1.0), class_id, index });
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn probability(x: f32, scores: Scores) -> f32 {
    match scores {
        Scores::Probabilities => x,
        // an infinite logit is a fault of the model, not a certainty
        Scores::Logits if x.is_finite() => sigmoid(x),
        Scores::Logits => f32::NAN,
    }
}

/// The best class of a row; the first of equals. NaN never wins; of nothing but NaN the score is minus infinity.
fn best_of(row: &[f32]) -> (f32, u32) {
    let mut best = (f32::NEG_INFINITY, 0);
    for (class, &score) in row.iter().enumerate() {
        if score > best.0 {
            best = (score, class as u32);
        }
    }
    best
}

/// As [`best_of`] for each of `n` places whose scores stand in one plane per class.
fn best_of_planes(planes: &[f32], n: usize, best: &mut Vec<(f32, u32)>) {
    best.clear();
    best.resize(n, (f32::NEG_INFINITY, 0));
    for (class, plane) in planes.chunks_exact(n.max(1)).enumerate() {
        for (best, &score) in best.iter_mut().zip(plane) {
            if score > best.0 {
                *best = (score, class as u32);
            }
        }
    }
}

fn from_centre([x, y, w, h]: [f32; 4]) -> [f32; 4] {
    [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
}

/// `[4 + C, H, W]`: the box is `centre - (l, t)` to `centre + (r, b)`.
pub(super) fn centre(
    data: &[f32],
    classes: usize,
    columns: usize,
    stride_px: f32,
    best: &mut Vec<(f32, u32)>,
    sink: &mut Sink<'_>,
) {
    let n = data.len() / (4 + classes);
    let (distances, scores) = data.split_at(4 * n);
    best_of_planes(scores, n, best);
    for (i, &(score, class)) in best.iter().enumerate() {
        if sink.wants(score) {
            let [x, y] = [i % columns, i / columns].map(|v| (v as f32 + 0.5) * stride_px);
            let [l, t, r, b] = [0, 1, 2, 3].map(|side| distances[side * n + i]);
            sink.push(i, class, score, [x - l, y - t, x + r, y + b]);
        }
    }
}

/// `[cells, 5 + C]`: centre `(xy + cell) x stride`, size `exp(wh) x stride`, score `objectness x class` (Ge et al.,
/// YOLOX, 2021).
pub(super) fn yolox(data: &[f32], classes: usize, cells: &[Cell], scores: Scores, sink: &mut Sink<'_>) {
    for (i, (row, cell)) in data.chunks_exact(5 + classes).zip(cells).enumerate() {
        let object = probability(row[4], scores);
        // a class's probability is at most 1, so the score is at most the objectness
        if sink.wants(object) {
            let (class_score, class) = best_of(&row[5..]);
            let score = object * probability(class_score, scores);
            if sink.wants(score) {
                let s = cell.stride_px;
                let (x, y) = (row[0] * s + cell.x_px, row[1] * s + cell.y_px);
                sink.push(i, class, score, from_centre([x, y, row[2].exp() * s, row[3].exp() * s]));
            }
        }
    }
}

/// `[boxes, 5 + C]`: decoded in the graph; score `objectness x class`.
pub(super) fn yolov5(data: &[f32], classes: usize, sink: &mut Sink<'_>) {
    for (i, row) in data.chunks_exact(5 + classes).enumerate() {
        if sink.wants(row[4]) {
            let (class_score, class) = best_of(&row[5..]);
            let score = row[4] * class_score;
            if sink.wants(score) {
                sink.push(i, class, score, from_centre([row[0], row[1], row[2], row[3]]));
            }
        }
    }
}

/// `[4 + C, boxes]`: decoded in the graph; no objectness.
pub(super) fn yolov8(data: &[f32], classes: usize, best: &mut Vec<(f32, u32)>, sink: &mut Sink<'_>) {
    let n = data.len() / (4 + classes);
    let (boxes, scores) = data.split_at(4 * n);
    best_of_planes(scores, n, best);
    for (i, &(score, class)) in best.iter().enumerate() {
        if sink.wants(score) {
            sink.push(i, class, score, from_centre([0, 1, 2, 3].map(|part| boxes[part * n + i])));
        }
    }
}

/// `[cells, C + 4 x bins]`: each side's distance is the mean of 0, 1, … `bins - 1` cells under the softmax of its
/// logits (Li et al., Generalized Focal Loss, 2020).
pub(super) fn nanodet(data: &[f32], classes: usize, bins: usize, cells: &[Cell], scores: Scores, sink: &mut Sink<'_>) {
    for (i, (row, cell)) in data.chunks_exact(classes + 4 * bins).zip(cells).enumerate() {
        let (class_scores, sides) = row.split_at(classes);
        let (score, class) = best_of(class_scores);
        let score = probability(score, scores);
        if sink.wants(score) {
            let distance = |side: usize| mean_bin(&sides[side * bins..(side + 1) * bins]) * cell.stride_px;
            let [l, t, r, b] = [0, 1, 2, 3].map(distance);
            sink.push(i, class, score, [cell.x_px - l, cell.y_px - t, cell.x_px + r, cell.y_px + b]);
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

/// `[Q, 4]` as fractions of the input and `[Q, C]`: every pair of query and class is a candidate (Zhao et al., RT-DETR,
/// 2023).
pub(super) fn rtdetr(boxes: &[f32], logits: &[f32], classes: usize, input: Size, scores: Scores, sink: &mut Sink<'_>) {
    let (w, h) = (input.width_px as f32, input.height_px as f32);
    for (i, &logit) in logits.iter().enumerate() {
        let score = probability(logit, scores);
        if sink.wants(score) {
            let q = 4 * (i / classes);
            let around = [boxes[q] * w, boxes[q + 1] * h, boxes[q + 2] * w, boxes[q + 3] * h];
            sink.push(i, (i % classes) as u32, score, from_centre(around));
        }
    }
}
