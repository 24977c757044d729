//! TensorRT as an engine.

use crate::config::Settings;
use crate::ready::{self, Ready};
use millrace_cuda::tensorrt::{self, Input, Session, TensorrtError};
use millrace_cuda::{Span, Stream};
use millrace_frame::TensorDtype;
use millrace_infer::{
    Batch, DetectorSettings, Engine, EngineError, Flight, Grid, Outlet, Port, RawTensor, Signature, Tensor,
};
use millrace_node::{Findings, Flow};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

/// A model on a GPU.
#[derive(Debug)]
pub struct Trt {
    session: Session,
    outputs: Arc<[Selected]>,
    /// How the first of them spells candidates.
    grid: Option<Grid>,
    /// Those of batches that are through come back here.
    outlets: (Sender<Vec<Outlet>>, Receiver<Vec<Outlet>>),
    /// For what is copied out after all, when the next batch's copies are queued already.
    late: Arc<Stream>,
    settings: Settings,
    /// The session that comes in the place of this one when its engine is built.
    next: Option<Receiver<Session>>,
}

/// An output that is read.
#[derive(Debug)]
struct Selected {
    name: String,
    /// Its place among the engine's outputs.
    at: usize,
    /// For one frame, the batch's axis too.
    shape: Vec<usize>,
}

/// A batch that TensorRT has in work.
pub struct InTrt {
    flight: tensorrt::Flight,
    /// Of the selected outputs, in their order.
    outlets: Vec<Outlet>,
    late: Arc<Stream>,
    back: Sender<Vec<Outlet>>,
}

impl Flight for InTrt {
    fn complete(mut self, read: &mut dyn FnMut(usize, &[RawTensor<'_>])) -> Result<(), EngineError> {
        self.flight.wait().map_err(EngineError::broken)?;
        self.outlets.iter_mut().try_for_each(|outlet| outlet.arrive(&self.late))?;
        for n in 0..self.flight.inputs() {
            read(n, &self.outlets.iter().map(|outlet| outlet.tensor(n)).collect::<Vec<_>>());
        }
        Ok(())
    }
}

impl Drop for InTrt {
    fn drop(&mut self) {
        // where nobody wants them any more they go
        let _ = self.back.send(std::mem::take(&mut self.outlets));
    }
}

/// The outputs of these names. The caller has checked that the engine has them.
fn selected<'n>(session: &Session, names: impl Iterator<Item = &'n str>) -> Arc<[Selected]> {
    let find = |name: &'n str| {
        let (at, (_, shape)) = session.outputs().enumerate().find(|(_, (of_session, _))| *of_session == name)?;
        Some(Selected { name: name.to_owned(), at, shape: [&[1], shape].concat() })
    };
    names.filter_map(find).collect()
}

fn port(tensor: &tensorrt::Tensor) -> Port {
    let shape = tensor.dims.iter().map(|&axis| usize::try_from(axis).ok()).collect();
    Port { name: tensor.name.clone(), dtype: Some(tensor.dtype.name()), shape: Some(shape) }
}

impl Engine for Trt {
    const NAME: &'static str = "trt-infer";
    const SUMMARY: &'static str = "ONNX detector on an NVIDIA GPU, over TensorRT";
    const ON_GPU: bool = true;
    type Settings = Settings;
    type Flight = InTrt;

    fn common(settings: &Settings) -> &DetectorSettings {
        &settings.common
    }

    fn in_flight(settings: &Settings) -> usize {
        settings.in_flight()
    }

    fn check(settings: &Settings, findings: &mut Findings<'_>) {
        settings.check(findings);
    }

    fn asked_batch(settings: &Settings) -> u32 {
        settings.batch
    }

    fn feeds_sizes(_: &Settings) -> bool {
        false
    }

    fn share(settings: &Settings, _flow: Flow) -> Result<(usize, usize), EngineError> {
        Ok(settings.share())
    }

    fn open(_file: &Path, _threads: usize, settings: &Settings) -> Result<(Self, Signature), EngineError> {
        let Ready { engine, build, next } = ready::first(settings)?;
        let tensors = engine.tensors();
        let ports = |is_input| tensors.iter().filter(|t| t.is_input == is_input).map(port).collect();
        let signature = Signature { inputs: ports(true), outputs: ports(false) };
        let session = ready::session(&engine, &build, settings)?;
        let late = Arc::new(Stream::new(session.stream().gpu()).map_err(EngineError::setup)?);
        let (outputs, grid, outlets) = (Arc::default(), None, channel());
        Ok((Self { session, outputs, grid, outlets, late, settings: settings.clone(), next }, signature))
    }

    fn build(settings: &Settings) -> Result<String, EngineError> {
        let build = ready::engine_of(settings)?.build;
        Ok(format!("the engine of '{}' is in '{}'", build.file.display(), build.folder.display()))
    }

    fn select(&mut self, _input: &str, outputs: &[&str]) -> Result<(), EngineError> {
        // the caller has checked that the input is the only one, and that the engine has the outputs, as f32
        self.outputs = selected(&self.session, outputs.iter().copied());
        Ok(())
    }

    fn spells(&mut self, grid: Grid) {
        self.grid = Some(grid);
    }

    fn submit(&mut self, batch: Batch<'_>) -> Result<InTrt, EngineError> {
        let inputs = batch.tensors.iter().map(|tensor| match tensor {
            Tensor::Gpu(span) => Input::Gpu(*span),
            Tensor::Host(elements) => Input::Host(elements.bytes()),
        });
        let inputs: Vec<Input<'_>> = inputs.collect();
        let mut outlets = self.outlets()?;
        let mut failed = None;
        let mut down = |out: &Stream, at: usize, from: Span| {
            if let Some(n) = self.outputs.iter().position(|output| output.at == at) {
                let queued = outlets[n].queue(out, from, inputs.len(), batch.score);
                failed = failed.take().or(queued.err());
            }
            // what no head reads stays there
            true
        };
        let flight = self.session.submit_with(&inputs, &mut down).map_err(|e| self.failed(e))?;
        let flight = InTrt { flight, outlets, late: self.late.clone(), back: self.outlets.0.clone() };
        self.renew();
        failed.map_or(Ok(flight), Err)
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

    fn prepare(&mut self, _shape: [usize; 4], _dtype: TensorDtype) -> Result<(), EngineError> {
        let all = (0..self.settings.in_flight()).map(|_| self.outlets()).collect::<Result<Vec<_>, _>>()?;
        for outlets in all {
            let _ = self.outlets.0.send(outlets);
        }
        ready::warm(&mut self.session, &self.settings)
    }

    fn notes(&self) -> Vec<String> {
        let refused = self.settings.cuda_graph && !self.session.replays();
        let note = "CUDA_GRAPH is set, but the engine's work cannot be recorded: each batch is queued by itself";
        refused.then(|| note.to_owned()).into_iter().collect()
    }
}

impl Trt {
    /// TensorRT's own time for a batch of so many frames, in milliseconds, queued each by itself or replayed: see
    /// [`Session::alone_ms`].
    ///
    /// # Errors
    /// As [`submit`](Engine::submit)'s.
    pub fn alone_ms(&mut self, frames: usize, runs: u32, replay: bool) -> Result<f32, EngineError> {
        self.session.alone_ms(frames, runs, replay).map_err(|e| self.failed(e))
    }

    /// For a batch: those of an earlier one, or new ones.
    fn outlets(&self) -> Result<Vec<Outlet>, EngineError> {
        if let Ok(outlets) = self.outlets.1.try_recv() {
            return Ok(outlets);
        }
        let (gpu, most) = (self.session.stream().gpu(), self.session.batch());
        let outlet = |(n, output): (usize, &Selected)| {
            let grid = self.grid.clone().filter(|_| n == 0);
            Outlet::new(gpu, &output.name, output.shape.clone(), most, TensorDtype::F32, grid)
        };
        self.outputs.iter().enumerate().map(outlet).collect()
    }

    /// Goes on with the session of the engine that was built meanwhile, where it is ready. Called between two batches, when
    /// nothing of the next one is queued.
    fn renew(&mut self) {
        match self.next.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => {}
            // there will be none, and that was said
            Some(Err(TryRecvError::Disconnected)) => self.next = None,
            Some(Ok(session)) => {
                self.outputs = selected(&session, self.outputs.iter().map(|output| &output.name[..]));
                // the other one goes when its batches are computed
                self.session = session;
                self.outlets = channel();
                self.next = None;
                tracing::info!("the engine of these settings serves from now on");
            }
        }
    }

    /// What a run's error means: after a fault of its work the GPU answers nothing else in this process.
    fn failed(&self, error: TensorrtError) -> EngineError {
        match self.session.synchronize() {
            Ok(()) => EngineError::run(error),
            Err(_) => EngineError::broken(error),
        }
    }
}
