//! JPEG and PNG pictures against what FFmpeg and Pillow have of them, alone, in folders, and as Motion JPEG in containers.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, own_data, shared_data};
use millrace_frame::{ChromaSiting, Matrix, Orientation, Range};
use millrace_ingest::{Decoded, Event, Ingest, IngestOptions, ReorderPolicy, SoftwareDecoder, StreamInfo};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A decoded picture, its planes packed as Y and CbCr.
struct StillPicture {
    size: (usize, usize),
    pts_ns: i64,
    luma: Vec<u8>,
    chroma: Vec<u8>,
    info: Arc<StreamInfo>,
}

/// What is in a file or folder, and what was lost of it.
fn decoded_pictures(path: &Path, options: &IngestOptions) -> (Vec<StillPicture>, Vec<(&'static str, String)>) {
    let mut ingest = Ingest::open(path, options).unwrap_or_else(|e| panic!("{e}"));
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Lossless);
    let (mut pictures, mut lost) = (Vec::new(), Vec::new());
    loop {
        let event = ingest.next_event().unwrap();
        match &event {
            Event::Unit(unit) => decoder.push(unit).unwrap(),
            Event::Loss(loss) => lost.push((loss.cause, loss.detail.clone())),
            Event::End => decoder.flush(),
            other => panic!("{other:?}"),
        }
        while let Some(out) = decoder.take() {
            match out {
                Decoded::Loss(loss) => lost.push((loss.cause, loss.detail)),
                Decoded::Picture(picture) => {
                    let (desc, bytes) = picture.info.nv12(1);
                    let mut slot = vec![0; bytes as usize];
                    picture.write_nv12(&desc, &mut slot).unwrap();
                    let chroma = slot.split_off(desc.planes[1].offset_bytes as usize);
                    let size = (desc.coded.width_px as usize, desc.coded.height_px as usize);
                    let pts_ns = picture.timing.pts_ns;
                    pictures.push(StillPicture { size, pts_ns, luma: slot, chroma, info: picture.info.clone() });
                }
            }
        }
        if matches!(event, Event::End) {
            return (pictures, lost);
        }
    }
}

/// The one picture of a file.
fn one(path: &Path) -> StillPicture {
    let (mut pictures, lost) = decoded_pictures(path, &IngestOptions::default());
    assert_eq!((pictures.len(), &lost[..]), (1, &[][..]), "{}", path.display());
    pictures.remove(0)
}

fn still(name: &str) -> PathBuf {
    own_data("stills").join(name)
}

/// The largest difference. Inverse transforms round as they like: FFmpeg's and libjpeg's differ by one.
fn differ(got: &[u8], want: &[u8]) -> u8 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(got, want)| got.abs_diff(*want)).max().unwrap_or(0)
}

/// What a picture's planes are at 4:2:0: of each square of luma samples that is in the picture, the mean of the chroma.
fn at_420(planes: &[u8], (w, h): (usize, usize), (rx, ry): (usize, usize)) -> (Vec<u8>, Vec<u8>) {
    let (luma, chroma) = planes.split_at(w * h);
    let (cw, ch) = (w.div_ceil(rx), h.div_ceil(ry));
    let mut out = Vec::new();
    for y in 0..h.div_ceil(2) {
        for x in 0..w.div_ceil(2) {
            for plane in 0..2 {
                let mut sum = 0.0;
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (x, y) = ((2 * x + dx).min(w - 1) / rx, (2 * y + dy).min(h - 1) / ry);
                    sum += chroma.get(plane * cw * ch + y * cw + x).map_or(128.0, |&sample| f64::from(sample));
                }
                out.push((sum / 4.0).round() as u8);
            }
        }
    }
    (luma.to_vec(), out)
}

#[test]
fn jpeg_pictures_are_what_ffmpeg_decodes() {
    for (name, size, ratio) in [
        ("420.jpg", (64, 48), (2, 2)),
        ("422.jpg", (64, 48), (2, 1)),
        ("444.jpg", (64, 48), (1, 1)),
        ("grey.jpg", (64, 48), (1, 1)),
        ("progressive.jpg", (64, 48), (2, 2)),
        ("odd_420.jpg", (63, 47), (2, 2)),
        ("odd_444_progressive.jpg", (63, 47), (1, 1)),
    ] {
        let got = one(&still(name));
        let planes = std::fs::read(still(&format!("{name}.yuv"))).unwrap();
        let (luma, chroma) = at_420(&planes, size, ratio);
        assert_eq!(got.size, size, "{name}");
        assert!(differ(&got.luma, &luma) <= 2, "{name}: luma differs by {}", differ(&got.luma, &luma));
        assert!(differ(&got.chroma, &chroma) <= 2, "{name}: chroma differs by {}", differ(&got.chroma, &chroma));
        let colour = got.info.colour;
        let stated = (colour.range.value, colour.matrix.value, colour.siting.value);
        assert_eq!(stated, (Range::Full, Matrix::Bt601, ChromaSiting::Centre), "{name}: as JFIF has it");
    }
}

/// RGB to YCbCr of JFIF (BT.601, full range), in f64; chroma is the mean of a square.
fn converted(rgb: &[u8], (w, h): (usize, usize)) -> (Vec<u8>, Vec<u8>) {
    let pixel = |x: usize, y: usize| {
        let at = 3 * (y.min(h - 1) * w + x.min(w - 1));
        [rgb[at], rgb[at + 1], rgb[at + 2]].map(f64::from)
    };
    let code = |value: f64| value.round().clamp(0.0, 255.0) as u8;
    let luma_of = |[r, g, b]: [f64; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let luma = (0..w * h).map(|n| code(luma_of(pixel(n % w, n / w)))).collect();
    let mut chroma = Vec::new();
    for y in 0..h.div_ceil(2) {
        for x in 0..w.div_ceil(2) {
            let square = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| pixel(2 * x + dx, 2 * y + dy));
            let mean = |channel: usize| square.iter().map(|pixel| pixel[channel]).sum::<f64>() / 4.0;
            let rgb = [mean(0), mean(1), mean(2)];
            chroma.push(code(128.0 + (rgb[2] - luma_of(rgb)) / 1.772));
            chroma.push(code(128.0 + (rgb[0] - luma_of(rgb)) / 1.402));
        }
    }
    (luma, chroma)
}

#[test]
fn png_pictures_are_their_pixels_converted_as_jfif_does() {
    for (name, size) in [
        ("rgb.png", (64, 48)),
        ("odd.png", (63, 47)),
        ("palette.png", (64, 48)),
        ("grey_alpha.png", (64, 48)),
        ("rgba.png", (64, 48)),
    ] {
        let got = one(&still(name));
        let (luma, chroma) = converted(&std::fs::read(still(&format!("{name}.yuv"))).unwrap(), size);
        assert_eq!(got.size, size, "{name}");
        assert!(differ(&got.luma, &luma) <= 1, "{name}: luma differs by {}", differ(&got.luma, &luma));
        assert!(differ(&got.chroma, &chroma) <= 2, "{name}: chroma differs by {}", differ(&got.chroma, &chroma));
    }
}

#[test]
fn motion_jpeg_plays_from_every_container() {
    let want = std::fs::read(own_data("mjpeg.nv12")).unwrap();
    for name in ["mjpeg.mov", "mjpeg.mp4", "mjpeg.mkv", "mjpeg.avi", "mjpeg.mjpeg"] {
        // a stream without a container has no rate
        let options = IngestOptions { frame_rate: (name == "mjpeg.mjpeg").then_some(10.0), ..IngestOptions::default() };
        let (pictures, lost) = decoded_pictures(&own_data(name), &options);
        assert_eq!(lost, [], "{name}");
        let got: Vec<u8> = pictures.iter().flat_map(|p| [&p.luma[..], &p.chroma].concat()).collect();
        assert!(differ(&got, &want) <= 2, "{name}: differs by {}", differ(&got, &want));
        let times: Vec<i64> = pictures.iter().map(|p| p.pts_ns).collect();
        assert_eq!(times, (0..6).map(|n| n * 100_000_000).collect::<Vec<_>>(), "{name}");
    }
}

/// The shared recording in Motion JPEG, as far as FFmpeg counts it.
#[test]
fn the_shared_recording_plays() {
    let Some(data) = shared_data() else { return };
    let path = data.join("../cases/22-other-containers-and-no-pictures/mjpeg.mov");
    let (pictures, lost) = decoded_pictures(&path, &IngestOptions::default());
    assert_eq!((pictures.len(), pictures[0].size, &lost[..]), (15, (320, 180), &[][..]));
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_folder_is_played_in_the_natural_order_of_its_names() {
    let folder = Folder::new("folder");
    let put = |from: &str, to: &str| {
        std::fs::copy(still(from), folder.0.join(to)).unwrap();
    };
    put("odd_420.jpg", "shot 10.JPG");
    put("420.jpg", "shot 2.jpg");
    put("rgb.png", "shot 3.png");
    std::fs::write(folder.0.join("shot 4.jpg"), &std::fs::read(still("420.jpg")).unwrap()[..900]).unwrap();
    std::fs::write(folder.0.join("shot 5.jpeg"), "no picture").unwrap();
    std::fs::write(folder.0.join("shot 9.png"), &std::fs::read(still("rgb.png")).unwrap()[..900]).unwrap();
    put("cmyk.jpg", "shot 6.jpg");
    std::fs::write(folder.0.join("notes.txt"), "not read").unwrap();
    put("420.jpg", ".hidden.jpg");
    std::fs::create_dir(folder.0.join("more.png")).unwrap();
    std::os::unix::fs::symlink("/nowhere.jpg", folder.0.join("shot 7.jpg")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.0.join("shot 8.jpg")).unwrap();
    let (pictures, lost) =
        decoded_pictures(&folder.0, &IngestOptions { frame_rate: Some(2.0), ..IngestOptions::default() });
    let got: Vec<_> = pictures.iter().map(|p| (p.size, p.pts_ns / 1_000_000)).collect();
    // pictures that are lost have their times
    assert_eq!(got, [((64, 48), 0), ((64, 48), 500), ((63, 47), 4000)]);
    assert_eq!(lost.len(), 6, "{lost:?}");
    assert!(lost[0].1.contains("shot 4.jpg': "), "{lost:?}");
    assert!(lost[5].1.contains("shot 9.png': "), "{lost:?}");
    assert!(lost[3].1.contains("shot 7.jpg': No such file"), "{lost:?}");
    assert!(lost[4].1.contains("shot 8.jpg': it is not a file"), "{lost:?}");
    assert!(lost[1].1.contains("shot 5.jpeg': it is neither a JPEG nor a PNG picture"), "{lost:?}");
    assert!(lost[2].1.contains("shot 6.jpg': ") && lost[2].1.contains("is stored as CMYK"), "{lost:?}");

    let empty = Folder::new("empty");
    let error = Ingest::open(&empty.0, &IngestOptions::default()).err().unwrap().to_string();
    assert!(error.contains("is a folder without JPEG or PNG pictures (.jpg, .jpeg, .png), not video"), "{error}");
}

#[test]
fn of_several_pictures_in_a_png_file_the_first_is_shown_and_the_others_are_counted() {
    let folder = Folder::new("several");
    let whole = std::fs::read(still("rgb.png")).unwrap();
    // the control of an animation (PNG, 11.3.4.1) stands in front of the pictures
    let mut control = [&8u32.to_be_bytes()[..], b"acTL", &3u32.to_be_bytes(), &0u32.to_be_bytes()].concat();
    control.extend(crc(&control[4..]).to_be_bytes());
    let data = whole.windows(4).position(|bytes| bytes == b"IDAT").unwrap() - 4;
    std::fs::write(folder.0.join("1.png"), [&whole[..data], &control, &whole[data..]].concat()).unwrap();
    std::fs::write(folder.0.join("2.png"), [&whole[..], &whole].concat()).unwrap();
    std::fs::write(folder.0.join("3.png"), &whole).unwrap();
    let (pictures, lost) = decoded_pictures(&folder.0, &IngestOptions::default());
    assert_eq!(pictures.len(), 3, "{lost:?}");
    let [(cause, first), (_, second)] = &lost[..] else { panic!("{lost:?}") };
    assert!(*cause == "unread_picture" && first.contains("1.png' holds 2 more"), "{lost:?}");
    assert!(second.contains("2.png' holds 1 more"), "{lost:?}");
}

/// Of a chunk's kind and body (PNG, annex D).
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn a_photograph_is_turned_as_its_exif_says_and_a_setting_comes_first() {
    let upright = one(&still("exif_90.jpg"));
    assert_eq!((upright.size, upright.info.orientation), ((48, 64), Orientation::Turn90));
    let stored = one(&still("420.jpg"));
    for (x, y) in [(0, 0), (47, 0), (13, 50)] {
        // turned clockwise: the first row is the left column, from below
        assert_eq!(upright.luma[y * 48 + x], stored.luma[(47 - x) * 64 + y], "{x},{y}");
    }
    for (orientation, size) in [(Orientation::Upright, (64, 48)), (Orientation::Turn270, (48, 64))] {
        let options = IngestOptions { orientation: Some(orientation), ..IngestOptions::default() };
        let (pictures, _) = decoded_pictures(&still("exif_90.jpg"), &options);
        assert_eq!((pictures[0].size, pictures[0].info.orientation), (size, orientation));
    }
}

/// Cameras leave out the Huffman tables that all have.
#[test]
fn a_picture_without_huffman_tables_has_the_usual_ones() {
    let whole = std::fs::read(still("420.jpg")).unwrap();
    let mut stripped = whole[..2].to_vec();
    let mut at = 2;
    while whole[at + 1] != 0xda {
        let len = 2 + usize::from(whole[at + 2]) * 256 + usize::from(whole[at + 3]);
        if whole[at + 1] != 0xc4 {
            stripped.extend_from_slice(&whole[at..at + len]);
        }
        at += len;
    }
    assert!(stripped.len() < at, "there were tables");
    stripped.extend_from_slice(&whole[at..]);
    let got = one(&Scratch::new("tables.jpg", &stripped).0);
    let want = one(&still("420.jpg"));
    assert!(got.luma == want.luma && got.chroma == want.chroma);
}

#[test]
fn damage_to_a_row_of_pictures_is_counted_and_costs_no_other() {
    let whole = std::fs::read(own_data("mjpeg.mjpeg")).unwrap();
    let starts: Vec<usize> = (0..whole.len() - 2).filter(|&at| whole[at..at + 3] == [0xff, 0xd8, 0xff]).collect();
    let (intact, _) = decoded_pictures(&own_data("mjpeg.mjpeg"), &IngestOptions::default());
    // the third picture ends early, and noise is in front of the fifth; the last one is cut off
    let cut = [&whole[..starts[3] - 200], &whole[starts[3]..starts[4]], b"noise", &whole[starts[4]..whole.len() - 50]]
        .concat();
    let file = Scratch::new("cut.mjpeg", &cut);
    let (pictures, lost) = decoded_pictures(&file.0, &IngestOptions::default());
    let causes: Vec<_> = lost.iter().map(|(cause, _)| *cause).collect();
    assert_eq!(causes, ["damaged_sample", "truncated"], "{lost:?}");
    for (got, want) in pictures.iter().zip([0, 1, 3, 4]) {
        assert!(got.luma == intact[want].luma, "picture {want}");
    }
    assert_eq!(pictures.len(), 4);
}

#[test]
fn two_fields_in_a_sample_are_named() {
    let whole = std::fs::read(still("420.jpg")).unwrap();
    let folder = Folder::new("fields");
    std::fs::write(folder.0.join("1.jpg"), [&whole[..], &whole].concat()).unwrap();
    let (pictures, lost) = decoded_pictures(&folder.0, &IngestOptions::default());
    assert!(pictures.is_empty() && lost[0].1.contains("two fields in a sample (interlaced)"), "{lost:?}");
}
