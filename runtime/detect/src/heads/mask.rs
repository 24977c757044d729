//! The outline of a box's mask: where the sum of prototypes, each times its coefficient, is above 0 within the box.

use super::{Canvas, RawTensor};
use crate::nms::Candidate;
use contour::ContourBuilder;
use std::ops::Range;

/// Parts and holes of a mask at most, the largest: a mask of noise has thousands.
const MOST_RINGS: usize = 32;

/// A mask along one axis, in model pixels.
struct Side {
    /// Extent of a prototype's cell.
    cell_px: f32,
    /// The cells that the box touches, and one more at each end, which may be outside the prototypes.
    cells: Range<isize>,
    /// First and last cell whose centre is in the picture.
    shown: (isize, isize),
    /// Where the mask ends at most: at the box's edges, within the picture.
    ends: [f32; 2],
}

impl Side {
    /// Of a box that goes from `of[0]` to `of[1]`.
    fn new(canvas_px: u32, cells: usize, picture: [f32; 2], of: [f32; 2]) -> Self {
        let (cell_px, cells) = (canvas_px as f32 / cells as f32, cells as isize);
        let ends = [of[0].max(picture[0]), of[1].min(picture[1])];
        let first = (ends[0] / cell_px).floor().clamp(0.0, cells as f32) as isize - 1;
        let end = (ends[1] / cell_px).ceil().clamp(0.0, cells as f32) as isize + 1;
        let last_shown = ((picture[1] / cell_px - 0.5).floor().max(0.0) as isize).min(cells - 1);
        let first_shown = ((picture[0] / cell_px - 0.5).ceil().max(0.0) as isize).min(last_shown);
        Self { cell_px, cells: first..end, shown: (first_shown, last_shown), ends }
    }

    /// How many cells there are.
    fn len(&self) -> usize {
        self.cells.len()
    }

    /// Where the values of the cells are: outside the picture, those of the nearest cell in it.
    fn values(&self) -> impl Iterator<Item = usize> {
        let (first, last) = self.shown;
        self.cells.clone().map(move |cell| cell.clamp(first, last) as usize)
    }

    fn is_empty(&self) -> bool {
        self.cells.is_empty() || self.ends[0] >= self.ends[1]
    }
}

/// The outline in model pixels. Between the centres of the prototypes' cells the sum is interpolated; what a model says of the
/// letterbox's padding has no part in it.
pub(super) fn rings(
    prototypes: &RawTensor<'_>,
    coefficients: &[f32],
    canvas: &Canvas,
    of: &Candidate,
) -> Vec<Vec<[f32; 2]>> {
    let [_, _, rows, columns] = *prototypes.shape else { return Vec::new() };
    let [left, top, right, bottom] = canvas.picture;
    let x = Side::new(canvas.size.width_px, columns, [left, right], [of.x1, of.x2]);
    let y = Side::new(canvas.size.height_px, rows, [top, bottom], [of.y1, of.y2]);
    if x.is_empty() || y.is_empty() {
        return Vec::new();
    }
    let mut sums = vec![0.0f32; x.len() * y.len()];
    for (prototype, &coefficient) in prototypes.data.chunks_exact(rows * columns).zip(coefficients) {
        for (sums, row) in sums.chunks_exact_mut(x.len()).zip(y.values()) {
            let row = &prototype[row * columns..][..columns];
            sums.iter_mut().zip(x.values()).for_each(|(sum, column)| *sum += coefficient * row[column]);
        }
    }
    if sums.iter().any(|sum| !sum.is_finite()) {
        // no outline; the box is not reported, and counted
        return vec![vec![[f32::NAN; 2]; 3]];
    }
    // as many values as the builder is told: it has no other error
    let outline = ContourBuilder::new(x.len(), y.len(), true).lines(&sums, &[0.0]).unwrap_or_default();
    let place = |point: &contour::Pt| {
        [(x.cells.start as f32 + point.x) * x.cell_px, (y.cells.start as f32 + point.y) * y.cell_px]
    };
    let mut rings: Vec<(f32, Vec<[f32; 2]>)> = outline
        .iter()
        .flat_map(|outline| &outline.geometry().0)
        .map(|ring| {
            let mut points: Vec<[f32; 2]> = ring.0.iter().map(place).collect();
            for (axis, side) in [&x, &y].into_iter().enumerate() {
                points = cut(&cut(&points, axis, side.ends[0], f32::ge), axis, side.ends[1], f32::le);
            }
            points.dedup();
            if points.first() == points.last() {
                points.pop();
            }
            (area(&points), points)
        })
        .filter(|(area, _)| *area > 0.0)
        .collect();
    rings.sort_by(|a, b| b.0.total_cmp(&a.0));
    rings.truncate(MOST_RINGS);
    rings.into_iter().map(|(_, points)| points).collect()
}

/// The part of a polygon on one side of an upright (`axis` 0) or level line: where its points compare so with `end`.
fn cut(points: &[[f32; 2]], axis: usize, end: f32, is_kept: fn(&f32, &f32) -> bool) -> Vec<[f32; 2]> {
    let mut kept = Vec::with_capacity(points.len() + 2);
    let before = points.last().into_iter().chain(points);
    for (from, to) in before.zip(points) {
        if is_kept(&from[axis], &end) != is_kept(&to[axis], &end) {
            let part = (end - from[axis]) / (to[axis] - from[axis]);
            let mut crossing = [0, 1].map(|n| from[n] + part * (to[n] - from[n]));
            crossing[axis] = end;
            kept.push(crossing);
        }
        if is_kept(&to[axis], &end) {
            kept.push(*to);
        }
    }
    kept
}

/// Of the polygon; 0 where all its points are on one upright or level line.
pub(super) fn area(points: &[[f32; 2]]) -> f32 {
    let Some([x, y]) = points.first() else { return 0.0 };
    let from_first = points.iter().map(|p| [p[0] - x, p[1] - y]);
    let next = from_first.clone().skip(1);
    from_first.zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f32>().abs() / 2.0
}
