//! Which driver is on trial: the real one where `MILLRACE_GPU=1` asks for it, which fails where there is none; and else
//! the stand-in, in a child process that [`on_the_stand_in`] starts.
#![allow(dead_code, reason = "each test binary uses a part")]

use millrace_cuda::Gpu;
use millrace_cuda_driver_folder::on_trial;
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The GPU, in a process where one is on trial.
pub(crate) fn gpu() -> Option<Gpu> {
    on_trial().then(|| Gpu::open(0).unwrap_or_else(|e| panic!("a GPU was asked for: {e}")))
}

/// Runs the tests of `mod suite` of this binary in a process whose driver is the stand-in, with `settings`.
pub(crate) fn on_the_stand_in(settings: &[(&str, &str)]) {
    millrace_cuda_driver_folder::run_on_the_stand_in("suite::", settings);
}

/// Bytes that depend on their place and on a seed.
pub(crate) fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    (0..bytes as u64).map(|i| ((i ^ seed.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
