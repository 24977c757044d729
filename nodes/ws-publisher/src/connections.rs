//! The server's connections: bounded in number, and none keeps a place that it does not use. A connection that sends no
//! request is closed after a while, and at once when its place is wanted.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A client has this long for the whole head of a request, from the connection or from the last answer on.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Where the process has no descriptor left for a connection, it is tried again after this time.
const NO_DESCRIPTOR: Duration = Duration::from_millis(200);

/// Serves `app` on every connection that `listener` accepts, and no more than `most` at a time.
pub(crate) async fn serve(listener: TcpListener, app: Router, most: usize) {
    let limit = Arc::new(ConnectionLimit { most, state: Mutex::default(), freed: Notify::new() });
    let app = TowerToHyperService::new(app);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // of the client's connection alone, or of all that this process has open
                if !matches!(error.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset)
                {
                    tokio::time::sleep(NO_DESCRIPTOR).await;
                }
                continue;
            }
        };
        // boxes are small and wanted at once
        let _ = stream.set_nodelay(true);
        let permit = limit.clone().acquire().await;
        let evicted = permit.connection.evicted.clone();
        let service = Tracked { app: app.clone(), connection: permit.connection.clone() };
        let io = TokioIo::new(PermittedStream { stream, _permit: permit });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(io, service)
                .with_upgrades();
            tokio::select! {
                // what a client does wrong is answered or is the end of its connection
                _ = connection => {}
                () = evicted.notified() => {}
            }
        });
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No request, since this time.
    Idle(Instant),
    /// A request is being answered.
    Busy,
    /// It is a WebSocket.
    Upgraded,
}

#[derive(Debug)]
struct Connection {
    phase: Mutex<Phase>,
    /// Its permit is wanted for another connection.
    evicted: Arc<Notify>,
}

impl Connection {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Arc<Connection>>,
}

/// Limits the number of open connections.
#[derive(Debug)]
struct ConnectionLimit {
    most: usize,
    state: Mutex<State>,
    freed: Notify,
}

impl ConnectionLimit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit for a connection. If there is none, the connection that has been idle for longest loses its own.
    /// If no connection is idle, this waits until one ends.
    async fn acquire(self: Arc<Self>) -> ConnectionPermit {
        loop {
            if let Some((number, connection)) = self.take() {
                return ConnectionPermit { limit: self, number, connection };
            }
            // a permit is kept when a place is freed between the two lines
            self.freed.notified().await;
        }
    }

    fn take(&self) -> Option<(u64, Arc<Connection>)> {
        let mut state = self.state();
        if state.open.len() >= self.most {
            let idle = state.open.values().filter_map(|connection| match *connection.phase() {
                Phase::Idle(since) => Some((since, connection)),
                Phase::Busy | Phase::Upgraded => None,
            });
            if let Some((_, connection)) = idle.min_by_key(|(since, _)| *since) {
                connection.evicted.notify_one();
            }
            return None;
        }
        let number = state.next;
        state.next += 1;
        let phase = Mutex::new(Phase::Idle(Instant::now()));
        let connection = Arc::new(Connection { phase, evicted: Arc::new(Notify::new()) });
        state.open.insert(number, connection.clone());
        Some((number, connection))
    }
}

/// The permit of an open connection. Dropping it makes room for another connection.
#[derive(Debug)]
struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    number: u64,
    connection: Arc<Connection>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.state().open.remove(&self.number);
        self.limit.freed.notify_one();
    }
}

/// The application, with a note of what its connection does.
struct Tracked {
    app: TowerToHyperService<Router>,
    connection: Arc<Connection>,
}

type Answer = Response<Body>;

impl Service<Request<Incoming>> for Tracked {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = self.connection.clone();
        *connection.phase() = Phase::Busy;
        let answer = self.app.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            *connection.phase() = if upgraded { Phase::Upgraded } else { Phase::Idle(Instant::now()) };
            Ok(answer)
        })
    }
}

/// The stream of a connection, with its permit. A WebSocket keeps both.
struct PermittedStream {
    stream: TcpStream,
    _permit: ConnectionPermit,
}

mod permitted_stream {
    //! `PermittedStream` reads and writes as its stream does.
    use super::PermittedStream;
    use std::io::{self, IoSlice};
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    impl AsyncRead for PermittedStream {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for PermittedStream {
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
