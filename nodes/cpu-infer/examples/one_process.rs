//! The stages of `graphs/detect.yml` called one after the other in one process: what the separation into processes is
//! measured against by `tests/bench/throughput.py`.
//!
//! usage: one_process CLIP MODEL.yml OUT.jsonl THREADS
#![allow(clippy::print_stdout, reason = "a program that says what it did")]

#[path = "../src/engine.rs"]
mod engine;
#[path = "../../nv12-to-rgb/src/config.rs"]
#[allow(dead_code, reason = "the node reads one more setting")]
mod to_rgb;

use millrace_frame::{Item, Payload};
use millrace_infer::{Detector, DetectorSettings};
use millrace_ingest::{Decoded, Event, Ingest, IngestOptions, Picture, ReorderPolicy, SoftwareDecoder};
use millrace_kernels::{Converter, Target};
use serde_json::json;
use std::error::Error;
use std::io::{BufWriter, Write};

struct Stages<W> {
    target: Target,
    converter: Option<Converter>,
    detector: Detector<engine::Rten>,
    frame: Vec<u8>,
    tensor: Vec<f32>,
    out: W,
    frames: u64,
}

impl<W: Write> Stages<W> {
    fn picture(&mut self, picture: &Picture) -> Result<(), Box<dyn Error>> {
        let (desc, bytes) = picture.info.nv12(64);
        self.frame.resize(bytes as usize, 0);
        picture.write_nv12(&desc, &mut self.frame)?;
        let converter = match self.converter.take().filter(|c| c.fits(&desc)) {
            Some(fits) => fits,
            None => Converter::new(&desc, &self.target)?,
        };
        let converter = self.converter.insert(converter);
        let tensor = converter.tensor();
        self.tensor.resize(tensor.bytes() as usize / size_of::<f32>(), 0.0);
        converter.convert(&self.frame, bytemuck::cast_slice_mut(&mut self.tensor))?;
        let timing = picture.timing;
        let item = Item::on_host("decode", self.frames, timing, Payload::Tensor(tensor));
        let found = self.detector.detect(&item, bytemuck::cast_slice(&self.tensor))?.detections;
        serde_json::to_writer(&mut self.out, &found)?;
        self.out.write_all(b"\n")?;
        self.frames += 1;
        Ok(())
    }

    fn take(&mut self, decoder: &mut SoftwareDecoder) -> Result<(), Box<dyn Error>> {
        while let Some(decoded) = decoder.take() {
            match decoded {
                Decoded::Picture(picture) => self.picture(&picture)?,
                Decoded::Loss(loss) => return Err(format!("lost {}: {}", loss.cause, loss.detail).into()),
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [clip, model, out, threads] = &args[..] else {
        return Err("usage: one_process CLIP MODEL.yml OUT.jsonl THREADS".into());
    };
    let convert: to_rgb::Settings = serde_json::from_value(json!({ "MODEL": model }))?;
    let detect = DetectorSettings { model: std::path::PathBuf::from(model).into(), ..DetectorSettings::default() };
    let mut stages = Stages {
        target: convert.target()?,
        converter: None,
        detector: Detector::open(&detect, threads.parse()?)?,
        frame: Vec::new(),
        tensor: Vec::new(),
        out: BufWriter::new(std::fs::File::create(out)?),
        frames: 0,
    };
    let mut ingest = Ingest::open(clip, &IngestOptions::default())?;
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Lossless);
    loop {
        match ingest.next_event()? {
            Event::Unit(unit) => decoder.push(&unit)?,
            Event::Loss(loss) => return Err(format!("lost {}: {}", loss.cause, loss.detail).into()),
            Event::Flush => decoder.flush(),
            Event::Wait(wait) => std::thread::sleep(wait),
            Event::Counted(_) | Event::State(_) => {}
            Event::End => break,
        }
        stages.take(&mut decoder)?;
    }
    decoder.flush();
    stages.take(&mut decoder)?;
    stages.out.flush()?;
    println!("{} frames", stages.frames);
    Ok(())
}
