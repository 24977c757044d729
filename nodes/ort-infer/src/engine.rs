//! ONNX Runtime as an engine.

use crate::config::Settings;
use crate::library;
use millrace_infer::{Common, Elements, Engine, EngineError, Port, RawTensor, Signature, contained};
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};
use std::path::Path;

/// A model in ONNX Runtime.
#[derive(Debug)]
pub(crate) struct Ort {
    session: Session,
    names: Vec<String>,
    shapes: Vec<Vec<usize>>,
}

fn port(outlet: &Outlet) -> Port {
    let (dtype, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let dtype = match ty {
                TensorElementType::Float32 => "f32".to_owned(),
                TensorElementType::Float16 => "f16".to_owned(),
                TensorElementType::Uint8 => "u8".to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            (dtype, Some(shape.iter().map(|&axis| usize::try_from(axis).ok()).collect()))
        }
        other => (format!("{other:?}"), None),
    };
    Port { name: outlet.name().to_owned(), dtype: Some(dtype), shape }
}

fn session(file: &Path, settings: &Settings, threads: usize) -> Result<Session, EngineError> {
    let environment = library::environment(settings.library.as_deref())?;
    let build = || {
        let mut builder = Session::builder(&environment)
            .and_then(|b| Ok(b.with_intra_threads(threads)?.with_intra_op_spinning(settings.spin)?))
            .map_err(|e| EngineError::Setup { cause: e.to_string() })?;
        builder.commit_from_file(file).map_err(|e| EngineError::load(file, e))
    };
    contained("ONNX Runtime", build).map_err(|cause| EngineError::load(file, cause))?
}

impl Engine for Ort {
    const NAME: &'static str = "ort-infer";
    const SUMMARY: &'static str = "ONNX detector on the CPU, over ONNX Runtime";
    type Settings = Settings;

    fn common(settings: &Settings) -> &Common {
        &settings.common
    }

    fn open(file: &Path, threads: usize, settings: &Settings) -> Result<(Self, Signature), EngineError> {
        let session = session(file, settings, threads)?;
        let inputs = session.inputs().iter().map(port).collect();
        let outputs = session.outputs().iter().map(port).collect();
        Ok((Self { session, names: Vec::new(), shapes: Vec::new() }, Signature { inputs, outputs }))
    }

    fn select(&mut self, _input: &str, outputs: &[&str]) -> Result<(), EngineError> {
        // the detector has checked that the input is the only one
        self.names = outputs.iter().map(|name| (*name).to_owned()).collect();
        self.shapes = vec![Vec::with_capacity(4); outputs.len()];
        Ok(())
    }

    fn run(
        &mut self,
        shape: [usize; 4],
        data: Elements<'_>,
        read: &mut dyn FnMut(&[RawTensor<'_>]),
    ) -> Result<(), EngineError> {
        let Self { session, names, shapes } = self;
        let run = || {
            let input = match data {
                Elements::F32(data) => TensorRef::from_array_view((shape, data)).map(|t| t.into_dyn()),
                Elements::U8(data) => TensorRef::from_array_view((shape, data)).map(|t| t.into_dyn()),
                Elements::F16(_) => return Err(EngineError::run("f16 inputs are not taken")),
            };
            let computed = session.run(ort::inputs![input.map_err(EngineError::run)?]).map_err(EngineError::run)?;
            let mut outputs = Vec::with_capacity(names.len());
            for (name, extent) in names.iter().zip(shapes) {
                let value = computed.get(name).ok_or_else(|| EngineError::run(format!("no output '{name}'")))?;
                let (shape, data) = value.try_extract_tensor::<f32>().map_err(EngineError::run)?;
                extent.clear();
                extent.extend(shape.iter().map(|&axis| usize::try_from(axis).unwrap_or(0)));
                outputs.push(RawTensor { name, shape: extent, data });
            }
            read(&outputs);
            Ok(())
        };
        contained("ONNX Runtime", run).map_err(EngineError::run)?
    }
}
