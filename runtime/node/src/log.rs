//! Log lines to standard error, where dora collects them. Without a subscriber dora's own warnings would vanish.

use tracing_subscriber::EnvFilter;

/// Installs the subscriber: `RUST_LOG` decides, and otherwise `level` for Millrace and warnings for everything else.
pub(crate) fn install(level: &str) {
    let filter = std::env::var("RUST_LOG").ok().filter(|v| !v.is_empty());
    let filter = filter.unwrap_or_else(|| format!("warn,{}", ours(level)));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .try_init();
}

fn ours(level: &str) -> String {
    const CRATES: [&str; 14] = [
        "millrace_node",
        "millrace_pool",
        "millrace_ingest",
        "millrace_detect",
        "millrace_infer",
        "millrace_kernels",
        "sw_nv12",
        "nv12_to_rgb",
        "cpu_infer",
        "ort_infer",
        "ws_publisher",
        "zenoh_publisher",
        "jsonl_writer",
        "frame_checksum",
    ];
    CRATES.map(|name| format!("{name}={level}")).join(",")
}
