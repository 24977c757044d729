//! The bodies of the CUDA kernels, compiled as C++ and run on this machine's CPU, against the f64 reference and against the
//! fused pass on a CPU. No GPU and no driver.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "runs kernels, which reach memory by address")]

mod common;

use common::{colour, decode, image, noise, target, worst};
use millrace_frame::{ChromaSiting, ImageDesc, Matrix, PixelFormat, Range, Rect, Size, TensorDtype, TensorLayout};
use millrace_kernels::cuda::{Kernel, Launch, MAX_FRAMES, Plan};
use millrace_kernels::reference::{Order, tensor};
use millrace_kernels::{ChannelOrder, Converter, Fit, Target};
use proptest::prelude::*;

const GUARD_BYTES: usize = 64;
const POISON: u8 = 0xa5;

/// A plan where a kernel finds it: at an address as cuMemAlloc gives it.
fn placed(plan: &Plan) -> Vec<u64> {
    plan.bytes().chunks(8).map(|c| u64::from_ne_bytes(std::array::from_fn(|i| *c.get(i).unwrap_or(&0)))).collect()
}

/// Runs one launch over all frames; each tensor with its guards, beginning `skew` elements after an aligned address.
fn run(kernel: Kernel, frames: &[(&Plan, &[u8])], skew: usize) -> Vec<Vec<u8>> {
    let plans: Vec<_> = frames.iter().map(|(plan, _)| placed(plan)).collect();
    let tensors = frames.iter().map(|(plan, _)| {
        let skew_bytes = skew * plan.target().dtype.bytes() as usize;
        // u64s: the guard ends at an aligned address
        let whole = GUARD_BYTES + skew_bytes + plan.tensor().bytes() as usize + GUARD_BYTES;
        (vec![u64::from_ne_bytes([POISON; 8]); whole.div_ceil(8)], GUARD_BYTES + skew_bytes)
    });
    let mut tensors: Vec<_> = tensors.collect();
    let addresses: Vec<_> = std::iter::zip(frames, std::iter::zip(&plans, &mut tensors))
        .map(|((plan, source), (at, (tensor, start)))| {
            let to = tensor.as_mut_ptr() as u64 + *start as u64;
            ([source.as_ptr() as u64, to, at.as_ptr() as u64], plan.target().size)
        })
        .collect();
    for part in addresses.chunks(MAX_FRAMES) {
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
    let kernel = Kernel::Convert(target.dtype, target.layout);
    run(kernel, &[(&plan, bytes)], skew).remove(0)
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
        let mut converter = Converter::new(&image, &target).unwrap();
        let mut expected = vec![0; converter.tensor().bytes() as usize];
        converter.convert(bytes, &mut expected).unwrap();
        prop_assert_eq!(converted(&image, bytes, &target, skew), expected);
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
        let found = run(Kernel::Convert(dtype, layout), &batch, 0);
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
        let found = run(Kernel::Planes(target.dtype), &[(&plan, &pixels)], skew).remove(0);
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
    let found = run(Kernel::Convert(target.dtype, target.layout), &batch, 0);
    for (slot, found) in slots.iter().zip(found) {
        assert_eq!(found, converted(&image, slot, &target, 0));
    }

    let (mut image, have) = ImageDesc::packed(PixelFormat::Nv12, Size::new(1920, 1088), tagged, 256);
    image.display = Rect { x_px: 0, y_px: 0, width_px: 1920, height_px: 1080 };
    let fit =
        Fit::Letterbox { anchor: millrace_kernels::Anchor::Centre, rounding: millrace_kernels::Rounding::Nearest };
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
        let kernels = TensorLayout::ALL.iter().map(|&layout| Kernel::Convert(dtype, layout));
        for kernel in kernels.chain([Kernel::Planes(dtype)]) {
            assert!(
                ptx.contains(&format!(".visible .entry {}(", kernel.name())),
                "{dtype}.ptx has no {}",
                kernel.name()
            );
        }
    }
}
