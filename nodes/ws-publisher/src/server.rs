//! The HTTP server: its own thread with its own runtime, so that nothing a client does can hold up the node.

use crate::access::Access;
use crate::client::{self, MAX_INBOUND_BYTES};
use crate::connections;
use crate::hub::Hub;
use crate::page;
use crate::queue::Video;
use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// Connections besides the WebSocket clients: page loads, /stats, and clients on their way to being refused.
const SPARE_CONNECTIONS: usize = 64;
/// How long clients have, once the graph has ended, to take what waits for them.
const LINGER: Duration = Duration::from_millis(700);
/// Changes of cameras' states within this time go to the clients in one message.
const TOGETHER: Duration = Duration::from_millis(50);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error(
        "BIND: '{0}' is not an address; give an IP address such as 127.0.0.1 (this machine), 0.0.0.0 (all of its networks) or ::1"
    )]
    Address(String),
    #[error(
        "port {port} on {ip} is in use: another run of a graph may hold it, or another program; \
         set PORT to another number, or to 0 for any free one"
    )]
    Busy { ip: IpAddr, port: u16 },
    #[error("cannot listen on {address} (BIND, PORT): {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start the server's thread: {0}")]
    Thread(io::Error),
}

/// A running server. Dropping it ends it at once.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

/// Reads the setting BIND.
pub(crate) fn parse_bind(bind: &str) -> Result<IpAddr, ServerError> {
    match bind.trim() {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        other => {
            other.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| ServerError::Address(bind.into()))
        }
    }
}

/// The address by which other machines reach this one: the one from which it would talk to the world. No packet is sent.
fn own_address(unspecified: IpAddr) -> Option<IpAddr> {
    // addresses that are kept for documentation (RFC 5737, RFC 3849) are routed as any others
    let (any, outside): (IpAddr, IpAddr) = match unspecified {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((outside, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

impl Server {
    /// Listens on `ip` and `port` and serves what `hub` has.
    pub(crate) fn start(
        ip: IpAddr,
        port: u16,
        origins: &str,
        max_clients: usize,
        hub: Arc<Hub>,
    ) -> Result<Self, ServerError> {
        let address = SocketAddr::new(ip, port);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::Busy { ip, port },
            _ => ServerError::Listen { address, source },
        };
        // bound here, so that a busy port stops the graph's start and not some thread later
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Thread)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let most = max_clients.saturating_add(SPARE_CONNECTIONS);
        let access = Access::new(origins, ip.is_loopback());
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("ws-server".into())
            .spawn(move || runtime.block_on(run(listener, most, access, hub, stopped)))
            .map_err(ServerError::Thread)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens; with the port that was chosen where 0 was asked for.
    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The page's address as a user can open it: of this machine's network where other machines can reach the server.
    pub(crate) fn page(&self) -> String {
        let ip = match self.address.ip() {
            ip if ip.is_unspecified() => own_address(ip).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ip => ip,
        };
        format!("http://{}/", SocketAddr::new(ip, self.address.port()))
    }

    /// What a user should know who lets more than this machine in.
    pub(crate) fn warning(&self) -> Option<String> {
        (!self.address.ip().is_loopback()).then(|| {
            format!(
                "anybody who reaches port {} of this machine can watch, without a password and unencrypted (BIND: {})",
                self.address.port(),
                self.address.ip()
            )
        })
    }

    /// Says goodbye to the clients and ends the thread, within about a second. Call [`Hub::end`] first.
    pub(crate) fn stop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // a panic in there has been printed by the thread itself
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run(listener: tokio::net::TcpListener, most: usize, access: Access, hub: Arc<Hub>, stop: Arc<Notify>) {
    let app = Router::new()
        .route("/ws", get(upgrade))
        .route("/stats", get(|State(hub): State<Arc<Hub>>| async move { json(hub.stats_text().as_str().to_owned()) }))
        .route("/healthz", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(|State(hub): State<Arc<Hub>>| async move { with_code(hub.ready()) }))
        .fallback(get(|uri: Uri| async move { page::file(uri.path()) }))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let denied = access.check(request.version(), request.uri().path(), request.headers());
            async move {
                match denied {
                    Ok(()) => next.run(request).await,
                    Err(denied) => (denied.status(), format!("{denied}\n")).into_response(),
                }
            }
        }))
        .with_state(hub.clone());
    let ticks = async {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = second.tick() => {}
                // many cameras may change at once
                () = hub.changed.notified() => tokio::time::sleep(TOGETHER).await,
            }
            hub.tick();
        }
    };
    let ended = async {
        stop.notified().await;
        let all_gone = async {
            while hub.clients() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(LINGER, all_gone).await;
    };
    tokio::select! {
        () = connections::serve(listener, app, most) => {}
        () = ticks => {}
        () = ended => {}
    }
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

fn with_code((code, text): (StatusCode, String)) -> Response {
    (code, json(text)).into_response()
}

async fn alive(State(hub): State<Arc<Hub>>) -> Response {
    with_code(hub.alive())
}

/// `/ws`, `/ws?video=1`, `/ws?video=jpeg`.
async fn upgrade(
    State(hub): State<Arc<Hub>>,
    uri: Uri,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let socket = match socket {
        Ok(socket) => socket,
        // RFC 6455, 4.2.2: the versions that the server understands
        Err(WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(refused)) => {
            return ([(header::SEC_WEBSOCKET_VERSION, "13")], refused).into_response();
        }
        Err(refused) => return refused.into_response(),
    };
    if !headers.get(header::SEC_WEBSOCKET_KEY).is_some_and(|key| is_key(key.as_bytes())) {
        return (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64\n").into_response();
    }
    let video = match wanted_video(uri.query().unwrap_or_default()) {
        Ok(video) => video,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    socket
        .max_message_size(MAX_INBOUND_BYTES)
        .max_frame_size(MAX_INBOUND_BYTES)
        .on_upgrade(move |socket| client::serve(socket, hub, video))
}

fn wanted_video(query: &str) -> Result<Video, String> {
    let mut video = Video::None;
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        video = match pair {
            "video=0" => Video::None,
            "video=1" => Video::Auto,
            "video=jpeg" => Video::Jpeg,
            other => {
                let other = &other[..other.floor_char_boundary(64)];
                return Err(format!("'{other}' is unknown here; /ws takes video=0, video=1 or video=jpeg\n"));
            }
        };
    }
    Ok(video)
}

/// 16 bytes in base64: 22 digits and two signs that fill up (RFC 6455, 4.1).
fn is_key(key: &[u8]) -> bool {
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}
