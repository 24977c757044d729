//! `millrace-stages`: the process of nodes that share one, which their setting `PROCESS` names.
#![forbid(unsafe_code)]

use millrace_node::Stage;

static STAGES: [Stage; 6] = [
    sw_nv12::stage(),
    nvdec_nv12::stage(),
    nv12_to_rgb::stage(),
    cpu_infer::stage(),
    ort_infer::stage(),
    trt_infer::stage(),
];

fn main() -> std::process::ExitCode {
    trt_infer::building().unwrap_or_else(|| millrace_node::host(&STAGES))
}
