//! The requests of an RTSP session by UDP (RFC 2326). The client library's own session keeps its sockets to itself.

use super::address::Address;
use super::connection::{Failure, refusal};
use super::network;
use http_auth::{PasswordClient, PasswordParams};
use millrace_frame::CameraState;
use rtsp_types::headers::{AUTHORIZATION, CSEQ, PUBLIC, SESSION, USER_AGENT, WWW_AUTHENTICATE};
use rtsp_types::{HeaderName, Message, Method, ParseError, Request, Response, Version};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use url::Url;

const PORT: u16 = 554;
/// The longest message that is read.
const LARGEST_MESSAGE_BYTES: usize = 1 << 20;

/// A connection for requests, which are made one after the other.
pub(super) struct Control {
    address: Address,
    stream: TcpStream,
    unread: Vec<u8>,
    requests: u32,
    login: Option<PasswordClient>,
    session: Option<String>,
    /// The server's own address, and ours.
    pub(super) ends: (SocketAddr, SocketAddr),
}

impl Control {
    pub(super) async fn connect(address: &Address) -> Result<Self, Failure> {
        let host = address.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let connected = TcpStream::connect((host, address.url.port().unwrap_or(PORT))).await;
        let ready = connected.and_then(|stream| Ok(((stream.peer_addr()?, stream.local_addr()?), stream)));
        let (ends, stream) = ready.map_err(|e| lost(&e))?;
        let (unread, session) = (Vec::new(), None);
        Ok(Self { address: address.clone(), stream, unread, requests: 0, login: None, session, ends })
    }

    /// Requests from now on name this session.
    pub(super) fn in_session(&mut self, id: &str) {
        self.session = Some(id.to_owned());
    }

    /// Asks, and waits for a success. Logs in where the server wants it.
    pub(super) async fn request(
        &mut self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, &str)],
    ) -> Result<Response<Vec<u8>>, Failure> {
        let mut logged_in = false;
        loop {
            let request = self.written(&method, url, headers)?;
            self.stream.write_all(&request).await.map_err(|e| lost(&e))?;
            let response = self.response().await?;
            let code = u16::from(response.status());
            if code == 401
                && !std::mem::replace(&mut logged_in, true)
                && self.address.credentials.is_some()
                && let Some(challenge) = response.header(&WWW_AUTHENTICATE)
            {
                let login = PasswordClient::try_from(challenge.as_str());
                let unknown = |_| Failure::new(CameraState::Refused, "the camera asks for a login of an unknown kind");
                self.login = Some(login.map_err(unknown)?);
                continue;
            }
            if response.status().is_success() {
                return Ok(response);
            }
            let verb = <&str>::from(&method);
            return Err(refusal(&self.address, code, || format!("{code} in answer to {verb}")));
        }
    }

    fn written(&mut self, method: &Method, url: &Url, headers: &[(HeaderName, &str)]) -> Result<Vec<u8>, Failure> {
        self.requests += 1;
        let mut request = Request::builder(method.clone(), Version::V1_0)
            .request_uri(url.clone())
            .header(CSEQ, self.requests.to_string())
            .header(USER_AGENT, super::connection::USER_AGENT);
        for (name, value) in headers {
            request = request.header(name.clone(), *value);
        }
        if let Some(session) = &self.session {
            request = request.header(SESSION, session.as_str());
        }
        if let (Some(login), Some(credentials)) = (&mut self.login, &self.address.credentials) {
            let answer = login.respond(&PasswordParams {
                username: &credentials.username,
                password: &credentials.password,
                uri: url.as_str(),
                method: method.into(),
                body: Some(&[]),
            });
            // the reason could name the user
            let unable = |_| Failure::new(CameraState::Refused, "the camera's kind of login cannot be answered");
            request = request.header(AUTHORIZATION, answer.map_err(unable)?);
        }
        let mut bytes = Vec::new();
        // writing into memory does not fail
        let _ = request.empty().write(&mut bytes);
        Ok(bytes)
    }

    /// The answer to the last request.
    async fn response(&mut self) -> Result<Response<Vec<u8>>, Failure> {
        loop {
            if let Message::Response(response) = self.message().await? {
                let number = response.header(&CSEQ).and_then(|value| value.as_str().trim().parse().ok());
                if number.is_none_or(|number: u32| number == self.requests) {
                    return Ok(response);
                }
            }
        }
    }

    /// Whatever the server says next. Nothing is lost where the wait ends early.
    async fn message(&mut self) -> Result<Message<Vec<u8>>, Failure> {
        loop {
            match Message::parse(&self.unread) {
                Ok((message, bytes)) => {
                    self.unread.drain(..bytes);
                    return Ok(message);
                }
                Err(ParseError::Incomplete(_)) if self.unread.len() < LARGEST_MESSAGE_BYTES => {}
                Err(_) => return Err(Failure::new(CameraState::Connecting, "the camera's answer is not RTSP")),
            }
            if self.stream.read_buf(&mut self.unread).await.map_err(|e| lost(&e))? == 0 {
                return Err(Failure::new(CameraState::Connecting, "the camera ended the stream"));
            }
        }
    }

    /// Plays in a task of its own until the receiver is dropped, and then tells the camera that the session ends. The
    /// receiver gets one success, or a failure, or both in this order.
    pub(super) fn play(mut self, url: Url, timeout_s: u64, tasks: &TaskTracker) -> mpsc::Receiver<Result<(), Failure>> {
        let (tell, told) = mpsc::channel(2);
        tasks.spawn(async move {
            tokio::select! {
                () = tell.closed() => {}
                failure = self.keep_playing(&url, Duration::from_secs(timeout_s) / 2, &tell) => {
                    let _ = tell.send(Err(failure)).await;
                }
            }
            // a camera that is not told goes on sending
            let _ = timeout(network::FAREWELL, self.request(Method::Teardown, &url, &[])).await;
        });
        told
    }

    async fn keep_playing(&mut self, url: &Url, every: Duration, tell: &mpsc::Sender<Result<(), Failure>>) -> Failure {
        if let Err(failure) = self.request(Method::Play, url, &[(rtsp_types::headers::RANGE, "npt=0.000-")]).await {
            return failure;
        }
        let _ = tell.send(Ok(())).await;
        let mut method = Method::Options;
        loop {
            // what the server says unasked means nothing but its end
            let until = tokio::time::Instant::now() + every;
            while let Ok(message) = tokio::time::timeout_at(until, self.message()).await {
                if let Err(failure) = message {
                    return failure;
                }
            }
            match timeout(every, self.request(method.clone(), url, &[])).await {
                Ok(Ok(answer)) => {
                    let offered = answer.header(&PUBLIC).map(|methods| methods.as_str()).unwrap_or_default();
                    if offered.contains("GET_PARAMETER") {
                        method = Method::GetParameter;
                    }
                }
                // a camera that refuses to be asked goes on sending, or its pictures stop
                Ok(Err(failure)) if failure.state == CameraState::Refused => {
                    tracing::debug!(url = self.address.shown, "keeping the session alive: {}", failure.reason);
                }
                Ok(Err(failure)) => return failure,
                Err(_) => return Failure::new(CameraState::Connecting, "the camera does not answer any more"),
            }
        }
    }
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(CameraState::Connecting, error.to_string())
}
