#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live;
mod many_cameras;
mod ready;

use crate::testing::{Bench, Seen};
use crate::{Context, Input, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports, Progress};
use millrace_frame::{
    Colour, Detections, ImageDesc, Item, Payload, PayloadKind, PixelFormat, Size, TensorDesc, Timebase, Timing,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Copies each image's first byte, plus a setting, into a tensor of one element; keeps the last for the drain.
struct Adder {
    add: u8,
    held: Option<(Item, u8)>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
struct AdderSettings {
    /// What is added.
    #[schemars(extend("x-millrace-live" = true))]
    add: u8,
    /// Refuses to open.
    #[serde(default)]
    broken: bool,
}

impl Node for Adder {
    const NAME: &'static str = "adder";
    const SUMMARY: &'static str = "adds";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "frame",
            accepts: &[PayloadKind::Image],
            on_gpu: false,
            order: Order::Newest,
            required: true,
            doc: "images",
        }],
        outputs: &[PortOut { name: "tensor", carries: PayloadKind::Tensor, doc: "sums" }],
    };
    type Settings = AdderSettings;

    fn open(settings: AdderSettings, _: &Context) -> Result<Self, NodeError> {
        if settings.broken {
            return Err(NodeError::fatal("broken, as the setting BROKEN asks"));
        }
        Ok(Self { add: settings.add, held: None })
    }

    fn change(&mut self, settings: AdderSettings) -> Result<(), String> {
        if settings.add == 13 {
            return Err("thirteen is unlucky".to_owned());
        }
        self.add = settings.add;
        Ok(())
    }

    fn on_input(&mut self, port: &str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        assert_eq!(port, "frame");
        let Input::Frame(lease) = input else { unreachable!("the port takes images") };
        let value = lease.bytes()[0];
        if value == 13 {
            return Err(NodeError::frame("unlucky", &lease.item().source, "thirteen"));
        }
        if value == 99 {
            return Err(NodeError::fatal("ninety-nine"));
        }
        let item = lease.item().clone();
        drop(lease);
        if let Some((item, value)) = self.held.replace((item, value)) {
            self.send(&item, value, out)?;
        }
        Ok(())
    }

    fn drain(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        match self.held.take() {
            Some((item, value)) => self.send(&item, value, out),
            None => Ok(()),
        }
    }
}

impl Adder {
    fn send(&self, item: &Item, value: u8, out: &mut Outputs) -> Result<(), NodeError> {
        let Some(mut slot) = out.slot("tensor", &item.source, 4)? else { return Ok(()) };
        slot.bytes_mut()[0] = value.wrapping_add(self.add);
        let tensor = TensorDesc {
            shape: [1, 1, 1, 1],
            dtype: millrace_frame::TensorDtype::U8,
            layout: millrace_frame::TensorLayout::Nchw,
            source_from_model: millrace_frame::Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 },
            source_size: Size::new(1, 1),
        };
        out.publish(slot, &Item::on_host(item.source.clone(), item.seq, item.timing, Payload::Tensor(tensor)))
    }
}

fn timing(seq: u64) -> Timing {
    Timing { pts_ns: seq as i64, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() }
}

fn image(seq: u64) -> Item {
    let (image, _) = ImageDesc::packed(PixelFormat::Rgb24, Size::new(1, 1), Colour::assumed_for_height(1), 1);
    Item::on_host("cam", seq, timing(seq), Payload::Image(image))
}

fn value(seen: &Seen) -> (u64, u8) {
    match seen {
        Seen::Frame(item, bytes) => (item.seq, bytes[0]),
        Seen::Detections(found) => (found.seq, 0),
    }
}

/// What has come by now, without waiting.
fn come(bench: &mut Bench) -> Option<(u64, u8)> {
    bench.receive(Duration::ZERO).map(|(_, input)| value(&Seen::of(input)))
}

#[test]
fn every_item_passes_through_a_node_and_the_drain_brings_the_last() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "5")]);
    let mut seen = Vec::new();
    for seq in 0..50 {
        bench.send("frame", &image(seq), &[seq as u8 + 100, 0, 0]).unwrap();
        seen.extend(come(&mut bench));
    }
    let (rest, result) = bench.finish();
    seen.extend(rest.iter().map(|(_, input)| value(input)));
    assert_eq!(seen, (0..50).map(|seq| (seq, seq as u8 + 105)).collect::<Vec<_>>());
    let metrics = result.unwrap();
    assert_eq!((metrics.counted("in", "cam"), metrics.counted("out", "cam")), (50, 50));
}

#[test]
fn a_bad_item_is_lost_by_name_and_the_node_goes_on() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "0")]);
    for (seq, value) in [1, 13, 3].into_iter().enumerate() {
        bench.send("frame", &image(seq as u64), &[value, 0, 0]).unwrap();
    }
    let (rest, result) = bench.finish();
    assert_eq!(rest.iter().map(|(_, input)| value(input)).collect::<Vec<_>>(), [(0, 1), (2, 3)]);
    assert_eq!(result.unwrap().dropped("unlucky", "cam"), 1);
}

#[test]
fn a_description_that_reads_outside_its_slot_is_refused_before_a_byte_is_touched() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "0")]);
    let mut lie = image(0);
    if let Payload::Image(image) = &mut lie.payload {
        image.planes[0].offset_bytes = 1 << 40;
    }
    bench.send("frame", &lie, &[1, 0, 0]).unwrap();
    bench.send("frame", &image(1), &[2, 0, 0]).unwrap();
    let (rest, result) = bench.finish();
    assert_eq!(rest.iter().map(|(_, input)| value(input)).collect::<Vec<_>>(), [(1, 2)]);
    assert_eq!(result.unwrap().dropped("bad_description", "cam"), 1);
}

#[test]
fn faults_of_a_node_end_it_with_their_text() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "0")]);
    bench.send("frame", &image(0), &[99, 0, 0]).unwrap();
    assert_eq!(bench.finish().1.unwrap_err(), "ninety-nine");

    let broken = Bench::start::<Adder>(&[("ADD", "0"), ("BROKEN", "true")]);
    assert_eq!(broken.finish().1.unwrap_err(), "broken, as the setting BROKEN asks");
}

#[test]
fn all_wrong_settings_are_named_at_once() {
    let bench = Bench::start::<Adder>(&[("AD", "0"), ("BROKEN", "perhaps"), ("SLOTS", "1")]);
    let text = bench.finish().1.unwrap_err();
    for part in ["AD", "ADD", "BROKEN", "perhaps", "SLOTS"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_stop_ends_a_node_that_waits_for_its_consumer() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "0"), ("SLOTS", "2")]);
    // nobody receives: two slots fill, and the node waits for the third
    for seq in 0..6 {
        bench.send("frame", &image(seq), &[1, 0, 0]).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    bench.stop();
    let began = std::time::Instant::now();
    bench.join().unwrap();
    assert!(began.elapsed() < SOON / 5, "{:?}", began.elapsed());
}

#[test]
fn a_frame_that_outgrows_the_pool_gets_a_larger_one_and_none_is_lost() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "1")]);
    let mut seen = Vec::new();
    for seq in 0..30 {
        let bytes = vec![7; 3 + seq as usize * 5_000];
        bench.send("frame", &image(seq), &bytes).unwrap();
        seen.extend(come(&mut bench));
    }
    let (rest, result) = bench.finish();
    result.unwrap();
    seen.extend(rest.iter().map(|(_, input)| value(input)));
    assert_eq!(seen, (0..30).map(|seq| (seq, 8)).collect::<Vec<_>>());
}

/// Publishes detections by itself and ends.
struct Source(u64);

#[derive(Deserialize, JsonSchema)]
struct NoSettings {}

impl Node for Source {
    const NAME: &'static str = "source";
    const SUMMARY: &'static str = "publishes";
    const PORTS: Ports = Ports {
        inputs: &[],
        outputs: &[PortOut { name: "detections", carries: PayloadKind::Detections, doc: "found" }],
    };
    type Settings = NoSettings;

    fn open(_: NoSettings, _: &Context) -> Result<Self, NodeError> {
        Ok(Self(0))
    }
    fn on_input(&mut self, _: &str, _: Input, _: &mut Outputs) -> Result<(), NodeError> {
        unreachable!("it has no input")
    }
    fn produce(&mut self, out: &mut Outputs) -> Result<Progress, NodeError> {
        if self.0 == 1_000 {
            return Ok(Progress::End);
        }
        let found = Detections {
            schema: 1,
            source: "cam".into(),
            seq: self.0,
            pts_ns: 0,
            boxes: Vec::new(),
            classes: Vec::new(),
            about: String::new(),
            capture_ns: 0,
            arrival_ns: 0,
            sender_ns: None,
            model: "m".into(),
            width_px: 1,
            height_px: 1,
        };
        out.detections("detections", &found, timing(self.0))?;
        self.0 += 1;
        Ok(Progress::Busy)
    }
}

#[test]
fn a_lossless_source_waits_for_a_slow_consumer_and_loses_nothing() {
    // the test's side looks for itself all the time, so it needs no message once it has the pool
    for (doorbell, expected) in [("needed", 0..200), ("always", 1_000..1_001)] {
        let mut bench = Bench::start::<Source>(&[("DOORBELL", doorbell)]);
        let mut seen = Vec::new();
        while let Some((_, input)) = bench.receive(SOON / 10) {
            seen.push(value(&Seen::of(input)).0);
            if seen.len() % 100 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
        let rung = bench.finish().1.unwrap().counted("doorbells", "cam");
        assert!(expected.contains(&rung), "DOORBELL={doorbell}: {rung} doorbells for 1000 publications");
    }
}

/// What an adder makes of three frames, and its counters.
fn three(settings: &[(&str, &str)]) -> (Vec<(u64, u8)>, crate::Metrics) {
    let settings: Vec<_> = settings.iter().copied().chain([("ADD", "1")]).collect();
    let mut bench = Bench::start::<Adder>(&settings);
    for seq in 0..3 {
        bench.send("frame", &image(seq), &[10 * seq as u8; 3]).unwrap();
    }
    let (seen, metrics) = bench.finish();
    (seen.iter().map(|(_, seen)| value(seen)).collect(), metrics.unwrap())
}

#[test]
fn frames_that_are_copied_are_the_same_frames_and_the_copies_are_counted() {
    let (shared, plain) = three(&[]);
    let (copied, copies) = three(&[("EXCHANGE", "copy")]);
    assert_eq!(shared, [(0, 1), (1, 11), (2, 21)]);
    assert_eq!(shared, copied);
    // three frames of 3 bytes in, three tensors of 1 byte out; a copy reads and writes each byte
    for metrics in [&plain, &copies] {
        assert_eq!((metrics.counted("bytes_in", "cam"), metrics.counted("bytes_out", "cam")), (9, 3));
    }
    assert_eq!((plain.counted("copies", "cam"), plain.counted("bytes_inside", "cam")), (0, 0));
    assert_eq!((copies.counted("copies", "cam"), copies.counted("bytes_inside", "cam")), (6, 2 * 9 + 2 * 3));
}

#[test]
fn a_producer_that_hands_over_by_blocking_waits_until_its_frame_is_given_back() {
    let run = |handover: &str| {
        let mut bench = Bench::start::<Adder>(&[("ADD", "1"), ("HANDOVER", handover)]);
        for seq in 0..3 {
            bench.send("frame", &image(seq), &[0; 3]).unwrap();
        }
        let (_, first) = bench.receive(SOON).unwrap();
        // the second can come only from a node that did not wait for the first
        let beside = bench.receive(Duration::from_millis(300)).is_some();
        drop(first);
        let then = beside || bench.receive(SOON).is_some();
        let (_, metrics) = bench.finish();
        let metrics = metrics.unwrap();
        (beside, then, metrics.counted("handover_waits", "cam"), metrics.counted("handover_timeouts", "cam"))
    };
    assert_eq!(run("event"), (true, true, 0, 0));
    assert_eq!(run("blocking"), (false, true, 3, 0));
}

#[test]
fn a_consumer_that_keeps_its_frame_does_not_stop_a_producer_that_hands_over_by_blocking() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "1"), ("HANDOVER", "blocking")]);
    for seq in 0..3 {
        bench.send("frame", &image(seq), &[0; 3]).unwrap();
    }
    let kept = bench.receive(SOON).unwrap();
    assert!(bench.receive(SOON).is_some());
    drop(kept);
    let (_, metrics) = bench.finish();
    assert!(metrics.unwrap().counted("handover_timeouts", "cam") > 0);
}
