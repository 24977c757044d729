//! `millrace model check`.

use super::picture::{self, Picture};
use super::replace::Target;
use super::{Pair, Tried, settings};
use crate::{DetectError, Detector, Engine, Found};
use millrace_detect::model::Thresholds;
use millrace_detect::{HeadError, Model};
use millrace_frame::{DetBox, Detections, Item, Payload, Size, Timebase, Timing, counted};
use millrace_kernels::{ConvertError, Converter};
use millrace_node::Flow;
use std::fmt::Write;
use std::path::Path;

/// For the judgement of a head also boxes count that no one would report.
const LEAST_SCORE: f32 = 0.05;
/// With fewer boxes than this nothing is known of the head.
const FEW: u64 = 5;
/// Boxes that are listed.
const LISTED: usize = 20;

/// What a model says of a picture.
pub(super) struct Trial {
    pub(super) found: Found,
    /// Why its boxes are most likely wrong.
    pub(super) doubt: Option<String>,
    /// Boxes that the judgement is from.
    pub(super) judged: u64,
    /// It finds no boxes, but classes of the whole picture.
    pub(super) classifies: bool,
    /// What the engine says of how it computes the model.
    pub(super) notes: Vec<String>,
}

/// Why a model could not be tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Model(#[from] DetectError),
    #[error("{0}")]
    Other(String),
}

impl Failed {
    /// The kind of scores that the model has in place of those that its head expects.
    pub(super) fn scores(&self) -> Option<&'static str> {
        match self {
            Self::Model(DetectError::Head { cause: HeadError::NotProbability { .. }, .. }) => Some("logits"),
            Self::Model(DetectError::Head { cause: HeadError::NotLogits { .. }, .. }) => Some("probabilities"),
            _ => None,
        }
    }
}

/// Opens the model and runs it on the picture.
pub(super) fn try_out<E: Engine>(model: &Path, picture: &Picture, sets: &[Pair]) -> Result<Trial, Failed> {
    let settings = settings::<E>(model, sets).map_err(Failed::Other)?;
    E::share(&settings, Flow::Live).map_err(|e| Failed::Other(e.to_string()))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut detector = Detector::<E>::open(&settings, threads)?;
    let image = picture.describe();
    let other = |e: ConvertError| Failed::Other(e.to_string());
    let mut converter = Converter::new(&image, &detector.model().target()).map_err(other)?;
    let tensor = converter.tensor();
    // 64-bit words, so that elements of any type are aligned
    let mut words = vec![0u64; (tensor.bytes() as usize).div_ceil(size_of::<u64>())];
    converter.convert(&picture.rgb, bytemuck::cast_slice_mut(&mut words)).map_err(other)?;
    let timing = Timing { pts_ns: 0, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
    let item = Item::on_host("picture", 0, timing, Payload::Tensor(tensor));
    let detect = |detector: &mut Detector<E>| detector.detect(&item, bytemuck::cast_slice(&words));
    let usual = detector.model().thresholds;
    detector.set_thresholds(Thresholds { score: usual.score.min(LEAST_SCORE), ..usual });
    let all = detect(&mut detector)?;
    detector.set_thresholds(usual);
    let found = detect(&mut detector)?;
    // of one picture there may be too few for a stream's judgement
    let impossible = || {
        let (n, of) = (all.impossible, all.candidates);
        (n * 2 > of).then(|| {
            format!(
                "{n} of {of} boxes cannot be: they end before they begin, are within the first two pixels of the model's input, or \
                 reach far outside it. 'head' in model.yml is not that of the model"
            )
        })
    };
    let doubt = all.doubt.clone().or_else(|| found.doubt.clone()).or_else(impossible);
    let classifies = detector.model().head.classifies();
    Ok(Trial { doubt, judged: all.candidates, classifies, found, notes: detector.notes() })
}

/// Checks the model, and says in `out` what was seen.
pub(super) fn check<E: Engine>(tried: &Tried, out: &mut String) -> Result<(), String> {
    let Tried { model, picture, drawn, force, sets } = tried;
    let picture = picture.as_deref();
    let drawn = drawn.clone().unwrap_or_else(|| model.with_extension("boxes.jpg"));
    let shown = picture::load(picture)?;
    if let Some(read) = picture {
        may_be_drawn(&drawn, "--drawn", *force, (model, read))?;
    }
    let trial = try_out::<E>(model, &shown, sets).map_err(|failed| failed.to_string())?;
    let _ = writeln!(out, "{}: the model file fits its description", model.display());
    trial.notes.iter().for_each(|note| {
        let _ = writeln!(out, "{note}");
    });
    report(&trial, picture, shown, &drawn, out)
}

/// Whether the picture with boxes can be written, before anything is computed.
pub(super) fn may_be_drawn(
    drawn: &Path,
    option: &'static str,
    force: bool,
    (model, picture): (&Path, &Path),
) -> Result<(), String> {
    let described = Model::load(model).ok();
    let file = described.as_ref().and_then(|model| model.file().ok());
    let mut read = vec![("the model's description", model), ("the picture that is read", picture)];
    read.extend(file.map(|file| ("the model file", file)));
    Target { path: drawn, option, force, read: &read }.is_for_a_picture()
}

/// What a box has beside its edges, in words.
fn shape(b: &DetBox) -> String {
    let mut text = String::new();
    if let Some(turned) = b.oriented {
        let _ = write!(
            text,
            ", {:.0}x{:.0} turned by {:.0} degrees",
            turned.width,
            turned.height,
            turned.angle_rad.to_degrees()
        );
    }
    if !b.keypoints.is_empty() {
        let _ = write!(text, ", {}", counted(b.keypoints.len(), "key point", "key points"));
    }
    if !b.mask.is_empty() {
        let _ = write!(text, ", an outline of {} points", b.mask.iter().map(Vec::len).sum::<usize>() / 2);
    }
    text
}

/// Lists and draws what was found, and says what speaks against it.
pub(super) fn report(
    trial: &Trial,
    picture: Option<&Path>,
    mut shown: Picture,
    drawn: &Path,
    out: &mut String,
) -> Result<(), String> {
    let Detections { boxes, classes, .. } = &trial.found.detections;
    let name = picture.map_or("a made picture without objects".to_owned(), |path| path.display().to_string());
    let Size { width_px, height_px } = shown.size;
    if trial.classifies {
        let n = counted(classes.len(), "class", "classes");
        let _ = writeln!(out, "{name}, {width_px}x{height_px}: {n} of the whole picture");
        classes.iter().for_each(|c| _ = writeln!(out, "  {} {:.2}", c.label, c.score));
        return Ok(());
    }
    let _ = writeln!(out, "{name}, {width_px}x{height_px}: {}", counted(boxes.len(), "box", "boxes"));
    for b in boxes.iter().take(LISTED) {
        let (_, colour) = picture::colour(b.class_id);
        let _ = writeln!(
            out,
            "  {} {:.2} from {:.0},{:.0} to {:.0},{:.0}{} ({colour})",
            b.label,
            b.score,
            b.x1,
            b.y1,
            b.x2,
            b.y2,
            shape(b)
        );
    }
    if boxes.len() > LISTED {
        let _ = writeln!(out, "  and {} more", boxes.len() - LISTED);
    }
    if picture.is_some() {
        shown.draw(boxes);
        shown.save(drawn)?;
        let _ = writeln!(out, "{}: the picture with what was found, to see whether it is there", drawn.display());
    }
    match &trial.doubt {
        Some(why) => return Err(why.clone()),
        None if trial.judged < FEW => {
            let _ = writeln!(
                out,
                "too few boxes to judge the head by; try `--picture` with one that shows what the model finds"
            );
        }
        None => {
            let _ = writeln!(out, "nothing in the numbers of {} boxes speaks against the head", trial.judged);
        }
    }
    Ok(())
}
