//! From a model file to an engine: taken from the cache, or built.

use crate::cache;
use crate::config::{Precision, Settings, Tactic};
use md5::{Digest, Md5};
use millrace_cuda::tensorrt::{BuildOptions, OpenInput, Plan, Progress, Tensor, Tensorrt};
use millrace_cuda::{Gpu, driver_version};
use millrace_detect::Model;
use millrace_infer::EngineError;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// What TensorRT 8 is left where nothing is set: it would else ask for cuBLAS and cuDNN.
const WITHOUT_LIBRARIES: [Tactic; 2] = [Tactic::EdgeMaskConvolutions, Tactic::JitConvolutions];

/// What is to be built: the input that the model's description promises, and how.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) shape: [i64; 4],
    /// How many go through the model together at most.
    pub(crate) batch: i64,
    pub(crate) precision: Precision,
    pub(crate) tf32: bool,
    pub(crate) level: Option<u32>,
    pub(crate) tactics: Vec<Tactic>,
}

impl Wanted {
    /// The description has been read before; a model file does not say which extents an axis that it leaves open will have.
    fn of(settings: &Settings, model: Model, library: &Tensorrt) -> Self {
        let tactics = match &settings.tactics[..] {
            [] if library.version().major == 8 => WITHOUT_LIBRARIES.to_vec(),
            set => set.to_vec(),
        };
        Self {
            shape: model.input.shape().map(i64::from),
            name: model.input.name,
            batch: i64::from(settings.batch.max(1)),
            precision: settings.precision,
            tf32: settings.tf32,
            level: settings.build_level,
            tactics,
        }
    }
}

/// The profiles of an engine: one that is fastest at the full batch and computes smaller ones without padding, and where it is
/// asked for one for a frame alone.
fn batches(settings: &Settings) -> Vec<[usize; 2]> {
    match settings.batch as usize {
        0 | 1 => vec![[1, 1]],
        most if settings.profile_for_one => vec![[2, most], [1, 1]],
        most => vec![[1, most]],
    }
}

/// A library, a GPU, a model, and what is to be made of them.
pub(crate) struct Build {
    pub(crate) library: Tensorrt,
    pub(crate) gpu: Gpu,
    pub(crate) file: PathBuf,
    pub(crate) model: Vec<u8>,
    pub(crate) wanted: Wanted,
    /// The least and the most frames that go through the model together, for each profile: the engine has kernels for each.
    pub(crate) batches: Vec<[usize; 2]>,
    pub(crate) folder: PathBuf,
}

impl Build {
    pub(crate) fn of(settings: &Settings) -> Result<Self, EngineError> {
        let library = Tensorrt::open(settings.library.as_deref()).map_err(EngineError::setup)?;
        let gpu = Gpu::open(settings.device).map_err(EngineError::setup)?;
        let described = Model::load(&settings.common.model).map_err(EngineError::setup)?;
        let file = described.file().map_err(EngineError::setup)?.to_owned();
        let model = std::fs::read(&file).map_err(|e| EngineError::load(&file, e))?;
        let wanted = Wanted::of(settings, described, &library);
        let (batches, folder) = (batches(settings), settings.engine_cache()?);
        Ok(Self { library, gpu, file, model, wanted, batches, folder })
    }

    /// The library, the GPU and its driver, a line each: what timings depend on.
    fn machine(&self) -> Result<String, EngineError> {
        let (library, gpu) = (&self.library, &self.gpu);
        let (major, minor) = gpu.compute_capability().map_err(EngineError::setup)?;
        let cuda = driver_version().map_err(EngineError::setup)?;
        // the line with the version; where there is none, in some containers, CUDA's says most of it
        let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
        let uuid: String = gpu.uuid().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!(
            "library: {}, build {}\ngpu: {}, {uuid}, {major}.{minor}\ndriver: CUDA {cuda}, {}\n",
            library.version(),
            library.build_number(),
            gpu.name(),
            driver.lines().next().unwrap_or_default()
        ))
    }

    /// All that an engine depends on, a line each.
    pub(crate) fn key(&self) -> Result<String, EngineError> {
        Ok(format!("{}\nbuild: {:?}\n{}{}", self.model_line(), self.wanted, self.profiles_line(), self.machine()?))
    }

    /// What engines have in common that can serve in each other's place.
    pub(crate) fn kin(&self) -> Result<String, EngineError> {
        let Wanted { name, shape, batch, .. } = &self.wanted;
        let input = format!("input: {name} {shape:?}, batch: {batch}");
        Ok(format!("{}\n{input}\n{}{}", self.model_line(), self.profiles_line(), self.machine()?))
    }

    fn model_line(&self) -> String {
        let (bytes, md5) = (self.model.len(), Md5::digest(&self.model));
        format!("model: {bytes} B, md5 {md5:x}")
    }

    /// One profile is what an engine has where nothing is said.
    fn profiles_line(&self) -> String {
        if self.batches.len() > 1 { format!("profiles: {:?}\n", self.batches) } else { String::new() }
    }

    /// Builds the engine in this process, with the timings that earlier builds have measured.
    pub(crate) fn plan(&self) -> Result<Vec<u8>, EngineError> {
        // TensorRT measures on the GPU that is current on this thread
        self.gpu.enter().map_err(EngineError::setup)?;
        let key = format!("timings\n{}", self.machine()?);
        let known = cache::read(&self.folder, &key).ok().flatten().unwrap_or_default();
        let plan = build(&self.library, &self.model, &self.file, (&self.wanted, &self.batches), &known)?;
        // where they cannot be kept, neither can the engine, and that is said
        let _ = cache::write(&self.folder, &key, plan.timings());
        Ok(plan.bytes().to_vec())
    }
}

/// The least and the most extents of the input for each profile; none where the model leaves nothing open.
fn extents(tensors: &[Tensor], wanted: &Wanted, batches: &[[usize; 2]]) -> Result<Vec<[Vec<i64>; 2]>, String> {
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
    let [_, rest @ ..] = wanted.shape;
    let of = |frames: usize| [&[frames as i64], &rest[..]].concat();
    Ok(match input.dims[..] {
        [..0, ..] => batches.iter().map(|&[least, most]| [of(least), of(most)]).collect(),
        [_, ref rest @ ..] if rest.iter().any(|&axis| axis < 0) => vec![[of(1), of(1)]],
        _ => Vec::new(),
    })
}

/// Builds an engine of the model, and says every ten seconds how far it has come.
pub(crate) fn build(
    tensorrt: &Tensorrt,
    model: &[u8],
    file: &Path,
    (wanted, batches): (&Wanted, &[[usize; 2]]),
    timings: &[u8],
) -> Result<Plan, EngineError> {
    let begun = Instant::now();
    let tactics: Vec<&str> = wanted.tactics.iter().map(|tactic| tactic.name()).collect();
    let shown = file.display();
    tracing::info!("{} builds an engine of '{shown}': this takes from seconds to minutes, once", tensorrt.version());
    let phase = Mutex::new(String::new());
    let report = |progress: Progress<'_>| {
        if let Progress::Step { phase: name, step } = progress {
            *phase.lock().unwrap_or_else(PoisonError::into_inner) = format!(": '{name}', step {step}");
        }
    };
    let plan = || {
        let network = tensorrt.parse(model, file).map_err(|e| EngineError::load(file, e))?;
        let extents = extents(&network.tensors(), wanted, batches).map_err(|why| EngineError::load(file, why))?;
        let profiles = extents.iter().map(|[least, most]| OpenInput { name: &wanted.name, least, most });
        let profiles: Vec<OpenInput<'_>> = profiles.collect();
        let options = BuildOptions {
            profiles: &profiles,
            f16: wanted.precision == Precision::F16,
            exact: !wanted.tf32,
            level: wanted.level,
            tactics: Some(&tactics[..]).filter(|tactics| !tactics.is_empty()),
            timings,
        };
        network.build(&options, &report).map_err(|e| EngineError::load(file, e))
    };
    let plan = std::thread::scope(|scope| {
        let (built, wait) = channel::<()>();
        let (phase, begun) = (&phase, &begun);
        scope.spawn(move || {
            // until the build drops its end
            while wait.recv_timeout(BETWEEN_LINES) == Err(RecvTimeoutError::Timeout) {
                let phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
                tracing::info!("still building, {} s{phase}", begun.elapsed().as_secs());
            }
        });
        let plan = plan();
        drop(built);
        plan
    })?;
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
