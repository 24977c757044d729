//! Names, units and directions of the metrics.

use crate::model::Metric;

impl Metric {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 13] = [
        Self::Fps,
        Self::LatencyP50Ms,
        Self::LatencyP95Ms,
        Self::LatencyP99Ms,
        Self::CpuMsPerFrame,
        Self::CpuPercentPerCamera,
        Self::MemoryMib,
        Self::GpuMemoryMib,
        Self::GpuPercent,
        Self::GpuMemoryBusyPercent,
        Self::NvdecPercent,
        Self::MovedMbPerFrame,
        Self::DroppedPercent,
    ];

    /// The name in requirements.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fps => "fps",
            Self::LatencyP50Ms => "latency_p50",
            Self::LatencyP95Ms => "latency_p95",
            Self::LatencyP99Ms => "latency_p99",
            Self::CpuMsPerFrame => "cpu",
            Self::CpuPercentPerCamera => "cpu_camera",
            Self::MemoryMib => "memory",
            Self::GpuMemoryMib => "gpu_memory",
            Self::GpuPercent => "gpu",
            Self::GpuMemoryBusyPercent => "gpu_memory_busy",
            Self::NvdecPercent => "nvdec",
            Self::MovedMbPerFrame => "moved",
            Self::DroppedPercent => "drops",
        }
    }

    /// What a table calls it, with its unit.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Fps => "frames a second",
            Self::LatencyP50Ms => "latency p50, ms",
            Self::LatencyP95Ms => "latency p95, ms",
            Self::LatencyP99Ms => "latency p99, ms",
            Self::CpuMsPerFrame => "CPU a frame, ms",
            Self::CpuPercentPerCamera => "CPU a camera, % of a core",
            Self::MemoryMib => "memory, MiB",
            Self::GpuMemoryMib => "GPU memory, MiB",
            Self::GpuPercent => "GPU busy, %",
            Self::GpuMemoryBusyPercent => "GPU memory busy, %",
            Self::NvdecPercent => "NVDEC, %",
            Self::MovedMbPerFrame => "moved by our code, MB a frame",
            Self::DroppedPercent => "lost, %",
        }
    }

    /// More of it is better; of all others less is.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        self == Self::Fps
    }

    /// A share that may be 0, which is compared by difference.
    #[must_use]
    pub fn by_difference(self) -> bool {
        matches!(self, Self::GpuPercent | Self::GpuMemoryBusyPercent | Self::NvdecPercent | Self::DroppedPercent)
    }
}
