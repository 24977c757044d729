//! Raw I420 frames on the input to YOLOX tensors (f32, planar, BGR, 0 to 255) on the output, by any way of computing them.
//!
//! `tensors WIDTH HEIGHT MODEL_SIZE fused|separate|resize-first|convert-first < frames.i420 > tensors.f32`; the last
//! two are the f64 reference in both orders. `orders.py` beside this file feeds it.
#![allow(missing_docs)]

use millrace_frame::{Colour, ImageDesc, PixelFormat, Size, TensorDtype, TensorLayout};
use millrace_kernels::reference::{Order, tensor};
use millrace_kernels::{Anchor, ChannelOrder, Converter, Fit, Rounding, SeparatePasses, Target};
use std::io::{Error, ErrorKind, Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [width, height, model, way] = &arguments[..] else {
        return Err("expected: WIDTH HEIGHT MODEL_SIZE fused|separate|resize-first|convert-first".into());
    };
    let (size, model) = (Size::new(width.parse()?, height.parse()?), model.parse()?);
    let colour = Colour::assumed_for_height(size.height_px);
    let (image, frame_bytes) = ImageDesc::packed(PixelFormat::I420, size, colour, 1);
    let target = Target {
        size: Size::new(model, model),
        layout: TensorLayout::Nchw,
        dtype: TensorDtype::F32,
        order: ChannelOrder::Bgr,
        mean: [0.0; 3],
        scale: [1.0; 3],
        fit: Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down },
        pad: 114,
    };
    let mut fused = Converter::new(&image, &target)?;
    let mut separate = SeparatePasses::new(&image, &target)?;
    let reference = |frame: &[u8], out: &mut [u8], order| {
        for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(tensor(&image, frame, &target, order)) {
            *bytes = (value as f32).to_ne_bytes();
        }
    };
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut frame = vec![0; frame_bytes as usize];
    let mut out = vec![0; fused.tensor().bytes() as usize];
    loop {
        match input.read_exact(&mut frame) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        match way.as_str() {
            "fused" => fused.convert(&frame, &mut out)?,
            "separate" => separate.convert(&frame, &mut out)?,
            "resize-first" => reference(&frame, &mut out, Order::ResizeFirst),
            "convert-first" => reference(&frame, &mut out, Order::ConvertFirst),
            other => return Err(Error::other(format!("no way of computing a tensor is called '{other}'")).into()),
        }
        output.write_all(&out)?;
    }
}
