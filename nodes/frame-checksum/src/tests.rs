#![allow(clippy::unwrap_used)]

use crate::lines::{Framemd5, image_md5};
use crate::node::FrameChecksum;
use md5::{Digest, Md5};
use millrace_frame::{Colour, ImageDesc, Item, Payload, PixelFormat, Rect, Size, Timebase, Timing};
use millrace_node::testing::Bench;
use proptest::prelude::*;

fn timing(pts_ns: i64) -> Timing {
    Timing { pts_ns, timebase: Timebase { num: 1, den: 25 }, capture_ns: 0, ..Timing::default() }
}

fn image(format: PixelFormat, w: u32, h: u32, align: u32) -> (ImageDesc, u64) {
    ImageDesc::packed(format, Size::new(w, h), Colour::assumed_for_height(h), align)
}

/// FFmpeg 5.1.9, `ffmpeg -f lavfi -i color=c=red:s=32x32 -frames:v 1 -vf scale=5:3 -pix_fmt FORMAT -f framemd5 -`; the
/// samples are what `-f rawvideo` gives.
#[test]
fn the_checksum_of_a_red_picture_is_ffmpegs() {
    let rows = |luma: u8, count: usize| vec![luma; count];
    let nv12 = [rows(81, 15), [90, 240].repeat(6)].concat();
    let i420 = [rows(81, 15), rows(90, 6), rows(240, 6)].concat();
    for (format, packed, want) in [
        (PixelFormat::Nv12, nv12, NV12_RED),
        (PixelFormat::I420, i420, I420_RED),
        (PixelFormat::Rgb24, [254, 0, 0].repeat(15), RGB_RED),
    ] {
        let (desc, bytes) = image(format, 5, 3, 1);
        assert_eq!(bytes, packed.len() as u64);
        assert_eq!(image_md5(&desc, &packed), (want.to_owned(), bytes), "{format}");
    }
}
const NV12_RED: &str = "83d3ee90f5848faa9e37d67241e87835";
const I420_RED: &str = "4368d33e6c41e7ece5ac859fdef13b39";
const RGB_RED: &str = "794654c6f7956e17d1db20f19ea407fa";

proptest! {
    /// Padding of rows, and of what the display area leaves out, has no part in the checksum; every shown sample has.
    #[test]
    fn only_what_is_shown_counts(
        format in prop::sample::select(PixelFormat::ALL), w in 1u32..20, h in 1u32..12,
        left in 0u32..3, top in 0u32..3, align in prop::sample::select(vec![1u32, 16, 64]), seed: u8,
    ) {
        let (left, top) = (2 * left, 2 * top);
        let (mut desc, bytes) = image(format, w + left + 4, h + top + 4, align);
        desc.display = Rect { x_px: left, y_px: top, width_px: w, height_px: h };
        let slot: Vec<u8> = (0..bytes).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        // packed by the definition of each format, sample by sample
        let (w, h, left, top) = (w as usize, h as usize, left as usize, top as usize);
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        let planes: Vec<(usize, usize, usize, usize)> = match format { // x bytes, y, bytes of a row, rows
            PixelFormat::Nv12 => vec![(left, top, w, h), (left, top / 2, 2 * cw, ch)],
            PixelFormat::P016 => vec![(2 * left, top, 2 * w, h), (2 * left, top / 2, 4 * cw, ch)],
            PixelFormat::I420 => vec![(left, top, w, h), (left / 2, top / 2, cw, ch), (left / 2, top / 2, cw, ch)],
            PixelFormat::Bgr24 | PixelFormat::Rgb24 => vec![(3 * left, top, 3 * w, h)],
        };
        let mut packed = Vec::new();
        for (plane, (x, y, row, rows)) in desc.planes.iter().zip(planes) {
            for r in 0..rows {
                let at = plane.offset_bytes as usize + (y + r) * plane.pitch_bytes as usize + x;
                packed.extend_from_slice(&slot[at..at + row]);
            }
        }
        let want = format!("{:x}", Md5::digest(&packed));
        prop_assert_eq!(image_md5(&desc, &slot), (want, packed.len() as u64));
    }
}

#[test]
fn a_full_disk_is_a_clear_error() {
    let mut lines = Framemd5::open("/dev/full".as_ref(), false).unwrap();
    let (desc, bytes) = image(PixelFormat::Nv12, 4, 4, 1);
    let error = lines.frame(&desc, &vec![0; bytes as usize], &timing(0)).unwrap_err().to_string();
    assert_eq!(error, "cannot write /dev/full after 0 frames: No space left on device (os error 28)");
    let error = Framemd5::open("/no/such/folder/x".as_ref(), false).err().unwrap().to_string();
    assert!(error.starts_with("cannot make /no/such/folder/x: No such file"), "{error}");
}

#[test]
fn the_node_writes_a_file_that_reads_like_ffmpegs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.framemd5");
    let mut bench = Bench::start::<FrameChecksum>(&[("PATH", path.to_str().unwrap())]);
    let (desc, bytes) = image(PixelFormat::Nv12, 6, 4, 64);
    for n in 0..12u8 {
        let item = Item::on_host("cam", u64::from(n), timing(i64::from(n) * 40_000_000), Payload::Image(desc.clone()));
        bench.send("frame", &item, &vec![n; bytes as usize]).unwrap();
    }
    bench.finish().1.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("#format: frame checksums\n#version: 2\n#hash: MD5\n"), "{text}");
    assert!(text.contains("#tb 0: 1/25\n") && text.contains("#dimensions 0: 6x4\n"), "{text}");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    let want = |n: u8| format!("0, {n:>10}, {n:>10},        1,       36, {:x}", Md5::digest([n; 36]));
    assert_eq!(lines, (0..12).map(want).collect::<Vec<_>>());
}
