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

fn shape() -> impl Strategy<Value = (Option<Oriented>, Vec<Keypoint>, Vec<Vec<f32>>)> {
    let n = -1e5f32..1e5;
    let oriented = prop::option::of([n.clone(), n.clone(), n.clone(), n.clone(), n.clone()])
        .prop_map(|o| o.map(|[x, y, width, height, angle_rad]| Oriented { x, y, width, height, angle_rad }));
    let point = (n.clone(), n.clone(), any::<Option<u16>>()).prop_map(|(x, y, score)| Keypoint {
        x,
        y,
        score: score.map(f32::from),
    });
    let rings = prop::collection::vec(prop::collection::vec(n, 0..9), 0..3);
    let shape = (oriented, prop::collection::vec(point, 0..4), rings);
    prop_oneof![2 => Just((None, Vec::new(), Vec::new())), 1 => shape]
}

fn detections() -> impl Strategy<Value = Detections> {
    let edge = -1e6f32..1e6;
    let found =
        (
            [edge.clone(), edge.clone(), edge.clone(), edge],
            0f32..1.0,
            any::<u32>(),
            ".{0,12}",
            any::<Option<u64>>(),
            shape(),
        )
            .prop_map(|([x1, y1, x2, y2], score, class_id, label, track_id, (oriented, keypoints, mask))| {
                DetBox { x1, y1, x2, y2, score, class_id, label, track_id, oriented, keypoints, mask }
            });
    let class =
        (any::<u32>(), ".{0,12}", 0f32..1.0).prop_map(|(class_id, label, score)| ClassScore { class_id, label, score });
    let times = (any::<u64>(), any::<[i64; 2]>());
    let lists = (prop::collection::vec(found, 0..20), prop::collection::vec(class, 0..4));
    (".{0,20}", times, lists, ".{0,20}", any::<[u32; 2]>()).prop_map(
        |(source, (seq, [pts_ns, capture_ns]), (boxes, classes), model, [width_px, height_px])| Detections {
            schema: Detections::SCHEMA,
            source,
            seq,
            pts_ns,
            boxes,
            classes,
            capture_ns,
            arrival_ns: 0,
            sender_ns: (width_px % 2 == 0).then_some(pts_ns),
            model,
            about: String::new(),
            width_px,
            height_px,
        },
    )
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

#[test]
fn an_item_that_no_control_block_has_room_for_is_neither_written_nor_read() {
    let (_, mut item) = sample();
    let mut fits = compact::item_to_bytes(&item).unwrap();
    fits.resize(compact::ITEM_MAX_BYTES, 0);
    assert_eq!(compact::item_from_bytes(&fits).as_ref(), Ok(&item));
    fits.push(0);
    let refused = compact::item_from_bytes(&fits).unwrap_err().to_string();
    assert!(refused.contains("513 bytes") && refused.contains("at most 512"), "{refused}");
    item.source = "x".repeat(compact::ITEM_MAX_BYTES);
    assert!(matches!(compact::item_to_bytes(&item), Err(WireError::Damaged(_))));
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

/// One box, as the documents show it.
fn one() -> Detections {
    let car = DetBox {
        x1: 1.5,
        y1: 2.0,
        x2: 3.0,
        y2: 4.0,
        score: 0.5,
        class_id: 2,
        label: "car".into(),
        ..DetBox::default()
    };
    Detections {
        schema: 1,
        source: "cam".into(),
        seq: 9,
        pts_ns: -5,
        boxes: vec![car],
        classes: Vec::new(),
        capture_ns: 7,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        about: String::new(),
        width_px: 5,
        height_px: 3,
    }
}

#[test]
fn a_detections_message_shows_its_boxes_to_readers_without_the_pool() {
    let (slot, mut item) = sample();
    item.payload = Payload::Detections { len_bytes: 1 };
    let mut found = one();
    found.classes = vec![ClassScore { class_id: 3, label: "street".into(), score: 0.75 }];
    let row = row::encode(&slot, &item, Some(&found));
    let list = |name: &str| row.column_by_name(name).unwrap().as_list::<i32>().value(0);
    let text =
        |rows: &ArrayRef| rows.as_struct().column_by_name("label").unwrap().as_string::<i32>().value(0).to_owned();
    let boxes = list("boxes");
    assert_eq!((text(&boxes).as_str(), text(&list("classes")).as_str()), ("car", "street"));
    assert_eq!(
        boxes.as_struct().column_by_name("x2").unwrap().as_primitive::<arrow::datatypes::Float32Type>().value(0),
        3.0
    );
    assert_eq!(boxes.as_struct().num_columns(), 8, "no column of a shape that no box has");
    assert!(row::encode(&slot, &item, Some(&one())).column_by_name("classes").is_none());
}

#[test]
fn a_length_that_an_ipc_stream_claims_is_not_believed() {
    let mut bytes = detections_to_ipc(&Detections { boxes: Vec::new(), ..one() }).unwrap();
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
    let mut found = one();
    found.boxes[0].label = "a\"b".into();
    let edges = r#"{"schema":1,"source":"cam","seq":9,"pts_ns":-5,"boxes":[{"x1":1.5,"y1":2.0,"x2":3.0,"y2":4.0,"score":0.5,"class_id":2,"label":"a\"b""#;
    assert_eq!(serde_json::to_string(&found).unwrap(), format!("{edges}}}]}}"));
    found.boxes[0].oriented = Some(Oriented { x: 2.25, y: 3.0, width: 1.5, height: 2.0, angle_rad: 0.5 });
    found.boxes[0].keypoints =
        vec![Keypoint { x: 2.0, y: 2.5, score: Some(0.875) }, Keypoint { x: 3.0, y: 4.0, score: None }];
    found.boxes[0].mask = vec![vec![1.5, 2.0, 3.0, 2.0, 3.0, 4.0]];
    found.classes = vec![ClassScore { class_id: 3, label: "street".into(), score: 0.75 }];
    let more = concat!(
        r#","oriented":{"x":2.25,"y":3.0,"width":1.5,"height":2.0,"angle_rad":0.5},"#,
        r#""keypoints":[{"x":2.0,"y":2.5,"score":0.875},{"x":3.0,"y":4.0}],"mask":[[1.5,2.0,3.0,2.0,3.0,4.0]]}],"#,
        r#""classes":[{"class_id":3,"label":"street","score":0.75}]}"#
    );
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(text, format!("{edges}{more}"));
    let message = serde_json::to_string(&DetectionsMessage::from(&found)).unwrap();
    assert_eq!(
        message.split_once("\"boxes\""),
        Some((
            r#"{"type":"detections","schema":1,"source":"cam","seq":9,"pts_ns":-5,"capture_ns":7,"width_px":5,"height_px":3,"model":"m","#,
            text.split_once("\"boxes\"").unwrap().1
        ))
    );
}

#[test]
fn later_fields_are_behind_those_that_an_older_reader_knows() {
    let plain = compact::detections_to_bytes(&one()).unwrap();
    let mut found = one();
    found.about = "finds cars".into();
    found.boxes[0].keypoints = vec![Keypoint { x: 2.0, y: 2.5, score: None }];
    found.classes = vec![ClassScore { class_id: 3, label: "street".into(), score: 0.75 }];
    let bytes = compact::detections_to_bytes(&found).unwrap();
    assert_eq!(bytes[..plain.len()], plain);
    assert_eq!(compact::detections_from_bytes(&bytes), Ok(found));
    // the shape of a box that is not there
    let mut none = plain;
    none.extend([0, 0, 1, 5, 0, 0, 0]);
    assert!(compact::detections_from_bytes(&none).unwrap_err().to_string().contains("box 5"));
}

#[test]
fn a_number_that_is_not_finite_is_named_wherever_it_is() {
    assert_eq!(one().not_finite(), None);
    let of_box: [fn(&mut DetBox); 6] = [
        |b| b.y2 = f32::NAN,
        |b| b.score = f32::INFINITY,
        |b| b.oriented = Some(Oriented { x: 0.0, y: 0.0, width: 1.0, height: 1.0, angle_rad: f32::NAN }),
        |b| b.keypoints = vec![Keypoint { x: f32::NAN, y: 0.0, score: None }],
        |b| b.keypoints = vec![Keypoint { x: 0.0, y: 0.0, score: Some(f32::NAN) }],
        |b| b.mask = vec![vec![0.0, f32::NEG_INFINITY]],
    ];
    for spoil in of_box {
        let mut found = one();
        spoil(&mut found.boxes[0]);
        assert_eq!(found.not_finite().as_deref(), Some("box 0 (car)"));
    }
    let mut found = one();
    found.classes = vec![ClassScore { class_id: 3, label: "street".into(), score: f32::NAN }];
    assert_eq!(found.not_finite().as_deref(), Some("class 3 (street)"));
}

#[test]
fn corners_of_a_quarter_turn_are_those_of_the_turned_rectangle() {
    let turned = Oriented { x: 10.0, y: 20.0, width: 6.0, height: 2.0, angle_rad: std::f32::consts::FRAC_PI_2 };
    // clockwise on the screen: the first axis points down
    for (got, want) in turned.corners().into_iter().zip([[11.0, 17.0], [11.0, 23.0], [9.0, 23.0], [9.0, 17.0]]) {
        assert!((got[0] - want[0]).abs() < 1e-5 && (got[1] - want[1]).abs() < 1e-5, "{got:?} {want:?}");
    }
}
