#![allow(clippy::unwrap_used)]

use crate::config::{Settings, SettingsError};
use crate::node::Nv12ToRgb;
use millrace_frame::{
    ChromaSiting, Colour, ImageDesc, Item, Matrix, Payload, PixelFormat, Range, Size, Tagged, TensorDesc, TensorDtype,
    TensorLayout, Timebase, Timing,
};
use millrace_kernels::reference::{Order, tensor};
use millrace_kernels::{Anchor, ChannelOrder, Fit, Rounding, Target};
use millrace_node::Input;
use millrace_node::testing::Bench;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn settings(value: serde_json::Value) -> Settings {
    serde_json::from_value(value).unwrap()
}

fn error(value: serde_json::Value) -> String {
    settings(value).target().unwrap_err().to_string()
}

#[test]
fn a_size_is_enough_and_the_rest_has_the_documented_defaults() {
    let found = settings(json!({"WIDTH_PX": 640, "HEIGHT_PX": 384}));
    assert!(found.fused);
    assert_eq!((found.batch, found.batch_wait()), (16, None), "it waits as long as pays");
    let zero = settings(json!({"WIDTH_PX": 640, "HEIGHT_PX": 384, "BATCH_WAIT_MS": 0}));
    assert_eq!(zero.batch_wait(), Some(Duration::ZERO));
    let expected = Target {
        size: Size::new(640, 384),
        layout: TensorLayout::Nchw,
        dtype: TensorDtype::F32,
        order: ChannelOrder::Rgb,
        mean: [0.0; 3],
        scale: [1.0; 3],
        fit: Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest },
        pad: 114,
    };
    assert_eq!(found.target().unwrap(), expected);
}

#[test]
fn every_setting_reaches_the_target() {
    let found = settings(json!({
        "WIDTH_PX": 416, "HEIGHT_PX": 320, "LAYOUT": "nhwc", "DTYPE": "f16", "COLOUR": "bgr",
        "MEAN": "103.53, 116.28,123.675", "SCALE": "0.0078125", "ANCHOR": "top_left", "PAD": 7, "FUSED": false,
    }));
    assert!(!found.fused);
    let expected = Target {
        size: Size::new(416, 320),
        layout: TensorLayout::Nhwc,
        dtype: TensorDtype::F16,
        order: ChannelOrder::Bgr,
        mean: [103.53, 116.28, 123.675],
        scale: [0.007_812_5; 3],
        fit: Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down },
        pad: 7,
    };
    assert_eq!(found.target().unwrap(), expected);
    let stretched = settings(json!({"WIDTH_PX": 4, "HEIGHT_PX": 4, "FIT": "stretch", "DTYPE": "u8"})).target().unwrap();
    assert_eq!((stretched.fit, stretched.dtype), (Fit::Stretch, TensorDtype::U8));
    let crop = |more: serde_json::Value| {
        let mut all = json!({"WIDTH_PX": 9, "HEIGHT_PX": 8, "FIT": "crop"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings(all).target().unwrap().fit
    };
    assert_eq!(crop(json!({})), Fit::Crop { resize_px: 8 });
    assert_eq!(crop(json!({"RESIZE_PX": 10})), Fit::Crop { resize_px: 10 });
}

#[test]
fn a_model_says_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.yml");
    let text = "schema: 1\nname: t\nfile: t.onnx\n\
        input: {name: images, width_px: 416, height_px: 320, layout: nhwc, dtype: f32, colour: bgr, \
        scale: [1, 2, 3], mean: [4, 5, 6]}\n\
        letterbox: {anchor: top_left, pad: 113}\n\
        head: {kind: yolov8, output: out}\n\
        thresholds: {score: 0.3, iou: 0.5}\nlabels: [person]\n";
    std::fs::write(&path, text).unwrap();
    let expected = Target {
        size: Size::new(416, 320),
        layout: TensorLayout::Nhwc,
        dtype: TensorDtype::F32,
        order: ChannelOrder::Bgr,
        mean: [4.0, 5.0, 6.0],
        scale: [1.0, 2.0, 3.0],
        fit: Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down },
        pad: 113,
    };
    assert_eq!(settings(json!({"MODEL": path})).target().unwrap(), expected);

    std::fs::write(&path, text.replace("letterbox: {anchor: top_left, pad: 113}", "fit: stretch")).unwrap();
    let stretched = settings(json!({"MODEL": path})).target().unwrap();
    assert_eq!(stretched, Target { fit: Fit::Stretch, pad: 0, ..expected });

    std::fs::write(&path, text.replace("width_px: 416", "width_px: -1")).unwrap();
    let wrong = error(json!({"MODEL": path}));
    assert!(wrong.contains("model.yml:4:"), "{wrong}");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    assert!(matches!(settings(json!({})).target(), Err(SettingsError::NoTarget)));
    assert!(matches!(settings(json!({"WIDTH_PX": 640})).target(), Err(SettingsError::NoTarget)));
    assert_eq!(
        error(json!({"WIDTH_PX": 4, "HEIGHT_PX": 4, "SCALE": "1,2"})),
        "SCALE is '1,2'; expected one number, or three with commas, as 0.5 or 123.7,116.3,103.5"
    );
    assert!(error(json!({"WIDTH_PX": 4, "HEIGHT_PX": 4, "MEAN": "a"})).starts_with("MEAN is 'a'"));
    assert!(error(json!({"WIDTH_PX": 4, "HEIGHT_PX": 4, "SCALE": "0"})).contains("scale not 0"));
    assert!(error(json!({"WIDTH_PX": 0, "HEIGHT_PX": 4})).contains("0x4"));
    assert!(error(json!({"WIDTH_PX": 4, "HEIGHT_PX": 4, "FIT": "stretch", "PAD": 0})).contains("remove PAD"));
    assert_eq!(
        error(json!({"WIDTH_PX": 4, "HEIGHT_PX": 4, "FIT": "crop", "ANCHOR": "centre"})),
        "ANCHOR and PAD belong to FIT letterbox, but FIT is crop; remove ANCHOR"
    );
    assert!(error(json!({"WIDTH_PX": 4, "HEIGHT_PX": 4, "RESIZE_PX": 8})).contains("RESIZE_PX belongs to FIT crop"));
    assert!(error(json!({"WIDTH_PX": 9, "HEIGHT_PX": 8, "FIT": "crop", "RESIZE_PX": 7})).contains("does not cover it"));
    let missing = error(json!({"MODEL": "nowhere/model.yml"}));
    assert!(missing.contains("nowhere/model.yml"), "{missing}");
}

fn frame(source: &str, seq: u64, size: Size) -> (Item, ImageDesc, Vec<u8>) {
    let colour = Colour {
        matrix: Tagged::bitstream(Matrix::Bt2020Ncl),
        range: Tagged::bitstream(Range::Full),
        siting: Tagged::bitstream(ChromaSiting::TopLeft),
        ..Colour::assumed_for_height(size.height_px)
    };
    let (image, bytes) = ImageDesc::packed(PixelFormat::Nv12, size, colour, 64);
    let mut state = seq as u32 ^ 0x5bd1;
    let pixels = (0..bytes).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let timing =
        Timing { pts_ns: 40 * seq as i64, timebase: Timebase::NANOSECONDS, capture_ns: 7, ..Timing::default() };
    (Item::on_host(source, seq, timing, Payload::Image(image.clone())), image, pixels.collect())
}

/// The next tensor: its item, description and values.
fn next(bench: &mut Bench) -> (Item, TensorDesc, Vec<f32>) {
    let Some(("tensor", Input::Frame(lease))) = bench.receive(Duration::from_secs(10)) else {
        panic!("no tensor came");
    };
    let Payload::Tensor(desc) = lease.item().payload.clone() else { panic!("not a tensor") };
    let bytes = lease.on_host().unwrap();
    let values = bytes[..desc.bytes() as usize].as_chunks::<4>().0.iter().map(|&b| f32::from_ne_bytes(b)).collect();
    (lease.item().clone(), desc, values)
}

const SMALL: [(&str, &str); 5] =
    [("WIDTH_PX", "48"), ("HEIGHT_PX", "40"), ("ANCHOR", "top_left"), ("COLOUR", "bgr"), ("SCALE", "0.5")];

/// Largest distance from the f64 reference in the given order.
fn distance(image: &ImageDesc, pixels: &[u8], values: &[f32], order: Order) -> f64 {
    let target = Target {
        size: Size::new(48, 40),
        layout: TensorLayout::Nchw,
        dtype: TensorDtype::F32,
        order: ChannelOrder::Bgr,
        mean: [0.0; 3],
        scale: [0.5; 3],
        fit: Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down },
        pad: 114,
    };
    let expected = tensor(image, pixels, &target, order);
    assert_eq!(expected.len(), values.len());
    values.iter().zip(expected).map(|(&v, e)| (f64::from(v) - e).abs()).fold(0.0, f64::max)
}

#[test]
fn frames_of_two_cameras_and_a_change_of_size_each_get_their_own_geometry() {
    let mut bench = Bench::start::<Nv12ToRgb>(&SMALL);
    for (source, seq, size) in [
        ("door", 0, Size::new(101, 67)),
        ("yard", 0, Size::new(64, 48)),
        ("door", 1, Size::new(101, 67)),
        ("door", 2, Size::new(33, 90)),
    ] {
        let (item, image, pixels) = frame(source, seq, size);
        bench.send("frame", &item, &pixels).unwrap();
        let (found, desc, values) = next(&mut bench);
        assert_eq!((found.source.as_str(), found.seq, found.timing), (source, seq, item.timing));
        assert_eq!((desc.shape, desc.source_size), ([1, 3, 40, 48], size));
        // both axes by the one letterbox scale
        let scale = f64::min(48.0 / f64::from(size.width_px), 40.0 / f64::from(size.height_px));
        let back = desc.source_from_model;
        assert_eq!((back.scale_x, back.scale_y, back.offset_x, back.offset_y), (1.0 / scale, 1.0 / scale, 0.0, 0.0));
        assert!(distance(&image, &pixels, &values, Order::ResizeFirst) < 0.053 * 0.5 + 1e-4);
    }
    let (rest, end) = bench.finish();
    assert!(rest.is_empty());
    end.unwrap();
}

/// A camera changes its size again and again, in an order that brings each size into slots of each other. The padding of
/// a slot is not written where it is there already, and is where another size was: stale pixels never show.
fn sizes_that_change(settings: &[(&str, &str)], send: impl Fn(&mut Bench, &Item, &[u8])) {
    let order = if settings.contains(&("FUSED", "false")) { Order::ConvertFirst } else { Order::ResizeFirst };
    let bound = if order == Order::ConvertFirst { 0.6 } else { 0.053 * 0.5 + 1e-4 };
    let mut bench = Bench::start::<Nv12ToRgb>(&[settings, &[("SLOTS", "4")]].concat());
    // padded below, on the right, at whole-number scales, and not at all
    let sizes = [(101, 67), (33, 90), (96, 40), (96, 80), (144, 60), (20, 90)].map(|(w, h)| Size::new(w, h));
    for seq in 0..90u64 {
        // runs of one size and changes from each to each
        let (item, image, pixels) = frame("door", seq, sizes[(seq * seq / 7 + seq / 5) as usize % sizes.len()]);
        send(&mut bench, &item, &pixels);
        let (found, _, values) = next(&mut bench);
        assert_eq!(found.seq, seq);
        let apart = distance(&image, &pixels, &values, order);
        assert!(apart < bound, "frame {seq}, {}: {apart}", image.coded);
    }
    bench.finish().1.unwrap();
}

#[test]
fn padding_is_of_the_frame_that_is_shown() {
    for fused in ["true", "false"] {
        sizes_that_change(&[&SMALL[..], &[("FUSED", fused)]].concat(), |bench, item, pixels| {
            bench.send("frame", item, pixels).unwrap();
        });
    }
}

#[test]
fn separate_passes_do_the_same_job_with_two_roundings() {
    let settings = [&SMALL[..], &[("FUSED", "false")]].concat();
    let mut bench = Bench::start::<Nv12ToRgb>(&settings);
    let (item, image, pixels) = frame("door", 0, Size::new(101, 67));
    bench.send("frame", &item, &pixels).unwrap();
    let (_, _, values) = next(&mut bench);
    let apart = distance(&image, &pixels, &values, Order::ConvertFirst);
    assert!((0.05..0.6).contains(&apart), "{apart}: two roundings of half a step each, scaled by 0.5");
    bench.finish().1.unwrap();
}

#[test]
fn a_frame_that_cannot_be_converted_is_a_named_drop_and_the_next_one_passes() {
    let mut bench = Bench::start::<Nv12ToRgb>(&SMALL);
    let (mut item, _, pixels) = frame("door", 0, Size::new(64, 48));
    let Payload::Image(image) = &mut item.payload else { panic!("an image") };
    (image.coded, image.display.width_px) = (Size::new(1, 48), 1);
    image.display.x_px = 1; // outside of what is stored
    bench.send("frame", &item, &pixels).unwrap();
    let (item, ..) = frame("door", 1, Size::new(64, 48));
    bench.send("frame", &item, &pixels).unwrap();
    assert_eq!(next(&mut bench).0.seq, 1);
    let metrics = bench.finish().1.unwrap();
    assert_eq!(metrics.dropped("bad_description", "door"), 1);
}

#[test]
fn wrong_settings_end_the_node_before_the_first_frame() {
    let (_, end) = Bench::start::<Nv12ToRgb>(&[("WIDTH_PX", "48")]).finish();
    let text = end.unwrap_err();
    assert!(text.contains("neither MODEL nor WIDTH_PX and HEIGHT_PX are set"), "{text}");
    let unknown = [&SMALL[..], &[("WIDHT_PX", "4")]].concat();
    let text = Bench::start::<Nv12ToRgb>(&unknown).finish().1.unwrap_err();
    assert!(text.contains("WIDHT_PX"), "{text}");
}

#[test]
fn settings_that_exclude_each_other_are_refused_before_the_model_is_read() {
    use millrace_node::testing::remarks;
    let refused = |settings: &[(&str, &str)]| {
        let found = remarks::<Nv12ToRgb>(settings).refused;
        found.into_iter().map(|remark| (remark.setting, remark.why)).collect::<Vec<_>>()
    };
    let both = refused(&[("MODEL", "absent.yml"), ("WIDTH_PX", "320"), ("PAD", "3")]);
    let [(first, _), (second, why)] = &both[..] else { panic!("{both:?}") };
    assert_eq!((first.as_str(), second.as_str()), ("WIDTH_PX", "PAD"));
    assert_eq!(why, "MODEL and PAD are both set; PAD would contradict the model.yml: remove one of them");
    for (more, setting, says) in [
        (&[("RESIZE_PX", "64")][..], "RESIZE_PX", "belongs to FIT crop"),
        (&[("FIT", "crop"), ("RESIZE_PX", "40")], "RESIZE_PX", "does not cover it"),
        (&[("FIT", "stretch"), ("PAD", "4")], "PAD", "remove PAD"),
        (&[("MEAN", "1,2")], "MEAN", "expected one number"),
        (&[("SCALE", "0")], "SCALE", "the scale not 0"),
        (&[("WIDTH_PX", "99999")], "WIDTH_PX", "outside 1x1"),
        (&[("SANDBOX", "required")], "SANDBOX", "opens the memory of its producers"),
    ] {
        let all: std::collections::BTreeMap<&str, &str> =
            [("WIDTH_PX", "48"), ("HEIGHT_PX", "48")].iter().chain(more).copied().collect();
        let found = refused(&all.into_iter().collect::<Vec<_>>());
        let [(about, why)] = &found[..] else { panic!("{more:?}: {found:?}") };
        assert!(about == setting && why.contains(says), "{about}: {why}");
    }
    assert_eq!(refused(&[("WIDTH_PX", "48")])[0].0, "MODEL");
    assert!(refused(&[("MODEL", "absent.yml")]).is_empty(), "whether it is there is found where it is read");
    let warned = |settings: &[(&str, &str)]| {
        remarks::<Nv12ToRgb>(settings).warned.into_iter().map(|r| r.setting).collect::<Vec<_>>()
    };
    assert_eq!(warned(&[("MODEL", "m"), ("BATCH", "1"), ("BATCH_WAIT_MS", "5")]), ["BATCH_WAIT_MS"]);
    assert_eq!(warned(&[("MODEL", "m"), ("FLOW", "lossless"), ("BACKLOG", "5")]), ["BACKLOG"]);
    assert_eq!(warned(&[("MODEL", "m"), ("ALLOW_LOSS", "true")]), ["ALLOW_LOSS"]);
    assert!(warned(&[("MODEL", "m"), ("BATCH_WAIT_MS", "5"), ("BACKLOG", "5")]).is_empty());
}

/// Tests that need a driver: on the stand-in, or on a GPU where one is asked for.
mod on_a_gpu {
    use super::*;
    use millrace_cuda::Gpu;
    use millrace_cuda_driver_folder::on_trial;

    fn gpu() -> Option<Gpu> {
        on_trial().then(|| Gpu::open(0).unwrap_or_else(|e| panic!("a GPU was asked for: {e}")))
    }

    /// Frames of three cameras of different sizes, some of them in one launch, give the tensors that the CPU gives, bit for bit, and lie
    /// where the frames lay.
    fn same_as_on_the_host(settings: &[(&str, &str)]) {
        let Some(gpu) = gpu() else { return };
        let mut benches = [(); 2].map(|()| Bench::start::<Nv12ToRgb>(settings));
        for round in 0..12 {
            let cameras = [("door", Size::new(101, 67)), ("yard", Size::new(64, 48)), ("gate", Size::new(33, 90))];
            for (source, size) in cameras {
                let (item, _, pixels) = frame(source, round, size);
                benches[0].send("frame", &item, &pixels).unwrap();
                benches[1].send_on(&gpu, "frame", &item, &pixels).unwrap();
            }
            // which camera is served first is not stated
            let [mut on_host, mut on_gpu] = benches.each_mut().map(|bench| {
                let three = [(); 3].map(|()| next(bench));
                three.map(|found| (found.0.source.clone(), found)).into_iter().collect::<BTreeMap<_, _>>()
            });
            for (source, _) in cameras {
                let (host, device) = (on_host.remove(source).unwrap(), on_gpu.remove(source).unwrap());
                assert_eq!((host.0.source.as_str(), host.0.seq), (source, round));
                assert_eq!((device.0.source.as_str(), device.0.seq), (source, round));
                assert_eq!(host.0.device, millrace_frame::Device::Host);
                assert_eq!(device.0.device, millrace_frame::Device::Cuda(0));
                assert_eq!(host.1, device.1);
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(bits(&host.2) == bits(&device.2), "camera {source}, frame {round}");
            }
        }
        for bench in benches {
            let (rest, end) = bench.finish();
            assert!(rest.is_empty());
            end.unwrap();
        }
    }

    /// As many frames would be lost as come while the driver compiles, which it does at a module's load.
    #[test]
    fn the_kernels_are_there_before_the_first_frame_where_the_producer_says_where_it_will_be() {
        let Some(gpu) = gpu() else { return };
        for fused in ["true", "false"] {
            let settings = [&SMALL[..], &[("FUSED", fused)]].concat();
            let device = millrace_frame::Device::Cuda(gpu.ordinal());
            let mut bench = Bench::start_before::<Nv12ToRgb>(&settings, device);
            let until = Instant::now() + Duration::from_secs(20);
            while bench.metrics().gauged("gpus", "") != Some(1) {
                assert!(Instant::now() < until, "the node has loaded no kernels");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(bench.metrics().counted("launches", ""), 0, "what was tried is not counted");
            let (item, _, pixels) = frame("door", 0, Size::new(64, 48));
            bench.send_on(&gpu, "frame", &item, &pixels).unwrap();
            assert_eq!(next(&mut bench).0.seq, 0);
            let metrics = bench.finish().1.unwrap();
            assert_eq!((metrics.counted("launches", ""), metrics.gauged("gpus", "")), (1, Some(1)));
        }
    }

    #[test]
    fn the_fused_kernel() {
        same_as_on_the_host(&SMALL);
    }

    #[test]
    fn published_by_descriptor_after_a_wait() {
        same_as_on_the_host(&[&SMALL[..], &[("SYNC", "host"), ("SHARE", "descriptor"), ("BATCH", "2")]].concat());
    }

    #[test]
    fn who_waits_changes_while_the_node_runs_and_so_do_its_pools_on_the_gpu() {
        let Some(gpu) = gpu() else { return };
        let mut bench = Bench::start::<Nv12ToRgb>(&SMALL);
        let mut seq = 0;
        // converts one frame and gives how often the node has waited for the GPU
        let mut waits = |bench: &mut Bench| {
            let (item, _, pixels) = frame("door", seq, Size::new(64, 48));
            bench.send_on(&gpu, "frame", &item, &pixels).unwrap();
            let (item, ..) = next(bench);
            assert_eq!((item.seq, item.device), (seq, millrace_frame::Device::Cuda(0)));
            seq += 1;
            bench.metrics().counted("host_syncs", "door")
        };
        assert_eq!(waits(&mut bench), 0);
        assert!(bench.set("SYNC", r#""host""#));
        assert_eq!(waits(&mut bench), 1);
        for flow in [r#""live""#, r#""lossless""#] {
            assert!(bench.set("FLOW", flow), "what was published is read");
            waits(&mut bench);
        }
        assert_eq!(bench.metrics().counted("host_syncs", "door"), 3);
        assert!(bench.set("SYNC", r#""device""#));
        assert_eq!(waits(&mut bench), 3);
        assert!(!bench.set("SHARE", r#""descriptor""#), "handles are out");
        bench.finish().1.unwrap();
    }

    #[test]
    fn padding_is_of_the_frame_that_is_shown() {
        let Some(gpu) = gpu() else { return };
        for fused in ["true", "false"] {
            sizes_that_change(&[&SMALL[..], &[("FUSED", fused)]].concat(), |bench, item, pixels| {
                bench.send_on(&gpu, "frame", item, pixels).unwrap();
            });
        }
    }

    #[test]
    fn separate_passes() {
        same_as_on_the_host(&[&SMALL[..], &[("FUSED", "false")]].concat());
    }
}

#[test]
fn on_the_stand_in() {
    millrace_cuda_driver_folder::run_on_the_stand_in("on_a_gpu", &[]);
}
