//! The modules that the driver compiles, and checked jobs to launches of their kernels.
#![allow(unsafe_code, reason = "launches kernels, which reach memory by address")]

use super::{CudaConvertError, CudaConverter, CudaJob, Kernel, Launch, MAX_FRAMES, Plan, Tile};
use crate::convert::ConvertError;
use millrace_cuda::{CudaError, DeviceMemory, Function, Gpu, Module, Stream};
use millrace_frame::{ImageDesc, Size, TensorDtype, TensorLayout};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};

/// Modules in use in this process, by the number of their GPU: one for all converters.
static LOADED: Mutex<BTreeMap<(u32, &'static str), Weak<Module>>> = Mutex::new(BTreeMap::new());

/// The module of this name, which the driver compiles where it is in no use.
pub(super) fn loaded(gpu: &Gpu, name: &'static str, ptx: &str) -> Result<Arc<Module>, CudaError> {
    // a panic elsewhere leaves the map as it was
    let mut modules = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let key = (gpu.ordinal(), name);
    if let Some(module) = modules.get(&key).and_then(Weak::upgrade) {
        return Ok(module);
    }
    let module = Module::load(gpu, name, ptx)?;
    modules.insert(key, Arc::downgrade(&module));
    Ok(module)
}

/// The kernels of this crate on one GPU.
#[derive(Debug)]
pub(super) struct Modules {
    gpu: Gpu,
    functions: HashMap<Kernel, (Function, Tile)>,
}

impl Modules {
    pub(super) fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), functions: HashMap::new() }
    }

    /// Loads the module of a kernel, which the driver compiles the first time on a machine.
    pub(super) fn load(&mut self, kernel: Kernel) -> Result<(), CudaError> {
        let dtype = kernel.dtype();
        let (name, ptx) = match dtype {
            TensorDtype::F32 => ("f32.ptx", include_str!("../../ptx/f32.ptx")),
            TensorDtype::F16 => ("f16.ptx", include_str!("../../ptx/f16.ptx")),
            TensorDtype::U8 => ("u8.ptx", include_str!("../../ptx/u8.ptx")),
        };
        let module = loaded(&self.gpu, name, ptx)?;
        for each in Kernel::of(dtype) {
            self.functions.insert(each, (module.function(&each.name())?, each.tile()));
        }
        Ok(())
    }

    /// Queues a kernel for frames that [`Pass`] has checked: addresses of source, tensor and plan, and what to cover.
    fn launch(&self, stream: &Stream, kernel: Kernel, frames: &[Frame]) -> Result<(), CudaError> {
        let Some((function, tile)) = self.functions.get(&kernel) else {
            let why = "its module is not loaded";
            return Err(CudaError::misuse(format!("kernel {}", kernel.name()), why));
        };
        for part in frames.chunks(MAX_FRAMES) {
            let mut launch = Launch::new(*tile, part);
            let mut arguments = [(&raw mut *launch.frames).cast()];
            // SAFETY: each kernel has one parameter, a `Batch`: MAX_FRAMES times three addresses, as `frames` is, of which
            // it looks at the first `blocks[2]`. `cached_plan` has checked that source and tensor fit in their spans; that those
            // stay is what their owners answer for, as with all work on a `Span`. The plan's memory is freed by `cuMemFree`
            // alone, which waits for the launch.
            unsafe { function.launch(stream, launch.grid, 0, &mut arguments) }?;
        }
        Ok(())
    }
}

impl CudaConverter {
    /// Takes a variant of the kernel, to tune it.
    ///
    /// # Safety
    /// The function has the kernel's parameter and does the same with it, a thread of it for each tile.
    pub unsafe fn use_variant(&mut self, kernel: Kernel, function: Function, tile: Tile) {
        self.modules.functions.insert(kernel, (function, tile));
    }
}

/// Descriptions whose plans are kept. Beyond it, the half that was not used for longest is forgotten.
const MAX_PLANS: usize = 256;

/// The plan for one description, on the host and on the GPU, and the batch that last used it.
#[derive(Debug)]
struct CachedPlan {
    plan: Plan,
    memory: DeviceMemory,
    last_batch: u64,
}

/// One pass over frames, with the plans of the descriptions that it has met.
#[derive(Debug)]
pub(super) struct Pass {
    kernel: Kernel,
    plans: HashMap<ImageDesc, CachedPlan>,
    batch: u64,
}

/// A frame of a launch: the addresses of its source, its tensor and its plan, and how many pixels it has for the kernel.
type Frame = ([u64; 3], Size);

impl Pass {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self { kernel, plans: HashMap::new(), batch: 0 }
    }

    pub(super) fn plan(&self, source: &ImageDesc) -> Option<&Plan> {
        self.plans.get(source).map(|cached| &cached.plan)
    }

    /// Queues the jobs; `plan` makes the plan of the numbered job, whose description is new.
    pub(super) fn queue(
        &mut self,
        modules: &Modules,
        stream: &Stream,
        jobs: &[CudaJob<'_>],
        plan: impl Fn(usize) -> Result<Plan, ConvertError>,
    ) -> Result<(), CudaConvertError> {
        self.batch += 1;
        let mut launches: Vec<(Kernel, Vec<Frame>)> = Vec::new();
        let pass = self.kernel;
        for (index, job) in jobs.iter().enumerate() {
            let CachedPlan { plan, memory, .. } = self.cached_plan(modules, stream, index, job, &plan)?;
            let frame = [job.from.ptr(), job.to.ptr(), memory.span().ptr()];
            let kernels = match pass {
                Kernel::Planes(_) => [Some(pass), None],
                _ => [Some(plan.kernel(job.from.ptr())), plan.padding().filter(|_| !job.padded)],
            };
            for kernel in kernels.into_iter().flatten() {
                let frame = (frame, plan.extent(kernel));
                match launches.iter_mut().find(|(other, _)| *other == kernel) {
                    Some((_, frames)) => frames.push(frame),
                    None => launches.push((kernel, vec![frame])),
                }
            }
        }
        for (kernel, frames) in launches {
            modules.launch(stream, kernel, &frames)?;
        }
        self.forget();
        Ok(())
    }

    /// The plan of a job, of which everything is checked.
    fn cached_plan(
        &mut self,
        modules: &Modules,
        stream: &Stream,
        index: usize,
        job: &CudaJob<'_>,
        plan: impl Fn(usize) -> Result<Plan, ConvertError>,
    ) -> Result<&CachedPlan, CudaConvertError> {
        let of_job = |error| CudaConvertError::Job { index, error };
        if !self.plans.contains_key(job.source) {
            let plan = plan(index).map_err(of_job)?;
            let memory = DeviceMemory::allocate(&modules.gpu, plan.bytes().len() as u64, "a plan of a kernel")?;
            stream.upload(plan.bytes(), memory.span())?;
            self.plans.insert(job.source.clone(), CachedPlan { plan, memory, last_batch: 0 });
        }
        let Some(cached) = self.plans.get_mut(job.source) else { unreachable!("it was put there just now") };
        cached.last_batch = self.batch;
        let tensor = cached.plan.tensor();
        let (need, have) = (tensor.bytes(), job.to.bytes());
        if have < need {
            return Err(of_job(ConvertError::TensorBytes { need, have }));
        }
        let (reads_bytes, reads_align) = match self.kernel {
            Kernel::Planes(_) => (need, tensor.dtype.bytes()),
            _ => (cached.plan.source_bytes(), 1),
        };
        if job.from.bytes() < reads_bytes {
            let ImageDesc { format, coded, .. } = *job.source;
            let (need, have) = (reads_bytes, job.from.bytes());
            return Err(of_job(ConvertError::SourceBytes { format, coded, need, have }));
        }
        for (address, element_bytes) in [(job.to.ptr(), tensor.dtype.bytes()), (job.from.ptr(), reads_align)] {
            if !address.is_multiple_of(element_bytes) {
                return Err(CudaConvertError::Alignment { index, address, element_bytes });
            }
        }
        let planar = matches!(self.kernel, Kernel::Convert(_, TensorLayout::Nchw) | Kernel::Planes(_));
        if (tensor.dtype, tensor.layout == TensorLayout::Nchw) != (self.kernel.dtype(), planar) {
            let why = format!("it was given a plan for {} {}", tensor.dtype, tensor.layout);
            return Err(CudaError::misuse(format!("kernel {}", self.kernel.name()), why).into());
        }
        Ok(cached)
    }

    fn forget(&mut self) {
        if self.plans.len() > MAX_PLANS {
            let mut batches: Vec<u64> = self.plans.values().map(|cached| cached.last_batch).collect();
            batches.sort_unstable();
            let middle = batches[batches.len() / 2];
            self.plans.retain(|_, cached| cached.last_batch >= middle);
        }
    }
}
