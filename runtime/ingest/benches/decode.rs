//! What a frame costs: decoding, and writing it as NV12 against copying as many bytes.
//!
//! `cargo bench -p millrace-ingest --bench decode [-- FILE]`; the demo clip by default.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use millrace_ingest::{Decoded, Event, Ingest, IngestError, IngestOptions, ReorderPolicy, SoftwareDecoder};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() -> Result<(), IngestError> {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/demo/clip.mp4");
    let file = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_else(|| demo.to_owned());
    let mut ingest = Ingest::open(&file, &IngestOptions::default())?;
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Lossless);
    let (mut read, mut decode) = (Duration::ZERO, Duration::ZERO);
    let (mut write, mut copy) = (Vec::new(), Vec::new());
    let mut slot = Vec::new();
    let mut size = None;
    let mut ended = false;
    while !ended {
        let began = Instant::now();
        let event = ingest.next_event()?;
        read += began.elapsed();
        match event {
            Event::Unit(unit) => {
                let began = Instant::now();
                decoder.push(&unit)?;
                decode += began.elapsed();
            }
            Event::End => {
                decoder.flush();
                ended = true;
            }
            _ => {}
        }
        while let Some(Decoded::Picture(picture)) = decoder.take() {
            let (desc, bytes) = picture.info.nv12(64);
            slot.resize(bytes as usize, 0);
            size = Some(desc.display_size());
            let began = Instant::now();
            picture.write_nv12(&desc, &mut slot).expect("the description is the picture's own");
            write.push(began.elapsed());
            // the same number of bytes as one plain copy, from memory that is as cold
            let from = black_box(slot.clone());
            let began = Instant::now();
            slot.copy_from_slice(&from);
            copy.push(began.elapsed());
            black_box(&slot);
        }
    }
    let frames = write.len().max(1);
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    let (write, copy) = (median(&mut write), median(&mut copy));
    let per_frame = |t: Duration| t.as_secs_f64() * 1e3 / frames as f64;
    println!("{file}: {frames} frames of {}", size.map_or_else(String::new, |s| s.to_string()));
    println!("read    {:8.3} ms a frame", per_frame(read));
    println!(
        "decode  {:8.3} ms a frame, {:.0} frames a second on one thread",
        per_frame(decode),
        1e3 / per_frame(decode)
    );
    println!("nv12    {write:8.3} ms a frame (median), {:.2} times a plain copy of {copy:.3} ms", write / copy);
    Ok(())
}
