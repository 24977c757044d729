//! The cells of a detector's grids.

use super::{Axis, Canvas, Expected};
use millrace_frame::Size;

/// One cell of a level's grid: where its distances start, and its size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) x_px: f32,
    pub(super) y_px: f32,
    pub(super) stride_px: f32,
}

/// The cells of all levels, level by level, row by row. A level has as many cells as cover the input.
pub(super) fn cells(input: Size, strides_px: &[u32], offset: f32) -> impl Iterator<Item = Cell> {
    strides_px.iter().flat_map(move |&stride| {
        let stride_px = stride as f32;
        let place = move |n: u32| (n as f32 + offset) * stride_px;
        (0..input.height_px.div_ceil(stride)).flat_map(move |y| {
            (0..input.width_px.div_ceil(stride)).map(move |x| Cell { x_px: place(x), y_px: place(y), stride_px })
        })
    })
}

/// How many cells that is.
pub(super) fn count(input: Size, strides_px: &[u32]) -> usize {
    let of_level = |&s: &u32| input.width_px.div_ceil(s) as usize * input.height_px.div_ceil(s) as usize;
    strides_px.iter().map(of_level).sum()
}

/// The levels that detectors have whose description does not say.
const LEVELS: [&[u32]; 5] = [&[8, 16, 32], &[8, 16, 32, 64], &[4, 8, 16, 32], &[4, 8, 16, 32, 64], &[16, 32]];

/// The levels of a detector that has so many cells.
pub(super) fn levels(input: Size, cells: usize) -> Option<&'static [u32]> {
    LEVELS.into_iter().find(|levels| count(input, levels) == cells)
}

/// How many boxes a detector may have that makes up to `each` in every cell, and where that comes from.
pub(super) fn boxes(canvas: &Canvas, strides_px: Option<&Vec<u32>>, each: usize) -> (Axis, String) {
    let levels: Vec<&[u32]> = strides_px.map_or(LEVELS.to_vec(), |strides| vec![strides]);
    let counts: Vec<usize> = levels.iter().map(|levels| count(canvas.size, levels)).collect();
    let all: Vec<usize> = counts.iter().flat_map(|n| (1..=each).map(move |each| n * each)).collect();
    let times = if each > 1 { format!(", times 1 to {each}") } else { String::new() };
    let why = format!("boxes: {} for cells of {:?} px{times}", counts[0], levels[0]);
    (Axis::Among(all), why)
}

/// An output of rows, one for each box: `[1, boxes, numbers]`.
pub(super) fn rows(boxes: Axis, numbers: usize, why: String) -> Expected {
    Expected::new([Axis::Is(1), boxes, Axis::Is(numbers)], why)
}
