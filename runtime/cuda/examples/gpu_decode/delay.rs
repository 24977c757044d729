//! How long a picture takes to come out: in access units that have to follow its own first, and in time.

use crate::player::lock;
use millrace_cuda::nvdec::{Codec, Nvdec, Picture, PictureOrder, Session, SessionOptions};
use millrace_cuda::{Gpu, Stream};
use millrace_frame::PacketCodec;
use millrace_ingest::{AccessUnit, Admission, Admitted, AdmittedUnit, Event, Ingest, Reorder, ReorderPolicy};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The ways to ask for pictures, by the name that the report gives them, and whether they are put in order here, as the node
/// does it with cameras in live flow.
const WAYS: [(&str, bool, PictureOrder, bool); 4] = [
    ("held for throughput", false, PictureOrder::Presentation, false),
    ("low delay", true, PictureOrder::Presentation, false),
    ("decoding order", true, PictureOrder::Decoding, false),
    ("live flow", true, PictureOrder::Decoding, true),
];

/// Measures every clip in every way, and prints a row of JSON for each.
pub(crate) fn measure(device: u32, clips: &[String], json: Option<&str>) -> Result<bool, String> {
    let gpu = Gpu::open(device).map_err(|e| e.to_string())?;
    let nvdec = Nvdec::open().map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    for clip in clips {
        for (way, low_delay, order, reorders) in WAYS {
            let options = SessionOptions { low_delay, order, ..SessionOptions::default() };
            let mut row = Course::new(&gpu, nvdec, options, reorders)?.play(clip)?;
            row["clip"] = json!(clip);
            row["way"] = json!(way);
            println!("{row}");
            rows.push(row);
        }
    }
    if let Some(file) = json {
        std::fs::write(file, format!("{}\n", Value::from(rows))).map_err(|e| format!("{file}: {e}"))?;
    }
    Ok(true)
}

/// One clip in one way. Each picture is mapped and waited for when it comes out, or where it is put in order, when it is due.
struct Course {
    gpu: Gpu,
    nvdec: Nvdec,
    options: SessionOptions,
    stream: Stream,
    admission: Admission,
    session: Option<(PacketCodec, Session)>,
    came_out: Arc<Mutex<Vec<Picture>>>,
    reorder: Option<Reorder<(AdmittedUnit, Picture)>>,
    /// Pictures that came after one that follows them.
    late: usize,
    /// Units of the clip that were decoded, by their number in the admission table.
    fed: BTreeMap<i64, usize>,
    units: usize,
    /// Units that had to follow a picture's own before it came out, and how many pictures took so many.
    held: BTreeMap<usize, usize>,
    /// From the beginning of the feed in which a picture came out until its pixels were there.
    ready_ms: Vec<f64>,
    last_pts_ns: Option<i64>,
    out_of_order: usize,
}

impl Course {
    fn new(gpu: &Gpu, nvdec: Nvdec, options: SessionOptions, reorders: bool) -> Result<Self, String> {
        Ok(Self {
            stream: Stream::new(gpu).map_err(|e| e.to_string())?,
            gpu: gpu.clone(),
            nvdec,
            options,
            admission: Admission::default(),
            session: None,
            came_out: Arc::default(),
            reorder: reorders.then(|| Reorder::new(ReorderPolicy::Live)),
            late: 0,
            fed: BTreeMap::new(),
            units: 0,
            held: BTreeMap::new(),
            ready_ms: Vec::new(),
            last_pts_ns: None,
            out_of_order: 0,
        })
    }

    fn play(mut self, clip: &str) -> Result<Value, String> {
        let mut ingest = Ingest::open(clip, &millrace_ingest::IngestOptions::default()).map_err(|e| e.to_string())?;
        loop {
            match ingest.next_event().map_err(|e| e.to_string())? {
                Event::Unit(mut unit) => {
                    if self.reorder.is_some() {
                        // a camera does not know what it will send
                        unit.earliest_next_pts_ns = None;
                    }
                    self.unit(&unit)?;
                }
                Event::End => break,
                _ => {}
            }
        }
        self.flush()?;
        self.ready_ms.sort_by(f64::total_cmp);
        let at = |share: f64| self.ready_ms.get((self.ready_ms.len() as f64 * share) as usize).copied();
        let held: BTreeMap<String, usize> = self.held.iter().map(|(n, count)| (n.to_string(), *count)).collect();
        Ok(json!({
            "units": self.units, "pictures": self.ready_ms.len(), "out_of_order": self.out_of_order, "late": self.late,
            "units_held": held, "feed_to_pixels_ms": {"p50": at(0.5), "p99": at(0.99)},
        }))
    }

    fn unit(&mut self, unit: &AccessUnit) -> Result<(), String> {
        let number = match self.admission.admit(unit) {
            Admitted::Leave => return Ok(()),
            Admitted::Stop => return self.flush(),
            Admitted::Begin(number) => {
                self.flush()?;
                number
            }
            Admitted::Decode(number) => number,
        };
        let codec = unit.info.codec;
        if self.session.as_ref().is_none_or(|(known, _)| *known != codec) {
            let known = match codec {
                PacketCodec::H264 => Codec::H264,
                PacketCodec::H265 => Codec::H265,
                other => return Err(format!("{other} is not decoded here")),
            };
            let came_out = self.came_out.clone();
            let sink = Box::new(move |picture| lock(&came_out).push(picture));
            let made = Session::new(self.nvdec, &self.gpu, known, self.options, sink);
            self.session = Some((codec, made.map_err(|e| e.to_string())?));
        }
        self.admission.decoding(number, unit);
        self.fed.insert(number, self.units);
        self.units += 1;
        let began = Instant::now();
        if let Some((_, session)) = &mut self.session {
            session.feed(&unit.data, number, unit.timing.pts_ns).map_err(|e| e.to_string())?;
        }
        self.take(began)
    }

    fn flush(&mut self) -> Result<(), String> {
        let began = Instant::now();
        if let Some((_, session)) = &mut self.session {
            session.flush().map_err(|e| e.to_string())?;
        }
        self.take(began)?;
        let held = self.reorder.as_mut().map(Reorder::flush).unwrap_or_default();
        held.into_iter().try_for_each(|(shown, picture)| self.show(&shown, picture, began))?;
        self.admission.ended();
        Ok(())
    }

    /// What came out since `began`.
    fn take(&mut self, began: Instant) -> Result<(), String> {
        let came_out = std::mem::take(&mut *lock(&self.came_out));
        for picture in came_out {
            let Some(shown) = self.admission.came_out(picture.timestamp()) else { continue };
            let due = match &mut self.reorder {
                None => vec![(shown, picture)],
                Some(reorder) => {
                    let pushed = reorder.push(shown.place, (shown, picture));
                    self.late += usize::from(pushed.late.is_some());
                    pushed.due
                }
            };
            due.into_iter().try_for_each(|(shown, picture)| self.show(&shown, picture, began))?;
        }
        Ok(())
    }

    fn show(&mut self, shown: &AdmittedUnit, picture: Picture, began: Instant) -> Result<(), String> {
        let number = picture.timestamp();
        let mapped = picture.map(&self.stream).map_err(|e| e.to_string())?;
        self.stream.synchronize().map_err(|e| e.to_string())?;
        drop(mapped);
        self.ready_ms.push(began.elapsed().as_secs_f64() * 1e3);
        self.ordered(number, shown);
        Ok(())
    }

    fn ordered(&mut self, number: i64, shown: &AdmittedUnit) {
        let own = self.fed.remove(&number).unwrap_or(self.units);
        *self.held.entry(self.units.saturating_sub(own + 1)).or_default() += 1;
        let pts_ns = shown.timing.pts_ns;
        self.out_of_order += usize::from(self.last_pts_ns.is_some_and(|last| pts_ns <= last));
        self.last_pts_ns = Some(pts_ns);
    }
}
