#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::*;
use arrow::array::{Array, ArrayRef, AsArray, StructArray, UInt32Array};
use proptest::prelude::*;
use std::sync::Arc;

fn tagged<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = Tagged<T>> {
    let origin = prop::sample::select(vec![Origin::Bitstream, Origin::Setting, Origin::Default]);
    (prop::sample::select(all), origin).prop_map(|(value, origin)| Tagged { value, origin })
}

fn colour() -> impl Strategy<Value = Colour> {
    (tagged(Matrix::ALL), tagged(Range::ALL), tagged(Primaries::ALL), tagged(Transfer::ALL), tagged(ChromaSiting::ALL))
        .prop_map(|(matrix, range, primaries, transfer, siting)| Colour { matrix, range, primaries, transfer, siting })
}

fn size() -> impl Strategy<Value = Size> {
    (any::<u32>(), any::<u32>()).prop_map(|(w, h)| Size::new(w, h))
}

fn image() -> impl Strategy<Value = Payload> {
    let plane =
        (any::<u64>(), any::<u32>()).prop_map(|(offset_bytes, pitch_bytes)| Plane { offset_bytes, pitch_bytes });
    let rect = any::<[u32; 4]>().prop_map(|[x_px, y_px, width_px, height_px]| Rect { x_px, y_px, width_px, height_px });
    (prop::sample::select(PixelFormat::ALL), size(), rect, prop::collection::vec(plane, 0..4), colour()).prop_map(
        |(format, coded, display, planes, colour)| Payload::Image(ImageDesc { format, coded, display, planes, colour }),
    )
}

fn tensor() -> impl Strategy<Value = Payload> {
    let f = -1e9f64..1e9;
    (
        any::<[u32; 4]>(),
        prop::sample::select(TensorDtype::ALL),
        prop::sample::select(TensorLayout::ALL),
        [f.clone(), f.clone(), f.clone(), f],
        size(),
    )
        .prop_map(|(shape, dtype, layout, [scale_x, scale_y, offset_x, offset_y], source_size)| {
            let source_from_model = Letterbox { scale_x, scale_y, offset_x, offset_y };
            Payload::Tensor(TensorDesc { shape, dtype, layout, source_from_model, source_size })
        })
}

fn payload() -> impl Strategy<Value = Payload> {
    let orientation = prop::sample::select(Orientation::ALL);
    let packet = (prop::sample::select(PacketCodec::ALL), any::<bool>(), any::<u32>(), size(), orientation).prop_map(
        |(codec, key, len_bytes, display, orientation)| {
            Payload::Packet(PacketDesc { codec, key, len_bytes, display, orientation })
        },
    );
    prop_oneof![image(), tensor(), packet, any::<u32>().prop_map(|len_bytes| Payload::Detections { len_bytes }),]
}

fn item() -> impl Strategy<Value = Item> {
    let timing =
        (any::<i64>(), any::<u32>(), any::<u32>(), any::<i64>()).prop_map(|(pts_ns, num, den, capture_ns)| Timing {
            pts_ns,
            timebase: Timebase { num, den },
            capture_ns,
            arrival_ns: capture_ns / 2,
            ready_ns: capture_ns / 3,
            sender_ns: (num % 2 == 0).then_some(pts_ns),
        });
    let device = prop_oneof![Just(Device::Host), (0u32..1 << 31).prop_map(Device::Cuda)];
    let fence = prop_oneof![Just(Fence::Complete), prop::collection::vec(any::<u8>(), 64).prop_map(Fence::CudaEvent)];
    ("[a-z0-9äß/ ]{0,40}", any::<u64>(), timing, device, fence, payload())
        .prop_map(|(source, seq, timing, device, fence, payload)| Item { source, seq, timing, device, fence, payload })
}

fn slot() -> impl Strategy<Value = SlotRef> {
    (any::<u128>(), any::<[u32; 4]>(), any::<[u64; 2]>()).prop_map(
        |(pool, [owner_pid, owner_fd, slot, generation], [incarnation, ticket])| SlotRef {
            pool,
            owner_pid,
            owner_fd,
            incarnation,
            ticket,
            slot,
            generation,
        },
    )
}

fn detections() -> impl Strategy<Value = Detections> {
    let edge = -1e6f32..1e6;
    let found =
        ([edge.clone(), edge.clone(), edge.clone(), edge], 0f32..1.0, any::<u32>(), ".{0,12}", any::<Option<u64>>())
            .prop_map(|([x1, y1, x2, y2], score, class_id, label, track_id)| DetBox {
                x1,
                y1,
                x2,
                y2,
                score,
                class_id,
                label,
                track_id,
            });
    (".{0,20}", any::<u64>(), any::<[i64; 2]>(), prop::collection::vec(found, 0..20), ".{0,20}", any::<[u32; 2]>())
        .prop_map(|(source, seq, [pts_ns, capture_ns], boxes, model, [width_px, height_px])| Detections {
            schema: Detections::SCHEMA,
            source,
            seq,
            pts_ns,
            boxes,
            capture_ns,
            arrival_ns: 0,
            sender_ns: (width_px % 2 == 0).then_some(pts_ns),
            model,
            width_px,
            height_px,
        })
}

proptest! {
    #[test]
    fn a_row_gives_back_what_went_in(slot in slot(), item in item()) {
        let row = row::encode(&slot, &item, None);
        prop_assert_eq!(row::decode(&row), Ok((slot, item)));
    }

    #[test]
    fn the_compact_encoding_gives_back_what_went_in_and_fits_its_place(item in item()) {
        let bytes = compact::item_to_bytes(&item).unwrap();
        prop_assert!(bytes.len() <= compact::ITEM_MAX_BYTES);
        prop_assert_eq!(compact::item_from_bytes(&bytes), Ok(item));
    }

    #[test]
    fn detections_survive_both_encodings(found in detections()) {
        let bytes = compact::detections_to_bytes(&found).unwrap();
        prop_assert_eq!(&compact::detections_from_bytes(&bytes).unwrap(), &found);
        let ipc = detections_to_ipc(&found).unwrap();
        prop_assert_eq!(&detections_from_ipc(&ipc).unwrap(), &found);
    }

    #[test]
    fn damage_is_an_error_or_another_value_and_never_a_panic(
        found in detections(), item in item(), at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>(),
    ) {
        type Read = fn(&[u8]);
        let encodings: [(Vec<u8>, Read); 3] = [
            (detections_to_ipc(&found).unwrap(), |bytes| drop(detections_from_ipc(bytes))),
            (compact::detections_to_bytes(&found).unwrap(), |bytes| drop(compact::detections_from_bytes(bytes))),
            (compact::item_to_bytes(&item).unwrap(), |bytes| drop(compact::item_from_bytes(bytes))),
        ];
        for (mut bytes, read) in encodings {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            bytes.truncate(bytes.len() - cut.index(bytes.len()) / 2);
            read(&bytes);
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assume!(bytes.get(..4) != Some(&SCHEMA.to_le_bytes()[..]));
        prop_assert!(compact::item_from_bytes(&bytes).is_err());
        prop_assert!(compact::detections_from_bytes(&bytes).is_err());
        prop_assert!(detections_from_ipc(&bytes).is_err());
    }

    #[test]
    fn a_row_without_one_of_its_columns_says_which(slot in slot(), item in item(), at in any::<prop::sample::Index>()) {
        let whole = row::encode(&slot, &item, None);
        let at = at.index(whole.num_columns());
        let name = whole.column_names()[at].to_owned();
        prop_assume!(name != "fence" && name != "sender_ns"); // their absence has a meaning
        let (fields, mut columns, _) = whole.into_parts();
        let mut fields: Vec<_> = fields.iter().cloned().collect();
        fields.remove(at);
        columns.remove(at);
        let error = row::decode(&StructArray::new(fields.into(), columns, None)).unwrap_err();
        prop_assert!(error.to_string().contains(&name), "{error} does not name {name}");
    }
}

fn sample() -> (SlotRef, Item) {
    let (image, _) = ImageDesc::packed(PixelFormat::Nv12, Size::new(5, 3), Colour::assumed_for_height(3), 64);
    let timing =
        Timing { pts_ns: 40_000_000, timebase: Timebase { num: 1, den: 25 }, capture_ns: 7, ..Timing::default() };
    let slot = SlotRef { pool: 1, owner_pid: 2, owner_fd: 3, incarnation: 4, ticket: 5, slot: 6, generation: 7 };
    (slot, Item::on_host("cam", 9, timing, Payload::Image(image)))
}

fn with_schema(row: &StructArray, schema: ArrayRef) -> StructArray {
    let (fields, mut columns, _) = row.clone().into_parts();
    let mut fields: Vec<_> = fields.iter().map(|f| f.as_ref().clone()).collect();
    fields[0] = fields[0].clone().with_data_type(schema.data_type().clone());
    columns[0] = schema;
    StructArray::new(fields.into(), columns, None)
}

#[test]
fn another_version_is_refused_by_every_reader() {
    let (slot, item) = sample();
    let row = row::encode(&slot, &item, None);
    let newer = with_schema(&row, Arc::new(UInt32Array::from(vec![SCHEMA + 1])));
    let refused = WireError::Version { found: SCHEMA + 1 };
    assert_eq!(row::decode(&newer), Err(refused.clone()));
    assert_eq!(row::decode_announcement(&newer), Err(refused.clone()));
    let mut bytes = compact::item_to_bytes(&item).unwrap();
    bytes[..4].copy_from_slice(&(SCHEMA + 1).to_le_bytes());
    assert_eq!(compact::item_from_bytes(&bytes), Err(refused));
    assert!(refused_text().contains("wire schema 2"));
}

fn refused_text() -> String {
    WireError::Version { found: 2 }.to_string()
}

#[test]
fn what_is_no_row_is_refused_with_its_type() {
    let numbers = UInt32Array::from(vec![1, 2]);
    assert_eq!(row::decode(&numbers), Err(WireError::Shape("UInt32".into())));
    let (slot, item) = sample();
    let row = row::encode(&slot, &item, None);
    assert_eq!(row::decode(&row.slice(0, 0)), Err(WireError::Shape("0 rows".into())));
}

#[test]
fn a_detections_message_shows_its_boxes_to_readers_without_the_pool() {
    let (slot, mut item) = sample();
    item.payload = Payload::Detections { len_bytes: 1 };
    let found = Detections {
        schema: 1,
        source: "cam".into(),
        seq: 9,
        pts_ns: 40_000_000,
        boxes: vec![DetBox {
            x1: 1.0,
            y1: 2.0,
            x2: 3.0,
            y2: 4.0,
            score: 0.5,
            class_id: 2,
            label: "car".into(),
            track_id: None,
        }],
        capture_ns: 7,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        width_px: 5,
        height_px: 3,
    };
    let row = row::encode(&slot, &item, Some(&found));
    let boxes = row.column_by_name("boxes").unwrap().as_list::<i32>().value(0);
    assert_eq!(boxes.as_struct().column_by_name("label").unwrap().as_string::<i32>().value(0), "car");
    assert_eq!(
        boxes.as_struct().column_by_name("x2").unwrap().as_primitive::<arrow::datatypes::Float32Type>().value(0),
        3.0
    );
}

#[test]
fn a_length_that_an_ipc_stream_claims_is_not_believed() {
    let (_, item) = sample();
    let found = Detections {
        schema: 1,
        source: item.source,
        seq: 9,
        pts_ns: 4,
        boxes: Vec::new(),
        capture_ns: 7,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        width_px: 5,
        height_px: 3,
    };
    let mut bytes = detections_to_ipc(&found).unwrap();
    assert_eq!(bytes[..4], [0xff; 4], "the marker, and behind it the length of the schema");
    let begun = std::time::Instant::now();
    for claim in (0..i32::MAX).rev().step_by(1 << 22) {
        bytes[4..8].copy_from_slice(&claim.to_le_bytes());
        detections_from_ipc(&bytes).unwrap_err();
    }
    // to ask for that memory 512 times and clear it takes minutes
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn json_has_the_documented_fields_in_the_documented_order() {
    let found = Detections {
        schema: 1,
        source: "cam".into(),
        seq: 9,
        pts_ns: -5,
        boxes: vec![DetBox {
            x1: 1.5,
            y1: 2.0,
            x2: 3.0,
            y2: 4.0,
            score: 0.5,
            class_id: 2,
            label: "a\"b".into(),
            track_id: None,
        }],
        capture_ns: 7,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        width_px: 5,
        height_px: 3,
    };
    assert_eq!(
        serde_json::to_string(&found).unwrap(),
        r#"{"schema":1,"source":"cam","seq":9,"pts_ns":-5,"boxes":[{"x1":1.5,"y1":2.0,"x2":3.0,"y2":4.0,"score":0.5,"class_id":2,"label":"a\"b"}]}"#
    );
}
