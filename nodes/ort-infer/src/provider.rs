//! Sessions on the provider that was asked for, and the reasons why there are none.

use crate::config::{Provider, Settings};
use crate::device::{self, Part, Streams};
use crate::{library, places, rewrite};
use millrace_cuda::Gpu;
use millrace_detect::Model;
use millrace_infer::{EngineError, contained};
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;
use std::hash::Hasher;
use std::path::Path;

/// The build with the GPU's providers that the advice names.
const GPU_BUILD: &str = "onnxruntime-gpu==1.31.1";

/// The streams that a session of these settings works in: `None` on the CPU. Opens the library first, and says so where it
/// lacks the provider: a driver would not help then.
pub(crate) fn streams(settings: &Settings) -> Result<Option<&'static Streams>, EngineError> {
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
    let opened = Gpu::open(settings.device).and_then(|gpu| Streams::leaked(&gpu));
    // the driver's own error says what is missing and what brings it
    let streams = opened.map_err(|e| EngineError::setup(format!("PROVIDER={}: {e}", settings.provider.name())))?;
    Ok(Some(streams))
}

/// A session for `file`, whose work on a GPU goes to `streams`, and what the user should know of where its nodes are computed.
pub(crate) fn session(
    file: &Path,
    threads: usize,
    settings: &Settings,
    streams: Option<&'static Streams>,
) -> Result<(Session, Vec<String>), EngineError> {
    let environment = library::environment(settings.library.as_deref())?;
    let providers = match streams {
        Some(streams) => providers(file, settings, streams)?,
        None => Vec::new(),
    };
    let rewritten = rewritten(file, settings)?;
    let build = || {
        let mut builder = Session::builder(&environment)
            .and_then(|b| Ok(b.with_intra_threads(threads)?.with_intra_op_spinning(settings.spin)?))
            .and_then(|b| Ok(b.with_config_entry("session.record_ep_graph_assignment_info", "1")?))
            .map_err(EngineError::setup)?;
        if let Some(folder) = rewritten.as_ref().and(file.parent()).and_then(Path::to_str) {
            let key = "session.model_external_initializers_file_folder_path";
            builder = builder.with_config_entry(key, folder).map_err(EngineError::setup)?;
        }
        if !providers.is_empty() {
            builder = builder
                .with_execution_providers(&providers)
                .map_err(|e| refusal(settings.provider, &library::with_what_was_said(&e.to_string())))?;
        }
        let session = match &rewritten {
            Some(model) => builder.commit_from_memory(model),
            None => builder.commit_from_file(file),
        };
        session.map_err(|e| {
            let text = library::with_what_was_said(&e.to_string());
            match cure(settings.provider, &text) {
                Some(_) if streams.is_some() => refusal(settings.provider, &text),
                None if settings.cuda_graph && text.contains("graph capture") => EngineError::setup(format!(
                    "CUDA_GRAPH takes a model whose work is all on the GPU, and this one's is not: {text}; leave CUDA_GRAPH out"
                )),
                _ => EngineError::load(file, e),
            }
        })
    };
    library::forget_what_was_said();
    let session = contained("ONNX Runtime", build).map_err(|cause| EngineError::load(file, cause))??;
    let parts = device::parts(&session).map_err(EngineError::setup)?;
    let notes = check_places(&parts, settings.provider)?;
    Ok((session, notes))
}

/// The model with what the CUDA provider does not compute as it is said in another way; nothing where the file is as good.
fn rewritten(file: &Path, settings: &Settings) -> Result<Option<Vec<u8>>, EngineError> {
    if settings.provider != Provider::Cuda || !settings.grid_sample_f32 {
        return Ok(None);
    }
    let model = std::fs::read(file).map_err(|e| EngineError::load(file, e))?;
    let rewritten = rewrite::grid_sample_in_f32(&model).map_err(|e| EngineError::load(file, e))?;
    if let Some((nodes, _)) = &rewritten {
        tracing::info!("{nodes} GridSample nodes are computed with 32-bit floats, as GRID_SAMPLE_F32 says");
    }
    Ok(rewritten.map(|(_, model)| model))
}

/// The providers to register, first the one that is asked first.
fn providers(
    file: &Path,
    settings: &Settings,
    streams: &'static Streams,
) -> Result<Vec<ExecutionProviderDispatch>, EngineError> {
    let stream = &streams.compute;
    let ordinal = i32::try_from(settings.device).unwrap_or(i32::MAX);
    // where TensorRT is asked, it records
    let graph = settings.cuda_graph && settings.provider == Provider::Cuda;
    let cuda = ep::CUDA::default()
        .with_device_id(ordinal)
        .with_tf32(settings.tf32)
        .with_cuda_graph(graph)
        .with_prefer_nhwc(settings.prefer_nhwc)
        .with_conv_algorithm_search(settings.conv_search.into())
        .with_conv_max_workspace(settings.conv_max_workspace);
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

/// Refuses a session none of whose nodes are computed by the provider that was asked, and says what is on the CPU all the same.
fn check_places(parts: &[Part], asked: Provider) -> Result<Vec<String>, EngineError> {
    let wanted = match asked {
        Provider::Cpu => return Ok(Vec::new()),
        Provider::Cuda => ep::CUDA::NAME,
        Provider::Tensorrt => ep::TensorRT::NAME,
    };
    let shown = places::counts(parts);
    if places::nodes(parts, wanted) == 0 {
        let text = format!("{wanted} took none of the model's nodes ({shown}): try another PROVIDER");
        return Err(refusal(asked, &text));
    }
    tracing::info!("nodes of the model: {shown}");
    Ok(places::on_the_cpu(parts, library::copies_said()).into_iter().collect())
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
