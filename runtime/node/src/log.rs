//! Log lines to standard error, where dora collects them. Without a subscriber dora's own warnings would vanish.

use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// Puts another filter into the subscriber, and says why where it cannot.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Installs the subscriber: `RUST_LOG` decides, and otherwise `level` for Millrace and warnings for everything else.
pub fn install(level: &str) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&asked().unwrap_or_else(|| ours(level))))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_filter_reloading();
    let handle = builder.reload_handle();
    if builder.try_init().is_ok() {
        // the one subscriber of the process has the one handle
        let _ = RELOAD.set(Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())));
    }
}

/// Another level, while the node runs.
pub(crate) fn change(level: &str) -> Result<(), String> {
    if asked().is_some() {
        return Err("RUST_LOG is set for this node and decides instead".to_owned());
    }
    RELOAD.get().map_or(Ok(()), |reload| reload(filter(&ours(level))))
}

fn asked() -> Option<String> {
    std::env::var("RUST_LOG").ok().filter(|v| !v.is_empty())
}

fn filter(text: &str) -> EnvFilter {
    EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new("warn"))
}

fn ours(level: &str) -> String {
    const CRATES: [&str; 21] = [
        "millrace_node",
        "millrace_pool",
        "millrace_cuda",
        "millrace_ingest",
        "millrace_cameras",
        "millrace_detect",
        "millrace_infer",
        "millrace_kernels",
        "sw_nv12",
        "nvdec_nv12",
        "nv12_to_rgb",
        "cpu_infer",
        "ort_infer",
        "trt_infer",
        "ws_publisher",
        "zenoh_publisher",
        "jsonl_writer",
        "frame_checksum",
        "ab_sink",
        "tensor_compare",
        "frame_picture",
    ];
    format!("warn,{}", CRATES.map(|name| format!("{name}={level}")).join(","))
}
