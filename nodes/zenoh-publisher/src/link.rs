//! The zenoh session, as a sink of the outbox.

use crate::config::{Mode, Settings, endpoints};
use crate::key::chunk;
use crate::message::{JSON, encode_state};
use crate::outbox::{Put, Sink};
use millrace_frame::{CameraState, CameraStatus};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zenoh::Wait;
use zenoh::bytes::Encoding;
use zenoh::key_expr::KeyExpr;
use zenoh::liveliness::LivelinessToken;
use zenoh::qos::CongestionControl;
use zenoh::query::{Query, Queryable};

/// Cameras whose keys and tokens one node keeps.
const MAX_CAMERAS: usize = 1024;
/// After this long without progress zenoh closes the connection to a subscriber that does not read.
const STALLED_AFTER_US: u64 = 1_000_000;
/// The same where frames must not be lost lightly.
const STALLED_AFTER_RELIABLE_US: u64 = 5_000_000;

/// An open session.
pub(crate) struct Link {
    session: zenoh::Session,
    graph: String,
    cameras: HashMap<Arc<str>, Camera>,
    states: States,
    /// Answers who asks for the states.
    _answers: Queryable<()>,
}

struct Camera {
    detections: KeyExpr<'static>,
    state: KeyExpr<'static>,
    alive: KeyExpr<'static>,
    /// There while the camera is live. Withdrawn when it is dropped, or by zenoh when this process dies.
    token: Option<LivelinessToken>,
}

/// States by key, each also as JSON.
type StatesByKey = HashMap<KeyExpr<'static>, (CameraState, Vec<u8>)>;

/// The newest state of each camera.
#[derive(Clone, Default)]
struct States(Arc<Mutex<StatesByKey>>);

impl States {
    fn lock(&self) -> MutexGuard<'_, StatesByKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, key: KeyExpr<'static>, state: CameraState, json: Vec<u8>) {
        let mut states = self.lock();
        states.insert(key, (state, json));
        if states.len() > MAX_CAMERAS {
            let ended = states.iter().find(|(_, (state, _))| *state == CameraState::Ended).map(|(key, _)| key.clone());
            if let Some(ended) = ended {
                states.remove(&ended);
            }
        }
    }

    fn answer(&self, query: &Query) {
        let asked = query.key_expr();
        let states: Vec<_> = {
            let states = self.lock();
            states
                .iter()
                .filter(|(key, _)| asked.intersects(key))
                .map(|(key, (_, json))| (key.clone(), json.clone()))
                .collect()
        };
        for (key, json) in states {
            if let Err(error) = query.reply(key, json).encoding(Encoding::from(JSON)).wait() {
                tracing::debug!(%error, "who asked for states is gone");
            }
        }
    }
}

/// The session's configuration.
///
/// # Errors
/// The setting that zenoh does not take, and why.
pub(crate) fn configuration(settings: &Settings) -> Result<zenoh::Config, (&'static str, String)> {
    let list = |text: &str| serde_json::Value::from(endpoints(text).collect::<Vec<_>>()).to_string();
    let (mode, listen) = match settings.mode {
        Mode::Peer => ("\"peer\"", list(&settings.listen)),
        Mode::Client => ("\"client\"", list("")),
    };
    let stalled = if settings.reliable { STALLED_AFTER_RELIABLE_US } else { STALLED_AFTER_US };
    let mut config = zenoh::Config::default();
    for (setting, key, value) in [
        ("MODE", "mode", mode.to_owned()),
        ("CONNECT", "connect/endpoints", list(&settings.connect)),
        ("LISTEN", "listen/endpoints", listen),
        ("SCOUTING", "scouting/multicast/enabled", settings.scouting.to_string()),
        // nothing of ours may stay in /dev/shm when a process is killed, and these messages are small
        ("", "transport/shared_memory/enabled", "false".into()),
        ("", "transport/link/tx/queue/congestion_control/block/wait_before_close", stalled.to_string()),
    ] {
        config.insert_json5(key, &value).map_err(|e| {
            let like = "endpoints look like tcp/127.0.0.1:7447, separated by commas";
            (setting, format!("{setting}: zenoh does not take {value} ({e}); {like}"))
        })?;
    }
    Ok(config)
}

impl Link {
    /// Opens the session; `graph` is a key chunk. Blocks while zenoh looks for its neighbours.
    pub(crate) fn open(config: zenoh::Config, graph: String) -> Result<Self, String> {
        let session = zenoh::open(config).wait().map_err(|e| {
            format!("the zenoh session cannot be opened (MODE, CONNECT, LISTEN): {e}; is the endpoint free, and does the router run?")
        })?;
        let (states, asked) = (States::default(), format!("millrace/{graph}/*/state"));
        let answering = states.clone();
        let answers = session.declare_queryable(asked).callback(move |query| answering.answer(&query)).wait();
        let answers = answers.map_err(|e| format!("the states' queryable cannot be declared: {e}"))?;
        Ok(Self { session, graph, cameras: HashMap::new(), states, _answers: answers })
    }

    fn camera(&mut self, source: &str) -> Result<&mut Camera, String> {
        if !self.cameras.contains_key(source) {
            if self.cameras.len() == MAX_CAMERAS {
                return Err(format!("more than {MAX_CAMERAS} cameras"));
            }
            let camera = chunk(source).ok_or("a camera without a name")?;
            let key = |last: &str| {
                KeyExpr::try_from(format!("millrace/{}/{camera}/{last}", self.graph)).map_err(|e| e.to_string())
            };
            let camera =
                Camera { detections: key("detections")?, state: key("state")?, alive: key("alive")?, token: None };
            self.cameras.insert(source.into(), camera);
        }
        self.cameras.get_mut(source).ok_or_else(|| "a camera that was just put there is gone".into())
    }
}

impl Sink for Link {
    fn put(&mut self, put: Put) -> Result<(), String> {
        let key = self.camera(&put.source)?.detections.clone();
        for (encoding, bytes) in put.payloads {
            // Block: this thread may wait, and what cannot be sent is then dropped, and counted, in the outbox. With Drop
            // zenoh would lose messages without counting them, even if only the processor is busy.
            self.session
                .put(&key, bytes)
                .encoding(Encoding::from(encoding))
                .congestion_control(CongestionControl::Block)
                .wait()
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn state(&mut self, status: &CameraStatus) -> Result<(), String> {
        let json = encode_state(status).map_err(|e| e.to_string())?;
        let session = self.session.clone();
        let camera = self.camera(&status.source)?;
        let key = camera.state.clone();
        // the state first: a subscriber that sees the token go finds the reason there
        let put = session.put(&key, json.clone()).encoding(Encoding::from(JSON));
        let put = put.congestion_control(CongestionControl::Block).wait().map_err(|e| e.to_string());
        match (status.state, &camera.token) {
            (CameraState::Live, None) => {
                let token = session.liveliness().declare_token(camera.alive.clone()).wait();
                camera.token = Some(token.map_err(|e| e.to_string())?);
            }
            (CameraState::Live, Some(_)) => {}
            _ => camera.token = None,
        }
        if status.state == CameraState::Ended {
            // its keys are made again should it come back
            self.cameras.remove(status.source.as_str());
        }
        self.states.set(key, status.state, json);
        put
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cameras.clear();
        // what goes wrong while leaving is of no consequence to anyone
        let _ = self.session.close().wait();
    }
}
