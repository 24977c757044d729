//! How long many sessions take to begin and to end.

use millrace_cuda::Gpu;
use millrace_cuda::nvdec::{Codec, Nvdec, Session, SessionOptions};
use millrace_frame::{PacketCodec, monotonic_ns};
use millrace_ingest::{AccessUnit, Event, Ingest};
use serde_json::json;
use std::sync::{Arc, Barrier};
use std::time::Instant;

/// Units that each session decodes before it ends.
const UNITS: usize = 8;

/// Begins `sessions` at once, each on a thread of its own, and ends them at once: destroyed, or left to the process's end.
/// Prints a line of JSON with the moment at which nothing is left to do but to exit.
pub(crate) fn measure(device: u32, clip: &str, sessions: usize, leave: bool) -> Result<bool, String> {
    let gpu = Gpu::open(device).map_err(|e| e.to_string())?;
    let nvdec = Nvdec::open().map_err(|e| e.to_string())?;
    let units: Arc<[AccessUnit]> = first_units(clip)?.into();
    let barrier = Arc::new(Barrier::new(sessions + 1));
    let begin = Instant::now();
    let threads: Vec<_> = (0..sessions)
        .map(|_| {
            let (gpu, units, barrier) = (gpu.clone(), units.clone(), barrier.clone());
            std::thread::spawn(move || one(nvdec, &gpu, &units, leave, &barrier))
        })
        .collect();
    barrier.wait();
    let begun_s = begin.elapsed().as_secs_f64();
    let end = Instant::now();
    barrier.wait();
    let mut each_ms = Vec::new();
    for thread in threads {
        each_ms.push(thread.join().map_err(|_| "a session's thread panicked".to_owned())??);
    }
    let ended_s = end.elapsed().as_secs_f64();
    each_ms.sort_by(f64::total_cmp);
    let (p50, longest) = (each_ms[each_ms.len() / 2], each_ms[each_ms.len() - 1]);
    println!(
        "{}",
        json!({
            "sessions": sessions, "left": leave, "begin_s": begun_s, "end_s": ended_s,
            "end_of_one_ms": {"p50": p50, "max": longest}, "exits_at_monotonic_ns": monotonic_ns(),
        })
    );
    Ok(true)
}

/// Milliseconds of the end.
fn one(nvdec: Nvdec, gpu: &Gpu, units: &[AccessUnit], leave: bool, barrier: &Barrier) -> Result<f64, String> {
    let begun = (|| -> Result<Session, String> {
        let codec = match units.first().map(|unit| unit.info.codec) {
            Some(PacketCodec::H265) => Codec::H265,
            _ => Codec::H264,
        };
        let mut session =
            Session::new(nvdec, gpu, codec, SessionOptions::default(), Box::new(drop)).map_err(|e| e.to_string())?;
        for (number, unit) in (0..).zip(units) {
            session.feed(&unit.data, number, unit.timing.pts_ns).map_err(|e| e.to_string())?;
        }
        Ok(session)
    })();
    // also after a fault: the others wait
    barrier.wait();
    barrier.wait();
    let session = begun?;
    let began = Instant::now();
    if leave {
        session.leave()
    } else {
        drop(session)
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn first_units(clip: &str) -> Result<Vec<AccessUnit>, String> {
    let mut ingest = Ingest::open(clip, &millrace_ingest::IngestOptions::default()).map_err(|e| e.to_string())?;
    let mut units = Vec::new();
    while units.len() < UNITS {
        match ingest.next_event().map_err(|e| e.to_string())? {
            Event::Unit(unit) => units.push(*unit),
            Event::End => break,
            _ => {}
        }
    }
    if units.is_empty() { Err(format!("{clip} has no picture")) } else { Ok(units) }
}
