//! The dora message: one row of a struct. `docs/wire-schema.md` lists the columns for readers in other languages.

use super::{SCHEMA, WireError};
use crate::{
    ChromaSiting, Colour, Detections, Device, Fence, ImageDesc, Item, Letterbox, Matrix, Orientation, Origin,
    PacketCodec, PacketDesc, Payload, PixelFormat, Plane, Primaries, Range, Rect, Size, SlotRef, Tagged, TensorDesc,
    TensorDtype, TensorLayout, Timebase, Timing, Transfer,
};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray,
    ListArray, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use std::sync::Arc;

/// The row of one publication. `found` adds the boxes where the item is of detections, so that a reader without the
/// pool has them too.
pub fn encode(slot: &SlotRef, item: &Item, found: Option<&Detections>) -> StructArray {
    let mut row = Row::default();
    row.one::<UInt32Type>("schema", SCHEMA);
    row.bytes16("pool", slot.pool.to_be_bytes());
    row.many::<UInt32Type>("owner", &[slot.owner_pid, slot.owner_fd]);
    row.one::<UInt64Type>("incarnation", slot.incarnation);
    row.one::<UInt64Type>("ticket", slot.ticket);
    row.many::<UInt32Type>("slot", &[slot.slot, slot.generation]);
    row.text("source", &item.source);
    row.one::<UInt64Type>("seq", item.seq);
    row.one::<Int64Type>("pts_ns", item.timing.pts_ns);
    row.many::<UInt32Type>("timebase", &[item.timing.timebase.num, item.timing.timebase.den]);
    row.one::<Int64Type>("capture_ns", item.timing.capture_ns);
    row.one::<Int64Type>("arrival_ns", item.timing.arrival_ns);
    row.one::<Int64Type>("ready_ns", item.timing.ready_ns);
    if let Some(sender_ns) = item.timing.sender_ns {
        row.one::<Int64Type>("sender_ns", sender_ns);
    }
    row.one::<Int32Type>(
        "device",
        match item.device {
            Device::Host => -1,
            Device::Cuda(ordinal) => ordinal as i32,
        },
    );
    if let Fence::CudaEvent(handle) = &item.fence {
        row.push("fence", Arc::new(BinaryArray::from_vec(vec![handle])));
    }
    match &item.payload {
        Payload::Image(image) => {
            row.text("kind", "image");
            row.text("format", image.format.as_str());
            row.many::<UInt32Type>("size_px", &[image.coded.width_px, image.coded.height_px]);
            let d = image.display;
            row.many::<UInt32Type>("display_px", &[d.x_px, d.y_px, d.width_px, d.height_px]);
            row.list::<UInt64Type>("plane_offset_bytes", image.planes.iter().map(|p| p.offset_bytes).collect());
            row.list::<UInt32Type>("plane_pitch_bytes", image.planes.iter().map(|p| p.pitch_bytes).collect());
            row.many::<UInt8Type>("colour", &colour_codes(&image.colour));
        }
        Payload::Tensor(tensor) => {
            row.text("kind", "tensor");
            row.text("format", tensor.dtype.as_str());
            row.text("layout", tensor.layout.as_str());
            row.many::<UInt32Type>("shape", &tensor.shape);
            let t = tensor.source_from_model;
            row.many::<Float64Type>("source_from_model", &[t.scale_x, t.scale_y, t.offset_x, t.offset_y]);
            row.many::<UInt32Type>("size_px", &[tensor.source_size.width_px, tensor.source_size.height_px]);
        }
        Payload::Packet(packet) => {
            row.text("kind", "packet");
            row.text("format", packet.codec.as_str());
            row.push("key", Arc::new(BooleanArray::from(vec![packet.key])));
            row.one::<UInt32Type>("len_bytes", packet.len_bytes);
            row.text("orientation", packet.orientation.as_str());
            row.many::<UInt32Type>("size_px", &[packet.display.width_px, packet.display.height_px]);
        }
        Payload::Detections { len_bytes } => {
            row.text("kind", "detections");
            row.one::<UInt32Type>("len_bytes", *len_bytes);
            if let Some(found) = found {
                row.text("model", &found.model);
                row.many::<UInt32Type>("size_px", &[found.width_px, found.height_px]);
                row.push("boxes", super::detections::boxes_column(&found.boxes));
                if !found.classes.is_empty() {
                    row.push("classes", super::detections::classes_column(&found.classes));
                }
            }
        }
    }
    row.finish()
}

/// Reads a row. What it says of bytes is not checked here: [`Payload::validate`] does that against the slot.
pub fn decode(array: &dyn Array) -> Result<(SlotRef, Item), WireError> {
    let row = Read::new(array)?;
    let slot = slot_of(&row)?;
    let [num, den] = row.many::<UInt32Type, 2>("timebase")?;
    let timing = Timing {
        pts_ns: row.one::<Int64Type>("pts_ns")?,
        timebase: Timebase { num, den },
        capture_ns: row.one::<Int64Type>("capture_ns")?,
        arrival_ns: row.one::<Int64Type>("arrival_ns")?,
        ready_ns: row.one::<Int64Type>("ready_ns")?,
        sender_ns: row.column("sender_ns").map(|_| row.one::<Int64Type>("sender_ns")).transpose()?,
    };
    let device = device_of(&row)?;
    let fence = match row.column("fence").and_then(|c| c.as_binary_opt::<i32>()) {
        Some(handle) if !handle.is_empty() && handle.is_valid(0) => Fence::CudaEvent(handle.value(0).to_vec()),
        _ => Fence::Complete,
    };
    let payload = match row.text("kind")? {
        "image" => Payload::Image(image_of(&row)?),
        "tensor" => Payload::Tensor(tensor_of(&row)?),
        "packet" => Payload::Packet(PacketDesc {
            codec: enum_field(&row, "format", PacketCodec::ALL, PacketCodec::as_str)?,
            key: row
                .column("key")
                .and_then(|c| c.as_boolean_opt())
                .filter(|c| c.len() == 1 && c.is_valid(0))
                .ok_or(WireError::Field { field: "key", expected: "boolean" })?
                .value(0),
            len_bytes: row.one::<UInt32Type>("len_bytes")?,
            display: size_of(&row)?,
            orientation: enum_field(&row, "orientation", Orientation::ALL, Orientation::as_str)?,
        }),
        "detections" => Payload::Detections { len_bytes: row.one::<UInt32Type>("len_bytes")? },
        other => return Err(value("kind", other)),
    };
    let source = row.text("source")?.to_owned();
    Ok((slot, Item { source, seq: row.one::<UInt64Type>("seq")?, timing, device, fence, payload }))
}

/// What a message says that announces a port's directory and no publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where the directory is.
    pub at: SlotRef,
    /// Where the port's frames will be, as its producer numbers devices.
    pub device: Device,
}

/// Reads the announcement of a directory; `None` where the message is about a publication. The `source` of an announcement is
/// empty.
pub fn decode_announcement(array: &dyn Array) -> Result<Option<Announcement>, WireError> {
    let row = Read::new(array)?;
    let read = || Ok(Announcement { at: slot_of(&row)?, device: device_of(&row)? });
    row.text("source")?.is_empty().then(read).transpose()
}

fn device_of(row: &Read<'_>) -> Result<Device, WireError> {
    Ok(match row.one::<Int32Type>("device")? {
        -1 => Device::Host,
        ordinal => Device::Cuda(u32::try_from(ordinal).map_err(|_| value("device", ordinal))?),
    })
}

fn slot_of(row: &Read<'_>) -> Result<SlotRef, WireError> {
    let pool = row
        .column("pool")
        .and_then(|c| c.as_fixed_size_binary_opt())
        .filter(|c| c.len() == 1 && c.is_valid(0))
        .and_then(|c| <[u8; 16]>::try_from(c.value(0)).ok())
        .ok_or(WireError::Field { field: "pool", expected: "fixed_size_binary[16]" })?;
    let [owner_pid, owner_fd] = row.many::<UInt32Type, 2>("owner")?;
    let [slot, generation] = row.many::<UInt32Type, 2>("slot")?;
    Ok(SlotRef {
        pool: u128::from_be_bytes(pool),
        owner_pid,
        owner_fd,
        incarnation: row.one::<UInt64Type>("incarnation")?,
        ticket: row.one::<UInt64Type>("ticket")?,
        slot,
        generation,
    })
}

fn image_of(row: &Read<'_>) -> Result<ImageDesc, WireError> {
    let [x_px, y_px, width_px, height_px] = row.many::<UInt32Type, 4>("display_px")?;
    let offsets = row.list::<UInt64Type>("plane_offset_bytes")?;
    let pitches = row.list::<UInt32Type>("plane_pitch_bytes")?;
    if offsets.len() != pitches.len() {
        return Err(value("plane_pitch_bytes", format!("{} planes, not {}", pitches.len(), offsets.len())));
    }
    Ok(ImageDesc {
        format: enum_field(row, "format", PixelFormat::ALL, PixelFormat::as_str)?,
        coded: size_of(row)?,
        display: Rect { x_px, y_px, width_px, height_px },
        planes: offsets
            .into_iter()
            .zip(pitches)
            .map(|(offset_bytes, pitch_bytes)| Plane { offset_bytes, pitch_bytes })
            .collect(),
        colour: colour_from(row.many::<UInt8Type, 10>("colour")?)?,
    })
}

fn tensor_of(row: &Read<'_>) -> Result<TensorDesc, WireError> {
    let [scale_x, scale_y, offset_x, offset_y] = row.many::<Float64Type, 4>("source_from_model")?;
    Ok(TensorDesc {
        shape: row.many::<UInt32Type, 4>("shape")?,
        dtype: enum_field(row, "format", TensorDtype::ALL, TensorDtype::as_str)?,
        layout: enum_field(row, "layout", TensorLayout::ALL, TensorLayout::as_str)?,
        source_from_model: Letterbox { scale_x, scale_y, offset_x, offset_y },
        source_size: size_of(row)?,
    })
}

fn size_of(row: &Read<'_>) -> Result<Size, WireError> {
    row.many::<UInt32Type, 2>("size_px").map(|[w, h]| Size::new(w, h))
}

fn enum_field<T: Copy>(
    row: &Read<'_>,
    field: &'static str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, WireError> {
    let text = row.text(field)?;
    all.iter().copied().find(|&v| name(v) == text).ok_or_else(|| value(field, text))
}

fn value(field: &'static str, value: impl ToString) -> WireError {
    WireError::Value { field, value: value.to_string() }
}

/// Five pairs of code point and origin: matrix, range, primaries, transfer, siting.
fn colour_codes(c: &Colour) -> [u8; 10] {
    let o = |origin: Origin| match origin {
        Origin::Bitstream => 0,
        Origin::Setting => 1,
        Origin::Default => 2,
    };
    [
        c.matrix.value.code(),
        o(c.matrix.origin),
        c.range.value.code(),
        o(c.range.origin),
        c.primaries.value.code(),
        o(c.primaries.origin),
        c.transfer.value.code(),
        o(c.transfer.origin),
        c.siting.value.code(),
        o(c.siting.origin),
    ]
}

fn colour_from(codes: [u8; 10]) -> Result<Colour, WireError> {
    fn pair<T>(codes: [u8; 10], at: usize, from: fn(u8) -> Option<T>) -> Result<Tagged<T>, WireError> {
        let (code, origin) = (codes[2 * at], codes[2 * at + 1]);
        let origin = match origin {
            0 => Origin::Bitstream,
            1 => Origin::Setting,
            2 => Origin::Default,
            _ => return Err(value("colour", format!("{codes:?}"))),
        };
        Ok(Tagged { value: from(code).ok_or_else(|| value("colour", format!("{codes:?}")))?, origin })
    }
    Ok(Colour {
        matrix: pair(codes, 0, Matrix::from_code)?,
        range: pair(codes, 1, Range::from_code)?,
        primaries: pair(codes, 2, Primaries::from_code)?,
        transfer: pair(codes, 3, Transfer::from_code)?,
        siting: pair(codes, 4, ChromaSiting::from_code)?,
    })
}

/// Builds a row column by column.
#[derive(Default)]
struct Row {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Row {
    fn push(&mut self, name: &str, column: ArrayRef) {
        self.fields.push(Field::new(name, column.data_type().clone(), false));
        self.columns.push(column);
    }
    fn one<T: ArrowPrimitiveType>(&mut self, name: &str, v: T::Native) {
        self.push(name, Arc::new(PrimitiveArray::<T>::from_value(v, 1)));
    }
    fn text(&mut self, name: &str, v: &str) {
        self.push(name, Arc::new(StringArray::from(vec![v])));
    }
    fn bytes16(&mut self, name: &str, v: [u8; 16]) {
        self.push(name, Arc::new(FixedSizeBinaryArray::new(16, v.to_vec().into(), None)));
    }
    fn many<T: ArrowPrimitiveType>(&mut self, name: &str, v: &[T::Native]) {
        let values = Arc::new(PrimitiveArray::<T>::from_iter_values(v.iter().copied()));
        let item = Arc::new(Field::new("item", T::DATA_TYPE, false));
        self.push(name, Arc::new(FixedSizeListArray::new(item, v.len() as i32, values, None)));
    }
    fn list<T: ArrowPrimitiveType>(&mut self, name: &str, v: Vec<T::Native>) {
        let offsets = OffsetBuffer::from_lengths([v.len()]);
        let item = Arc::new(Field::new("item", T::DATA_TYPE, false));
        self.push(
            name,
            Arc::new(ListArray::new(item, offsets, Arc::new(PrimitiveArray::<T>::from_iter_values(v)), None)),
        );
    }
    fn finish(self) -> StructArray {
        StructArray::new(self.fields.into(), self.columns, None)
    }
}

/// Reads a row column by column, trusting nothing.
struct Read<'a>(&'a StructArray);

impl<'a> Read<'a> {
    fn new(array: &'a dyn Array) -> Result<Self, WireError> {
        let row = array.as_struct_opt().filter(|row| row.len() == 1 && row.is_valid(0)).ok_or_else(|| {
            let found = match array.data_type() {
                DataType::Struct(_) => format!("{} rows", array.len()),
                other => other.to_string(),
            };
            WireError::Shape(found)
        })?;
        let row = Self(row);
        match row.one::<UInt32Type>("schema")? {
            SCHEMA => Ok(row),
            found => Err(WireError::Version { found }),
        }
    }
    fn column(&self, name: &str) -> Option<&'a ArrayRef> {
        self.0.column_by_name(name)
    }
    fn one<T: ArrowPrimitiveType>(&self, field: &'static str) -> Result<T::Native, WireError> {
        self.column(field)
            .and_then(|c| c.as_primitive_opt::<T>())
            .filter(|c| c.len() == 1 && c.is_valid(0))
            .map(|c| c.value(0))
            .ok_or(WireError::Field { field, expected: std::any::type_name::<T::Native>() })
    }
    fn text(&self, field: &'static str) -> Result<&'a str, WireError> {
        self.column(field)
            .and_then(|c| c.as_string_opt::<i32>())
            .filter(|c| c.len() == 1 && c.is_valid(0))
            .map(|c| c.value(0))
            .ok_or(WireError::Field { field, expected: "utf8" })
    }
    fn many<T: ArrowPrimitiveType, const N: usize>(&self, field: &'static str) -> Result<[T::Native; N], WireError> {
        self.column(field)
            .and_then(|c| c.as_fixed_size_list_opt())
            .filter(|c| c.len() == 1 && c.is_valid(0))
            .map(|c| c.value(0))
            .and_then(|v| v.as_primitive_opt::<T>().filter(|v| v.null_count() == 0)?.values()[..].try_into().ok())
            .ok_or(WireError::Field { field, expected: "fixed_size_list" })
    }
    fn list<T: ArrowPrimitiveType>(&self, field: &'static str) -> Result<Vec<T::Native>, WireError> {
        self.column(field)
            .and_then(|c| c.as_list_opt::<i32>())
            .filter(|c| c.len() == 1 && c.is_valid(0))
            .map(|c| c.value(0))
            .and_then(|v| Some(v.as_primitive_opt::<T>().filter(|v| v.null_count() == 0)?.values().to_vec()))
            .ok_or(WireError::Field { field, expected: "list" })
    }
}
