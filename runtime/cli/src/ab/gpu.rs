//! What the driver tells of the GPUs of a graph while a run goes on.

use super::plan::{Plan, PlanNode};
use millrace_cuda::nvml::{self, Monitor, Use};
use std::collections::BTreeSet;

/// One look at all devices of a graph: shares are means, memory is a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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

/// The devices that a graph's nodes work on, as far as the driver tells of them.
#[derive(Debug, Default)]
pub(super) struct Probe(Vec<Monitor>);

impl Probe {
    /// Empty for a graph without a GPU; what is missing for it to have one, its nodes say.
    pub(super) fn of(plan: &Plan) -> Self {
        let monitors = devices(plan).into_iter().filter_map(|ordinal| Monitor::open(ordinal).ok());
        Self(monitors.collect())
    }

    /// The names of the devices, and the driver's version.
    pub(super) fn names(&self) -> Option<(String, String)> {
        let names: Vec<String> = self.0.iter().filter_map(Monitor::name).collect();
        (!names.is_empty()).then(|| (names.join(", "), nvml::driver_version().unwrap_or_default()))
    }

    /// Looks now; nothing where there is no device.
    pub(super) fn sample(&self) -> Option<Sample> {
        let looks: Vec<_> = self.0.iter().map(Monitor::look).collect();
        let mean = |of: fn(&Use) -> Option<u32>| {
            let all: Vec<f64> = looks.iter().filter_map(of).map(f64::from).collect();
            (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
        };
        let memory: Vec<u64> = looks.iter().filter_map(|look| look.memory_bytes).collect();
        (!looks.is_empty()).then(|| Sample {
            gpu_percent: mean(|look| look.gpu_percent),
            memory_percent: mean(|look| look.memory_percent),
            nvdec_percent: mean(|look| look.nvdec_percent),
            memory_mib: (!memory.is_empty()).then(|| memory.iter().sum::<u64>() as f64 / f64::from(1 << 20)),
        })
    }
}

/// The numbers of the devices that nodes name. A detector that could work on a GPU and does not has a PROVIDER that says so.
fn devices(plan: &Plan) -> BTreeSet<u32> {
    let on_gpu = |node: &&PlanNode| node.settings.get("PROVIDER").is_none_or(|provider| provider != "cpu");
    plan.nodes.iter().filter(on_gpu).filter_map(|node| node.settings.get("DEVICE")?.parse().ok()).collect()
}
