//! Arithmetic that several heads share.

/// The best class of a row; the first of equals. NaN never wins; of nothing but NaN the score is minus infinity.
pub(super) fn best_of(row: &[f32]) -> (f32, u32) {
    let mut best = (f32::NEG_INFINITY, 0);
    for (class, &score) in row.iter().enumerate() {
        if score > best.0 {
            best = (score, class as u32);
        }
    }
    best
}

/// As [`best_of`] for each of `n` places whose scores are in one plane per class.
pub(super) fn best_of_planes(planes: &[f32], n: usize, best: &mut Vec<(f32, u32)>) {
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

/// Edges from a centre and a size.
pub(super) fn from_centre([x, y, w, h]: [f32; 4]) -> [f32; 4] {
    [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
}

/// Four numbers that begin at `at`.
pub(super) fn four(data: &[f32], at: usize) -> [f32; 4] {
    [data[at], data[at + 1], data[at + 2], data[at + 3]]
}
