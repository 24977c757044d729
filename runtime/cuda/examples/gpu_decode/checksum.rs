//! Checksums of the frames, written or compared.

use crate::player::{Played, Player, lock};
use md5::{Digest, Md5};
use millrace_cuda::nvdec::{DecodeStatus, Mapped};
use millrace_cuda::{DeviceMemory, Gpu, Rows, Stream};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

struct Frame {
    pts_ns: i64,
    bytes: usize,
    md5: String,
}

/// The frames of a clip, in presentation order, and for how many the GPU reported errors.
#[derive(Default)]
struct Frames {
    frames: Vec<Frame>,
    flawed: u64,
}

/// Copies what is shown of a picture to the host, without any padding.
fn packed(mapped: &Mapped, gpu: &Gpu, stream: &Stream, room: &mut Option<DeviceMemory>) -> Result<Vec<u8>, String> {
    let planes = mapped.planes().map_err(|e| e.to_string())?;
    let bytes = planes.iter().map(|p| p.row_bytes * p.rows).sum::<u64>();
    if room.as_ref().is_none_or(|room| room.span().bytes() < bytes) {
        *room = Some(DeviceMemory::allocate(gpu, bytes, "a frame").map_err(|e| e.to_string())?);
    }
    let Some(memory) = room.as_ref() else { return Err("no memory".to_owned()) };
    let mut at = 0;
    for plane in planes {
        let len = plane.row_bytes * plane.rows;
        let rows = Rows {
            row_bytes: plane.row_bytes,
            rows: plane.rows,
            from_pitch_bytes: plane.pitch_bytes,
            to_pitch_bytes: plane.row_bytes,
        };
        stream.copy_rows(plane.span, memory.span().part(at, len), rows).map_err(|e| e.to_string())?;
        at += len;
    }
    let mut host = vec![0; bytes as usize];
    // waits for the copies as well: the surface can go afterwards
    stream.download(memory.span().part(0, bytes), &mut host).map_err(|e| e.to_string())?;
    Ok(host)
}

fn decode(player: &Player, clip: &str) -> Result<(Frames, Played), String> {
    let frames: Arc<Mutex<Frames>> = Arc::default();
    let (to, gpu) = (frames.clone(), player.gpu.clone());
    let mut room = None;
    let played = player.play(
        clip,
        None,
        Box::new(move |shown, mut mapped, stream| {
            let area = shown.info.display;
            mapped.show(area.x_px, area.y_px, area.width_px, area.height_px).map_err(|e| e.to_string())?;
            let host = packed(&mapped, &gpu, stream, &mut room)?;
            let md5 = format!("{:x}", Md5::digest(&host));
            let mut frames = lock(&to);
            frames.flawed += u64::from(matches!(mapped.status(), DecodeStatus::Concealed | DecodeStatus::Damaged));
            frames.frames.push(Frame { pts_ns: shown.timing.pts_ns, bytes: host.len(), md5 });
            Ok(())
        }),
    )?;
    let frames = std::mem::take(&mut *lock(&frames));
    Ok((frames, played))
}

/// Writes the frames' checksums as FFmpeg's framemd5 does, with times in nanoseconds.
pub(crate) fn write(player: &Player, clip: &str, out: &str) -> Result<bool, String> {
    let (frames, played) = decode(player, clip)?;
    let mut text = "#format: frame checksums\n#version: 2\n#hash: MD5\n#tb 0: 1/1000000000\n".to_owned();
    for Frame { pts_ns, bytes, md5 } in &frames.frames {
        let _ = writeln!(text, "0, {pts_ns}, {pts_ns}, 0, {bytes}, {md5}");
    }
    std::fs::write(out, text).map_err(|e| format!("cannot write '{out}': {e}"))?;
    println!("{} frames, {} with errors, lost {:?}", frames.frames.len(), frames.flawed, played.lost);
    Ok(!frames.frames.is_empty())
}

/// Each clip against FFmpeg's file.
pub(crate) fn check(player: &Player, pairs: &[String], json: Option<&str>) -> Result<bool, String> {
    if pairs.is_empty() {
        return Err("no CLIP=FRAMEMD5 is given".to_owned());
    }
    let mut results = Vec::new();
    let mut all = true;
    for pair in pairs {
        let (clip, sums) = pair.split_once('=').ok_or_else(|| format!("'{pair}' is not CLIP=FRAMEMD5"))?;
        let want = wanted(sums)?;
        let result = match decode(player, clip) {
            Ok((frames, played)) => compared(&frames, &want, &played),
            Err(e) => serde_json::json!({ "exact": false, "frames": 0, "expected": want.len(), "error": e }),
        };
        all &= result["exact"] == true;
        println!("{clip}: {result}");
        results.push(serde_json::json!({ "clip": clip, "result": result }));
    }
    if let Some(json) = json {
        let text = serde_json::json!({ "gpu": player.gpu.name(), "exact": all, "clips": results });
        std::fs::write(json, format!("{text:#}\n")).map_err(|e| format!("cannot write '{json}': {e}"))?;
    }
    Ok(all)
}

/// The last column of a framemd5 file.
fn wanted(path: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read '{path}': {e}"))?;
    let rows = text.lines().filter(|row| !row.starts_with('#') && !row.trim().is_empty());
    Ok(rows.filter_map(|row| row.rsplit(',').next()).map(|md5| md5.trim().to_owned()).collect())
}

fn compared(frames: &Frames, want: &[String], played: &Played) -> serde_json::Value {
    let got: Vec<&str> = frames.frames.iter().map(|f| f.md5.as_str()).collect();
    let differ = got.iter().zip(want).position(|(got, want)| got != want);
    let same = got.iter().zip(want).filter(|(got, want)| got == want).count();
    let first = differ.or_else(|| (got.len() != want.len()).then(|| got.len().min(want.len())));
    serde_json::json!({
        "exact": first.is_none() && !want.is_empty(),
        "frames": got.len(),
        "expected": want.len(),
        "same": same,
        "first_that_differs": first,
        "with_errors": frames.flawed,
        "lost": played.lost,
    })
}
