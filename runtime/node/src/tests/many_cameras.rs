//! Several cameras, several producers, several consumers: real pools, without dora.

mod bounds;

use super::{Adder, image, timing};
use crate::context::StopFlag;
use crate::inputs::{Change, Input, Inputs};
use crate::link::{Link, Signal, Topology};
use crate::metrics::Metrics;
use crate::node::{Node, PortOut, Ports};
use crate::outputs::Outputs;
use crate::settings::{CommonSettings, RawSettings};
use arrow::array::StructArray;
use millrace_frame::wire::row;
use millrace_frame::{CameraState, CameraStatus, Item, PayloadKind, SlotRef, monotonic_ns};
use millrace_pool::Bell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const OUT: Ports = Ports { inputs: &[], outputs: &[PortOut { name: "frame", carries: PayloadKind::Image, doc: "" }] };
const IN: Ports = Ports { inputs: Adder::PORTS.inputs, outputs: &[] };

/// Keeps what a producer announces.
struct Announcements(Arc<Mutex<Vec<SlotRef>>>);

impl Link for Announcements {
    fn next(&mut self) -> Signal {
        Signal::Quiet
    }
    fn ring(&mut self, _: &'static str, row: StructArray) -> Result<(), String> {
        let announced = row::decode_announcement(&row).map_err(|e| e.to_string())?;
        self.0.lock().unwrap().extend(announced.map(|announced| announced.at));
        Ok(())
    }
}

fn common(settings: &[(&str, &str)]) -> CommonSettings {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct NoSettings {}
    let env = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let graph = Topology { node: "n".into(), env, ..Topology::default() };
    let (_, common) = RawSettings::new::<NoSettings>(&graph).read::<NoSettings>().map_err(|e| e.to_string()).unwrap();
    common
}

struct Producer {
    out: Outputs,
    announced: Arc<Mutex<Vec<SlotRef>>>,
    metrics: Metrics,
}

impl Producer {
    fn new(node: &str, restarts: u64, consumers: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::with(&OUT, node, restarts, &[("frame", consumers)], settings)
    }

    /// A producer with these ports, each with the inputs that it feeds.
    fn with(
        ports: &Ports,
        node: &str,
        restarts: u64,
        consumers: &[(&str, &[&str])],
        settings: &[(&str, &str)],
    ) -> Self {
        let names = |inputs: &[&str]| inputs.iter().map(|c| c.to_string()).collect();
        let consumers = consumers.iter().map(|(port, inputs)| (port.to_string(), names(inputs))).collect();
        let graph = Topology { node: node.into(), restarts, consumers, ..Topology::default() };
        let (announced, metrics) = (Arc::<Mutex<Vec<SlotRef>>>::default(), Metrics::default());
        let link = Box::new(Announcements(announced.clone()));
        let mut out = Outputs::new(link, ports, &graph, common(settings), metrics.clone(), StopFlag::default());
        out.make_directories().unwrap();
        Self { out, announced, metrics }
    }

    /// Publishes frame `seq` of a camera, as it arrives now; `false` when it was lost here.
    fn publish(&mut self, camera: &str, seq: u64) -> bool {
        self.publish_item(&item(camera, seq, monotonic_ns()))
    }

    fn publish_item(&mut self, item: &Item) -> bool {
        self.out.settle().unwrap();
        let Some(slot) = self.out.slot("frame", &item.source, 3).unwrap() else { return false };
        self.out.publish(slot, item).unwrap();
        true
    }
}

fn item(camera: &str, seq: u64, arrival_ns: i64) -> Item {
    let mut item = image(seq);
    item.source = camera.to_owned();
    item.timing = millrace_frame::Timing { arrival_ns, ..timing(seq) };
    item
}

struct Consumer {
    inputs: Inputs,
    metrics: Metrics,
}

impl Consumer {
    /// A consumer whose inputs these are: `(input, node/output)`.
    fn new(node: &str, inputs: &[(&str, &str)], settings: &[(&str, &str)]) -> Self {
        Self::with(&IN, node, inputs, settings)
    }

    fn with(ports: &Ports, node: &str, inputs: &[(&str, &str)], settings: &[(&str, &str)]) -> Self {
        let graph = Topology {
            node: node.into(),
            inputs: inputs.iter().map(|(input, _)| input.to_string()).collect(),
            sources: inputs.iter().map(|(input, from)| (input.to_string(), from.to_string())).collect(),
            ..Topology::default()
        };
        let metrics = Metrics::default();
        let inputs = Inputs::new(ports, &graph, metrics.clone(), Bell::create().unwrap(), &common(settings));
        Self { inputs, metrics }
    }

    fn attach(&mut self, input: &str, to: &Producer) {
        for at in to.announced.lock().unwrap().iter() {
            self.inputs.announced(input, at);
        }
        self.inputs.look();
    }

    /// Leases up to `most` frames.
    fn take(&mut self, most: usize) -> Vec<Input> {
        self.inputs.look();
        self.inputs.take(most, usize::MAX).into_iter().map(|(_, input)| input).collect()
    }

    /// Works on all that waits, one frame after the other.
    fn drain(&mut self) -> Vec<(String, u64)> {
        std::iter::from_fn(|| self.take(1).pop()).map(|input| name(&input)).collect()
    }

    fn lost(&self, camera: &str) -> u64 {
        ["backlog", "late", "gone", "crashed"].iter().map(|cause| self.metrics.dropped(cause, camera)).sum()
    }
}

fn name(input: &Input) -> (String, u64) {
    let Input::Frame(lease) = input else { unreachable!("images were published") };
    (lease.item().source.clone(), lease.item().seq)
}

fn seqs(came: &[(String, u64)], camera: &str) -> Vec<u64> {
    came.iter().filter(|(source, _)| source == camera).map(|(_, seq)| *seq).collect()
}

#[test]
fn a_consumer_that_keeps_up_loses_nothing_of_a_burst() {
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[]);
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[]);
    convert.attach("frame", &decode);
    let mut came = Vec::new();
    // bursts of one to six pictures, as a decoder gives them out after reordering
    let mut seq = 0;
    for burst in [1, 2, 6, 3, 5, 6, 4, 2] {
        for _ in 0..burst {
            assert!(decode.publish("door", seq));
            seq += 1;
        }
        came.extend(convert.drain());
    }
    assert_eq!(seqs(&came, "door"), (0..seq).collect::<Vec<_>>());
    assert_eq!(convert.lost("door"), 0);
}

/// Frames of each camera that a consumer works on, which has time for one in `every` that are published.
fn overloaded(weights: [f32; 3], every: usize) -> [usize; 3] {
    const CAMERAS: [&str; 3] = ["a", "b", "c"];
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[]);
    for (camera, weight) in CAMERAS.into_iter().zip(weights) {
        decode.out.camera(CameraStatus { state: CameraState::Live, weight, ..CameraStatus::new(camera) });
    }
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[]);
    convert.attach("frame", &decode);
    let (mut came, mut published) = (Vec::new(), 0);
    for seq in 0..400 {
        for camera in CAMERAS {
            assert!(decode.publish(camera, seq), "a slow consumer holds no slot");
            published += 1;
            if published % every == 0 {
                came.extend(convert.take(1).iter().map(name));
            }
        }
    }
    came.extend(convert.drain());
    for camera in CAMERAS {
        let seen = seqs(&came, camera);
        assert!(seen.is_sorted_by(|a, b| a < b), "in order, each once");
        assert_eq!(
            seen.len() as u64 + convert.lost(camera),
            400,
            "{camera}: every frame was worked on or lost by name"
        );
    }
    CAMERAS.map(|camera| seqs(&came, camera).len())
}

#[test]
fn cameras_share_a_consumer_that_is_too_slow_by_their_weights() {
    let [a, b, c] = overloaded([1.0; 3], 3);
    assert!(a.abs_diff(b) <= 10 && b.abs_diff(c) <= 10, "{a} {b} {c}");
    // 400 frames are served in all, shared 2 : 1 : 1; what a camera cannot use goes to the others
    let [a, b, c] = overloaded([2.0, 1.0, 1.0], 3);
    assert!(a.abs_diff(200) <= 15 && b.abs_diff(100) <= 15 && c.abs_diff(100) <= 15, "{a} {b} {c}");
    let [a, b, c] = overloaded([8.0, 1.0, 1.0], 2);
    assert!(a >= 390 && b.abs_diff(c) <= 10, "{a} {b} {c}");
}

#[test]
fn a_batch_is_of_the_frames_that_are_there_when_it_is_launched_and_of_all_cameras() {
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[]);
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[]);
    convert.attach("frame", &decode);
    for seq in 0..3 {
        decode.publish("a", seq);
    }
    decode.publish("b", 0);
    decode.publish("c", 0);
    convert.inputs.look();
    assert_eq!(convert.inputs.waiting(16), 5);
    let mut batch: Vec<_> = convert.take(3).iter().map(name).collect();
    batch.sort();
    assert_eq!(batch, [("a".to_owned(), 0), ("b".to_owned(), 0), ("c".to_owned(), 0)]);
    decode.publish("d", 0);
    let came = convert.take(4).iter().map(name).collect::<Vec<_>>();
    assert_eq!(seqs(&came, "d"), [0]);
    assert_eq!(seqs(&came, "a"), [1, 2]);
}

#[test]
fn several_producers_feed_one_port_and_it_ends_with_the_last_of_them() {
    let mut hall = Producer::new("hall", 0, &["convert/frame"], &[]);
    let mut yard = Producer::new("yard", 0, &["convert/frame.yard"], &[]);
    let inputs = [("frame", "hall/frame"), ("frame.yard", "yard/frame")];
    let mut convert = Consumer::new("convert", &inputs, &[]);
    convert.attach("frame", &hall);
    assert!(!convert.inputs.all_opened());
    convert.attach("frame.yard", &yard);
    assert!(convert.inputs.all_opened());
    for seq in 0..5 {
        hall.publish("h1", seq);
        hall.publish("h2", seq);
        yard.publish("y1", seq);
    }
    let came = convert.drain();
    for camera in ["h1", "h2", "y1"] {
        assert_eq!(seqs(&came, camera), [0, 1, 2, 3, 4], "{camera}");
    }
    hall.publish("h1", 5);
    hall.out.close_pools();
    hall.out.close_directories();
    convert.inputs.close("frame");
    assert_eq!(convert.drain(), [("h1".to_owned(), 5)]);
    convert.inputs.look();
    assert!(!convert.inputs.finished(), "the other producer goes on");
    yard.publish("y1", 5);
    assert_eq!(convert.drain(), [("y1".to_owned(), 5)]);
    yard.out.close_pools();
    yard.out.close_directories();
    convert.inputs.close("frame.yard");
    convert.inputs.look();
    convert.inputs.look();
    assert!(convert.inputs.finished());
}

#[test]
fn an_id_that_two_producers_have_is_the_first_ones_until_it_has_left() {
    let mut hall = Producer::new("hall", 0, &["convert/frame"], &[]);
    let mut yard = Producer::new("yard", 0, &["convert/frame.yard"], &[]);
    let inputs = [("frame", "hall/frame"), ("frame.yard", "yard/frame")];
    let mut convert = Consumer::new("convert", &inputs, &[]);
    convert.attach("frame", &hall);
    convert.attach("frame.yard", &yard);
    hall.publish("gate", 0);
    assert_eq!(convert.drain(), [("gate".to_owned(), 0)]);
    for seq in 1..4 {
        hall.publish("gate", seq);
        yard.publish("gate", 100 + seq);
        yard.publish("y1", seq);
    }
    let came = convert.drain();
    assert_eq!(seqs(&came, "gate"), [1, 2, 3], "not mixed with the other camera of this id");
    assert_eq!(seqs(&came, "y1"), [1, 2, 3]);
    assert_eq!(convert.lost("gate"), 0);
    let notes = convert.metrics.notes();
    assert!(
        notes.len() == 1 && notes[0].starts_with("camera 'gate' comes from hall/frame and from yard/frame"),
        "{notes:?}"
    );
    hall.out.close_pools();
    hall.out.close_directories();
    convert.inputs.close("frame");
    convert.drain();
    std::thread::sleep(Duration::from_millis(30));
    convert.drain();
    yard.publish("gate", 104);
    assert_eq!(seqs(&convert.drain(), "gate").last(), Some(&104));
}

#[test]
fn a_slow_consumer_costs_another_one_no_frame() {
    let mut decode = Producer::new("decode", 0, &["fast/frame", "slow/frame"], &[("SLOTS", "3")]);
    let mut fast = Consumer::new("fast", &[("frame", "decode/frame")], &[]);
    let mut slow = Consumer::new("slow", &[("frame", "decode/frame")], &[]);
    fast.attach("frame", &decode);
    slow.attach("frame", &decode);
    // it works on one frame of each of more cameras than a pool has slots, for a long time
    let cameras: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    let mut came = Vec::new();
    let mut at_work = Vec::new();
    for seq in 0..50 {
        for camera in &cameras {
            assert!(decode.publish(camera, seq));
        }
        came.extend(fast.drain());
        if seq % 10 == 0 {
            at_work = slow.take(12);
        }
    }
    assert_eq!(at_work.len(), 12);
    for camera in &cameras {
        assert_eq!(seqs(&came, camera).len(), 50);
        assert_eq!(fast.lost(camera), 0);
        assert_eq!(decode.metrics.dropped("pool_full", camera), 0);
    }
}

#[test]
fn a_consumer_that_does_not_move_loses_its_hold_on_a_camera() {
    let settings = [("SLOTS", "3"), ("LEASE_TIMEOUT_MS", "100")];
    let mut decode = Producer::new("decode", 0, &["ok/frame", "stuck/frame"], &settings);
    let mut ok = Consumer::new("ok", &[("frame", "decode/frame")], &[("BACKLOG", "3")]);
    let mut stuck = Consumer::new("stuck", &[("frame", "decode/frame")], &[("BACKLOG", "3")]);
    ok.attach("frame", &decode);
    stuck.attach("frame", &decode);
    for seq in 0..3 {
        decode.publish("door", seq);
    }
    let held = stuck.take(3);
    assert_eq!(held.len(), 3, "every slot is leased by a consumer that lives");
    assert_eq!(seqs(&ok.drain(), "door"), [0, 1, 2]);
    assert!(!decode.publish("door", 3) && !decode.publish("door", 4));
    std::thread::sleep(Duration::from_millis(150));
    assert!(decode.publish("door", 5), "the camera has a pool again");
    assert_eq!(seqs(&ok.drain(), "door"), [5]);
    assert_eq!(decode.metrics.counted("lease_timeouts", "door"), 1);
    assert_eq!(decode.metrics.dropped("pool_full", "door"), 2);
    // what it holds is whole, however long it stood still
    assert_eq!(held.iter().map(name).map(|(_, seq)| seq).collect::<Vec<_>>(), [0, 1, 2]);
    drop(held);
    assert_eq!(seqs(&stuck.drain(), "door"), [5], "it goes on with what is there");
    // a consumer that is only slow is not taken for stuck
    let mut leases: Vec<Input> = Vec::new();
    for seq in 6..40 {
        decode.publish("door", seq);
        leases.extend(stuck.take(1));
        if leases.len() == 3 {
            leases.remove(0);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(decode.metrics.counted("lease_timeouts", "door"), 1);
}

#[test]
fn the_budget_of_a_port_is_shared_by_its_cameras_and_its_end_is_a_counted_loss() {
    let mut decode = Producer::new("decode", 0, &["convert/frame"], &[("SLOTS", "4"), ("POOL_MIB", "1")]);
    // 4 slots of 200 kB, then 3 slots of the little that is left of 1 MiB, then nothing
    let big = |decode: &mut Producer, camera: &str, bytes: u64| {
        let slot = decode.out.slot("frame", camera, bytes).unwrap()?;
        decode.out.publish(slot, &item(camera, 0, monotonic_ns())).unwrap();
        Some(())
    };
    assert!(big(&mut decode, "a", 200_000).is_some());
    assert!(big(&mut decode, "b", 60_000).is_some());
    assert!(big(&mut decode, "c", 60_000).is_none());
    assert_eq!(decode.metrics.dropped("pool_budget", "c"), 1);
    assert!(big(&mut decode, "a", 200_000).is_some(), "the cameras that have a pool go on");
}

#[test]
fn a_producer_that_is_started_again_is_followed_and_its_cameras_are_reported() {
    let mut before = Producer::new("decode", 0, &["convert/frame"], &[]);
    let mut convert = Consumer::new("convert", &[("frame", "decode/frame")], &[]);
    before.out.camera(CameraStatus { state: CameraState::Live, ..CameraStatus::new("door") });
    before.out.settle().unwrap();
    convert.attach("frame", &before);
    assert!(matches!(&convert.inputs.changes()[..], [Change::Status(s)] if s.state == CameraState::Live));
    before.publish("door", 0);
    before.publish("door", 1);
    convert.inputs.look();
    // it is gone before its consumer reads
    before.out.close_pools();
    before.out.close_directories();
    drop(before);
    convert.inputs.look();
    let mut after = Producer::new("decode", 1, &["convert/frame"], &[]);
    after.out.camera(CameraStatus { state: CameraState::Connecting, ..CameraStatus::new("door") });
    convert.attach("frame", &after);
    after.publish("door", 0);
    assert_eq!(seqs(&convert.drain(), "door"), [0, 1, 0], "the old pool to its end, then the new one");
    let changes = convert.inputs.changes();
    let states = changes.iter().map(|change| match change {
        Change::Status(status) => (status.state, status.last_error.contains("'decode'")),
        Change::Removed(source) => panic!("{source} is removed"),
    });
    let (gone, back) = ((CameraState::Connecting, true), (CameraState::Connecting, false));
    assert!(states.eq([gone, back]), "{changes:?}");
    // a camera that is removed is read to its end and then no more
    after.publish("door", 1);
    after.out.remove_camera("door");
    after.out.settle().unwrap();
    assert_eq!(seqs(&convert.drain(), "door"), [1]);
    assert_eq!(convert.inputs.changes(), [Change::Removed("door".to_owned())]);
    assert_eq!(convert.inputs.cameras(), 0);
}
