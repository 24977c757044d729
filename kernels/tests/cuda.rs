//! The bodies of the CUDA kernels, compiled as C++ and run on this machine's CPU, against the f64 reference and against the
//! fused pass on a CPU. No GPU and no driver.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "runs kernels, which reach memory by address")]

mod common;

use common::{colour, decode, image, noise, target, whole, worst};
use millrace_frame::{ChromaSiting, ImageDesc, Matrix, PixelFormat, Range, Rect, Size, TensorDtype, TensorLayout};
use millrace_kernels::cuda::{Kernel, Launch, MAX_FRAMES, Plan};
use millrace_kernels::reference::{Order, tensor};
use millrace_kernels::{Anchor, ChannelOrder, Converter, Fit, Rounding, Target, place};
use proptest::prelude::*;
use std::collections::HashMap;

const GUARD_BYTES: usize = 64;
const POISON: u8 = 0xa5;

/// A plan where a kernel finds it: at an address as cuMemAlloc gives it.
fn placed(plan: &Plan) -> Vec<u64> {
    plan.bytes().chunks(8).map(|c| u64::from_ne_bytes(std::array::from_fn(|i| *c.get(i).unwrap_or(&0)))).collect()
}

/// Both kernels of a frame's conversion.
fn whole_tensor(plan: &Plan, from: u64) -> Vec<Kernel> {
    [Some(plan.kernel(from)), plan.padding()].into_iter().flatten().collect()
}

/// Runs the kernels that `of` names for each frame, those of one name in one launch; each tensor with its guards, beginning
/// `skew` elements after an aligned address.
fn run(of: impl Fn(&Plan, u64) -> Vec<Kernel>, frames: &[(&Plan, &[u8])], skew: usize) -> Vec<Vec<u8>> {
    let plans: Vec<_> = frames.iter().map(|(plan, _)| placed(plan)).collect();
    let tensors = frames.iter().map(|(plan, _)| {
        let skew_bytes = skew * plan.target().dtype.bytes() as usize;
        // u64s: the guard ends at an aligned address
        let whole = GUARD_BYTES + skew_bytes + plan.tensor().bytes() as usize + GUARD_BYTES;
        (vec![u64::from_ne_bytes([POISON; 8]); whole.div_ceil(8)], GUARD_BYTES + skew_bytes)
    });
    let mut tensors: Vec<_> = tensors.collect();
    let mut launches: HashMap<Kernel, Vec<_>> = HashMap::new();
    for ((plan, source), (at, (tensor, start))) in std::iter::zip(frames, std::iter::zip(&plans, &mut tensors)) {
        let to = tensor.as_mut_ptr() as u64 + *start as u64;
        for kernel in of(plan, source.as_ptr() as u64) {
            let frame = ([source.as_ptr() as u64, to, at.as_ptr() as u64], plan.extent(kernel));
            launches.entry(kernel).or_default().push(frame);
        }
    }
    for (kernel, part) in
        launches.iter().flat_map(|(kernel, all)| all.chunks(MAX_FRAMES).map(move |part| (kernel, part)))
    {
        let mut launch = Launch::new(kernel.tile(), part);
        let mut arguments = [(&raw mut *launch.frames).cast()];
        // SAFETY: the one parameter, of the frames of which the addresses are those of buffers above, each with room.
        let found = unsafe {
            millrace_kernels_host::launch(
                &kernel.name(),
                launch.grid.blocks,
                launch.grid.threads,
                arguments.as_mut_ptr(),
            )
        };
        assert!(found, "no kernel {}", kernel.name());
    }
    std::iter::zip(frames, tensors)
        .map(|((plan, _), (words, start))| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let end = start + plan.tensor().bytes() as usize;
            assert!(bytes[..start].iter().chain(&bytes[end..]).all(|&b| b == POISON), "wrote outside");
            bytes[start..end].to_vec()
        })
        .collect()
}

fn converted(image: &ImageDesc, bytes: &[u8], target: &Target, skew: usize) -> Vec<u8> {
    let plan = Plan::new(image, target).unwrap();
    run(whole_tensor, &[(&plan, bytes)], skew).remove(0)
}

fn on_cpu(image: &ImageDesc, bytes: &[u8], target: &Target) -> Vec<u8> {
    let mut converter = Converter::new(image, target).unwrap();
    let mut tensor = vec![0; converter.tensor().bytes() as usize];
    converter.convert(bytes, &mut tensor).unwrap();
    tensor
}

/// A slot that ends with its frame: what reads past it is seen by no test, but by a sanitizer.
fn slot(seed: u64, have: u64, misaligned: usize) -> Vec<u8> {
    noise(seed, misaligned + have as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_value_is_the_references(
        (image, have) in image(), target in target(), seed in any::<u64>(), misaligned in 0usize..4, skew in 0usize..4,
    ) {
        let slot = slot(seed, have, misaligned);
        let bytes = &slot[misaligned..];
        let expected = tensor(&image, bytes, &target, Order::ResizeFirst);
        let found = decode(target.dtype, &converted(&image, bytes, &target, skew));
        let (index, f, e, distance) = worst(&target, &found, &expected);
        prop_assert!(distance <= 1.0, "element {index} is {f}, the reference has {e}");
    }

    /// Every byte of a tensor was written: those of the fused pass on a CPU are all there, over the poison.
    #[test]
    fn every_bit_is_the_cpus(
        (image, have) in image(), target in target(), seed in any::<u64>(), misaligned in 0usize..4, skew in 0usize..4,
    ) {
        let slot = slot(seed, have, misaligned);
        let bytes = &slot[misaligned..];
        prop_assert_eq!(converted(&image, bytes, &target, skew), on_cpu(&image, bytes, &target));
    }

    /// Where the scale is a whole number, or nearly one of the conditions for its kernel holds.
    #[test]
    fn a_whole_number_scale_gives_the_same_bits(
        ((image, have), target) in whole(), seed in any::<u64>(), misaligned in prop_oneof![4 => Just(0usize), 1 => 1usize..9],
        skew in 0usize..4,
    ) {
        let slot = slot(seed, have, misaligned);
        let bytes = &slot[misaligned..];
        let found = converted(&image, bytes, &target, skew);
        prop_assert_eq!(&found, &on_cpu(&image, bytes, &target));
        let expected = tensor(&image, bytes, &target, Order::ResizeFirst);
        let (index, f, e, distance) = worst(&target, &decode(target.dtype, &found), &expected);
        prop_assert!(distance <= 1.0, "element {index} is {f}, the reference has {e}");
    }

    /// One kernel writes the picture, the other the padding, and neither what is the other's: a tensor keeps its padding.
    #[test]
    fn picture_and_padding_are_written_apart(
        (image, have) in image(), target in target(), whole in prop::option::of(whole()), seed in any::<u64>(), skew in 0usize..4,
    ) {
        let ((image, have), target) = whole.unwrap_or(((image, have), target));
        let bytes = noise(seed, have as usize);
        let plan = Plan::new(&image, &target).unwrap();
        let picture = run(|plan, from| vec![plan.kernel(from)], &[(&plan, &bytes)], skew).remove(0);
        let padding = run(|plan, _| plan.padding().into_iter().collect(), &[(&plan, &bytes)], skew).remove(0);
        let expected = on_cpu(&image, &bytes, &target);
        let placed = place(image.display_size(), target.size, target.fit).placed;
        let (element, width) = (target.dtype.bytes() as usize, target.size.width_px as usize);
        let pixels = width * target.size.height_px as usize;
        for at in 0..3 * pixels {
            let pixel = if target.layout == TensorLayout::Nchw { at % pixels } else { at / 3 };
            let (x, y) = ((pixel % width) as u32, (pixel / width) as u32);
            let inside = (placed.x_px..placed.x_px + placed.width_px).contains(&x)
                && (placed.y_px..placed.y_px + placed.height_px).contains(&y);
            let (written, left) = if inside { (&picture, &padding) } else { (&padding, &picture) };
            let bytes = at * element..(at + 1) * element;
            prop_assert_eq!(&written[bytes.clone()], &expected[bytes.clone()], "element {}", at);
            prop_assert!(left[bytes].iter().all(|&b| b == POISON), "element {} was written by both", at);
        }
    }

    #[test]
    fn a_byte_is_the_references_or_its_neighbour((image, have) in image(), mut target in target(), seed in any::<u64>()) {
        target = Target { dtype: TensorDtype::U8, mean: [0.0; 3], scale: [1.0; 3], ..target };
        let bytes = noise(seed, have as usize);
        let expected = tensor(&image, &bytes, &target, Order::ResizeFirst);
        for (found, expected) in converted(&image, &bytes, &target, 0).into_iter().zip(expected) {
            prop_assert!((f64::from(found) - expected.round()).abs() <= 1.0);
        }
    }

    #[test]
    fn frames_of_a_batch_do_not_mix(
        kinds in prop::collection::vec((image(), target(), any::<u64>()), 1..9),
        dtype in prop::sample::select(TensorDtype::ALL), layout in prop::sample::select(TensorLayout::ALL),
    ) {
        let frames: Vec<_> = kinds
            .into_iter()
            .map(|((image, have), target, seed)| {
                // one of the targets may reach beyond f16
                let target = Target { dtype, layout, ..target };
                (Plan::new(&image, &target).unwrap(), image, target, noise(seed, have as usize))
            })
            .collect();
        let batch: Vec<_> = frames.iter().map(|(plan, _, _, bytes)| (plan, &bytes[..])).collect();
        let found = run(whole_tensor, &batch, 0);
        for ((_, image, target, bytes), found) in frames.iter().zip(found) {
            prop_assert_eq!(found, converted(image, bytes, target, 0));
        }
    }

    #[test]
    fn planes_are_the_pixels_transposed(target in target(), seed in any::<u64>(), skew in 0usize..4) {
        let (image, _) = ImageDesc::packed(PixelFormat::Rgb24, Size::new(1, 1), colour(
            Matrix::Bt709, Range::Full, ChromaSiting::Left), 1);
        let plan = Plan::new(&image, &Target { layout: TensorLayout::Nchw, ..target }).unwrap();
        let element = target.dtype.bytes() as usize;
        let pixels = noise(seed, plan.tensor().bytes() as usize);
        let found = run(|_, _| vec![Kernel::Planes(target.dtype)], &[(&plan, &pixels)], skew).remove(0);
        let count = pixels.len() / element / 3;
        for (at, bytes) in found.chunks(element).enumerate() {
            let (channel, pixel) = (at / count, at % count);
            let from = (3 * pixel + channel) * element;
            prop_assert_eq!(bytes, &pixels[from..from + element], "channel {} of pixel {}", channel, pixel);
        }
    }
}

/// Positions of an axis as long as a frame may be are exact: a 32-bit float would have lost the weights long before.
#[test]
fn the_longest_axis_is_exact() {
    for (format, width_px, height_px) in [
        (PixelFormat::Nv12, 32_767, 3),
        (PixelFormat::P016, 32_768, 2),
        (PixelFormat::I420, 5, 32_767),
        (PixelFormat::Rgb24, 32_768, 1),
    ] {
        let size = Size::new(width_px, height_px);
        let (image, have) =
            ImageDesc::packed(format, size, colour(Matrix::Bt709, Range::Limited, ChromaSiting::Left), 1);
        let out = Size::new(width_px.min(9999), height_px.min(9999));
        let target = Target { dtype: TensorDtype::F32, ..Target::picture(out, ChannelOrder::Rgb) };
        let bytes = noise(3, have as usize);
        let expected = tensor(&image, &bytes, &target, Order::ResizeFirst);
        let found = decode(target.dtype, &converted(&image, &bytes, &target, 0));
        let (index, f, e, distance) = worst(&target, &found, &expected);
        assert!(distance <= 1.0, "{format} {size}: element {index} is {f}, the reference has {e}");
    }
}

/// More frames than a launch has room for, and a real geometry: 1080p into 640 x 640.
#[test]
fn more_frames_than_a_launch_holds_and_a_camera_of_full_hd() {
    let small = Size::new(6, 4);
    let tagged = colour(Matrix::Bt601, Range::Full, ChromaSiting::Centre);
    let (image, have) = ImageDesc::packed(PixelFormat::Nv12, small, tagged, 1);
    let target = Target { dtype: TensorDtype::U8, ..Target::picture(Size::new(3, 2), ChannelOrder::Bgr) };
    let plan = Plan::new(&image, &target).unwrap();
    let slots: Vec<_> = (0..MAX_FRAMES as u64 + 3).map(|seed| noise(seed, have as usize)).collect();
    let batch: Vec<_> = slots.iter().map(|slot| (&plan, &slot[..])).collect();
    let found = run(whole_tensor, &batch, 0);
    for (slot, found) in slots.iter().zip(found) {
        assert_eq!(found, converted(&image, slot, &target, 0));
    }

    let (mut image, have) = ImageDesc::packed(PixelFormat::Nv12, Size::new(1920, 1088), tagged, 256);
    image.display = Rect { x_px: 0, y_px: 0, width_px: 1920, height_px: 1080 };
    let fit = Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest };
    let target = Target {
        dtype: TensorDtype::F16,
        layout: TensorLayout::Nchw,
        scale: [1.0 / 255.0; 3],
        fit,
        pad: 114,
        ..Target::picture(Size::new(640, 640), ChannelOrder::Rgb)
    };
    let bytes = noise(9, have as usize);
    let expected = tensor(&image, &bytes, &target, Order::ResizeFirst);
    let found = decode(target.dtype, &converted(&image, &bytes, &target, 0));
    let (index, f, e, distance) = worst(&target, &found, &expected);
    assert!(distance <= 1.0, "element {index} is {f}, the reference has {e}");
}

/// The usual cameras have a kernel of their own, by which siting and size alone decide.
#[test]
fn whole_number_scales_have_kernels() {
    let fit = Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest };
    let square =
        |side| Target { fit, layout: TensorLayout::Nchw, ..Target::picture(Size::new(side, side), ChannelOrder::Rgb) };
    let kernel = |(width, height), side, siting, format, pitch_align, from| {
        let tagged = colour(Matrix::Bt709, Range::Limited, siting);
        let (image, _) = ImageDesc::packed(format, Size::new(width, height), tagged, pitch_align);
        Plan::new(&image, &square(side)).unwrap().kernel(from)
    };
    let (nv12, left) = (PixelFormat::Nv12, ChromaSiting::Left);
    let of = |scale| Kernel::Whole(TensorDtype::U8, TensorLayout::Nchw, scale);
    let any = Kernel::Convert(TensorDtype::U8, TensorLayout::Nchw);
    for siting in [left, ChromaSiting::Centre, ChromaSiting::TopLeft, ChromaSiting::Top] {
        for (size, side, scale) in
            [((1920, 1080), 640, 3), ((1280, 720), 640, 2), ((2560, 1440), 640, 4), ((3840, 2160), 640, 6)]
        {
            assert_eq!(kernel(size, side, siting, nv12, 64, 4096), of(scale), "{size:?} {siting:?}");
        }
    }
    assert_eq!(kernel((1920, 1080), 416, left, nv12, 64, 4096), any, "no whole number");
    assert_eq!(kernel((1920, 1080), 640, left, nv12, 64, 4098), any, "half a word");
    assert_eq!(kernel((1920, 1080), 640, left, PixelFormat::I420, 64, 4096), any, "another format");
    assert_eq!(kernel((1280, 720), 640, ChromaSiting::BottomLeft, nv12, 64, 4096), any, "chroma on the lower row");
    assert_eq!(kernel((1926, 1080), 642, left, nv12, 64, 4096), any, "no group of four");
}

#[test]
fn a_kernel_that_is_not_there_is_no_success() {
    // SAFETY: no kernel of that name runs, and nothing is read.
    assert!(!unsafe { millrace_kernels_host::launch("millrace_f64_nchw", [1; 3], [1; 3], std::ptr::null_mut()) });
}

/// The PTX that a GPU gets has each kernel that the launcher asks for.
#[test]
fn the_committed_ptx_has_every_kernel() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx");
    for &dtype in TensorDtype::ALL {
        let ptx = std::fs::read_to_string(folder.join(format!("{dtype}.ptx"))).unwrap();
        for kernel in Kernel::of(dtype) {
            assert!(
                ptx.contains(&format!(".visible .entry {}(", kernel.name())),
                "{dtype}.ptx has no {}",
                kernel.name()
            );
        }
    }
}
