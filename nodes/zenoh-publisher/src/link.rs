//! The zenoh session, as a sink of the outbox.

use crate::config::{Mode, Settings};
use crate::key::chunk;
use crate::outbox::{Put, Sink};
use std::collections::HashMap;
use std::sync::Arc;
use zenoh::Wait;
use zenoh::bytes::Encoding;
use zenoh::key_expr::KeyExpr;
use zenoh::liveliness::LivelinessToken;
use zenoh::qos::CongestionControl;

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
}

struct Camera {
    key: KeyExpr<'static>,
    /// Withdrawn when it is dropped, or by zenoh when this process dies.
    _alive: LivelinessToken,
}

/// The session's configuration.
pub(crate) fn configuration(settings: &Settings) -> Result<zenoh::Config, String> {
    let list = |text: &str| {
        let items: Vec<&str> = text.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
        serde_json::Value::from(items).to_string()
    };
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
            format!("{setting}: zenoh does not take {value} ({e}); endpoints look like tcp/127.0.0.1:7447, separated by commas")
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
        Ok(Self { session, graph, cameras: HashMap::new() })
    }

    fn camera(&mut self, source: &Arc<str>) -> Result<&Camera, String> {
        if !self.cameras.contains_key(source) {
            if self.cameras.len() == MAX_CAMERAS {
                return Err(format!("more than {MAX_CAMERAS} cameras"));
            }
            let camera = chunk(source).ok_or("a camera without a name")?;
            let place = format!("millrace/{}/{camera}", self.graph);
            let key = KeyExpr::try_from(format!("{place}/detections")).map_err(|e| e.to_string())?;
            let alive =
                self.session.liveliness().declare_token(format!("{place}/alive")).wait().map_err(|e| e.to_string())?;
            self.cameras.insert(source.clone(), Camera { key, _alive: alive });
        }
        self.cameras.get(source).ok_or_else(|| "a camera that was just put there is gone".into())
    }
}

impl Sink for Link {
    fn put(&mut self, put: Put) -> Result<(), String> {
        let key = self.camera(&put.source)?.key.clone();
        for (encoding, bytes) in put.payloads {
            // Block: this thread may wait, and what cannot be sent is then dropped, and counted, in the outbox. With Drop
            // zenoh would lose messages without a word, also when nothing but the processor is short.
            self.session
                .put(&key, bytes)
                .encoding(Encoding::from(encoding))
                .congestion_control(CongestionControl::Block)
                .wait()
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cameras.clear();
        // what goes wrong while leaving is of no consequence to anyone
        let _ = self.session.close().wait();
    }
}
