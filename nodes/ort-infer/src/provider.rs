//! Sessions on the provider that was asked for, and the reasons why there are none.

use crate::config::{Provider, Settings};
use crate::{device, library};
use millrace_cuda::{Gpu, Stream};
use millrace_detect::Model;
use millrace_infer::{EngineError, contained};
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;
use std::hash::Hasher;
use std::path::Path;

/// The build with the GPU's providers that the advice names.
const GPU_BUILD: &str = "onnxruntime-gpu==1.31.1";

/// The stream that a session of these settings works in: `None` on the CPU. Opens the library first, and says so where it
/// lacks the provider: a driver would not help then.
///
/// It is never destroyed: ONNX Runtime may use it for as long as anything of the session is left, and a node has few.
pub(crate) fn stream(settings: &Settings) -> Result<Option<&'static Stream>, EngineError> {
    library::environment(settings.library.as_deref())?;
    let available = match settings.provider {
        Provider::Cpu => return Ok(None),
        Provider::Cuda => contained("ONNX Runtime", ep::CUDA::is_available),
        Provider::Tensorrt => contained("ONNX Runtime", ep::TensorRT::is_available),
    };
    if !available.map_err(EngineError::setup)?.map_err(EngineError::setup)? {
        let text = "this library was built without it (not enabled in this build)";
        return Err(refusal(settings.provider, text));
    }
    let opened = Gpu::open(settings.device).and_then(|gpu| Stream::new(&gpu));
    // the driver's own error says what is missing and what brings it
    let stream = opened.map_err(|e| EngineError::setup(format!("PROVIDER={}: {e}", settings.provider.name())))?;
    Ok(Some(Box::leak(Box::new(stream))))
}

/// A session for `file`, whose work on a GPU goes to `stream`.
pub(crate) fn session(
    file: &Path,
    threads: usize,
    settings: &Settings,
    stream: Option<&'static Stream>,
) -> Result<Session, EngineError> {
    let environment = library::environment(settings.library.as_deref())?;
    let providers = match stream {
        Some(stream) => providers(file, settings, stream)?,
        None => Vec::new(),
    };
    let build = || {
        let mut builder = Session::builder(&environment)
            .and_then(|b| Ok(b.with_intra_threads(threads)?.with_intra_op_spinning(settings.spin)?))
            .and_then(|b| Ok(b.with_config_entry("session.record_ep_graph_assignment_info", "1")?))
            .map_err(EngineError::setup)?;
        if !providers.is_empty() {
            builder = builder
                .with_execution_providers(&providers)
                .map_err(|e| refusal(settings.provider, &library::with_what_was_said(&e.to_string())))?;
        }
        builder.commit_from_file(file).map_err(|e| {
            let text = library::with_what_was_said(&e.to_string());
            match cure(settings.provider, &text) {
                Some(_) if stream.is_some() => refusal(settings.provider, &text),
                _ => EngineError::load(file, e),
            }
        })
    };
    library::forget_what_was_said();
    let session = contained("ONNX Runtime", build).map_err(|cause| EngineError::load(file, cause))??;
    check_places(&session, settings.provider)?;
    Ok(session)
}

/// The providers to register, first the one that is asked first.
fn providers(
    file: &Path,
    settings: &Settings,
    stream: &'static Stream,
) -> Result<Vec<ExecutionProviderDispatch>, EngineError> {
    let ordinal = i32::try_from(settings.device).unwrap_or(i32::MAX);
    // where TensorRT is asked, it records
    let graph = settings.cuda_graph && settings.provider == Provider::Cuda;
    let cuda = ep::CUDA::default().with_device_id(ordinal).with_tf32(settings.tf32).with_cuda_graph(graph);
    let cuda = device::cuda_in(stream, cuda).build().error_on_failure();
    if settings.provider != Provider::Tensorrt {
        return Ok(vec![cuda]);
    }
    let cache = engine_folder(file, settings)?;
    let mut tensorrt = ep::TensorRT::default()
        .with_device_id(ordinal)
        .with_engine_cache(true)
        .with_engine_cache_path(&cache)
        .with_timing_cache(true)
        .with_timing_cache_path(&cache)
        .with_cuda_graph(settings.cuda_graph);
    let most = settings.most(false);
    if most > 1 {
        // or else it builds another engine at each number of frames that it has not seen
        let model = Model::load(&settings.common.model).map_err(EngineError::setup)?;
        let [_, a, b, c] = model.input.shape();
        let shape = |frames: u32| format!("{}:{frames}x{a}x{b}x{c}", model.input.name);
        tensorrt = tensorrt
            .with_profile_min_shapes(shape(1))
            .with_profile_opt_shapes(shape(most))
            .with_profile_max_shapes(shape(most));
    }
    let tensorrt = device::tensorrt_in(stream, tensorrt).build().error_on_failure();
    Ok(vec![tensorrt, cuda])
}

/// The folder of what TensorRT builds of this model file. TensorRT's provider names its files by the model's path and node
/// names, so another model under the same name would find the engine of the old one: hence a folder for each content.
fn engine_folder(file: &Path, settings: &Settings) -> Result<String, EngineError> {
    let bytes = std::fs::read(file).map_err(|e| EngineError::load(file, e))?;
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(&bytes);
    let folder = settings.engine_cache()?.join(format!("{:016x}", hasher.finish()));
    std::fs::create_dir_all(&folder).map_err(|e| {
        EngineError::setup(format!("the folder '{}' for TensorRT's engines (ENGINE_CACHE): {e}", folder.display()))
    })?;
    Ok(folder.display().to_string())
}

/// Refuses a session none of whose nodes run on the provider that was asked, and says where they run.
fn check_places(session: &Session, asked: Provider) -> Result<(), EngineError> {
    let places = device::places(session).map_err(EngineError::setup)?;
    let count = |name: &str| places.iter().filter(|(place, _)| place == name).map(|(_, n)| n).sum::<usize>();
    let shown = places.iter().map(|(name, n)| format!("{n} on {name}")).collect::<Vec<_>>().join(", ");
    let wanted = match asked {
        Provider::Cpu => return Ok(()),
        Provider::Cuda => ep::CUDA::NAME,
        Provider::Tensorrt => ep::TensorRT::NAME,
    };
    if count(wanted) == 0 {
        let text = format!("{wanted} took none of the model's nodes ({shown}): try another PROVIDER");
        return Err(refusal(asked, &text));
    }
    tracing::info!("nodes of the model: {shown}");
    if count(ep::CPU::NAME) > 0 {
        tracing::warn!("{} of the model's nodes run on the CPU, with copies from and to the GPU", count(ep::CPU::NAME));
    }
    Ok(())
}

/// The error of a provider that cannot be had: what ONNX Runtime says, and what to do about it.
fn refusal(provider: Provider, text: &str) -> EngineError {
    // without the place in ONNX Runtime's source, which stands in front of some
    let text = text.split_once("[ONNXRuntimeError] : ").map_or(text, |(_, text)| text).trim_end();
    let cure = cure(provider, text).unwrap_or_else(|| "PROVIDER=cpu computes without a GPU".to_owned());
    EngineError::setup(format!("PROVIDER={}: {text}; {cure}", provider.name()))
}

/// What a user can do about a provider's error, where it is a known one.
pub(crate) fn cure(provider: Provider, text: &str) -> Option<String> {
    if text.contains("not enabled in this build") {
        return Some(format!(
            "get the GPU's build with `pip install --target target/tools/onnxruntime-gpu --no-deps {GPU_BUILD}`, and set \
             LIBRARY to the libonnxruntime.so.1.… in its onnxruntime/capi"
        ));
    }
    // these two it opens itself, and tells without a file's name
    for (said, name, package) in [
        ("cuDNN library was not found", "libcudnn.so.9", "nvidia-cudnn-cu13"),
        ("cuFFT library was not found", "libcufft.so.12", "nvidia-cufft"),
    ] {
        if text.contains(said) {
            return Some(format!(
                "`pip install {package}` brings {name}; put the folder that it lies in into LD_LIBRARY_PATH"
            ));
        }
    }
    if let Some(missing) = missing_file(text) {
        let from = |packages: &str| {
            format!(
                "{missing} is not found by the loader: `pip install {packages}` brings it; put the folder that it lies in \
                 into LD_LIBRARY_PATH"
            )
        };
        let begins = |names: &[&str]| names.iter().any(|name| missing.starts_with(name));
        return Some(if begins(&["libonnxruntime_providers"]) {
            format!("{missing} has to lie beside libonnxruntime.so: install the whole of {GPU_BUILD}")
        } else if begins(&["libcudnn"]) {
            from("nvidia-cudnn-cu13")
        } else if begins(&["libcudart", "libcublas", "libcufft", "libcurand", "libnvrtc", "libnvJitLink"]) {
            from("nvidia-cuda-runtime nvidia-cublas nvidia-cufft nvidia-curand nvidia-cuda-nvrtc nvidia-nvjitlink")
        } else if begins(&["libnvinfer", "libnvonnxparser"]) {
            format!(
                "{missing} is of TensorRT 10: install that, put its folder into LD_LIBRARY_PATH, or set PROVIDER=cuda"
            )
        } else {
            format!("{missing} is not found by the loader: put the folder that it lies in into LD_LIBRARY_PATH")
        });
    }
    let gpu =
        ["CUDA failure", "CUDNN failure", "CUBLAS failure", "CUDA error", "no CUDA-capable device", "libcuda.so.1"];
    (gpu.iter().any(|part| text.contains(part)) && provider != Provider::Cpu)
        .then(|| "`millrace doctor` shows driver and GPU; PROVIDER=cpu computes without a GPU".to_owned())
}

/// The file that the system's loader did not find, by its words.
fn missing_file(text: &str) -> Option<&str> {
    let (before, _) = text.split_once(": cannot open shared object file")?;
    let path = before.rsplit([' ', '\'', '"', '\n']).next()?;
    path.rsplit('/').next().filter(|name| name.contains(".so"))
}
