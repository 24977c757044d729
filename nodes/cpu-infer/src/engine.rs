//! rten as an engine.

use millrace_infer::{Common, Elements, Engine, EngineError, Port, RawTensor, Signature, contained};
use rten::{Dimension, ModelOptions, NodeId, RunOptions, ThreadPool, ValueType, ValueView};
use rten_tensor::{Layout, TensorView};
use std::path::Path;
use std::sync::Arc;

/// A model in rten.
pub(crate) struct Rten {
    model: rten::Model,
    pool: Arc<ThreadPool>,
    input: Option<NodeId>,
    outputs: Vec<NodeId>,
    names: Vec<String>,
}

impl Rten {
    fn ports(&self, ids: &[NodeId]) -> Vec<Port> {
        let infos = ids.iter().filter_map(|&id| self.model.node_info(id));
        infos
            .map(|info| Port {
                name: info.name().unwrap_or("").to_owned(),
                dtype: info.dtype().map(|dtype| match dtype {
                    ValueType::Tensor(element) => element.to_string(),
                    _ => "a sequence".to_owned(),
                }),
                shape: info.shape().map(|shape| {
                    let extent = |axis: &Dimension| match axis {
                        Dimension::Fixed(n) => Some(*n),
                        Dimension::Symbolic(_) => None,
                    };
                    shape.iter().map(extent).collect()
                }),
            })
            .collect()
    }
}

impl Engine for Rten {
    const NAME: &'static str = "cpu-infer";
    const SUMMARY: &'static str = "ONNX detector on the CPU, in pure Rust (rten)";
    type Settings = Common;

    fn common(settings: &Common) -> &Common {
        settings
    }

    fn open(file: &Path, threads: usize, _settings: &Common) -> Result<(Self, Signature), EngineError> {
        // weights packed once at load instead of at every frame
        let load = || ModelOptions::with_all_ops().prepack_weights(true).load_file(file);
        let model = contained("rten", load)
            .map_err(|cause| EngineError::load(file, cause))?
            .map_err(|e| EngineError::load(file, e))?;
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        let engine = Self { model, pool, input: None, outputs: Vec::new(), names: Vec::new() };
        let inputs = engine.ports(engine.model.input_ids());
        let outputs = engine.ports(engine.model.output_ids());
        Ok((engine, Signature { inputs, outputs }))
    }

    fn select(&mut self, input: &str, outputs: &[&str]) -> Result<(), EngineError> {
        let find = |name: &str| self.model.node_id(name).map_err(|e| EngineError::load(Path::new(name), e));
        self.input = Some(find(input)?);
        self.outputs = outputs.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
        self.names = outputs.iter().map(|name| (*name).to_owned()).collect();
        Ok(())
    }

    fn run(
        &mut self,
        shape: [usize; 4],
        data: Elements<'_>,
        read: &mut dyn FnMut(&[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let input = self.input.ok_or_else(|| EngineError::run("no input was selected"))?;
        let view = match data {
            Elements::F32(data) => ValueView::from_shape(shape, data).map_err(EngineError::run)?,
            Elements::U8(data) => ValueView::from_shape(shape, data).map_err(EngineError::run)?,
            // the detector has asked `takes`
            Elements::F16(_) => return Err(EngineError::run("f16 inputs are not taken")),
        };
        let options = RunOptions::default().with_thread_pool(Some(self.pool.clone()));
        let values = contained("rten", || self.model.run(vec![(input, view.into())], &self.outputs, Some(options)))
            .map_err(EngineError::run)?
            .map_err(EngineError::run)?;
        let views = values
            .iter()
            .zip(&self.names)
            .map(|(value, name)| {
                value.as_tensor_view::<f32>().ok_or_else(|| {
                    EngineError::run(format!("output '{name}' is {:?}; a head reads f32", value.dtype()))
                })
            })
            .collect::<Result<Vec<TensorView<'_, f32>>, _>>()?;
        // borrows where the elements stand in order, as they nearly always do
        let ordered: Vec<_> = views.iter().map(|view| view.to_contiguous()).collect();
        let shapes: Vec<_> = views.iter().map(|view| view.shape().to_vec()).collect();
        let outputs: Vec<RawTensor<'_>> = ordered
            .iter()
            .zip(&shapes)
            .zip(&self.names)
            .map(|((tensor, shape), name)| RawTensor { name, shape, data: tensor.data() })
            .collect();
        read(&outputs);
        Ok(())
    }
}
