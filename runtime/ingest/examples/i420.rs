//! Decodes a file as sw-nv12 does in lossless flow, and writes the frames to standard output as planar 4:2:0 of 8 bits, the
//! layout in which the conformance suites state their checksums: `tests/conformance/run` uses it. What is lost, and why a
//! file is not read, goes to standard error.

use millrace_ingest::{Decoded, Event, Ingest, IngestOptions, Picture, ReorderPolicy, SoftwareDecoder};
use std::error::Error;
use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// Rows of the slots that pictures are written into: aligned to this.
const PITCH_BYTES: u32 = 64;

type Done = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let done = match std::env::args_os().nth(1) {
        Some(file) => decode(&file),
        None => Err("usage: i420 FILE > OUT.yuv".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("refused: {why}");
            ExitCode::FAILURE
        }
    }
}

fn decode(file: &OsStr) -> Done {
    let mut ingest = Ingest::open(file, &IngestOptions::default())?;
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Lossless);
    let mut out = BufWriter::new(std::io::stdout().lock());
    loop {
        match ingest.next_event()? {
            Event::Unit(unit) => decoder.push(&unit)?,
            Event::Loss(loss) => eprintln!("lost: {} {}: {}", loss.count, loss.cause, loss.detail),
            Event::Flush => decoder.flush(),
            Event::Wait(wait) => std::thread::sleep(wait),
            Event::Counted(_) | Event::State(_) => {}
            Event::End => break,
        }
        write_ready(&mut decoder, &mut out)?;
    }
    decoder.flush();
    write_ready(&mut decoder, &mut out)?;
    Ok(out.flush()?)
}

fn write_ready(decoder: &mut SoftwareDecoder, out: &mut impl Write) -> Done {
    while let Some(decoded) = decoder.take() {
        match decoded {
            Decoded::Picture(picture) => write(&picture, out)?,
            Decoded::Loss(loss) => eprintln!("lost: {} {}: {}", loss.count, loss.cause, loss.detail),
        }
    }
    Ok(())
}

fn write(picture: &Picture, out: &mut impl Write) -> Done {
    let (desc, bytes) = picture.info.nv12(PITCH_BYTES);
    let mut slot = vec![0; usize::try_from(bytes)?];
    picture.write_nv12(&desc, &mut slot)?;
    let (width, height) = (desc.coded.width_px as usize, desc.coded.height_px as usize);
    let row = |plane: usize, y: usize, bytes: usize| {
        let at = desc.planes[plane].offset_bytes as usize + y * desc.planes[plane].pitch_bytes as usize;
        &slot[at..at + bytes]
    };
    for y in 0..height {
        out.write_all(row(0, y, width))?;
    }
    for part in 0..2 {
        for y in 0..height.div_ceil(2) {
            let samples = row(1, y, width.div_ceil(2) * 2).iter().skip(part).step_by(2).copied();
            out.write_all(&samples.collect::<Vec<u8>>())?;
        }
    }
    Ok(())
}
