//! The rules in front of the GPU's decoder, on one that needs no GPU, and the settings. What many cameras have in common is
//! tested where it is: in `millrace-cameras`.
#![allow(clippy::unwrap_used)]

use crate::admitted::{DecodeError, NumberedSink, Parser, Stream};
use crate::config::{Memory, Settings};
use crate::node::NvdecNv12;
use millrace_cameras::{Decoder, Output, Sink};
use millrace_ingest::{AccessUnit, Decoded, Event, Ingest, Options, ReorderPolicy, SoftwareDecoder};
use millrace_node::testing::Bench;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A clip of the ingest tests; FFmpeg made it.
fn clip(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/ingest/tests/data").join(name);
    // where the test was carried to another machine, it is started in the repository's root
    let there = Path::new("runtime/ingest/tests/data").join(name);
    if path.exists() { path.to_str().unwrap().to_owned() } else { there.to_str().unwrap().to_owned() }
}

fn units(name: &str) -> Vec<AccessUnit> {
    let mut ingest = Ingest::open(&clip(name), &Options::default()).unwrap();
    let mut units = Vec::new();
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => units.push(*unit),
            Event::End => return units,
            _ => {}
        }
    }
}

/// Decodes in software, and gives up on the unit with the number `fails_at`.
struct Fake {
    inner: SoftwareDecoder,
    /// Numbers of the units in it, by their times: the software decoder gives back times.
    numbers: BTreeMap<i64, i64>,
    fails_at: Option<i64>,
    sink: NumberedSink<()>,
}

impl Fake {
    fn give_out(&mut self) -> Result<(), DecodeError> {
        while let Some(decoded) = self.inner.take() {
            match decoded {
                Decoded::Picture(picture) => {
                    (self.sink)(self.numbers.remove(&picture.timing.pts_ns).unwrap(), ());
                }
                Decoded::Loss(loss) => return Err(DecodeError::Lost(loss.detail)),
            }
        }
        Ok(())
    }
}

impl Parser for Fake {
    type Picture = ();

    fn feed(&mut self, unit: &AccessUnit, number: i64) -> Result<(), DecodeError> {
        if self.fails_at == Some(number) {
            return Err(DecodeError::Lost("it gives up".to_owned()));
        }
        self.numbers.insert(unit.timing.pts_ns, number);
        self.inner.push(unit).map_err(|e| DecodeError::Hopeless(e.to_string()))?;
        self.give_out()
    }

    fn flush(&mut self) -> Result<(), DecodeError> {
        self.inner.flush();
        self.give_out()
    }
}

/// Times of what came out, and what was lost, of a stream; in the order in which it came out.
#[derive(Debug, Default, PartialEq)]
struct Came {
    pictures: Vec<i64>,
    losses: Vec<(&'static str, u64)>,
}

fn decode(units: &[AccessUnit], fails_at: Option<i64>) -> (Came, Result<(), String>) {
    let came = Arc::new(Mutex::new(Came::default()));
    let into = came.clone();
    let sink: Sink<()> = Box::new(move |output| {
        let mut came = into.lock().unwrap();
        match output {
            Output::Picture { shown, .. } => came.pictures.push(shown.timing.pts_ns),
            Output::Loss(loss) => came.losses.push((loss.cause, loss.count)),
        }
    });
    let make = move |_, sink| {
        Ok(Fake { inner: SoftwareDecoder::new(ReorderPolicy::Lossless), numbers: BTreeMap::new(), fails_at, sink })
    };
    let mut stream = Stream::new(Box::new(make), sink);
    let result = units.iter().try_for_each(|unit| stream.push(unit));
    stream.flush();
    drop(stream);
    (Arc::into_inner(came).unwrap().into_inner().unwrap(), result)
}

#[test]
fn every_picture_comes_out_in_presentation_order() {
    for name in ["crop_b.mp4", "pyramid.264", "closed_gop.265"] {
        let whole = units(name);
        let mut times: Vec<i64> = whole.iter().filter(|unit| unit.shown).map(|unit| unit.timing.pts_ns).collect();
        times.sort();
        let (came, result) = decode(&whole, None);
        assert_eq!(came, Came { pictures: times, losses: Vec::new() }, "{name}");
        assert_eq!(result, Ok(()));
    }
}

#[test]
fn every_unit_is_a_picture_or_a_loss() {
    let whole = units("open_gop.264");
    let shown = |units: &[AccessUnit]| units.iter().filter(|unit| unit.shown).count() as u64;
    let sum = |came: &Came| came.pictures.len() as u64 + came.losses.iter().map(|(_, count)| count).sum::<u64>();
    // the decoder gives up
    let (came, result) = decode(&whole, Some(4));
    assert_eq!((sum(&came), result), (shown(&whole), Ok(())), "{came:?}");
    assert!(came.losses.iter().any(|(cause, _)| *cause == "decode_error"), "{came:?}");
    // the source has lost something
    let mut gap = whole.clone();
    gap.remove(3);
    gap[3].after_loss = true;
    let (came, _) = decode(&gap, None);
    assert_eq!(sum(&came), shown(&gap), "{came:?}");
    assert!(came.losses.contains(&("missing_reference", 1)), "{came:?}");
    // the beginning is missing
    let (came, _) = decode(&whole[2..], None);
    assert_eq!(sum(&came), shown(&whole[2..]), "{came:?}");
    assert!(came.losses.iter().any(|(cause, _)| *cause == "waiting_for_key"), "{came:?}");
}

#[test]
fn a_stream_that_can_never_be_decoded_is_told_from_a_loss() {
    let (_, result) = decode(&units("chroma422.264"), None);
    assert!(result.unwrap_err().contains("4:2:2"));
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let map: serde_json::Map<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    serde_json::from_value(map.into()).unwrap()
}

#[test]
fn defaults_are_those_of_the_page() {
    let s = settings(&[("SOURCE", "a")]);
    assert_eq!((s.device, s.low_delay, s.memory, s.cameras.feed.repeat), (0, None, Memory::Cuda, false));
    assert_eq!(settings(&[("SOURCE", "a"), ("MEMORY", "host")]).memory, Memory::Host);
}

#[test]
fn a_machine_without_a_gpu_is_told_what_to_use() {
    if millrace_cuda::device_count().is_ok_and(|n| n > 0) {
        return; // there is one
    }
    let (_, result) = Bench::start::<NvdecNv12>(&[("SOURCE", &clip("crop_b.mp4"))]).finish();
    let error = result.unwrap_err();
    assert!(error.contains("sw-nv12") || error.contains("CUDA device 0"), "{error}");
}

/// Needs a GPU: `cargo test --release -p nvdec-nv12 -- --ignored --nocapture`, with the number of cameras in
/// `MILLRACE_TEST_CAMERAS` and another clip in `MILLRACE_TEST_CLIP`.
#[test]
#[ignore = "needs a GPU"]
fn a_node_with_many_cameras_ends_in_time() {
    let given = |name: &str| std::env::var(name).ok();
    let count: usize = given("MILLRACE_TEST_CAMERAS").map_or(100, |text| text.parse().unwrap());
    let clip = given("MILLRACE_TEST_CLIP").unwrap_or_else(|| clip("crop_b.mp4"));
    let sources: Vec<String> = (0..count).map(|n| format!("cam{n}={clip}")).collect();
    // a consumer in the same process cannot open its memory on the GPU
    let settings = [
        ("SOURCES", &sources.join(" ")[..]),
        ("LOOP", "true"),
        ("FLOW", "live"),
        ("PACE", "realtime"),
        ("MEMORY", "host"),
    ];
    let began = std::time::Instant::now();
    let mut bench = Bench::start::<NvdecNv12>(&settings);
    let mut came = std::collections::BTreeSet::new();
    while came.len() < count {
        assert!(began.elapsed().as_secs() < 120, "frames of {} cameras of {count}", came.len());
        if let Some((_, input)) = bench.receive(std::time::Duration::from_millis(5)) {
            came.insert(input.source().to_owned());
        }
    }
    let started = began.elapsed();
    let began = std::time::Instant::now();
    bench.stop();
    bench.join().unwrap();
    let ended = began.elapsed();
    eprintln!("{count} cameras: frames of all after {started:?}; ended in {ended:?}");
    assert!(ended.as_secs_f64() < 3.0, "{ended:?}");
}
