//! What the driver tells of the GPU while a run goes on.

/// One look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Share of the time in which a kernel ran, in percent.
    pub(super) gpu_percent: Option<f64>,
    /// Share of the time in which its memory was read or written, in percent.
    pub(super) memory_percent: Option<f64>,
    /// Use of the decoder engines, in percent.
    pub(super) nvdec_percent: Option<f64>,
    /// Memory in use, in MiB.
    pub(super) memory_mib: Option<f64>,
}

/// Who is asked.
pub(super) trait Probe {
    /// Looks now; nothing where the driver does not tell.
    fn sample(&mut self) -> Option<Sample>;
}

/// The probe of this machine, where it has a GPU.
pub(super) fn probe() -> Option<Box<dyn Probe>> {
    None
}
