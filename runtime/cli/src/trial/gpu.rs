//! What the driver tells of the GPUs of a graph while a run goes on.

use super::plan::{Plan, PlanNode};
use millrace_cuda::nvml::{self, Monitor, Use};
use millrace_graph::check::CheckedNode;
use std::collections::BTreeSet;

/// One look at all devices of a graph: shares are means, memory is a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Share of the time in which a kernel ran, in percent.
    pub(crate) gpu_percent: Option<f64>,
    /// Share of the time in which its memory was read or written, in percent.
    pub(crate) memory_percent: Option<f64>,
    /// Use of the decoder engines, in percent.
    pub(crate) nvdec_percent: Option<f64>,
    /// Memory in use, in MiB.
    pub(crate) memory_mib: Option<f64>,
}

/// The devices that a graph's nodes work on, as far as the driver tells of them, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Probe(Vec<(u32, Monitor)>);

impl Probe {
    /// Empty for a graph without a GPU; what is missing for it to have one, its nodes say.
    pub(crate) fn of(plan: &Plan) -> Self {
        let named = |node: &PlanNode| device(|key| node.settings.get(key).map(String::as_str));
        Self::open(plan.nodes.iter().filter_map(named))
    }

    /// The same for a graph that was checked.
    pub(crate) fn of_checked(nodes: &[CheckedNode]) -> Self {
        let value = |node: &CheckedNode, key: &str| {
            let setting = node.settings.iter().find(|setting| setting.described && setting.key == key);
            setting.and_then(|setting| setting.value.clone())
        };
        let named = |node: &CheckedNode| {
            let (number, provider) = (value(node, "DEVICE"), value(node, "PROVIDER"));
            device(|key| if key == "DEVICE" { number.as_deref() } else { provider.as_deref() })
        };
        Self::open(nodes.iter().filter_map(named))
    }

    fn open(numbers: impl Iterator<Item = u32>) -> Self {
        let numbers: BTreeSet<u32> = numbers.collect();
        let monitor = |number: u32| Some((number, Monitor::open(number).ok()?));
        Self(numbers.into_iter().filter_map(monitor).collect())
    }

    /// The names of the devices, and the driver's version.
    pub(crate) fn names(&self) -> Option<(String, String)> {
        let names: Vec<String> = self.0.iter().filter_map(|(_, monitor)| monitor.name()).collect();
        (!names.is_empty()).then(|| (names.join(", "), nvml::driver_version().unwrap_or_default()))
    }

    /// Looks at each device now.
    pub(crate) fn looks(&self) -> Vec<(u32, Use)> {
        self.0.iter().map(|(number, monitor)| (*number, monitor.look())).collect()
    }

    /// Looks at all of them now; nothing where there is no device.
    pub(crate) fn sample(&self) -> Option<Sample> {
        let looks = self.looks();
        let mean = |of: fn(&Use) -> Option<u32>| {
            let all: Vec<f64> = looks.iter().filter_map(|(_, look)| of(look)).map(f64::from).collect();
            (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
        };
        let memory: Vec<u64> = looks.iter().filter_map(|(_, look)| look.memory_bytes).collect();
        (!looks.is_empty()).then(|| Sample {
            gpu_percent: mean(|look| look.gpu_percent),
            memory_percent: mean(|look| look.memory_percent),
            nvdec_percent: mean(|look| look.nvdec_percent),
            memory_mib: (!memory.is_empty()).then(|| memory.iter().sum::<u64>() as f64 / f64::from(1 << 20)),
        })
    }
}

/// The number of the device that a node works on, by its settings. A detector that could work on a GPU and does not has a
/// PROVIDER that says so.
fn device<'a>(setting: impl Fn(&str) -> Option<&'a str>) -> Option<u32> {
    let on_gpu = setting("PROVIDER").is_none_or(|provider| provider != "cpu");
    on_gpu.then(|| setting("DEVICE")?.parse().ok()).flatten()
}
