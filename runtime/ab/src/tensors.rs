//! How far the arms' tensors are apart.

use crate::model::TensorPair;
use serde::{Deserialize, Serialize};

/// The tensors of all frames. A PSNR of `None` is infinite: the tensors are identical.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorResult {
    /// Frames compared.
    pub frames: u64,
    /// Greatest less least element of A's tensors over the run: the peak of the PSNR.
    pub peak: f64,
    /// PSNR of each frame in dB, in the order of the record.
    pub psnr_db: Vec<Option<f64>>,
    /// The worst frame's.
    pub worst_db: Option<f64>,
    /// The median.
    pub median_db: Option<f64>,
    /// The largest difference of two elements.
    pub largest: f64,
    /// Share of the elements that differ, 0 to 1.
    pub differing: f64,
}

/// PSNR = 10 log10(peak^2 / mean squared error), as ITU-T J.340 has it for pictures, with A's range for the peak.
pub(crate) fn analyse(pairs: &[TensorPair]) -> Option<TensorResult> {
    if pairs.is_empty() {
        return None;
    }
    let low = pairs.iter().map(|p| p.range_a[0]).fold(f64::INFINITY, f64::min);
    let high = pairs.iter().map(|p| p.range_a[1]).fold(f64::NEG_INFINITY, f64::max);
    let peak = (high - low).min(f64::MAX);
    let psnr = |p: &TensorPair| {
        let error = p.sum_squared / p.elements.max(1) as f64;
        if error == 0.0 {
            None
        } else {
            // an error that is no number, or a black A, is the worst there is
            let db = 10.0 * (peak * peak / error).log10();
            Some(if db.is_finite() { db } else { f64::MIN })
        }
    };
    let psnr_db: Vec<_> = pairs.iter().map(psnr).collect();
    let mut sorted: Vec<f64> = psnr_db.iter().map(|p| p.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    let finite = |v: f64| v.is_finite().then_some(v);
    let elements: u64 = pairs.iter().map(|p| p.elements).sum();
    Some(TensorResult {
        frames: pairs.len() as u64,
        peak,
        worst_db: finite(sorted[0]),
        // of an even number the lower one: never better than it was
        median_db: finite(sorted[(sorted.len() - 1) / 2]),
        psnr_db,
        largest: pairs.iter().map(|p| p.largest).fold(0.0, f64::max),
        differing: pairs.iter().map(|p| p.differing).sum::<u64>() as f64 / elements.max(1) as f64,
    })
}
