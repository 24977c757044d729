//! Axes of plots.

/// Maps figures to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) start_px: f64,
    pub(super) end_px: f64,
}

impl Scale {
    /// An axis that has room for all values, and a little more.
    pub(super) fn around(values: impl Iterator<Item = f64>, start_px: f64, end_px: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.filter(|v| v.is_finite()) {
            low = low.min(v);
            high = high.max(v);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let room = ((high - low) * 0.08).max(high.abs().max(1e-9) * 1e-3);
        Self { from: low - room, to: high + room, start_px, end_px }
    }

    pub(super) fn pixel(&self, v: f64) -> f64 {
        let share = ((v - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        self.start_px + share * (self.end_px - self.start_px)
    }

    /// Round figures on the axis, three to six of them.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let raw = (self.to - self.from) / 4.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(raw);
        let first = (self.from / step).ceil();
        // the count is bounded whatever the figures: a step that is lost in rounding would never arrive
        (0..8).map(|i| (first + f64::from(i)) * step).take_while(|v| *v <= self.to).collect()
    }

    /// A tick's text, with as many digits as tell it from its neighbour.
    pub(super) fn label(&self, v: f64) -> String {
        let step = (self.to - self.from) / 4.0;
        let digits = (-step.log10().floor()).clamp(0.0, 4.0) as usize;
        format!("{v:.digits$}")
    }
}
