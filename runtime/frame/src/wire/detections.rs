//! Detections as Arrow: the `boxes` column of a message, and the Arrow IPC stream that goes out over zenoh.

use super::shapes::{self, list, rows};
use super::{SCHEMA, WireError};
use crate::{ClassScore, DetBox, Detections};
use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch, StringArray, StructArray, UInt32Array, UInt64Array,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, UInt32Type, UInt64Type};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use std::sync::Arc;

/// A list column with one entry: all boxes of the frame. Columns of shapes are there where a box has one.
pub(super) fn boxes_column(boxes: &[DetBox]) -> ArrayRef {
    let edge = |f: fn(&DetBox) -> f32| -> ArrayRef { Arc::new(Float32Array::from_iter_values(boxes.iter().map(f))) };
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("x1", edge(|b| b.x1), false),
        ("y1", edge(|b| b.y1), false),
        ("x2", edge(|b| b.x2), false),
        ("y2", edge(|b| b.y2), false),
        ("score", edge(|b| b.score), false),
        ("class_id", Arc::new(UInt32Array::from_iter_values(boxes.iter().map(|b| b.class_id))), false),
        ("label", Arc::new(StringArray::from_iter_values(boxes.iter().map(|b| &b.label))), false),
        ("track_id", Arc::new(UInt64Array::from_iter(boxes.iter().map(|b| b.track_id))), true),
    ];
    columns.extend(shapes::columns(boxes));
    list(&[boxes.len()], rows(columns))
}

/// A list column with one entry: the classes of the whole frame.
pub(super) fn classes_column(classes: &[ClassScore]) -> ArrayRef {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("class_id", Arc::new(UInt32Array::from_iter_values(classes.iter().map(|c| c.class_id))), false),
        ("label", Arc::new(StringArray::from_iter_values(classes.iter().map(|c| &c.label))), false),
        ("score", Arc::new(Float32Array::from_iter_values(classes.iter().map(|c| c.score))), false),
    ];
    list(&[classes.len()], rows(columns))
}

/// Detections as an Arrow IPC stream of one batch with one row; the columns are listed in `docs/wire-schema.md`.
pub fn detections_to_ipc(found: &Detections) -> Result<Vec<u8>, WireError> {
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("schema", Arc::new(UInt32Array::from(vec![SCHEMA]))),
        ("source", Arc::new(StringArray::from(vec![found.source.as_str()]))),
        ("seq", Arc::new(UInt64Array::from(vec![found.seq]))),
        ("pts_ns", Arc::new(Int64Array::from(vec![found.pts_ns]))),
        ("capture_ns", Arc::new(Int64Array::from(vec![found.capture_ns]))),
        ("model", Arc::new(StringArray::from(vec![found.model.as_str()]))),
        ("width_px", Arc::new(UInt32Array::from(vec![found.width_px]))),
        ("height_px", Arc::new(UInt32Array::from(vec![found.height_px]))),
        ("boxes", boxes_column(&found.boxes)),
    ];
    if !found.classes.is_empty() {
        columns.push(("classes", classes_column(&found.classes)));
    }
    if let Some(sender_ns) = found.sender_ns {
        columns.push(("sender_ns", Arc::new(Int64Array::from(vec![sender_ns]))));
    }
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), false)).collect();
    let damaged = |e: arrow::error::ArrowError| WireError::Damaged(e.to_string());
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, column)| column).collect())
        .map_err(damaged)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(damaged)?;
    writer.write(&batch).map_err(damaged)?;
    writer.into_inner().map_err(damaged)
}

/// Reads what [`detections_to_ipc`] wrote. Damage of any kind is an error.
pub fn detections_from_ipc(bytes: &[u8]) -> Result<Detections, WireError> {
    // it also panics on some damaged schemas (an integer of 182 bits, say)
    std::panic::catch_unwind(|| read_ipc(bytes))
        .unwrap_or_else(|_| Err(WireError::Damaged("not an Arrow IPC stream that arrow can read".into())))
}

fn read_ipc(bytes: &[u8]) -> Result<Detections, WireError> {
    let damaged = |e: arrow::error::ArrowError| WireError::Damaged(e.to_string());
    // not the `StreamReader`: it believes a length before it has so many bytes, and asks for memory for them
    let mut stream = Buffer::from(bytes);
    let batch = StreamDecoder::new().decode(&mut stream).map_err(damaged)?;
    let batch = batch.ok_or_else(|| WireError::Damaged("the stream has no whole batch".into()))?;
    if batch.num_rows() != 1 {
        return Err(WireError::Shape(format!("{} rows", batch.num_rows())));
    }
    let column = |field: &'static str, expected: &'static str| {
        batch.column_by_name(field).filter(|c| c.is_valid(0)).ok_or(WireError::Field { field, expected })
    };
    let u32_of = |f| Ok(column(f, "u32")?.as_primitive_opt::<UInt32Type>().ok_or(wrong(f, "u32"))?.value(0));
    let u64_of = |f| Ok(column(f, "u64")?.as_primitive_opt::<UInt64Type>().ok_or(wrong(f, "u64"))?.value(0));
    let i64_of = |f| Ok(column(f, "i64")?.as_primitive_opt::<Int64Type>().ok_or(wrong(f, "i64"))?.value(0));
    let text_of = |f| -> Result<String, WireError> {
        Ok(column(f, "utf8")?.as_string_opt::<i32>().ok_or(wrong(f, "utf8"))?.value(0).to_owned())
    };
    match u32_of("schema")? {
        SCHEMA => {}
        found => return Err(WireError::Version { found }),
    }
    let boxes = column("boxes", "list")?.as_list_opt::<i32>().ok_or(wrong("boxes", "list"))?.value(0);
    Ok(Detections {
        schema: Detections::SCHEMA,
        source: text_of("source")?,
        seq: u64_of("seq")?,
        pts_ns: i64_of("pts_ns")?,
        capture_ns: i64_of("capture_ns")?,
        // not part of the stream: it means nothing on another machine
        arrival_ns: 0,
        sender_ns: match batch.column_by_name("sender_ns") {
            Some(_) => Some(i64_of("sender_ns")?),
            None => None,
        },
        model: text_of("model")?,
        about: String::new(),
        width_px: u32_of("width_px")?,
        height_px: u32_of("height_px")?,
        boxes: read_boxes(&boxes)?,
        classes: match batch.column_by_name("classes") {
            Some(_) => {
                let classes = column("classes", "list")?.as_list_opt::<i32>().ok_or(wrong("classes", "list"))?.value(0);
                read_classes(&classes)?
            }
            None => Vec::new(),
        },
    })
}

pub(super) fn wrong(field: &'static str, expected: &'static str) -> WireError {
    WireError::Field { field, expected }
}

/// A column of a struct that has the type which the schema states.
fn typed<'a>(rows: &'a StructArray, field: &'static str, expected: &DataType) -> Result<&'a ArrayRef, WireError> {
    let found = rows.column_by_name(field).filter(|c| c.data_type() == expected);
    found.ok_or(wrong(field, "the type that the schema states"))
}

pub(super) fn floats<'a>(rows: &'a StructArray, field: &'static str) -> Result<&'a Float32Array, WireError> {
    Ok(typed(rows, field, &DataType::Float32)?.as_primitive::<Float32Type>())
}

fn read_boxes(boxes: &ArrayRef) -> Result<Vec<DetBox>, WireError> {
    let rows = boxes.as_struct_opt().ok_or(wrong("boxes", "list of struct"))?;
    let edge = |field| floats(rows, field);
    let (x1, y1, x2, y2, score) = (edge("x1")?, edge("y1")?, edge("x2")?, edge("y2")?, edge("score")?);
    let class_id = typed(rows, "class_id", &DataType::UInt32)?.as_primitive::<UInt32Type>();
    let label = typed(rows, "label", &DataType::Utf8)?.as_string::<i32>();
    let track = typed(rows, "track_id", &DataType::UInt64)?.as_primitive::<UInt64Type>();
    let mut found: Vec<DetBox> = (0..rows.len())
        .map(|i| DetBox {
            x1: x1.value(i),
            y1: y1.value(i),
            x2: x2.value(i),
            y2: y2.value(i),
            score: score.value(i),
            class_id: class_id.value(i),
            label: label.value(i).to_owned(),
            track_id: track.is_valid(i).then(|| track.value(i)),
            ..DetBox::default()
        })
        .collect();
    shapes::read(rows, &mut found)?;
    Ok(found)
}

fn read_classes(classes: &ArrayRef) -> Result<Vec<ClassScore>, WireError> {
    let rows = classes.as_struct_opt().ok_or(wrong("classes", "list of struct"))?;
    let class_id = typed(rows, "class_id", &DataType::UInt32)?.as_primitive::<UInt32Type>();
    let label = typed(rows, "label", &DataType::Utf8)?.as_string::<i32>();
    let score = floats(rows, "score")?;
    let one = |i| ClassScore { class_id: class_id.value(i), label: label.value(i).to_owned(), score: score.value(i) };
    Ok((0..rows.len()).map(one).collect())
}
