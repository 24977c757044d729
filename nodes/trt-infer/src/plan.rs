//! From a model file to an engine: taken from the cache, or built.

use crate::cache;
use md5::{Digest, Md5};
use millrace_cuda::tensorrt::{OpenInput, Plan, Progress, Tensor, Tensorrt};
use millrace_cuda::{Gpu, driver_version};
use millrace_infer::EngineError;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// The input that the model's description promises.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) shape: [i64; 4],
    /// How many go through the model together at most.
    pub(crate) batch: i64,
}

/// All that an engine depends on, a line each.
pub(crate) fn key(model: &[u8], wanted: &Wanted, tensorrt: &Tensorrt, gpu: &Gpu) -> Result<String, EngineError> {
    let (major, minor) = gpu.compute_capability().map_err(EngineError::setup)?;
    let cuda = driver_version().map_err(EngineError::setup)?;
    // the line with the version; where there is none, in some containers, CUDA's tells most of it
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let uuid: String = gpu.uuid().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "model: {} B, md5 {:x}\ninput: {wanted:?}\nlibrary: {}, build {}\ngpu: {}, {uuid}, {major}.{minor}\ndriver: CUDA {cuda}, {}\n",
        model.len(),
        Md5::digest(model),
        tensorrt.version(),
        tensorrt.build_number(),
        gpu.name(),
        driver.lines().next().unwrap_or_default()
    ))
}

/// The extents of the input from 1 frame to the batch, where the model leaves some open.
fn extents(tensors: &[Tensor], wanted: &Wanted) -> Result<Option<[Vec<i64>; 2]>, String> {
    let inputs: Vec<&Tensor> = tensors.iter().filter(|t| t.is_input).collect();
    let names = || inputs.iter().map(|t| format!("'{}'", t.name)).collect::<Vec<_>>().join(", ");
    let Some(input) = inputs.iter().find(|t| t.name == wanted.name) else {
        return Err(format!("it has no input '{}'; it has {}", wanted.name, names()));
    };
    if inputs.len() > 1 {
        return Err(format!("it takes {}; a detector takes one tensor, so export it with that input only", names()));
    }
    let fits =
        input.dims.len() == 4 && input.dims.iter().zip(&wanted.shape).all(|(&has, want)| has < 0 || has == *want);
    if !fits {
        let (name, dims, shape) = (&input.name, &input.dims, wanted.shape);
        return Err(format!("its input '{name}' has shape {dims:?}, 'input' of the description says {shape:?}"));
    }
    let least = wanted.shape.to_vec();
    let mut most = least.clone();
    if input.dims[0] < 0 {
        most[0] = wanted.batch;
    }
    Ok(input.dims.iter().any(|&d| d < 0).then_some([least, most]))
}

/// Builds an engine of the model, and says every ten seconds how far it has come.
pub(crate) fn build(tensorrt: &Tensorrt, model: &[u8], file: &Path, wanted: &Wanted) -> Result<Plan, EngineError> {
    let begun = Instant::now();
    let network = tensorrt.parse(model, file).map_err(|e| EngineError::load(file, e))?;
    let open = extents(&network.tensors(), wanted).map_err(|why| EngineError::load(file, why))?;
    let open = open.as_ref().map(|[least, most]| OpenInput { name: &wanted.name, least, most });
    let shown = file.display();
    tracing::info!("{} builds an engine of '{shown}': this takes from seconds to minutes, once", tensorrt.version());
    let told = Mutex::new(begun);
    let report = |progress: Progress<'_>| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Progress::Step { phase, step }, true) = (progress, told.elapsed() >= BETWEEN_LINES) {
            *told = Instant::now();
            tracing::info!("still building, {} s: '{phase}', step {step}", begun.elapsed().as_secs());
        }
    };
    let plan = network.build(open.as_slice(), &report).map_err(|e| EngineError::load(file, e))?;
    tracing::info!("built in {:.1} s: {} B", begun.elapsed().as_secs_f64(), plan.bytes().len());
    Ok(plan)
}

/// The engine that the cache has for `key` if `load` takes it, else what `build` makes; that is kept.
pub(crate) fn cached<L, P: AsRef<[u8]>>(
    folder: &Path,
    key: &str,
    load: impl Fn(&[u8]) -> Result<L, EngineError>,
    build: impl FnOnce() -> Result<P, EngineError>,
) -> Result<L, EngineError> {
    let file = cache::file_of(folder, key);
    let kept =
        cache::read(folder, key).and_then(|kept| kept.map(|kept| load(&kept).map_err(|e| e.to_string())).transpose());
    match kept {
        Ok(Some(loaded)) => {
            tracing::info!("the engine was built before: '{}'", file.display());
            return Ok(loaded);
        }
        Ok(None) => {}
        Err(why) => tracing::warn!("'{}' is not used, and built anew: {why}", file.display()),
    }
    let plan = build()?;
    let loaded = load(plan.as_ref())?;
    match cache::write(folder, key, plan.as_ref()) {
        Ok(file) => tracing::info!("kept as '{}'", file.display()),
        // the node works all the same, and builds again at its next start
        Err(e) => {
            tracing::warn!("'{}' cannot be kept: {e}; set ENGINE_CACHE to a folder that can be written", file.display())
        }
    }
    Ok(loaded)
}
