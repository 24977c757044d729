//! `millrace model`, asked as its users do.

use super::data;
use crate::Engine;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What `millrace model` answers to these arguments: what it prints, or why not.
pub(super) fn ask<E: Engine>(arguments: &[&str]) -> Result<String, String> {
    let mut out = String::new();
    let all = std::iter::once("--model").chain(arguments.iter().copied()).map(Into::into);
    crate::tool::answer::<E>(all, &mut out).map(|()| out)
}

/// The description of a new model is written from what its file says, is never written over another, and fits.
pub fn adds_and_checks_models<E: Engine>() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let has = |text: &str, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(text.contains(part), "{text}\nlacks: {part}"))
    };

    std::fs::copy(data("tiny.onnx"), at("tiny.onnx")).unwrap();
    let out = ask::<E>(&["add", &at("tiny.onnx")]).unwrap();
    has(
        &out,
        &[
            "is written: head {kind: centre, output: detections, stride_px: 8}",
            "not in the file: how pictures are prepared",
        ],
    );
    has(&out, &["not in the file: the names of its 2 classes", "a made picture without objects"]);
    let described = std::fs::read_to_string(at("model.yml")).unwrap();
    has(
        &described,
        &["file: \"tiny.onnx\"", "name: \"images\", width_px: 24, height_px: 16, layout: nchw, dtype: f32"],
    );
    has(&ask::<E>(&["add", &at("tiny.onnx")]).unwrap_err(), &["model.yml' exists"]);
    assert_eq!(std::fs::read_to_string(at("model.yml")).unwrap(), described);

    // what Ultralytics writes: metadata_props (field 14) of key (1) and value (2)
    let pair = |key: &str, value: &str| {
        let field = |n: u8, bytes: &[u8]| [&[n << 3 | 2, bytes.len() as u8], bytes].concat();
        field(14, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
    };
    let tiny = std::fs::read(data("tiny.onnx")).unwrap();
    let named = [&tiny[..], &pair("names", "{0: 'sea lion', 1: \"driver's\"}"), &pair("task", "detect")].concat();
    std::fs::write(at("named.onnx"), named).unwrap();
    let other = at("other.yml");
    ask::<E>(&["add", &at("named.onnx"), "--output", &other]).unwrap();
    has(&std::fs::read_to_string(&other).unwrap(), &["labels: [\"sea lion\", \"driver's\"]"]);
    std::fs::write(at("deep.onnx"), [&tiny[..], &pair("task", "depth")].concat()).unwrap();
    has(
        &ask::<E>(&["add", &at("deep.onnx"), "--output", &at("deep.yml")]).unwrap_err(),
        &["its task is 'depth', which no head is for; there are heads for detect, segment, pose, obb, classify"],
    );

    // open extents, a list without the number of its classes, no picture
    std::fs::copy(data("tiny_open.onnx"), at("open.onnx")).unwrap();
    has(
        &ask::<E>(&["add", &at("open.onnx"), "--output", &at("open.yml")]).unwrap_err(),
        &["leaves width and height open"],
    );
    std::fs::copy(data("tiny_dfine.onnx"), at("dfine.onnx")).unwrap();
    let dfine = ["add", &at("dfine.onnx"), "--output", &at("dfine.yml")];
    has(&ask::<E>(&dfine).unwrap_err(), &["does not say how many classes it has", "--labels"]);
    std::fs::write(at("two.txt"), "dark\nlight\n").unwrap();
    let out = ask::<E>(&[&dfine[..], &["--labels", &at("two.txt")]].concat()).unwrap();
    has(&out, &["head {kind: dfine}", "768x432: 2 boxes", "light 0.90 from 192,108 to 576,324 (green)"]);
    // the names are in the description, which can be moved without their file
    has(&std::fs::read_to_string(at("dfine.yml")).unwrap(), &["labels: [\"dark\", \"light\"]"]);
    // bytes are not scaled, and a pipe keeps nobody waiting
    std::fs::copy(data("tiny_u8_nhwc.onnx"), at("bytes.onnx")).unwrap();
    ask::<E>(&["add", &at("bytes.onnx"), "--output", &at("bytes.yml")]).unwrap();
    has(&std::fs::read_to_string(at("bytes.yml")).unwrap(), &["layout: nhwc, dtype: u8, colour: rgb}"]);
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    has(&ask::<E>(&["check", &at("pipe")]).unwrap_err(), &["it is a pipe or a device"]);
    has(&ask::<E>(&["add", &at("pipe")]).unwrap_err(), &["it is a pipe or a device"]);
    has(&ask::<E>(&["check", &at("dfine.yml"), "--picture", &at("pipe")]).unwrap_err(), &["it is a pipe or a device"]);
    has(
        &ask::<E>(&["add", &at("dfine.yml"), "--output", &at("d.yml")]).unwrap_err(),
        &["it is the description of a model"],
    );
    // a name that is not UTF-8
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.yml"));
    std::fs::copy(at("dfine.yml"), &odd).unwrap();
    let mut out = String::new();
    let arguments = ["--model".into(), "check".into(), odd.into_os_string()];
    crate::tool::answer::<E>(arguments.into_iter(), &mut out).unwrap();
    has(&out, &["the model file fits its description"]);
    // more names than classes
    let three = at("three.yml");
    std::fs::write(at("three.txt"), "dark\nlight\nnone\n").unwrap();
    has(
        &ask::<E>(&["add", &at("tiny.onnx"), "--output", &three, "--labels", &at("three.txt")]).unwrap_err(),
        &["room for 2 classes, and 3 names are given: give --labels a file of 2 lines"],
    );
    std::fs::write(at("text.jpg"), "no picture").unwrap();
    has(
        &ask::<E>(&["check", &at("dfine.yml"), "--picture", &at("text.jpg")]).unwrap_err(),
        &["cannot be read as a picture"],
    );

    // a picture of its own is drawn on: grey, with the edges of both boxes
    let grey = jpeg_encoder::Encoder::new_file(at("grey.jpg"), 95).unwrap();
    grey.encode(&[128; 3 * 96 * 64], 96, 64, jpeg_encoder::ColorType::Rgb).unwrap();
    let out = ask::<E>(&["check", &at("dfine.yml"), "--picture", &at("grey.jpg")]).unwrap();
    has(&out, &["the model file fits its description", "96x64: 2 boxes", "dfine.boxes.jpg", "too few boxes to judge"]);
    let drawn = crate::tool::picture::load(Some(Path::new(&at("dfine.boxes.jpg")))).unwrap();
    let pixel = |x: usize, y: usize| &drawn.rgb[3 * (y * 96 + x)..][..3];
    assert!(
        pixel(48, 16)[1] > 150 && pixel(48, 16)[0] < 110,
        "the upper edge of the box is green: {:?}",
        pixel(48, 16)
    );
    assert!(pixel(40, 40).iter().all(|v| v.abs_diff(128) < 12), "inside it is grey: {:?}", pixel(40, 40));

    // with the detector's settings
    let check = ["check", &at("dfine.yml"), "--set", "SCORE=0.95"];
    assert!(ask::<E>(&check).is_ok());
    let refused = |set: &str| ask::<E>(&[&check[..3], &[set]].concat()).unwrap_err();
    has(&refused("SCORES=0.95"), &["no setting is called SCORES; did you mean 'SCORE'?"]);
    has(&refused("SCORE=high"), &["SCORE is 'high', which is not "]);
    has(&refused("SCORE=7"), &["SCORE is '7', which is not "]);
    has(&refused("IN_FLIGHT=99"), &["IN_FLIGHT is '99', which is not "]);
    has(&refused("MODEL=other.yml"), &["MODEL is set twice"]);

    let wrong = std::fs::read_to_string(at("dfine.yml")).unwrap().replace("kind: dfine", "kind: dfine, sizes: s");
    std::fs::write(at("wrong.yml"), wrong).unwrap();
    has(&ask::<E>(&["check", &at("wrong.yml")]).unwrap_err(), &["head 'dfine' feeds 'images' and 's'"]);
    has(&ask::<E>(&["build", &at("model.yml")]).unwrap_err(), &["there is nothing to build"]);
    has(&ask::<E>(&["build", &at("model.yml"), "--set", "SCORES=1"]).unwrap_err(), &["SCORES", "SCORE"]);
}
