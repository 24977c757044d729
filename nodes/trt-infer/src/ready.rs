//! An engine that is ready to compute: loaded, with its memory, and warm. Where the one that is wanted has to be built, one
//! that was built before can serve meanwhile.

use crate::builder::build_apart;
use crate::cache;
use crate::config::Settings;
use crate::plan::{self, Build};
use millrace_cuda::DeviceMemory;
use millrace_cuda::tensorrt::{Engine, Input, Session, Work};
use millrace_infer::EngineError;
use millrace_node::logging_here;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

/// As often each number of frames is computed on zeros, for each batch in flight: more often than TensorRT's work is queued
/// before it is recorded.
const RUNS_BEFORE_THE_FIRST_FRAME: usize = 5;

/// An engine, and what is known of it beside.
pub(crate) struct Ready {
    pub(crate) engine: Engine,
    pub(crate) build: Build,
    /// The session that comes in the place of this engine's, where this one serves only until that is ready.
    pub(crate) next: Option<Receiver<Session>>,
}

/// The engine of these settings: from the cache, or built and kept there.
pub(crate) fn engine_of(settings: &Settings) -> Result<Ready, EngineError> {
    let build = Build::of(settings)?;
    let key = build.key()?;
    // a program of tests has no process for it
    let make = || if cfg!(test) { build.plan() } else { build_apart(settings, &build.file) };
    let engine = plan::cached(&build.folder, &key, |bytes| load(&build, bytes), make)?;
    // where it cannot be written, the engine was not kept either, and that was said
    let _ = cache::note_last(&build.folder, &build.kin()?, &key);
    Ok(Ready { engine, build, next: None })
}

fn load(build: &Build, plan: &[u8]) -> Result<Engine, EngineError> {
    build.library.load(&build.gpu, plan).map_err(EngineError::setup)
}

/// The engine to begin with: that of these settings, or while it is built the last one of the same model, where the settings
/// say so.
pub(crate) fn first(settings: &Settings) -> Result<Ready, EngineError> {
    if !settings.serve_while_building {
        return engine_of(settings);
    }
    let build = Build::of(settings)?;
    let kept = |key: &str| cache::read(&build.folder, key).ok().flatten();
    let older = || {
        let key = cache::last(&build.folder, &build.kin().ok()?)?;
        load(&build, &kept(&key)?).ok()
    };
    if kept(&build.key()?).is_some() {
        return engine_of(settings);
    }
    let Some(engine) = older() else { return engine_of(settings) };
    tracing::info!("the engine of these settings is not built yet; the last one of this model serves until it is");
    let (ready, next) = channel();
    let settings = settings.clone();
    let renew = move || match next_session(&settings) {
        // a node that has ended meanwhile needs none
        Ok(session) => drop(ready.send(session)),
        Err(e) => tracing::warn!("there is no engine of these settings, and the last one of this model goes on: {e}"),
    };
    let thread = std::thread::Builder::new().name("next-engine".to_owned());
    thread.spawn(logging_here(renew)).map_err(EngineError::setup)?;
    Ok(Ready { engine, build, next: Some(next) })
}

fn next_session(settings: &Settings) -> Result<Session, EngineError> {
    // each of WORKERS wants one: the second finds what the first has built
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = engine_of(settings)?;
    let mut session = session(&ready.engine, &ready.build, settings)?;
    warm(&mut session, settings)?;
    Ok(session)
}

/// Memory and streams for an engine.
pub(crate) fn session(engine: &Engine, build: &Build, settings: &Settings) -> Result<Session, EngineError> {
    // an engine for one frame at a time is refused by the caller where BATCH says more
    let fixed = engine.tensors().iter().any(|tensor| tensor.is_input && tensor.dims.first() != Some(&-1));
    let batches = if fixed { &[[1, 1]][..] } else { &build.batches };
    let in_flight = settings.in_flight();
    engine
        .session(&Work { shape: &build.wanted.shape, batches, in_flight, replay: settings.cuda_graph })
        .map_err(EngineError::setup)
}

/// Runs every number of frames that has kernels of its own, as often as it is queued before its work is recorded.
pub(crate) fn warm(session: &mut Session, settings: &Settings) -> Result<(), EngineError> {
    let zeros = DeviceMemory::allocate(session.stream().gpu(), session.input_bytes(), "a frame of zeros");
    let zeros = zeros.map_err(EngineError::setup)?;
    session.stream().fill(zeros.span(), 0).map_err(EngineError::setup)?;
    for frames in [1, session.batch()] {
        let inputs = vec![Input::Gpu(zeros.span()); frames];
        for _ in 0..RUNS_BEFORE_THE_FIRST_FRAME {
            let flights = (0..settings.in_flight()).map(|_| session.submit(&inputs)).collect::<Result<Vec<_>, _>>();
            let flights = flights.map_err(EngineError::run)?;
            flights.iter().try_for_each(|flight| flight.wait()).map_err(EngineError::broken)?;
        }
    }
    Ok(())
}
