//! The outline of a box's mask: where the sum of prototypes, each times its coefficient, is above 0 within the box.

use super::RawTensor;
use crate::nms::Candidate;
use contour::ContourBuilder;
use millrace_frame::Size;

/// Parts and holes of a mask at most, the largest: a mask of noise has thousands.
const MOST_RINGS: usize = 32;

/// The outline in model pixels. Between the centres of the prototypes' cells the sum is interpolated.
pub(super) fn rings(
    prototypes: &RawTensor<'_>,
    coefficients: &[f32],
    canvas: Size,
    of: &Candidate,
) -> Vec<Vec<[f32; 2]>> {
    let [_, _, rows, columns] = *prototypes.shape else { return Vec::new() };
    let cell = [canvas.width_px as f32 / columns as f32, canvas.height_px as f32 / rows as f32];
    // the cells that the box touches, and one more on each side
    let range = |low: f32, high: f32, cell: f32, end: usize| {
        let first = (low / cell).floor().max(1.0) as usize - 1;
        first.min(end)..((high / cell).ceil().max(0.0) as usize).saturating_add(1).min(end)
    };
    let (xs, ys) = (range(of.x1, of.x2, cell[0], columns), range(of.y1, of.y2, cell[1], rows));
    if xs.is_empty() || ys.is_empty() {
        return Vec::new();
    }
    let mut sums = vec![0.0f32; xs.len() * ys.len()];
    for (prototype, &coefficient) in prototypes.data.chunks_exact(rows * columns).zip(coefficients) {
        for (sums, y) in sums.chunks_exact_mut(xs.len()).zip(ys.clone()) {
            let row = &prototype[y * columns..][xs.clone()];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += coefficient * value);
        }
    }
    if sums.iter().any(|sum| !sum.is_finite()) {
        // no outline; the box is not reported, and counted
        return vec![vec![[f32::NAN; 2]; 3]];
    }
    // as many values as the builder is told: it has no other error
    let outline = ContourBuilder::new(xs.len(), ys.len(), true).lines(&sums, &[0.0]).unwrap_or_default();
    let place = |point: &contour::Pt| {
        [
            ((xs.start as f32 + point.x) * cell[0]).clamp(of.x1, of.x2),
            ((ys.start as f32 + point.y) * cell[1]).clamp(of.y1, of.y2),
        ]
    };
    let mut rings: Vec<(f32, Vec<[f32; 2]>)> = outline
        .iter()
        .flat_map(|outline| &outline.geometry().0)
        .map(|ring| {
            let mut points: Vec<[f32; 2]> = ring.0.iter().map(place).collect();
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

/// Of the polygon; 0 where all its points are on one upright or level line.
pub(super) fn area(points: &[[f32; 2]]) -> f32 {
    let Some([x, y]) = points.first() else { return 0.0 };
    let from_first = points.iter().map(|p| [p[0] - x, p[1] - y]);
    let next = from_first.clone().skip(1);
    from_first.zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f32>().abs() / 2.0
}
