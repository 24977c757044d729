//! The node on a decoder that needs no GPU: the software one, behind the same trait as the GPU's. What is decided here is
//! the node's own part: order, bounds, and that one camera's failure is not another's.
#![allow(clippy::unwrap_used)]

use crate::backend::{Backend, DecodeError, Decoder, Frame, Sink};
use crate::config::{Memory, Settings, Source};
use crate::node::NvdecNv12;
use millrace_frame::{Item, PacketCodec, Payload};
use millrace_ingest::{AccessUnit, Decoded, Picture, ReorderPolicy, SoftwareDecoder};
use millrace_node::testing::Bench;
use millrace_node::{Context, Input, Metrics, NodeError, Outputs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// A clip of the ingest tests; FFmpeg made it.
fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/ingest/tests/data").join(name)
}

fn clip_text(name: &str) -> String {
    clip(name).to_str().unwrap().to_owned()
}

/// Decodes in software. Each test that counts pictures has a number `N` of its own.
struct Fake<const N: usize>;

struct FakeDecoder<const N: usize> {
    inner: SoftwareDecoder,
    /// Numbers of the units in it, by their times: the software decoder gives back times.
    numbers: BTreeMap<i64, i64>,
    sink: Sink<FakePicture<N>>,
}

/// Counts those that exist, as a decoder's surfaces would.
struct FakePicture<const N: usize>(Box<Picture>);

static PICTURES: [AtomicI64; 2] = [AtomicI64::new(0), AtomicI64::new(0)];

impl<const N: usize> Drop for FakePicture<N> {
    fn drop(&mut self) {
        PICTURES[N].fetch_sub(1, Ordering::Relaxed);
    }
}

impl<const N: usize> FakeDecoder<N> {
    fn emit(&mut self) -> Result<(), DecodeError> {
        while let Some(decoded) = self.inner.take() {
            match decoded {
                Decoded::Picture(picture) => {
                    let number = self.numbers.remove(&picture.timing.pts_ns).unwrap();
                    PICTURES[N].fetch_add(1, Ordering::Relaxed);
                    (self.sink)(number, FakePicture(picture));
                }
                Decoded::Loss(loss) => return Err(DecodeError::Lost(loss.detail)),
            }
        }
        Ok(())
    }
}

impl<const N: usize> Decoder for FakeDecoder<N> {
    fn feed(&mut self, unit: &AccessUnit, number: i64) -> Result<(), DecodeError> {
        self.numbers.insert(unit.timing.pts_ns, number);
        self.inner.push(unit).map_err(|e| DecodeError::Hopeless(e.to_string()))?;
        self.emit()
    }

    fn flush(&mut self) -> Result<(), DecodeError> {
        self.inner.flush();
        self.emit()
    }
}

impl<const N: usize> Backend for Fake<N> {
    type Decoder = FakeDecoder<N>;
    type Picture = FakePicture<N>;
    type Surface = FakePicture<N>;
    type Lane = ();

    fn open(_: &Settings, _: &Context) -> Result<Self, NodeError> {
        Ok(Self)
    }

    fn lane(&self, _: &Context) -> Result<Arc<()>, NodeError> {
        Ok(Arc::new(()))
    }

    fn decoder(&self, _: PacketCodec, sink: Sink<FakePicture<N>>) -> Result<FakeDecoder<N>, DecodeError> {
        Ok(FakeDecoder { inner: SoftwareDecoder::new(ReorderPolicy::Lossless), numbers: BTreeMap::new(), sink })
    }

    fn map(&self, (): &(), picture: FakePicture<N>) -> Result<(FakePicture<N>, Option<&'static str>), DecodeError> {
        Ok((picture, None))
    }

    fn publish(
        &self,
        _: &Arc<()>,
        surface: FakePicture<N>,
        frame: &Frame<'_>,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let (mut desc, bytes) = surface.0.info.nv12(256);
        frame.settings.feed.override_colour(&mut desc.colour);
        let Some(mut slot) = out.slot("frame", frame.camera, bytes)? else { return Ok(()) };
        surface.0.write_nv12(&desc, slot.bytes_mut()).map_err(NodeError::fatal)?;
        out.publish(slot, &Item::on_host(frame.camera, frame.seq, frame.timing(), Payload::Image(desc)))
    }
}

type Fakes = NvdecNv12<Fake<0>>;

/// Presentation times of the frames and packets of each camera, in the order in which they came.
#[derive(Debug, Default, PartialEq)]
struct Came {
    frames: Vec<i64>,
    packets: Vec<i64>,
}

fn play(settings: &[(&str, &str)]) -> (BTreeMap<String, Came>, Result<Metrics, String>) {
    let mut bench = Bench::start::<Fakes>(settings);
    let mut came: BTreeMap<String, Came> = BTreeMap::new();
    while let Some((port, input)) = bench.receive(Duration::from_millis(1500)) {
        let Input::Frame(lease) = input else { panic!("{port} carried detections") };
        let item = lease.item();
        let of = came.entry(item.source.clone()).or_default();
        let list = if port == "frame" { &mut of.frames } else { &mut of.packets };
        assert_eq!(item.seq as usize, list.len(), "{port} of {}", item.source);
        list.push(item.timing.pts_ns);
    }
    let (rest, result) = bench.finish();
    assert!(rest.is_empty());
    (came, result)
}

/// The clip's 25 pictures at 25 a second.
fn times(count: i64) -> Vec<i64> {
    (0..count).map(|n| n * 40_000_000).collect()
}

#[test]
fn every_frame_and_packet_of_every_camera_comes_in_its_order() {
    let sources =
        format!("a={}\n b={}\tc={}", clip_text("crop_b.mp4"), clip_text("crop_b.mp4"), clip_text("crop_b.mp4"));
    let (came, result) = play(&[("SOURCES", &sources)]);
    let metrics = result.unwrap();
    assert_eq!(came.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    for (camera, mut came) in came {
        assert_eq!(came.frames, times(25), "{camera}: presentation order");
        assert_ne!(came.packets, times(25), "{camera}: decoding order");
        came.packets.sort();
        assert_eq!(came.packets, times(25), "{camera}");
        assert_eq!(metrics.dropped("camera_failed", &camera), 0);
    }
}

#[test]
fn one_camera_that_fails_does_not_disturb_the_others() {
    // 4:2:2, which no decoder here takes, and a file that is not there
    let sources = format!("good={} bad={} gone=/nowhere.mp4", clip_text("crop_b.mp4"), clip_text("chroma422.264"));
    let (came, result) = play(&[("SOURCES", &sources)]);
    let metrics = result.unwrap();
    assert_eq!(came["good"].frames, times(25));
    assert_eq!(came.get("bad").map_or(0, |c| c.frames.len()), 0);
    for (camera, lost) in [("good", 0), ("bad", 1), ("gone", 1)] {
        assert_eq!(metrics.dropped("camera_failed", camera), lost, "{camera}");
    }
}

#[test]
fn a_node_whose_cameras_have_all_failed_ends_with_each_ones_reason() {
    let sources = format!("bad={} gone=/nowhere.mp4", clip_text("chroma422.264"));
    let (_, result) = play(&[("SOURCES", &sources)]);
    let error = result.unwrap_err();
    assert!(error.contains("camera 'bad': ") && error.contains("4:2:2"), "{error}");
    assert!(error.contains("camera 'gone': cannot open '/nowhere.mp4'"), "{error}");
}

#[test]
fn a_repeated_file_goes_on_in_time_and_a_stop_ends_it() {
    let source = clip_text("crop_b.mp4");
    let mut bench = Bench::start::<Fakes>(&[("SOURCE", &source), ("CAMERA", "gate"), ("LOOP", "true")]);
    let mut frames = Vec::new();
    while frames.len() < 60 {
        let (port, input) = bench.receive(Duration::from_secs(20)).unwrap();
        let Input::Frame(lease) = input else { panic!("{port}") };
        assert_eq!(lease.item().source, "gate");
        if port == "frame" {
            frames.push(lease.item().timing.pts_ns);
        }
    }
    assert_eq!(frames, times(60));
    bench.stop();
    bench.join().unwrap();
}

#[test]
fn every_camera_ends_after_as_many_frames_as_are_asked_for() {
    // one that ends before, one within a pass, one after several
    for frames in [10, 25, 60] {
        let sources = format!("a={} b={}", clip_text("crop_b.mp4"), clip_text("crop_b.mp4"));
        let (came, result) = play(&[("SOURCES", &sources), ("LOOP", "true"), ("FRAMES", &frames.to_string())]);
        result.unwrap();
        assert_eq!(came.keys().collect::<Vec<_>>(), ["a", "b"]);
        for (camera, came) in came {
            assert_eq!(came.frames, times(frames), "{camera}");
        }
    }
}

#[test]
fn a_consumer_that_takes_nothing_stops_the_decoder_soon() {
    let source = clip_text("crop_b.mp4");
    let settings = [("SOURCE", &source[..]), ("LOOP", "true"), ("SLOTS", "2")];
    let mut bench = Bench::start::<NvdecNv12<Fake<1>>>(&settings);
    let first = bench.receive(Duration::from_secs(20)).unwrap();
    let held = || PICTURES[1].load(Ordering::Relaxed);
    // until it stands still
    let mut before = -1;
    let until = Instant::now() + Duration::from_secs(20);
    while held() != before && Instant::now() < until {
        before = held();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(held(), before, "it goes on decoding for a consumer that takes nothing");
    // the queue to the mapping thread, the one to the loop, and what each of the three threads has in hand
    assert!((1..=64 + 4 + 3).contains(&before), "{before} pictures are held");
    drop(first);
    bench.stop();
    bench.join().unwrap();
}

#[test]
fn a_paced_camera_takes_its_time() {
    let source = clip_text("crop_b.mp4");
    let began = Instant::now();
    let (came, result) = play(&[("SOURCE", &source), ("PACE", "realtime")]);
    result.unwrap();
    assert_eq!(came["node"].frames, times(25));
    // the last picture is shown 24 frame times after the first
    assert!(began.elapsed() >= Duration::from_millis(960), "{:?}", began.elapsed());
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let map: serde_json::Map<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    serde_json::from_value(map.into()).unwrap()
}

fn source(camera: &str, source: &str) -> Source {
    Source { camera: camera.into(), source: source.into() }
}

#[test]
fn cameras_are_named_by_one_of_two_settings() {
    let of = |pairs: &[(&str, &str)]| settings(pairs).cameras("decode");
    assert_eq!(of(&[("SOURCE", "a.mp4")]).unwrap(), [source("decode", "a.mp4")]);
    assert_eq!(of(&[("SOURCE", "a.mp4"), ("CAMERA", "x")]).unwrap(), [source("x", "a.mp4")]);
    let two = of(&[("SOURCES", " x=rtsp://u:p@h/s?a=1&b=2\n\n y=b.mp4 ")]).unwrap();
    assert_eq!(two, [source("x", "rtsp://u:p@h/s?a=1&b=2"), source("y", "b.mp4")]);
    for (pairs, says) in [
        (&[][..], "one of SOURCE"),
        (&[("SOURCE", " ")], "one of SOURCE"),
        (&[("SOURCE", "a"), ("SOURCES", "b=c")], "both set"),
        (&[("SOURCES", "a=b"), ("CAMERA", "x")], "CAMERA names the camera of SOURCE"),
        (&[("SOURCES", "a=b a=c")], "camera 'a' twice"),
        (&[("SOURCES", "a.mp4")], "'a.mp4' in SOURCES is not"),
        (&[("SOURCES", "=a.mp4")], "'=a.mp4' in SOURCES is not"),
        (&[("SOURCES", "a=")], "'a=' in SOURCES is not"),
        (&[("SOURCES", "rtsp://h/s?a=1")], "in SOURCES is not"),
    ] {
        let error = of(pairs).unwrap_err();
        assert!(error.contains(says), "{pairs:?}: {error}");
    }
    let error = of(&[("SOURCES", "rtsp://user:secret@h/s?a=1")]).unwrap_err();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn defaults_are_those_of_the_page() {
    let s = settings(&[("SOURCE", "a")]);
    assert_eq!((s.device, s.low_delay, s.memory, s.feed.repeat), (0, false, Memory::Cuda, false));
    assert_eq!(settings(&[("SOURCE", "a"), ("MEMORY", "host")]).memory, Memory::Host);
}

#[test]
fn a_machine_without_a_gpu_is_told_what_to_use() {
    if millrace_cuda::device_count().is_ok_and(|n| n > 0) {
        return; // there is one
    }
    let source = clip_text("crop_b.mp4");
    let (_, result) = Bench::start::<NvdecNv12<crate::cuda::Cuda>>(&[("SOURCE", &source)]).finish();
    let error = result.unwrap_err();
    assert!(error.contains("sw-nv12") || error.contains("CUDA device 0"), "{error}");
}
