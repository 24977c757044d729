//! TensorRT as an engine.

use crate::builder::build_apart;
use crate::config::Settings;
use crate::plan::{self, Build};
use millrace_cuda::tensorrt::{self, Session, TensorrtError};
use millrace_cuda::{Span, Stream};
use millrace_frame::TensorDtype;
use millrace_infer::{Batch, Common, Computed, Engine, EngineError, Port, RawTensor, Signature, Tensor};
use millrace_node::Flow;
use std::path::Path;

/// A model on a GPU.
#[derive(Debug)]
pub(crate) struct Trt {
    session: Session,
    /// The outputs that are read, and their shape for one frame.
    outputs: Vec<(String, Vec<usize>)>,
}

fn port(tensor: &tensorrt::Tensor) -> Port {
    let shape = tensor.dims.iter().map(|&axis| usize::try_from(axis).ok()).collect();
    Port { name: tensor.name.clone(), dtype: Some(tensor.dtype.name()), shape: Some(shape) }
}

/// The engine of a model: from the cache, or built and kept there.
fn engine_of(settings: &Settings) -> Result<(tensorrt::Engine, Build), EngineError> {
    let build = Build::of(settings)?;
    let load = |bytes: &[u8]| build.library.load(&build.gpu, bytes).map_err(EngineError::setup);
    // a program of tests has no process for it
    let make = || if cfg!(test) { build.plan() } else { build_apart(settings, &build.file) };
    let engine = plan::cached(&build.folder, &build.key()?, load, make)?;
    Ok((engine, build))
}

impl Engine for Trt {
    const NAME: &'static str = "trt-infer";
    const SUMMARY: &'static str = "ONNX detector on an NVIDIA GPU, over TensorRT";
    const ON_GPU: bool = true;
    type Settings = Settings;
    type Flight = Computed;

    fn common(settings: &Settings) -> &Common {
        &settings.common
    }

    fn in_flight(settings: &Settings) -> usize {
        settings.common.in_flight.map_or(2, |n| n as usize).max(1)
    }

    fn share(settings: &Settings, flow: Flow) -> Result<(usize, usize), EngineError> {
        Ok(settings.share(flow))
    }

    fn open(_file: &Path, _threads: usize, settings: &Settings) -> Result<(Self, Signature), EngineError> {
        let (engine, Build { wanted, .. }) = engine_of(settings)?;
        let tensors = engine.tensors();
        let ports = |is_input| tensors.iter().filter(|t| t.is_input == is_input).map(port).collect();
        let signature = Signature { inputs: ports(true), outputs: ports(false) };
        // an engine for one frame at a time is refused by the caller where BATCH says more
        let fixed = signature.inputs.iter().any(|input| input.shape.as_ref().is_some_and(|s| s.first() != Some(&None)));
        let mut most = wanted.shape;
        most[0] = if fixed { 1 } else { wanted.batch };
        let session = engine.session(&most).map_err(EngineError::setup)?;
        Ok((Self { session, outputs: Vec::new() }, signature))
    }

    fn build(settings: &Settings) -> Result<String, EngineError> {
        let (_, build) = engine_of(settings)?;
        Ok(format!("the engine of '{}' is in '{}'", build.file.display(), build.folder.display()))
    }

    fn select(&mut self, _input: &str, outputs: &[&str]) -> Result<(), EngineError> {
        // the caller has checked that the input is the only one, and that the engine has the outputs, as f32
        let of_session: Vec<_> = self.session.outputs(0).map(|o| (o.name.to_owned(), o.shape.to_vec())).collect();
        let find = |name: &&str| {
            let (name, shape) = of_session.iter().find(|(of_session, _)| of_session == name)?;
            Some((name.clone(), [&[1], &shape[..]].concat()))
        };
        self.outputs = outputs.iter().filter_map(find).collect();
        Ok(())
    }

    /// Computes it: boxes are made of its outputs while the next one is computed.
    fn submit(&mut self, batch: Batch<'_>) -> Result<Computed, EngineError> {
        let mut computed = Computed::default();
        let on_gpu = |tensor: &Tensor<'_>| match tensor {
            Tensor::Gpu(span) => Some(*span),
            Tensor::Host(_) => None,
        };
        let spans: Option<Vec<Span>> = batch.tensors.iter().map(on_gpu).collect();
        if let Some(spans) = spans {
            self.session.run_on(&spans).map_err(|e| self.failed(e))?;
            (0..spans.len()).try_for_each(|n| self.hand_over(n, &mut |outputs| computed.push(outputs)))?;
            return Ok(computed);
        }
        // tensors in host memory are computed one by one, and so is each in a batch with them
        for tensor in batch.tensors {
            match tensor {
                Tensor::Host(data) => self.session.run(data.bytes()),
                Tensor::Gpu(span) => self.session.run_on(&[*span]),
            }
            .map_err(|e| self.failed(e))?;
            self.hand_over(0, &mut |outputs| computed.push(outputs))?;
        }
        Ok(computed)
    }

    fn takes(&self, _dtype: TensorDtype) -> bool {
        true
    }

    fn stream(&self) -> Option<&Stream> {
        Some(self.session.stream())
    }

    fn batch(&self) -> usize {
        self.session.batch()
    }
}

impl Trt {
    /// What a run's error means: after a fault of its work the GPU answers nothing else in this process.
    fn failed(&self, error: TensorrtError) -> EngineError {
        match self.session.stream().synchronize() {
            Ok(()) => EngineError::run(error),
            Err(_) => EngineError::broken(error),
        }
    }

    /// Gives the selected outputs of input `n` to `read`.
    fn hand_over(&self, n: usize, read: &mut dyn FnMut(&[RawTensor<'_>])) -> Result<(), EngineError> {
        let raw = |(name, shape)| -> Result<RawTensor<'_>, EngineError> {
            let (name, shape): (&String, &Vec<usize>) = (name, shape);
            let output = self.session.outputs(n).find(|output| output.name == name);
            let bytes =
                output.map(|output| output.bytes).ok_or_else(|| EngineError::run(format!("no output '{name}'")))?;
            let data = bytemuck::try_cast_slice(bytes).map_err(EngineError::run)?;
            Ok(RawTensor::whole(name, shape, data))
        };
        let outputs = self.outputs.iter().map(|(name, shape)| raw((name, shape))).collect::<Result<Vec<_>, _>>()?;
        read(&outputs);
        Ok(())
    }
}
