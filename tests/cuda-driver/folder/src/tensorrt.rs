//! Where tests find the stand-in for TensorRT, which the machine's C++ compiler makes of `tensorrt.cpp`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A `libnvinfer.so.8` with the ONNX parser beside it, for processes whose driver is the stand-in. `None` where there is no C++
/// compiler: the test is skipped.
///
/// # Panics
/// When it cannot be made.
pub fn tensorrt() -> Option<PathBuf> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        if Command::new("c++").arg("--version").output().is_err() {
            millrace_needs::skip_without("compiler", "no c++ makes the stand-in for TensorRT");
            return None;
        }
        Some(make(&crate::target_folder().join("tensorrt-stand-in")))
    });
    library.clone()
}

/// Other tests may do the same at this moment.
fn make(folder: &Path) -> PathBuf {
    let (library, parser) = (folder.join("libnvinfer.so.8"), folder.join("libnvonnxparser.so.8"));
    std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tensorrt.cpp");
    let own = folder.join(format!("{}.so", std::process::id()));
    let made = Command::new("c++").args(["-std=c++17", "-shared", "-fPIC", "-O1", "-o"]).args([&own, &source]).output();
    let made = made.unwrap_or_else(|e| panic!("c++ does not start: {e}"));
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "the stand-in for TensorRT is not made: {said}");
    let copied = std::fs::copy(&own, own.with_extension("parser")).and_then(|_| {
        std::fs::rename(own.with_extension("parser"), &parser)?;
        std::fs::rename(&own, &library)
    });
    copied.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    library
}
