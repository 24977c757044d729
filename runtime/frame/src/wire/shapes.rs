//! What a box may have beside its edges, as Arrow columns. Each is there where a box of the frame has such a shape.

use super::WireError;
use super::detections::{floats, wrong};
use crate::{DetBox, Keypoint, Oriented};
use arrow::array::{Array, ArrayRef, AsArray, Float32Array, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Float32Type};
use std::sync::Arc;

const ORIENTED: &str = "oriented";
const KEYPOINTS: &str = "keypoints";
const MASK: &str = "mask";

/// A struct of columns, each with its name and whether it may be null.
pub(super) fn rows(columns: Vec<(&str, ArrayRef, bool)>) -> ArrayRef {
    let fields: Vec<Field> =
        columns.iter().map(|(name, column, null)| Field::new(*name, column.data_type().clone(), *null)).collect();
    Arc::new(StructArray::new(fields.into(), columns.into_iter().map(|(_, column, _)| column).collect(), None))
}

/// A list column with an entry of each of these lengths.
pub(super) fn list(lengths: &[usize], values: ArrayRef) -> ArrayRef {
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths.iter().copied()), values, None))
}

/// The columns of the shapes that these boxes have.
pub(super) fn columns(boxes: &[DetBox]) -> Vec<(&'static str, ArrayRef, bool)> {
    let mut columns = Vec::new();
    if boxes.iter().any(|b| b.oriented.is_some()) {
        columns.push((ORIENTED, oriented(boxes), true));
    }
    if boxes.iter().any(|b| !b.keypoints.is_empty()) {
        let points = || boxes.iter().flat_map(|b| &b.keypoints);
        let values = rows(vec![
            ("x", Arc::new(Float32Array::from_iter_values(points().map(|p| p.x))), false),
            ("y", Arc::new(Float32Array::from_iter_values(points().map(|p| p.y))), false),
            ("score", Arc::new(Float32Array::from_iter(points().map(|p| p.score))), true),
        ]);
        let lengths: Vec<usize> = boxes.iter().map(|b| b.keypoints.len()).collect();
        columns.push((KEYPOINTS, list(&lengths, values), false));
    }
    if boxes.iter().any(|b| !b.mask.is_empty()) {
        let rings = || boxes.iter().flat_map(|b| &b.mask);
        let numbers = Arc::new(Float32Array::from_iter_values(rings().flatten().copied()));
        let rings = list(&rings().map(Vec::len).collect::<Vec<_>>(), numbers);
        columns.push((MASK, list(&boxes.iter().map(|b| b.mask.len()).collect::<Vec<_>>(), rings), false));
    }
    columns
}

fn oriented(boxes: &[DetBox]) -> ArrayRef {
    let of = |f: fn(&Oriented) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(boxes.iter().map(|b| b.oriented.as_ref().map_or(0.0, f))))
    };
    let columns = [
        ("x", of(|o| o.x)),
        ("y", of(|o| o.y)),
        ("width", of(|o| o.width)),
        ("height", of(|o| o.height)),
        ("angle_rad", of(|o| o.angle_rad)),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), false)).collect();
    let valid = NullBuffer::from(boxes.iter().map(|b| b.oriented.is_some()).collect::<Vec<bool>>());
    Arc::new(StructArray::new(fields.into(), columns.into_iter().map(|(_, column)| column).collect(), Some(valid)))
}

/// Gives the boxes of `table`'s rows the shapes that are there.
pub(super) fn read(table: &StructArray, boxes: &mut [DetBox]) -> Result<(), WireError> {
    if let Some(column) = table.column_by_name(ORIENTED) {
        let rows = column.as_struct_opt().ok_or(wrong(ORIENTED, "struct"))?;
        let [x, y, width, height, angle] = ["x", "y", "width", "height", "angle_rad"].map(|field| floats(rows, field));
        let (x, y, width, height, angle) = (x?, y?, width?, height?, angle?);
        for (i, of) in boxes.iter_mut().enumerate().filter(|(i, _)| rows.is_valid(*i)) {
            let (width, height, angle_rad) = (width.value(i), height.value(i), angle.value(i));
            of.oriented = Some(Oriented { x: x.value(i), y: y.value(i), width, height, angle_rad });
        }
    }
    if let Some(column) = table.column_by_name(KEYPOINTS) {
        let lists = column.as_list_opt::<i32>().ok_or(wrong(KEYPOINTS, "list of struct"))?;
        for (i, of) in boxes.iter_mut().enumerate() {
            let points = lists.value(i);
            let points = points.as_struct_opt().ok_or(wrong(KEYPOINTS, "list of struct"))?;
            let (x, y, score) = (floats(points, "x")?, floats(points, "y")?, floats(points, "score")?);
            let score = |k| score.is_valid(k).then(|| score.value(k));
            of.keypoints =
                (0..points.len()).map(|k| Keypoint { x: x.value(k), y: y.value(k), score: score(k) }).collect();
        }
    }
    if let Some(column) = table.column_by_name(MASK) {
        let lists = column.as_list_opt::<i32>().ok_or(wrong(MASK, "list of list"))?;
        for (i, of) in boxes.iter_mut().enumerate() {
            let rings = lists.value(i);
            let rings = rings.as_list_opt::<i32>().ok_or(wrong(MASK, "list of list"))?;
            let numbers = |ring: ArrayRef| {
                let numbers = ring.as_primitive_opt::<Float32Type>().ok_or(wrong(MASK, "list of list of f32"))?;
                Ok(numbers.values().to_vec())
            };
            of.mask = (0..rings.len()).map(|k| numbers(rings.value(k))).collect::<Result<_, WireError>>()?;
        }
    }
    Ok(())
}
