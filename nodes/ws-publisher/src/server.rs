//! The HTTP server: its own thread with its own runtime, so that nothing a client does can hold up the node.

use crate::access::Access;
use crate::client::{self, MAX_INBOUND_BYTES};
use crate::hub::Hub;
use crate::page;
use crate::queue::Video;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, serve::Listener};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Connections besides the WebSocket clients: page loads, /stats, and clients on their way to being refused.
const SPARE_CONNECTIONS: usize = 64;
/// How long clients have, once the graph has ended, to take what waits for them.
const LINGER: Duration = Duration::from_millis(700);

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
        let places =
            Arc::new(Semaphore::new(max_clients.saturating_add(SPARE_CONNECTIONS).min(Semaphore::MAX_PERMITS)));
        let listener = Limited { listener, places };
        let access = Access::new(origins, ip.is_loopback());
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("ws-server".into())
            .spawn(move || runtime.block_on(run(listener, access, hub, stopped)))
            .map_err(ServerError::Thread)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens; with the port that was chosen where 0 was asked for.
    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The page's address as a user of this machine can open it.
    pub(crate) fn page(&self) -> String {
        let ip = match self.address.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}/", SocketAddr::new(ip, self.address.port()))
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

async fn run(listener: Limited, access: Access, hub: Arc<Hub>, stop: Arc<Notify>) {
    let app = Router::new()
        .route("/ws", get(upgrade))
        .route("/stats", get(|State(hub): State<Arc<Hub>>| async move { json(hub.stats_text().as_str().to_owned()) }))
        .route("/healthz", get(|| async { json("{\"status\":\"ok\"}".to_owned()) }))
        .fallback(get(|uri: Uri| async move { page::file(uri.path()) }))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let denied = access.check(request.headers());
            async move {
                match denied {
                    Ok(()) => next.run(request).await,
                    Err(denied) => (StatusCode::FORBIDDEN, format!("{denied}\n")).into_response(),
                }
            }
        }))
        .with_state(hub.clone());
    let ticks = async {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            second.tick().await;
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
        served = axum::serve(listener, app) => {
            if let Err(error) = served {
                tracing::error!(%error, "the server ended");
            }
        }
        () = ticks => {}
        () = ended => {}
    }
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// `/ws`, `/ws?video=1`, `/ws?video=jpeg`.
async fn upgrade(State(hub): State<Arc<Hub>>, uri: Uri, socket: WebSocketUpgrade) -> Response {
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

/// A listener that holds no more than so many connections at a time; further ones wait in the kernel's backlog.
struct Limited {
    listener: tokio::net::TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        let Ok(place) = self.places.clone().acquire_owned().await else {
            // the semaphore is never closed
            return std::future::pending().await;
        };
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // boxes are small and wanted at once
        let _ = stream.set_nodelay(true);
        (Held { stream, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection and its place.
struct Held {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

mod held {
    //! `Held` reads and writes as its stream does.
    use super::Held;
    use std::io::{self, IoSlice};
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    impl AsyncRead for Held {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Held {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        }
        fn is_write_vectored(&self) -> bool {
            self.stream.is_write_vectored()
        }
    }
}
