#![allow(clippy::unwrap_used)]

use crate::node::FramePicture;
use millrace_frame::{Colour, ImageDesc, Item, Payload, PixelFormat, Size, Timebase, Timing};
use millrace_node::testing::Bench;

#[test]
fn chosen_frames_are_written_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("FOLDER", folder.path().display().to_string()), ("FRAMES", "1,3".to_owned())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let mut bench = Bench::start::<FramePicture>(&settings);
    let (image, bytes) = ImageDesc::packed(PixelFormat::Nv12, Size::new(16, 8), Colour::assumed_for_height(8), 1);
    for seq in 0..5 {
        let timing = Timing { pts_ns: 0, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
        let item = Item::on_host("gate/2", seq, timing, Payload::Image(image.clone()));
        bench.send("frame", &item, &vec![128; bytes as usize]).unwrap();
    }
    let (_, metrics) = bench.finish();
    assert_eq!(metrics.unwrap().counted("pictures", "gate/2"), 2);
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["gate_2-1.jpg", "gate_2-3.jpg"]);
    let jpeg = std::fs::read(folder.path().join("gate_2-3.jpg")).unwrap();
    assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]), "the marks of JPEG");
    // SOF0: height and width follow its length and the precision
    let sof = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    assert_eq!(jpeg[sof + 5..sof + 9], [0, 8, 0, 16]);
}

#[test]
fn a_missing_folder_is_named() {
    let error = Bench::start::<FramePicture>(&[("FOLDER", "/nowhere"), ("FRAMES", "1")]).join().unwrap_err();
    assert!(error.contains("/nowhere"), "{error}");
}
