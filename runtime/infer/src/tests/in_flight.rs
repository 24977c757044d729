//! The node around a stand-in for an engine whose batches come back when a test says so.

use super::{elements, tensor};
use crate::*;
use millrace_frame::*;
use millrace_node::Input;
use millrace_node::testing::{Bench, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

#[derive(serde::Deserialize, schemars::JsonSchema, Clone, Debug)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct Settings {
    #[serde(flatten)]
    common: DetectorSettings,
    /// How many frames go through the model together.
    #[serde(default = "one")]
    together: u32,
}

fn one() -> u32 {
    1
}

/// What becomes of a frame. Frames are known by a number, which is in each element of their tensors as hundredths.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Computed,
    Failed,
    Broken,
    Panics,
}

#[derive(Default)]
struct Script {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    fates: BTreeMap<u32, Fate>,
    /// The batches that the engine has accepted, by their frames.
    batches: Vec<Vec<u32>>,
    /// The score that each came with.
    scores: Vec<f32>,
    through: BTreeSet<u32>,
}

/// The script of each model, by the path of its description.
static SCRIPTS: Mutex<BTreeMap<PathBuf, Arc<Script>>> = Mutex::new(BTreeMap::new());

impl Script {
    fn set(&self, frames: impl IntoIterator<Item = u32>, fate: Fate) {
        self.state.lock().unwrap().fates.extend(frames.into_iter().map(|frame| (frame, fate)));
        self.changed.notify_all();
    }

    /// Waits until the state is so.
    fn until<T>(&self, holds: impl Fn(&State) -> Option<T>) -> T {
        let (mut state, end) = (self.state.lock().unwrap(), Instant::now() + SOON);
        loop {
            if let Some(found) = holds(&state) {
                return found;
            }
            assert!(Instant::now() < end, "it does not come: {:?}", state.batches);
            state = self.changed.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
        }
    }

    fn batches(&self, count: usize) -> Vec<Vec<u32>> {
        self.until(|state| (state.batches.len() >= count).then(|| state.batches.clone()))
    }
}

struct StandIn {
    script: Arc<Script>,
    together: usize,
}

struct InWork {
    script: Arc<Script>,
    frames: Vec<u32>,
}

impl Flight for InWork {
    fn complete(self, read: &mut dyn FnMut(usize, &[RawTensor<'_>])) -> Result<(), EngineError> {
        // without an end where the test never says what becomes of a frame
        let mut state = self.script.state.lock().unwrap();
        let fates = loop {
            let fates: Option<Vec<Fate>> = self.frames.iter().map(|frame| state.fates.get(frame).copied()).collect();
            match fates {
                Some(fates) => break fates,
                None => state = self.script.changed.wait(state).unwrap(),
            }
        };
        drop(state);
        assert!(!fates.contains(&Fate::Panics), "as the script says");
        for (n, frame) in self.frames.iter().enumerate() {
            let data = [4.0, 2.0, 4.0, 2.0, *frame as f32 / 100.0, 1.0];
            read(n, &[RawTensor::whole("out", &[1, 1, 6], &data)]);
        }
        self.script.state.lock().unwrap().through.extend(self.frames);
        self.script.changed.notify_all();
        match fates.iter().find(|fate| **fate != Fate::Computed) {
            Some(Fate::Broken) => Err(EngineError::broken("as the script says")),
            Some(_) => Err(EngineError::run("as the script says")),
            None => Ok(()),
        }
    }
}

impl Engine for StandIn {
    const NAME: &'static str = "stand-in";
    const SUMMARY: &'static str = "completes batches when a test says so";
    type Settings = Settings;
    type Flight = InWork;

    fn common(settings: &Settings) -> &DetectorSettings {
        &settings.common
    }

    fn open(_: &Path, _: usize, settings: &Settings) -> Result<(Self, Signature), EngineError> {
        let script = SCRIPTS.lock().unwrap()[&*settings.common.model].clone();
        let shape = |axes: &[usize]| Some(axes.iter().map(|axis| Some(*axis).filter(|_| *axis > 0)).collect());
        let port = |name: &str, axes| Port { name: name.into(), dtype: Some("f32".into()), shape: shape(axes) };
        let signature = Signature { inputs: vec![port("in", &[0, 3, 4, 8])], outputs: vec![port("out", &[1, 1, 6])] };
        Ok((Self { script, together: settings.together as usize }, signature))
    }

    fn select(&mut self, _: &str, _: &[&str]) -> Result<(), EngineError> {
        Ok(())
    }

    fn batch(&self) -> usize {
        self.together
    }

    fn submit(&mut self, batch: Batch<'_>) -> Result<InWork, EngineError> {
        assert!((1..=self.together).contains(&batch.tensors.len()));
        let frame = |tensor: &Tensor<'_>| match tensor {
            Tensor::Host(Elements::F32(data)) => (data[0] * 100.0).round() as u32,
            other => panic!("{other:?}"),
        };
        let frames: Vec<u32> = batch.tensors.iter().map(frame).collect();
        // the zeros of the trial
        if frames != [0] {
            let mut state = self.script.state.lock().unwrap();
            state.scores.push(batch.score);
            state.batches.push(frames.clone());
            drop(state);
            self.script.changed.notify_all();
        }
        Ok(InWork { script: self.script.clone(), frames })
    }
}

/// A node under test, and what becomes of its batches.
struct Trial {
    bench: Bench,
    script: Arc<Script>,
    _folder: tempfile::TempDir,
}

fn start(settings: &[(&str, &str)]) -> Trial {
    let (folder, orders) = super::fitting("f32");
    let model = orders.common.model.to_path_buf();
    let text = std::fs::read_to_string(&model).unwrap();
    std::fs::write(&model, text + "thresholds: {score: 0.005, iou: 0.5}\n").unwrap();
    let script = Arc::new(Script::default());
    script.set([0], Fate::Computed);
    SCRIPTS.lock().unwrap().insert(model.clone(), script.clone());
    let workers = settings.iter().find(|(key, _)| *key == "WORKERS").map_or("1", |(_, n)| *n);
    let mut all = vec![("MODEL", model.to_str().unwrap()), ("WORKERS", workers)];
    all.extend(settings.iter().filter(|(key, _)| *key != "WORKERS"));
    Trial { bench: Bench::start::<InferNode<StandIn>>(&all), script, _folder: folder }
}

impl Trial {
    fn send(&mut self, source: &str, frame: u32) {
        let timing = Timing { pts_ns: 7, timebase: Timebase::NANOSECONDS, capture_ns: 9, ..Timing::default() };
        let item = Item::on_host(source, frame.into(), timing, Payload::Tensor(tensor(TensorDtype::F32)));
        let data = elements(frame as f32 / 100.0);
        self.bench.send("tensor", &item, bytemuck::cast_slice(&data)).unwrap();
    }

    /// The next detections: the camera, and the frame's number.
    fn next(&mut self) -> (String, u64) {
        match self.bench.receive(SOON) {
            Some((_, Input::Detections(found))) => of(&found),
            other => panic!("no detections but {other:?}"),
        }
    }
}

/// The camera and the frame's number. The boxes are that frame's, too.
fn of(found: &Detections) -> (String, u64) {
    let scores: Vec<u64> = found.boxes.iter().map(|b| (b.score * 100.0).round() as u64).collect();
    assert_eq!(scores, [found.seq], "the boxes of frame {} are another frame's", found.seq);
    (found.source.clone(), found.seq)
}

/// What the node has received and published of a camera. Every frame that it received is published, lost by name or unfinished.
fn conserved(metrics: &millrace_node::Metrics, source: &str) -> (u64, u64) {
    let drops: u64 = metrics.drops(source).iter().map(|(.., n)| n).sum();
    let (received, published) = (metrics.counted("in", source), metrics.counted("out", source));
    assert_eq!(received, published + drops + metrics.counted("unfinished", source), "{:?}", metrics.drops(source));
    (received, published)
}

#[test]
fn as_many_batches_are_in_work_as_the_setting_says_and_come_out_in_order() {
    let mut trial = start(&[("IN_FLIGHT", "2")]);
    (1..=3).for_each(|frame| trial.send("a", frame));
    assert_eq!(trial.script.batches(2), [[1], [2]], "neither has come back");
    assert_eq!(trial.bench.metrics().counted("in", "a"), 2, "the third waits in its pool, unleased");
    trial.script.set([1, 2, 3], Fate::Computed);
    assert_eq!([(); 3].map(|()| trial.next().1), [1, 2, 3]);
    let (rest, end) = trial.bench.finish();
    assert!(rest.is_empty());
    assert_eq!(conserved(&end.unwrap(), "a"), (3, 3));
}

/// An engine may have left out what scores less.
#[test]
fn a_batch_is_read_with_the_score_that_it_was_submitted_with() {
    let mut trial = start(&[("IN_FLIGHT", "2")]);
    trial.send("a", 30);
    trial.script.batches(1);
    assert!(trial.bench.set("SCORE", "0.5"));
    trial.send("a", 60);
    trial.script.batches(2);
    assert!(trial.bench.set("SCORE", "0.9"));
    trial.script.set([30, 60], Fate::Computed);
    assert_eq!([(); 2].map(|()| trial.next().1), [30, 60]);
    assert_eq!(trial.script.state.lock().unwrap().scores, [0.005, 0.5]);
    trial.bench.finish().1.unwrap();
}

#[test]
fn a_batch_that_is_late_holds_up_its_own_cameras_alone() {
    let mut trial = start(&[("WORKERS", "2")]);
    trial.send("a", 1);
    trial.script.batches(1);
    trial.send("b", 2);
    trial.script.batches(2);
    trial.script.set([2], Fate::Computed);
    assert_eq!(trial.next(), ("b".into(), 2));
    trial.send("a", 3);
    trial.script.set([3], Fate::Computed);
    trial.script.until(|state| state.through.contains(&3).then_some(()));
    trial.send("b", 4);
    trial.script.set([4], Fate::Computed);
    // what has overtaken the first waits for it, and the other camera goes on
    assert_eq!(trial.next(), ("b".into(), 4));
    trial.script.set([1], Fate::Computed);
    assert_eq!([(); 2].map(|()| trial.next()), [("a".into(), 1), ("a".into(), 3)]);
    trial.bench.finish().1.unwrap();
}

#[test]
fn frames_gather_while_one_batch_is_in_work_and_a_full_one_joins_it() {
    let mut trial = start(&[("TOGETHER", "2"), ("IN_FLIGHT", "2")]);
    trial.send("a", 1);
    trial.script.batches(1);
    trial.send("a", 2);
    trial.send("a", 3);
    assert_eq!(trial.script.batches(2), [vec![1], vec![2, 3]]);
    trial.script.set([2, 3], Fate::Computed);
    trial.script.set([1], Fate::Computed);
    assert_eq!([(); 3].map(|()| trial.next().1), [1, 2, 3]);
    trial.bench.finish().1.unwrap();

    let mut trial = start(&[("TOGETHER", "4"), ("IN_FLIGHT", "2")]);
    trial.send("a", 1);
    trial.script.batches(1);
    (2..=4).for_each(|frame| trial.send("a", frame));
    trial.script.set(1..=4, Fate::Computed);
    assert_eq!([(); 4].map(|()| trial.next().1), [1, 2, 3, 4]);
    assert_eq!(trial.script.batches(2), [vec![1], vec![2, 3, 4]], "a batch that is not full does not join");
    trial.bench.finish().1.unwrap();
}

#[test]
fn a_batch_that_fails_loses_its_frames_by_name_and_no_others() {
    let mut trial = start(&[("TOGETHER", "2"), ("IN_FLIGHT", "2"), ("ALLOW_LOSS", "true")]);
    trial.send("a", 1);
    trial.script.batches(1);
    trial.send("a", 2);
    trial.send("b", 3);
    trial.script.batches(2);
    trial.script.set([2], Fate::Failed);
    trial.script.set([1, 3], Fate::Computed);
    assert_eq!(trial.next(), ("a".into(), 1));
    trial.send("a", 4);
    trial.script.set([4], Fate::Computed);
    assert_eq!(trial.next(), ("a".into(), 4));
    let metrics = trial.bench.finish().1.unwrap();
    assert_eq!((metrics.dropped("inference", "a"), metrics.dropped("inference", "b")), (1, 1));
    assert_eq!((conserved(&metrics, "a"), conserved(&metrics, "b")), ((3, 2), (1, 0)));
    assert_eq!((metrics.counted("engine_batches", ""), metrics.counted("engine_frames", "")), (2, 2), "it is no work");
}

#[test]
fn the_time_of_the_engine_is_counted_once_while_two_batches_are_in_work() {
    let began = Instant::now();
    let mut trial = start(&[("TOGETHER", "2"), ("IN_FLIGHT", "2")]);
    trial.send("a", 1);
    trial.script.batches(1);
    (2..=3).for_each(|frame| trial.send("a", frame));
    trial.script.batches(2);
    let held = Duration::from_millis(200);
    std::thread::sleep(held);
    trial.script.set(1..=3, Fate::Computed);
    assert_eq!([(); 3].map(|()| trial.next().1), [1, 2, 3]);
    let metrics = trial.bench.finish().1.unwrap();
    assert_eq!((metrics.counted("engine_batches", ""), metrics.counted("engine_frames", "")), (2, 3));
    assert_eq!((metrics.gauged("engine_workers", ""), metrics.gauged("engine_batch_most", "")), (Some(1), Some(2)));
    let engine = Duration::from_nanos(metrics.counted("engine_ns", ""));
    assert!(held <= engine && engine <= began.elapsed(), "{engine:?}");
}

#[test]
fn an_engine_that_cannot_go_on_ends_the_node_and_everything_in_work_is_counted() {
    for (fate, part) in [(Fate::Broken, "the engine cannot go on"), (Fate::Panics, "a worker has panicked")] {
        let mut trial = start(&[("IN_FLIGHT", "2")]);
        trial.send("a", 1);
        trial.send("b", 2);
        trial.script.batches(2);
        trial.script.set([1], fate);
        let metrics = trial.bench.metrics().clone();
        let text = trial.bench.finish().1.map(drop).unwrap_err();
        assert!(text.contains(part), "{text}");
        assert_eq!((conserved(&metrics, "a"), conserved(&metrics, "b")), ((1, 0), (1, 0)));
    }
}

#[test]
fn a_batch_that_never_comes_back_is_counted_and_ends_the_node() {
    let mut trial = start(&[("IN_FLIGHT", "2"), ("BATCH_TIMEOUT_MS", "200")]);
    trial.send("a", 1);
    trial.script.set([1], Fate::Computed);
    assert_eq!(trial.next().1, 1);
    trial.send("a", 2);
    trial.send("b", 3);
    let metrics = trial.bench.metrics().clone();
    let text = trial.bench.finish().1.map(drop).unwrap_err();
    assert!(text.contains("the engine has not answered for 0.2 s, with "), "{text}");
    assert!(text.contains("BATCH_TIMEOUT_MS"), "{text}");
    assert_eq!(metrics.dropped("unanswered", "a"), 1);
    assert_eq!(conserved(&metrics, "a"), (2, 1));
    conserved(&metrics, "b");
}

#[test]
fn a_stop_waits_for_what_is_in_work_no_longer_than_it_may_and_counts_it() {
    let mut trial = start(&[("IN_FLIGHT", "2")]);
    (1..=3).for_each(|frame| trial.send("a", frame));
    trial.script.batches(2);
    trial.bench.stop();
    let metrics = trial.bench.join().unwrap();
    assert_eq!(metrics.counted("unfinished", "a"), 2);
    assert_eq!(conserved(&metrics, "a"), (2, 0));
    // what the threads have in work comes to its end without a node, and harms nobody
    trial.script.set([1, 2], Fate::Computed);
    trial.script.until(|state| state.through.contains(&2).then_some(()));

    let mut trial = start(&[("IN_FLIGHT", "2")]);
    trial.send("a", 1);
    trial.script.batches(1);
    trial.bench.stop();
    trial.script.set([1], Fate::Computed);
    // published, where the machine was quick enough
    assert_eq!(conserved(&trial.bench.join().unwrap(), "a").0, 1);
}

#[test]
fn what_comes_in_is_published_or_lost_by_name_whatever_becomes_of_the_batches() {
    let settings =
        [("WORKERS", "3"), ("TOGETHER", "3"), ("IN_FLIGHT", "2"), ("ALLOW_LOSS", "true"), ("BATCH_WAIT_MS", "1")];
    let mut trial = start(&settings);
    let script = trial.script.clone();
    let frames = 90;
    // comes back in another order than it was accepted; every seventh batch fails
    let completing = std::thread::spawn(move || {
        let mut said = 0;
        while said < frames {
            let waiting: Vec<Vec<u32>> = script.until(|state| {
                let open = |batch: &&Vec<u32>| batch.iter().any(|frame| !state.fates.contains_key(frame));
                let open: Vec<_> = state.batches.iter().filter(open).cloned().collect();
                (!open.is_empty()).then_some(open)
            });
            let batch = &waiting[said as usize % waiting.len()];
            let fate = if batch[0].is_multiple_of(7) { Fate::Failed } else { Fate::Computed };
            script.set(batch.iter().copied(), fate);
            said += batch.len() as u32;
        }
    });
    let mut seen: Vec<(String, u64)> = Vec::new();
    for frame in 1..=frames {
        trial.send(["a", "b", "c"][frame as usize % 3], frame);
        while let Some((_, input)) = trial.bench.receive(Duration::ZERO) {
            let Input::Detections(found) = input else { panic!("{input:?}") };
            seen.push(of(&found));
        }
    }
    let (rest, end) = trial.bench.finish();
    completing.join().unwrap();
    seen.extend(rest.iter().map(|(_, seen)| match seen {
        Seen::Detections(found) => of(found),
        Seen::Frame(..) => panic!("no detections"),
    }));
    let metrics = end.unwrap();
    for source in ["a", "b", "c"] {
        let (received, published) = conserved(&metrics, source);
        assert_eq!(received, u64::from(frames) / 3);
        let of_camera: Vec<u64> = seen.iter().filter(|(of, _)| of == source).map(|(_, seq)| *seq).collect();
        assert_eq!(of_camera.len() as u64, published);
        assert!(of_camera.is_sorted(), "{source}: {of_camera:?}");
    }
    assert!(seen.len() < frames as usize, "some batches have failed");
}
