//! The fused pass against the f64 reference and against values computed by hand.
#![allow(clippy::unwrap_used)]

mod common;

use common::{BOUND, channel_of, colour, decode, image, noise, target, worst};
use millrace_frame::{ChromaSiting, ImageDesc, Matrix, PixelFormat, Range, Rect, Size, TensorDtype, TensorLayout};
use millrace_kernels::reference::{Order, tensor};
use millrace_kernels::{Anchor, ChannelOrder, ConvertError, Converter, Fit, Rounding, SeparatePasses, Target};
use proptest::prelude::*;

fn fused(image: &ImageDesc, bytes: &[u8], target: &Target) -> Vec<f64> {
    let mut converter = Converter::new(image, target).unwrap();
    let len = converter.tensor().bytes() as usize;
    let mut tensor = vec![0xa5; len];
    converter.convert(bytes, &mut tensor).unwrap();
    decode(target.dtype, &tensor)
}

/// f32 RGB, planar, as it is: what most tests below look at.
fn plain(size: Size) -> Target {
    Target {
        size,
        layout: TensorLayout::Nchw,
        dtype: TensorDtype::F32,
        order: ChannelOrder::Rgb,
        mean: [0.0; 3],
        scale: [1.0; 3],
        fit: Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down },
        pad: 114,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_value_is_the_references(
        (image, have) in image(), target in target(), seed in any::<u64>(), misaligned in 0usize..4, padded in any::<bool>(),
    ) {
        let bytes = noise(seed, have as usize);
        let expected = tensor(&image, &bytes, &target, Order::ResizeFirst);
        let mut converter = Converter::new(&image, &target).unwrap();
        let len = converter.tensor().bytes() as usize;
        let mut slot = vec![0xa5; misaligned + len + 64];
        // a second frame through the same converter: nothing of the first may stay in its scratch
        converter.convert(&noise(!seed, have as usize), &mut slot[misaligned..]).unwrap();
        match padded {
            false => converter.convert(&bytes, &mut slot[misaligned..]).unwrap(),
            true => converter.convert_padded(&bytes, &mut slot[misaligned..]).unwrap(),
        }
        prop_assert!(slot[..misaligned].iter().chain(&slot[misaligned + len..]).all(|&b| b == 0xa5), "wrote outside");
        let found = decode(target.dtype, &slot[misaligned..][..len]);
        let (index, f, e, distance) = worst(&target, &found, &expected);
        prop_assert!(distance <= 1.0, "element {index} is {f}, the reference has {e}");
    }

    #[test]
    fn a_byte_is_the_references_or_its_neighbour((image, have) in image(), mut target in target(), seed in any::<u64>()) {
        target = Target { dtype: TensorDtype::U8, mean: [0.0; 3], scale: [1.0; 3], ..target };
        let bytes = noise(seed, have as usize);
        let expected = tensor(&image, &bytes, &target, Order::ResizeFirst);
        for (found, expected) in fused(&image, &bytes, &target).into_iter().zip(expected) {
            prop_assert!((found - expected.round()).abs() <= 1.0);
            let from_a_tie = (expected.fract() - 0.5).abs();
            prop_assert!(found == expected.round() || from_a_tie <= BOUND, "{found}, reference {expected}");
        }
    }

    #[test]
    fn separate_passes_are_the_other_order_rounded_twice(
        (image, have) in image(), mut target in target(), seed in any::<u64>(),
    ) {
        target.dtype = TensorDtype::F32;
        let bytes = noise(seed, have as usize);
        let expected = tensor(&image, &bytes, &target, Order::ConvertFirst);
        let mut passes = SeparatePasses::new(&image, &target).unwrap();
        let mut slot = vec![0; passes.tensor().bytes() as usize];
        passes.convert(&bytes, &mut slot).unwrap();
        for (index, (found, expected)) in decode(target.dtype, &slot).into_iter().zip(expected).enumerate() {
            // half a step for each rounding to 8 bits, BOUND for the colour pass, less for the resize
            let limit = (1.0 + 2.0 * BOUND) * f64::from(target.scale[channel_of(&target, index)]).abs() + 1e-4;
            prop_assert!((found - expected).abs() <= limit, "element {index} is {found}, the reference has {expected}");
        }
    }

    /// Both orders are the same function while no pixel leaves the RGB cube and each chroma sample lies on a luma sample.
    #[test]
    fn the_order_of_resize_and_colour_does_not_matter_inside_the_cube(
        (mut image, have) in image(), target in target(), seed in any::<u64>(),
    ) {
        prop_assume!(image.format != PixelFormat::P016);
        image.colour.siting.value = ChromaSiting::TopLeft;
        let bytes: Vec<_> = noise(seed, have as usize).into_iter().map(|b| 112 + b / 8).collect();
        let first = tensor(&image, &bytes, &target, Order::ResizeFirst);
        let second = tensor(&image, &bytes, &target, Order::ConvertFirst);
        for (a, b) in first.iter().zip(&second) {
            prop_assert!((a - b).abs() < 1e-6, "{a} and {b}");
        }
    }
}

/// A test that a wrong conversion passes is none: each of these faults of a kind that happens must be far outside the tolerance.
#[test]
fn usual_faults_are_far_outside_the_tolerance() {
    let (image, have) = ImageDesc::packed(
        PixelFormat::Nv12,
        Size::new(63, 41),
        colour(Matrix::Bt709, Range::Limited, ChromaSiting::Left),
        32,
    );
    let bytes = noise(7, have as usize);
    let target = plain(Size::new(40, 40));
    let right = fused(&image, &bytes, &target);
    let distance = |image: &ImageDesc, target: &Target| {
        worst(target, &right, &tensor(image, &bytes, target, Order::ResizeFirst)).3
    };
    assert!(distance(&image, &target) <= 1.0);

    let mut faults: Vec<(&str, ImageDesc, Target)> = Vec::new();
    let mut fault = |name, change: &dyn Fn(&mut ImageDesc, &mut Target)| {
        let (mut i, mut t) = (image.clone(), target);
        change(&mut i, &mut t);
        faults.push((name, i, t));
    };
    fault("matrix 601 for 709", &|i, _| i.colour.matrix.value = Matrix::Bt601);
    fault("matrix 2020 for 709", &|i, _| i.colour.matrix.value = Matrix::Bt2020Ncl);
    fault("full range for limited", &|i, _| i.colour.range.value = Range::Full);
    fault("centre siting for left", &|i, _| i.colour.siting.value = ChromaSiting::Centre);
    fault("top left siting for left", &|i, _| i.colour.siting.value = ChromaSiting::TopLeft);
    fault("bgr for rgb", &|_, t| t.order = ChannelOrder::Bgr);
    fault("cb and cr swapped", &|i, _| i.planes[1].offset_bytes -= 1);
    fault("one luma row down", &|i, _| i.planes[0].offset_bytes += 64);
    fault("one column to the right", &|i, _| i.planes[0].offset_bytes += 1);
    fault("one chroma row up", &|i, _| i.planes[1].offset_bytes -= 64);
    fault("pitch for width", &|i, _| i.planes[0].pitch_bytes = 63);
    fault("one row less shown", &|i, _| i.display.height_px -= 1);
    fault("one column less shown", &|i, _| i.display.width_px -= 1);
    fault("in the middle for top left", &|_, t| {
        t.size = Size::new(40, 40);
        t.fit = Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Down };
    });
    fault("another grey", &|_, t| t.pad = 113);
    for (name, i, t) in faults {
        let found = distance(&i, &t);
        assert!(found > 10.0, "'{name}' is only {found} tolerances away");
    }
}

#[test]
fn black_white_and_colour_bars_by_hand() {
    // limited-range codes of the 100 % bars as the standards print them (rounded: within 2 after conversion)
    let cases = [
        (Matrix::Bt709, Range::Limited, [16, 128, 128], [0.0, 0.0, 0.0], 1e-3),
        (Matrix::Bt709, Range::Limited, [235, 128, 128], [255.0, 255.0, 255.0], 1e-3),
        (Matrix::Bt709, Range::Limited, [63, 102, 240], [255.0, 0.0, 0.0], 2.0),
        (Matrix::Bt709, Range::Limited, [173, 42, 26], [0.0, 255.0, 0.0], 2.0),
        (Matrix::Bt709, Range::Limited, [32, 240, 118], [0.0, 0.0, 255.0], 2.0),
        (Matrix::Bt601, Range::Limited, [81, 90, 240], [255.0, 0.0, 0.0], 2.0),
        (Matrix::Bt601, Range::Limited, [145, 54, 34], [0.0, 255.0, 0.0], 2.0),
        (Matrix::Bt601, Range::Limited, [41, 240, 110], [0.0, 0.0, 255.0], 2.0),
        (Matrix::Bt601, Range::Full, [77, 128, 128], [77.0, 77.0, 77.0], 1e-3),
        // full-range 601 (JPEG): R = Y + 1.402 (Cr - 128), G = Y - 0.344136 (Cb - 128) - 0.714136 (Cr - 128),
        // B = Y + 1.772 (Cb - 128)
        (Matrix::Bt601, Range::Full, [100, 148, 118], [85.98, 100.258_64, 135.44], 1e-3),
        // BT.2020, limited: R = 1.164384 (Y - 16) + 1.678674 (Cr - 128), G = .. - 0.187326 (Cb - 128) - 0.650424 (Cr - 128),
        // B = .. + 2.141772 (Cb - 128)
        (Matrix::Bt2020Ncl, Range::Limited, [116, 138, 148], [150.0119, 101.5566, 137.8561], 1e-3),
    ];
    for (matrix, range, [y, cb, cr], expected, tolerance) in cases {
        let (image, have) =
            ImageDesc::packed(PixelFormat::Nv12, Size::new(5, 3), colour(matrix, range, ChromaSiting::Left), 1);
        let mut bytes = vec![y; have as usize];
        for pair in bytes[15..].chunks_exact_mut(2) {
            pair.copy_from_slice(&[cb, cr]);
        }
        let values = fused(&image, &bytes, &plain(Size::new(5, 3)));
        for (index, found) in values.iter().enumerate() {
            let expected = expected[index / 15];
            assert!((found - expected).abs() <= tolerance, "{matrix} {range} {y} {cb} {cr}: {values:?}");
        }
    }
}

/// The rule of ADR 0007: no component is clamped before the matrix, every channel after it.
#[test]
fn footroom_and_headroom_take_part_in_the_matrix_and_are_clamped_after_it() {
    let (image, _) = ImageDesc::packed(
        PixelFormat::Nv12,
        Size::new(2, 2),
        colour(Matrix::Bt601, Range::Limited, ChromaSiting::Left),
        1,
    );
    let value = |y: u8, cb: u8, cr: u8| {
        let out = fused(&image, &[y, y, y, y, cb, cr], &plain(Size::new(2, 2)));
        [out[0], out[4], out[8]]
    };
    assert_eq!(value(0, 128, 128), [0.0; 3]);
    assert_eq!(value(255, 128, 128), [255.0; 3]);
    // R = 1.164384 * (1 - 16) + 1.596027 * (168 - 128) = 46.3753; with Y clamped to 16 first it would be 63.84
    assert!((value(1, 128, 168)[0] - 46.3753).abs() < 1e-3);
    // B = 1.164384 * (250 - 16) + 2.017232 * (98 - 128) = 211.9489; with Y clamped to 235 first: 194.48
    assert!((value(250, 98, 128)[2] - 211.9489).abs() < 1e-3);
}

#[test]
fn a_crop_shows_its_own_pixels_only() {
    // 255 outside the shown part: none of it may leak in
    let size = Size::new(9, 7);
    let (mut image, have) =
        ImageDesc::packed(PixelFormat::I420, size, colour(Matrix::Bt709, Range::Full, ChromaSiting::Left), 1);
    image.display = Rect { x_px: 2, y_px: 2, width_px: 5, height_px: 3 };
    let mut bytes = vec![255; have as usize];
    for y in 2..5 {
        bytes[y * 9 + 2..y * 9 + 7].fill(40);
    }
    for plane in [63, 63 + 20] {
        for y in 1..=2 {
            bytes[plane + y * 5 + 1..plane + y * 5 + 4].fill(128);
        }
    }
    let target = Target { fit: Fit::Stretch, ..plain(Size::new(17, 11)) };
    assert!(fused(&image, &bytes, &target).iter().all(|&v| (v - 40.0).abs() < 1e-3));
}

#[test]
fn a_picture_of_its_own_size_is_packed_rgb24_or_bgr24() {
    let (image, _) = ImageDesc::packed(
        PixelFormat::Nv12,
        Size::new(3, 1),
        colour(Matrix::Bt601, Range::Full, ChromaSiting::Left),
        1,
    );
    // chroma 0 lies on pixel 0, chroma 1 on pixel 2, pixel 1 is their mean: Cb 128, 138, 148
    let bytes = [100, 100, 100, 128, 128, 148, 128];
    let picture = |order| {
        let target = Target::picture(Size::new(3, 1), order);
        let mut out = [0; 9];
        Converter::new(&image, &target).unwrap().convert(&bytes, &mut out).unwrap();
        out
    };
    // B = 100 + 1.772 (Cb - 128): 100, 117.72, 135.44; G = 100 - 0.344136 (Cb - 128): 100, 96.56, 93.12
    assert_eq!(picture(ChannelOrder::Rgb), [100, 100, 100, 100, 97, 118, 100, 93, 135]);
    assert_eq!(picture(ChannelOrder::Bgr), [100, 100, 100, 118, 97, 100, 135, 93, 100]);
}

#[test]
fn what_cannot_be_is_said_with_its_numbers() {
    let shape = Size::new(64, 48);
    let (image, have) =
        ImageDesc::packed(PixelFormat::Nv12, shape, colour(Matrix::Bt709, Range::Limited, ChromaSiting::Left), 1);
    let target = plain(Size::new(32, 32));
    let mut converter = Converter::new(&image, &target).unwrap();
    let bytes = vec![0; have as usize];
    let mut short = vec![0; 32 * 32 * 12 - 1];
    let error = converter.convert(&bytes, &mut short).unwrap_err();
    assert_eq!(error.to_string(), "the tensor needs 12288 bytes, the slice has 12287");
    let mut slot = vec![0; 32 * 32 * 12];
    let error = converter.convert(&bytes[1..], &mut slot).unwrap_err();
    assert_eq!(error.to_string(), "a nv12 frame of 64x48 needs 4608 bytes, the slice has 4607");

    let mut cut = image.clone();
    cut.planes.pop();
    assert!(matches!(Converter::new(&cut, &target), Err(ConvertError::Source(_))));
    let none = Target { size: Size::new(0, 32), ..target };
    assert!(matches!(Converter::new(&image, &none), Err(ConvertError::Target(_))));
    let nan = Target { scale: [1.0, f32::NAN, 1.0], ..target };
    assert!(Converter::new(&image, &nan).unwrap_err().to_string().contains("channel 1"));
    let huge = Target { dtype: TensorDtype::F16, scale: [300.0; 3], ..target };
    assert!(Converter::new(&image, &huge).unwrap_err().to_string().contains("65504"));
}
