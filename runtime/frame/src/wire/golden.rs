//! Golden bytes and columns, written by hand from the layouts that `compact.rs` and `docs/wire-schema.md` describe: postcard's
//! format has unsigned varints in groups of 7 bits from the lowest, signed ones in zigzag, strings and lists behind their length, an
//! `Option` behind 0 or 1, an enum as the number of its variant, and floats in little-endian. A change here needs a new schema number.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{compact, row};
use crate::*;
use arrow::datatypes::DataType;

/// Bytes from hex digits; a line may end with a comment behind `;`.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.lines().flat_map(|line| line.split(';').next()).flat_map(str::split_whitespace).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn timing() -> Timing {
    let timebase = Timebase { num: 1, den: 25 };
    Timing { pts_ns: 40_000_000, timebase, capture_ns: 7, arrival_ns: -1, ready_ns: 64, sender_ns: None }
}

fn image() -> Item {
    let colour = Colour {
        matrix: Tagged { value: Matrix::Bt601, origin: Origin::Default },
        range: Tagged { value: Range::Full, origin: Origin::Bitstream },
        primaries: Tagged { value: Primaries::Bt2020, origin: Origin::Setting },
        transfer: Tagged { value: Transfer::Hlg, origin: Origin::Bitstream },
        siting: Tagged { value: ChromaSiting::BottomRight, origin: Origin::Default },
    };
    let display = Rect { x_px: 1, y_px: 0, width_px: 4, height_px: 3 };
    let planes = vec![Plane { offset_bytes: 0, pitch_bytes: 64 }, Plane { offset_bytes: 192, pitch_bytes: 64 }];
    let payload =
        Payload::Image(ImageDesc { format: PixelFormat::Nv12, coded: Size::new(5, 3), display, planes, colour });
    Item::on_host("cam", 300, timing(), payload)
}

fn tensor() -> Item {
    let source_from_model = Letterbox { scale_x: 2.0, scale_y: 0.5, offset_x: -1.0, offset_y: 0.0 };
    let payload = Payload::Tensor(TensorDesc {
        shape: [1, 3, 192, 320],
        dtype: TensorDtype::F16,
        layout: TensorLayout::Nhwc,
        source_from_model,
        source_size: Size::new(960, 540),
    });
    let item = Item::on_host("", 0, Timing { sender_ns: Some(-2), ..timing() }, payload);
    Item { device: Device::Cuda(1), fence: Fence::CudaEvent(vec![0xab; 64]), ..item }
}

fn packet() -> Item {
    let display = Size::new(540, 960);
    let (codec, orientation) = (PacketCodec::H265, Orientation::Turn90);
    let payload = Payload::Packet(PacketDesc { codec, key: true, len_bytes: 1000, display, orientation });
    Item::on_host("cam", 1, timing(), payload)
}

/// `pts_ns` 80,000,000 in zigzag, the timebase, `capture_ns`, `arrival_ns`, `ready_ns`.
const TIMING: &str = "80e89226 01 19 0e 01 8001";

#[test]
fn items_have_these_bytes() {
    let head =
        format!("01000000 03 63616d ac02 {TIMING} 00 ; schema, 'cam', 300, no sender_ns\n 00 00 ; host, complete\n");
    let image_bytes = format!(
        "{head} 00 00 05 03 ; an image, nv12, 5x3
         01 00 04 03 02 00 40 c001 40 ; display, 2 planes
         01 02 01 00 04 01 08 00 08 02 ; colour: the second, second, fifth, ninth and ninth value; their origins"
    );
    let tensor_bytes = format!(
        "01000000 00 00 {TIMING} 01 03 ; sender_ns is -2
         01 01 01 40 {} ; GPU 1, an event of 64 bytes
         01 01 03 c001 c002 01 01 ; a tensor, its shape, f16, nhwc
         0000000000000040 000000000000e03f 000000000000f0bf 0000000000000000 c007 9c04",
        "ab".repeat(64)
    );
    let packet_bytes = format!(
        "01000000 03 63616d 01 {TIMING} 00 00 00
         02 01 01 e807 9c04 c007 01 ; a packet, h265, a key picture, 1000 bytes, 540x960, turned by 90"
    );
    let detections = Item::on_host("cam", 1, timing(), Payload::Detections { len_bytes: 128 });
    let detections_bytes = format!("01000000 03 63616d 01 {TIMING} 00 00 00 03 8001");
    for (item, bytes) in
        [(image(), image_bytes), (tensor(), tensor_bytes), (packet(), packet_bytes), (detections, detections_bytes)]
    {
        let bytes = hex(&bytes);
        assert_eq!(compact::item_to_bytes(&item).unwrap(), bytes, "{item:?}");
        assert_eq!(compact::item_from_bytes(&bytes).unwrap(), item);
    }
}

fn nothing() -> Detections {
    Detections {
        schema: 1,
        source: "cam".into(),
        seq: 9,
        pts_ns: -5,
        boxes: Vec::new(),
        classes: Vec::new(),
        capture_ns: 7,
        arrival_ns: 0,
        sender_ns: Some(-1),
        model: "m".into(),
        about: String::new(),
        width_px: 640,
        height_px: 480,
    }
}

#[test]
fn detections_have_these_bytes() {
    let car = DetBox {
        x1: 1.5,
        y1: 2.0,
        x2: 30.0,
        y2: 40.25,
        score: 0.5,
        class_id: 2,
        label: "car".into(),
        track_id: Some(300),
        ..DetBox::default()
    };
    let mut found = Detections { boxes: vec![car], ..nothing() };
    let plain = "01000000 03 63616d 09 09 0e 00 01 01 01 6d 8005 e003
        01 0000c03f 00000040 0000f041 00002142 0000003f 02 03 636172 01 ac02";
    assert_eq!(compact::detections_to_bytes(&found).unwrap(), hex(plain), "the later part is not there");
    assert_eq!(compact::detections_from_bytes(&hex(plain)).unwrap(), found);
    found.about = "a".into();
    found.classes = vec![ClassScore { class_id: 3, label: "street".into(), score: 0.75 }];
    found.boxes[0].oriented = Some(Oriented { x: 1.0, y: 2.0, width: 3.0, height: 4.0, angle_rad: 0.5 });
    found.boxes[0].keypoints =
        vec![Keypoint { x: 2.0, y: 4.0, score: Some(0.875) }, Keypoint { x: 1.0, y: 2.0, score: None }];
    found.boxes[0].mask = vec![vec![1.0, 2.0]];
    let whole = format!(
        "{plain} 01 61 01 03 06 737472656574 0000403f ; about, one class
         01 00 01 0000803f 00000040 00004040 00008040 0000003f ; one shape, of box 0: oriented
         02 00000040 00008040 01 0000603f 0000803f 00000040 00 ; two keypoints
         01 02 0000803f 00000040 ; one ring of two numbers"
    );
    assert_eq!(compact::detections_to_bytes(&found).unwrap(), hex(&whole));
    assert_eq!(compact::detections_from_bytes(&hex(&whole)).unwrap(), found);
}

/// A column's type as `docs/wire-schema.md` writes it.
fn type_of(data: &DataType) -> String {
    match data {
        DataType::FixedSizeList(item, count) => format!("{}[{count}]", type_of(item.data_type())),
        DataType::List(item) => format!("list<{}>", type_of(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{}: {}", field.name(), type_of(field.data_type())));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn rows_have_the_documented_columns() {
    const HEAD: &str = "schema: uint32, pool: fixedsizebinary(16), owner: uint32[2], incarnation: uint64, ticket: uint64, \
        slot: uint32[2], source: utf8, seq: uint64, pts_ns: int64, timebase: uint32[2], capture_ns: int64, arrival_ns: int64, \
        ready_ns: int64";
    let class = ClassScore { class_id: 3, label: "street".into(), score: 0.75 };
    let one = SlotRef { pool: 1, owner_pid: 2, owner_fd: 3, incarnation: 4, ticket: 5, slot: 6, generation: 7 };
    let found = Detections { boxes: vec![DetBox::default()], classes: vec![class], ..nothing() };
    let detections = Item::on_host("cam", 1, timing(), Payload::Detections { len_bytes: 128 });
    let of_detections = "device: int32, kind: utf8, len_bytes: uint32";
    for (item, found, columns) in [
        (
            image(),
            None,
            "device: int32, kind: utf8, format: utf8, size_px: uint32[2], display_px: uint32[4], plane_offset_bytes: \
             list<uint64>, plane_pitch_bytes: list<uint32>, colour: uint8[10]"
                .to_owned(),
        ),
        (
            tensor(),
            None,
            "sender_ns: int64, device: int32, fence: binary, kind: utf8, format: utf8, layout: utf8, shape: uint32[4], \
             source_from_model: float64[4], size_px: uint32[2]"
                .to_owned(),
        ),
        (
            packet(),
            None,
            "device: int32, kind: utf8, format: utf8, key: boolean, len_bytes: uint32, orientation: utf8, size_px: uint32[2]"
                .to_owned(),
        ),
        (detections.clone(), None, of_detections.to_owned()),
        (
            detections,
            Some(&found),
            format!(
                "{of_detections}, model: utf8, size_px: uint32[2], boxes: list<struct<x1: float32, y1: float32, x2: float32, \
                 y2: float32, score: float32, class_id: uint32, label: utf8, track_id: uint64>>, classes: \
                 list<struct<class_id: uint32, label: utf8, score: float32>>"
            ),
        ),
    ] {
        let row = row::encode(&one, &item, found);
        let fields = row.fields().iter().map(|field| format!("{}: {}", field.name(), type_of(field.data_type())));
        assert_eq!(fields.collect::<Vec<_>>().join(", "), format!("{HEAD}, {columns}"));
    }
}
