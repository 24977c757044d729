//! The figures that requirements are held against.

use crate::analysis::Analysis;
use crate::stats::Comparison;
use std::fmt;

/// A figure and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) interval: Option<(f64, f64)>,
    pub(super) ratio: bool,
}

impl Measured {
    /// The ratio B/A, or B's own figure.
    pub(super) fn of(c: &Comparison, ratio: bool) -> Option<Self> {
        if !ratio {
            let interval = c.b_interval.map(|i| (i.low, i.high));
            return Some(Self { value: c.b, interval, ratio });
        }
        if !c.by_difference {
            return Some(Self { value: c.change, interval: c.interval_99.map(|i| (i.low, i.high)), ratio });
        }
        // a share has a ratio only where A's is not 0; A's mean is taken as it is
        let interval = c.interval_99.map(|i| (1.0 + i.low / c.a, 1.0 + i.high / c.a));
        (c.a > 0.0).then_some(Self { value: c.b / c.a, interval, ratio })
    }

    /// A figure that was counted, not sampled.
    fn exact(value: f64) -> Self {
        Self { value, interval: Some((value, value)), ratio: false }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |v: f64| {
            let figure = format!("{v:.3}");
            // counted figures are whole; those of an interval keep their digits
            let figure = if v.fract() == 0.0 && !self.ratio { format!("{v}") } else { figure };
            if self.ratio { figure + "x" } else { figure }
        };
        f.write_str(&text(self.value))?;
        match self.interval {
            None => f.write_str(", no interval"),
            Some((low, high)) if low == high => Ok(()),
            Some((low, high)) => write!(f, " ({} to {})", text(low), text(high)),
        }
    }
}

/// A figure of the quality comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quality {
    Psnr,
    LargestDifference,
    Map,
    Map5095,
    MapDrop,
    MapAgainstA,
    BoxesGained,
    BoxesLost,
    AllGained,
    AllLost,
}

impl Quality {
    pub(super) const ALL: [Self; 10] = [
        Self::Psnr,
        Self::LargestDifference,
        Self::Map,
        Self::Map5095,
        Self::MapDrop,
        Self::MapAgainstA,
        Self::BoxesGained,
        Self::BoxesLost,
        Self::AllGained,
        Self::AllLost,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Psnr => "psnr",
            Self::LargestDifference => "largest_difference",
            Self::Map => "map",
            Self::Map5095 => "map_50_95",
            Self::MapDrop => "map_drop",
            Self::MapAgainstA => "map_against_a",
            Self::BoxesGained => "boxes_gained",
            Self::BoxesLost => "boxes_lost",
            Self::AllGained => "all_boxes_gained",
            Self::AllLost => "all_boxes_lost",
        }
    }

    pub(super) fn of(self, analysis: &Analysis) -> Option<Measured> {
        let (tensors, found) = (analysis.tensors.as_ref(), analysis.detections.as_ref());
        let value = match self {
            Self::Psnr => tensors?.worst_db.unwrap_or(f64::INFINITY),
            Self::LargestDifference => tensors?.largest,
            Self::Map => found?.b_against_truth?.map_50 * 100.0,
            Self::Map5095 => found?.b_against_truth?.map_50_95 * 100.0,
            Self::MapDrop => found?.map_drop()?,
            Self::MapAgainstA => found?.b_against_a?.map_50 * 100.0,
            Self::BoxesGained => found?.gained_clear as f64,
            Self::BoxesLost => found?.lost_clear as f64,
            Self::AllGained => found?.gained as f64,
            Self::AllLost => found?.lost as f64,
        };
        Some(Measured::exact(value))
    }
}
