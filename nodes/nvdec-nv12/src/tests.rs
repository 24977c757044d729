//! The rules in front of the GPU's decoder, on one that needs no GPU, and the settings. What many cameras have in common is
//! tested where it is: in `millrace-cameras`.
#![allow(clippy::unwrap_used)]

use crate::admitted::{DecodeError, Given, NumberedSink, Parser, Stream};
use crate::config::{Memory, Settings};
use crate::node::NvdecNv12;
use millrace_cameras::{Decoder, Output, Sink};
use millrace_ingest::{AccessUnit, BoundOrigin, Decoded, Event, Ingest, IngestOptions, ReorderPolicy, SoftwareDecoder};
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
    let mut ingest = Ingest::open(&clip(name), &IngestOptions::default()).unwrap();
    let mut units = Vec::new();
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => units.push(*unit),
            Event::End => return units,
            _ => {}
        }
    }
}

#[test]
fn pictures_that_have_to_be_turned_are_refused_as_bgr24_with_what_to_set() {
    let turned = &units("turned/turned.mp4")[0];
    let why = crate::node::refusal(turned, false).unwrap();
    assert!(why.contains("turned or mirrored (to be shown by '270')"), "{why}");
    assert!(why.contains("set FORMAT: nv12, or ORIENTATION: none"), "{why}");
    assert_eq!(crate::node::refusal(turned, true), None);
    assert_eq!(crate::node::refusal(&units("crop_b.mp4")[0], false), None);
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
            Output::Picture { picture_info, .. } => came.pictures.push(picture_info.timing.pts_ns),
            Output::Loss(loss) => came.losses.push((loss.cause, loss.count)),
        }
    });
    let make = move |_, sink| {
        Ok(Fake { inner: SoftwareDecoder::new(ReorderPolicy::Lossless), numbers: BTreeMap::new(), fails_at, sink })
    };
    let mut stream = Stream::new(Box::new(make), Given::InOrder, sink);
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

/// Gives each picture with its own unit. A picture is a share of the decoder's surfaces.
struct AsDecoded {
    surfaces: Arc<()>,
    fails_at: Option<i64>,
    sink: NumberedSink<Arc<()>>,
}

impl Parser for AsDecoded {
    type Picture = Arc<()>;

    fn feed(&mut self, _: &AccessUnit, number: i64) -> Result<(), DecodeError> {
        if self.fails_at == Some(number) {
            return Err(DecodeError::Lost("it gives up".to_owned()));
        }
        (self.sink)(number, self.surfaces.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// What comes out with each unit and at the end, and the most surfaces that are held between two units.
fn ordered(units: &[AccessUnit], fails_at: Option<i64>) -> (Vec<Came>, usize) {
    let (came, surfaces) = (Arc::new(Mutex::new(Came::default())), Arc::new(()));
    let into = came.clone();
    let sink: Sink<Arc<()>> = Box::new(move |output| {
        let mut came = into.lock().unwrap();
        match output {
            Output::Picture { picture_info, .. } => came.pictures.push(picture_info.timing.pts_ns),
            Output::Loss(loss) => came.losses.push((loss.cause, loss.count)),
        }
    });
    let shares = surfaces.clone();
    let make = move |_, sink| Ok(AsDecoded { surfaces: shares.clone(), fails_at, sink });
    let mut stream = Stream::new(Box::new(make), Given::Decoded, sink);
    let (mut out, mut held) = (Vec::new(), 0);
    // this function's share, the maker's and the parser's
    let of_others = 3;
    for unit in units {
        stream.push(unit).unwrap();
        held = held.max(Arc::strong_count(&surfaces).saturating_sub(of_others));
        out.push(std::mem::take(&mut *came.lock().unwrap()));
    }
    stream.flush();
    out.push(std::mem::take(&mut *came.lock().unwrap()));
    (out, held)
}

/// The same of the software decoder in live flow.
fn software(units: &[AccessUnit]) -> Vec<Came> {
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Live);
    let taken = |decoder: &mut SoftwareDecoder| {
        let mut came = Came::default();
        while let Some(decoded) = decoder.take() {
            match decoded {
                Decoded::Picture(picture) => came.pictures.push(picture.timing.pts_ns),
                Decoded::Loss(loss) => came.losses.push((loss.cause, loss.count)),
            }
        }
        came
    };
    let mut out = Vec::new();
    for unit in units {
        decoder.push(unit).unwrap();
        out.push(taken(&mut decoder));
    }
    decoder.flush();
    out.push(taken(&mut decoder));
    out
}

#[test]
fn in_live_flow_pictures_come_in_the_order_and_at_the_time_of_the_software_decoder() {
    // H.264: where H.265's software decoder puts pictures in order itself, there is nothing to compare with
    for name in ["crop_b.mp4", "pyramid.264", "cavlc_b.264", "open_gop.264", "edit_list.mp4", "baseline_slices.264"] {
        let file = units(name);
        let mut times: Vec<i64> = file.iter().filter(|unit| unit.shown).map(|unit| unit.timing.pts_ns).collect();
        times.sort();
        let mut camera = file.clone();
        camera.iter_mut().for_each(|unit| unit.earliest_next_pts_ns = None);
        let mut unstated = camera.clone();
        for unit in &mut unstated {
            let info = Arc::make_mut(&mut unit.info);
            if info.max_reorder_origin == BoundOrigin::Stated {
                (info.max_reorder, info.max_reorder_origin) = (4, BoundOrigin::Assumed);
            }
        }
        let ways = [("file", &file), ("camera", &camera), ("camera that states no bound", &unstated)];
        // a camera has no edit list
        let ways = if name == "edit_list.mp4" { &ways[..1] } else { &ways[..] };
        for &(what, units) in ways {
            let (came, held) = ordered(units, None);
            assert_eq!(came, software(units), "{name} as a {what}");
            let all: Vec<i64> = came.iter().flat_map(|came| came.pictures.clone()).collect();
            assert_eq!(all, times, "{name} as a {what}");
            assert!(held <= 3, "{name} as a {what}: {held} pictures held, its encoder reorders 2 at most");
        }
        // a gap: what is held comes out, and nothing until the next key picture
        let mut gap = unstated.clone();
        gap.remove(4);
        gap[4].after_loss = true;
        assert_eq!(ordered(&gap, None).0, software(&gap), "{name}, without a unit");
    }
}

#[test]
fn h265_in_live_flow_is_shown_in_order_within_its_stated_bound() {
    for name in ["closed_gop.265", "open_gop.265", "h265_crop.mp4"] {
        let mut camera = units(name);
        camera.iter_mut().for_each(|unit| unit.earliest_next_pts_ns = None);
        let mut times: Vec<i64> = camera.iter().filter(|unit| unit.shown).map(|unit| unit.timing.pts_ns).collect();
        times.sort();
        let (came, held) = ordered(&camera, None);
        assert_eq!(came.iter().flat_map(|came| came.pictures.clone()).collect::<Vec<_>>(), times, "{name}");
        assert_eq!(held, 2, "{name}: sps_max_num_reorder_pics, as ffprobe shows it");
    }
}

#[test]
fn a_decoder_that_gives_up_in_live_flow_gives_out_what_is_held() {
    let whole = units("pyramid.264");
    let (came, _) = ordered(&whole, Some(5));
    let pictures: Vec<i64> = came.iter().flat_map(|came| came.pictures.clone()).collect();
    let lost: u64 = came.iter().flat_map(|came| &came.losses).map(|(_, count)| count).sum();
    let shown = whole.iter().filter(|unit| unit.shown).count();
    assert_eq!(pictures.len() as u64 + lost, shown as u64, "{came:?}");
    assert!(pictures.is_sorted(), "{pictures:?}");
    let of_first_four = pictures.iter().filter(|pts_ns| whole[..4].iter().any(|unit| unit.timing.pts_ns == **pts_ns));
    assert_eq!(of_first_four.count(), 4, "what was decoded before is shown");
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let map: serde_json::Map<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    serde_json::from_value(map.into()).unwrap()
}

#[test]
fn defaults_are_those_of_the_page() {
    let s = settings(&[("SOURCE", "a")]);
    assert_eq!((s.device, s.low_delay, s.memory, s.cameras.source_settings.repeat), (0, None, Memory::Cuda, false));
    assert_eq!(settings(&[("SOURCE", "a"), ("MEMORY", "host")]).memory, Memory::Host);
}

#[test]
fn a_machine_without_a_gpu_is_told_what_to_use() {
    if millrace_cuda::device_count().is_ok_and(|n| n > 0) {
        return millrace_needs::skip_without("no_gpu", "there is one");
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
