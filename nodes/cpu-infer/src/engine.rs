//! rten as an engine.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use millrace_frame::TensorDtype;
use millrace_infer::{
    Batch, DetectorSettings, Elements, Engine, EngineError, Flight, Port, RawTensor, Signature, Tensor, contained, onnx,
};
use rten::{ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueType, ValueView};
use rten_tensor::prelude::*;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// A model in rten.
pub(crate) struct Rten {
    model: rten::Model,
    pool: Arc<ThreadPool>,
    input: Option<NodeId>,
    outputs: Vec<NodeId>,
    names: Arc<[String]>,
    fixed: Option<(NodeId, [i32; 2])>,
}

/// The outputs of a tensor, computed.
pub(crate) struct Values {
    values: Vec<Value>,
    names: Arc<[String]>,
}

/// What rten computes with, where a file says another type: it turns those numbers at load.
fn computed(dtype: &str) -> &str {
    match dtype {
        "f16" => "f32",
        "i64" | "bool" => "i32",
        same => same,
    }
}

/// The numbers of an output, borrowed where they are `f32` in order, as they nearly always are.
fn numbers(value: &Value) -> Option<Cow<'_, [f32]>> {
    if let Some(view) = value.as_tensor_view::<f32>() {
        return Some(view.data().map_or_else(|| Cow::Owned(view.to_vec()), Cow::Borrowed));
    }
    value.as_tensor_view::<i32>().map(|view| view.iter().map(|&n| n as f32).collect())
}

impl Rten {
    /// Why a port is not what the file says, if so.
    fn differs(&self, port: &Port) -> Option<String> {
        let info = self.model.node_info(self.model.find_node(&port.name)?)?;
        let Some(ValueType::Tensor(found)) = info.dtype() else { return None };
        let want = port.dtype.as_deref().map(computed)?;
        let found = found.to_string();
        (found != want).then(|| format!("'{}' is {want} in the file, and {found} once it is loaded", port.name))
    }
}

impl Flight for Values {
    fn complete(self, read: &mut dyn FnMut(usize, &[RawTensor<'_>])) -> Result<(), EngineError> {
        let read_value = |(value, name)| -> Result<_, EngineError> {
            let value: &Value = value;
            let unread = || EngineError::run(format!("output '{name}' is {:?}; a head reads f32", value.dtype()));
            Ok((value.shape().to_vec(), numbers(value).ok_or_else(unread)?))
        };
        let ordered = self.values.iter().zip(&*self.names).map(read_value).collect::<Result<Vec<_>, _>>()?;
        let outputs: Vec<RawTensor<'_>> =
            ordered.iter().zip(&*self.names).map(|((shape, data), name)| RawTensor::whole(name, shape, data)).collect();
        read(0, &outputs);
        Ok(())
    }
}

impl Engine for Rten {
    const NAME: &'static str = "cpu-infer";
    const SUMMARY: &'static str = "ONNX detector on the CPU, in pure Rust (rten)";
    type Settings = DetectorSettings;
    type Flight = Values;

    fn common(settings: &DetectorSettings) -> &DetectorSettings {
        settings
    }

    fn refuses(declared: &onnx::Declared) -> Option<String> {
        (declared.padded_integer_convolutions > 0).then(|| {
            format!(
                "{} of its nodes are convolutions of 8-bit integers with padding (ConvInteger), of which rten gets the picture's \
                 edges wrong: it pads with 0 in place of the zero point. Use the model before it was quantized, one that was \
                 quantized to QuantizeLinear and DequantizeLinear (QDQ), or ort-infer",
                declared.padded_integer_convolutions
            )
        })
    }

    fn open(file: &Path, threads: usize, _settings: &DetectorSettings) -> Result<(Self, Signature), EngineError> {
        // weights packed once at load instead of at every frame
        let load = || ModelOptions::with_all_ops().prepack_weights(true).load_file(file);
        let model = contained("rten", load)
            .map_err(|cause| EngineError::load(file, cause))?
            .map_err(|e| EngineError::load(file, e))?;
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        let engine = Self { model, pool, input: None, outputs: Vec::new(), names: Arc::default(), fixed: None };
        let declared = onnx::declared(file)?;
        if let Some(why) = Self::refuses(&declared) {
            return Err(EngineError::Unsupported { file: file.display().to_string(), why });
        }
        // rten's own list has the types that it computes with
        let signature = declared.signature;
        let mut ports = signature.inputs.iter().chain(&signature.outputs);
        match ports.find_map(|port| engine.differs(port)) {
            Some(why) => Err(EngineError::load(file, why)),
            None => Ok((engine, signature)),
        }
    }

    fn takes(&self, _: TensorDtype) -> bool {
        true
    }

    fn reads(&self, dtype: &str) -> bool {
        ["f32", "i32"].contains(&computed(dtype))
    }

    fn fix(&mut self, name: &str, numbers: [i64; 2]) -> Result<(), EngineError> {
        let node = self.model.node_id(name).map_err(|e| EngineError::load(Path::new(name), e))?;
        let small = |n| i32::try_from(n).map_err(EngineError::setup);
        self.fixed = Some((node, [small(numbers[0])?, small(numbers[1])?]));
        Ok(())
    }

    fn select(&mut self, input: &str, outputs: &[&str]) -> Result<(), EngineError> {
        let find = |name: &str| self.model.node_id(name).map_err(|e| EngineError::load(Path::new(name), e));
        self.input = Some(find(input)?);
        self.outputs = outputs.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
        self.names = outputs.iter().map(|name| (*name).to_owned()).collect();
        Ok(())
    }

    fn submit(&mut self, batch: Batch<'_>) -> Result<Values, EngineError> {
        let input = self.input.ok_or_else(|| EngineError::run("no input was selected"))?;
        let [Tensor::Host(data)] = batch.tensors else {
            return Err(EngineError::run("rten computes one tensor at a time, in host memory"));
        };
        let floats: Vec<f32>;
        let view = match *data {
            Elements::F32(data) => ValueView::from_shape(batch.shape, data).map_err(EngineError::run)?,
            Elements::U8(data) => ValueView::from_shape(batch.shape, data).map_err(EngineError::run)?,
            Elements::F16(data) => {
                floats = data.reinterpret_cast::<f16>().to_f32_vec();
                ValueView::from_shape(batch.shape, floats.as_slice()).map_err(EngineError::run)?
            }
        };
        let mut inputs = vec![(input, view.into())];
        if let Some((node, numbers)) = &self.fixed {
            inputs.push((*node, ValueView::from_shape([1, 2], numbers.as_slice()).map_err(EngineError::run)?.into()));
        }
        let options = RunOptions::default().with_thread_pool(Some(self.pool.clone()));
        let values = contained("rten", || self.model.run(inputs, &self.outputs, Some(options)))
            .map_err(EngineError::run)?
            .map_err(EngineError::run)?;
        Ok(Values { values, names: self.names.clone() })
    }
}
