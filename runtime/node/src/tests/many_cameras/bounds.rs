//! How much may wait for a consumer in live flow, and how old it may become.

use super::{Consumer, Producer, item, seqs};
use crate::inputs::Input;
use crate::node::{Order, PortIn, PortOut, Ports};
use crate::tests::timing;
use millrace_frame::{
    Detections, Item, Orientation, PacketCodec, PacketDesc, Payload, PayloadKind, Size, Timing, monotonic_ns,
};

/// Of a sink that wants every item, and of the node in front of it.
const OUT_EVERY: Ports = Ports {
    inputs: &[],
    outputs: &[
        PortOut { name: "detections", carries: PayloadKind::Detections, doc: "" },
        PortOut { name: "packet", carries: PayloadKind::Packet, doc: "" },
    ],
};
const IN_EVERY: Ports = Ports {
    inputs: &[every("detections", PayloadKind::Detections), every("packet", PayloadKind::Packet)],
    outputs: &[],
};

const fn every(name: &'static str, kind: PayloadKind) -> PortIn {
    let accepts = match kind {
        PayloadKind::Packet => &[PayloadKind::Packet],
        _ => &[PayloadKind::Detections],
    };
    PortIn { name, accepts, on_gpu: false, order: Order::Every, required: true, doc: "" }
}

#[test]
fn a_backlog_over_its_bound_loses_the_oldest_and_each_loss_has_its_camera() {
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[("SLOTS", "8")]);
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[("BACKLOG", "3")]);
    convert.attach("frame", &decode);
    for seq in 0..20 {
        decode.publish("door", seq);
    }
    decode.publish("yard", 0);
    let came = convert.drain();
    assert_eq!(seqs(&came, "door"), [17, 18, 19], "the newest three");
    assert_eq!(seqs(&came, "yard"), [0], "another camera's backlog is its own");
    // 20 published: 12 overwritten in a pool of 8 slots and 5 skipped, all of them for the same reason
    assert_eq!((convert.metrics.dropped("gone", "door"), convert.metrics.dropped("backlog", "door")), (0, 17));
    assert_eq!(convert.lost("yard"), 0);
}

#[test]
fn the_backlog_is_what_the_pool_has_room_for_unless_a_setting_says_otherwise() {
    for (slots, waiting) in [("8", 6), ("4", 2), ("3", 2), ("2", 2), ("16", 14)] {
        let mut decode = Producer::new("decode", 0, &["convert/frame"], &[("SLOTS", slots)]);
        // the consumer's own SLOTS are those of another pool
        let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[("SLOTS", "5")]);
        convert.attach("frame", &decode);
        for seq in 0..40 {
            decode.publish("door", seq);
        }
        assert_eq!(seqs(&convert.drain(), "door"), (40 - waiting..40).collect::<Vec<_>>(), "SLOTS {slots}");
        assert_eq!(
            (convert.metrics.dropped("backlog", "door"), convert.metrics.dropped("gone", "door")),
            (40 - waiting, 0),
            "SLOTS {slots}"
        );
    }
}

#[test]
fn a_bound_over_the_pools_slots_leaves_the_loss_to_the_pool() {
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[("SLOTS", "4")]);
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[("BACKLOG", "10")]);
    convert.attach("frame", &decode);
    for seq in 0..14 {
        decode.publish("door", seq);
    }
    assert_eq!(seqs(&convert.drain(), "door"), [10, 11, 12, 13]);
    // those that ten and more followed are over the bound in any case
    assert_eq!((convert.metrics.dropped("backlog", "door"), convert.metrics.dropped("gone", "door")), (4, 6));
}

#[test]
fn a_frame_that_waited_too_long_is_lost_as_late() {
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[]);
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[("MAX_AGE_MS", "500")]);
    convert.attach("frame", &decode);
    let now = monotonic_ns();
    for (seq, age_ms) in [900, 501, 100, 0].into_iter().enumerate() {
        decode.publish_item(&item("door", seq as u64, now - age_ms * 1_000_000));
    }
    assert_eq!(seqs(&convert.drain(), "door"), [2, 3]);
    assert_eq!(convert.metrics.dropped("late", "door"), 2);
}

#[test]
fn the_time_for_which_a_stream_holds_a_picture_back_makes_it_not_late() {
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[]);
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[("MAX_AGE_MS", "500")]);
    convert.attach("frame", &decode);
    let now = monotonic_ns();
    // a camera of one picture a second with two B-frames: each is two seconds old when it is decoded
    for (seq, under_way_ms) in [501, 0].into_iter().enumerate() {
        let mut item = item("door", seq as u64, now - 2_000_000_000);
        item.timing.ready_ns = now - under_way_ms * 1_000_000;
        decode.publish_item(&item);
    }
    assert_eq!(seqs(&convert.drain(), "door"), [1]);
    assert_eq!(convert.metrics.dropped("late", "door"), 1);
}

#[test]
fn results_that_are_too_old_are_lost_as_late_in_live_flow_alone_and_packets_never() {
    for (flow, late) in [("live", 2), ("lossless", 0)] {
        let consumers: [(&str, &[&str]); 2] = [("detections", &["page/detections"]), ("packet", &["page/packet"])];
        let mut detect = Producer::with(&OUT_EVERY, "detect", 0, &consumers, &[("FLOW", flow)]);
        let inputs = [("detections", "detect/detections"), ("packet", "detect/packet")];
        let mut page = Consumer::with(&IN_EVERY, "page", &inputs, &[("MAX_AGE_MS", "500")]);
        for (at, (input, _)) in detect.announced.lock().unwrap().clone().iter().zip(&inputs) {
            page.inputs.announced(input, at);
        }
        let now = monotonic_ns();
        // as after a stop of the detector by SIGSTOP: what it had in work comes first
        for (seq, age_ms) in [5_000, 1_001, 900, 0].into_iter().enumerate() {
            let seq = seq as u64;
            let timing = Timing { arrival_ns: now - age_ms * 1_000_000, ..timing(seq) };
            let found = Detections {
                schema: Detections::SCHEMA,
                source: "door".into(),
                seq,
                pts_ns: 0,
                boxes: Vec::new(),
                classes: Vec::new(),
                about: String::new(),
                capture_ns: 0,
                arrival_ns: timing.arrival_ns,
                sender_ns: None,
                model: String::new(),
                width_px: 8,
                height_px: 8,
            };
            detect.out.detections("detections", &found, timing).unwrap();
            let slot = detect.out.slot("packet", "door", 4).unwrap().unwrap();
            let packet = PacketDesc {
                codec: PacketCodec::H264,
                key: seq == 0,
                display: Size::new(8, 8),
                len_bytes: 4,
                orientation: Orientation::Upright,
            };
            detect.out.publish(slot, &Item::on_host("door", seq, timing, Payload::Packet(packet))).unwrap();
        }
        detect.out.settle().unwrap();
        let came: Vec<Input> = std::iter::from_fn(|| page.take(1).pop()).collect();
        let results = came.iter().filter(|input| matches!(input, Input::Detections(_))).count() as u64;
        assert_eq!((results, came.len() as u64 - results), (4 - late, 4), "{flow}");
        assert_eq!(page.metrics.dropped("late", "door"), late, "{flow}");
    }
}
