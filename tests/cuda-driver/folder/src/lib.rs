//! Where tests find the stand-ins for the CUDA driver and for TensorRT.
//!
//! Cargo does not promise to build the dynamic library of a dev-dependency, so this asks it to.

mod tensorrt;

pub use tensorrt::tensorrt;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names a folder that holds a stand-in which was built before: for machines without cargo.
pub const PREBUILT: &str = "MILLRACE_FAKE_CUDA_FOLDER";

/// A folder with the stand-in as `libcuda.so.1`, for `LD_LIBRARY_PATH` of a child process. Built when first asked for.
///
/// # Panics
/// When it cannot be built: a test that asked for it has to fail.
pub fn folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(find_or_build).clone()
}

/// Set in a process whose driver is the stand-in.
pub const STAND_IN: &str = "MILLRACE_ON_THE_STAND_IN";

/// Whether tests that need a driver are to run in this process: it was asked for a GPU (`MILLRACE_GPU=1`; a test that then
/// finds none fails), or its driver is the stand-in.
pub fn on_trial() -> bool {
    std::env::var_os("MILLRACE_GPU").is_some() || std::env::var_os(STAND_IN).is_some()
}

/// Runs the tests of this binary whose names contain `filter` in a process whose driver is the stand-in, with `settings` of
/// the stand-in's. Nothing where a driver is [on trial](on_trial) already: they run beside the caller then.
///
/// # Panics
/// When one of them fails, or there is none.
pub fn run_on_the_stand_in(filter: &str, settings: &[(&str, &str)]) {
    if on_trial() {
        return;
    }
    let exe = std::env::current_exe().unwrap_or_else(|e| panic!("this test does not know its own file: {e}"));
    let mut run = Command::new(exe);
    run.args([filter, "--nocapture"]).env("LD_LIBRARY_PATH", folder()).env(STAND_IN, "1");
    let output = run.envs(settings.iter().copied()).output();
    let output = output.unwrap_or_else(|e| panic!("this test cannot start itself: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "on the stand-in: {}\n{out}\n{err}", output.status);
    assert!(!out.contains("running 0 tests"), "nothing ran: {out}");
}

fn find_or_build() -> PathBuf {
    if let Some(folder) = std::env::var_os(PREBUILT).map(PathBuf::from) {
        let library = folder.join("libcuda.so.1");
        assert!(library.is_file(), "{PREBUILT} says {}, which has no libcuda.so.1", folder.display());
        return folder;
    }
    let target = target_folder();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    // cargo names itself to the tests that it runs; a test that was started by hand uses the one that built it
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--locked", "--lib", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .output();
    let built = built.unwrap_or_else(|e| panic!("cargo does not start, to build the stand-in for the driver: {e}"));
    assert!(
        built.status.success(),
        "the stand-in for the driver is not built: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    let folder = target.join("cuda-driver");
    link(&target.join("release/libcuda.so"), &folder);
    folder
}

/// Puts the library there under the name that the driver has. Other tests may do the same at this moment.
fn link(library: &Path, folder: &Path) {
    let place = folder.join("libcuda.so.1");
    std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    if std::fs::read_link(&place).is_ok_and(|known| known == library) {
        return;
    }
    let own = folder.join(format!("libcuda.so.1.{}", std::process::id()));
    let linked = std::os::unix::fs::symlink(library, &own).and_then(|()| std::fs::rename(&own, &place));
    linked.unwrap_or_else(|e| panic!("{}: {e}", place.display()));
}

/// The target folder that this test binary lies in: `TARGET/release/deps/name`.
fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_else(|e| panic!("this test does not know its own file: {e}"));
    let folder = exe.ancestors().find(|a| a.ends_with("release")).and_then(Path::parent);
    folder.unwrap_or_else(|| panic!("{} is not in a release folder of cargo's", exe.display())).to_owned()
}
