//! The requests of an RTSP session by UDP (RFC 2326). The client library's own session keeps its sockets to itself.

use super::connection::{Failure, refusal};
use super::stranger;
use crate::source::address::Address;
use crate::source::network;
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

    /// The server that does not speak RTSP, by what it says; `otherwise` where that is not known.
    fn stranger(&self, otherwise: &str) -> Failure {
        let words = stranger::of(&self.unread).unwrap_or_else(|| otherwise.to_owned());
        Failure::new(CameraState::Connecting, words)
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
                Err(ParseError::Incomplete(_)) => {
                    let reason = format!("the camera's answer is longer than {} MiB", LARGEST_MESSAGE_BYTES >> 20);
                    return Err(Failure::new(CameraState::Connecting, reason));
                }
                Err(_) => return Err(self.stranger("the camera's answer is not RTSP")),
            }
            if self.stream.read_buf(&mut self.unread).await.map_err(|e| lost(&e))? == 0 {
                return Err(self.stranger("the camera ended the stream"));
            }
        }
    }

    /// Plays in a task of its own until the receiver is dropped, and then tells the camera that the session ends. The
    /// receiver gets one success, or a failure, or both in this order.
    pub(super) fn play(mut self, url: Url, timeout_s: u64, tasks: &TaskTracker) -> mpsc::Receiver<Result<(), Failure>> {
        let (results, outcomes) = mpsc::channel(2);
        tasks.spawn(async move {
            tokio::select! {
                () = results.closed() => {}
                failure = self.keep_playing(&url, Duration::from_secs(timeout_s) / 2, &results) => {
                    let _ = results.send(Err(failure)).await;
                }
            }
            // without a TEARDOWN the camera goes on sending
            let _ = timeout(network::FAREWELL, self.request(Method::Teardown, &url, &[])).await;
        });
        outcomes
    }

    async fn keep_playing(
        &mut self,
        url: &Url,
        every: Duration,
        results: &mpsc::Sender<Result<(), Failure>>,
    ) -> Failure {
        if let Err(failure) = self.request(Method::Play, url, &[(rtsp_types::headers::RANGE, "npt=0.000-")]).await {
            return failure;
        }
        let _ = results.send(Ok(())).await;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use md5::{Digest, Md5};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// Answers requests by these, one after the other, and gives back the requests. `@` is a request's CSeq.
    fn server(answers: Vec<&'static str>) -> (Address, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("rtsp://user:pass@{}/camera", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            answers
                .into_iter()
                .map(|answer| {
                    let head = lines.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty());
                    let request = head.collect::<Vec<_>>().join("\n");
                    stream.write_all(answer.replace('@', &field(&request, "CSeq")).as_bytes()).unwrap();
                    request
                })
                .collect()
        });
        (Address::parse(&url, "rtsp").unwrap(), served)
    }

    fn field(request: &str, name: &str) -> String {
        let line = request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {request}")).to_owned()
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// RFC 2069 2.1.2, without the qualities of later versions.
    fn digest(nonce: &str, method: &str, uri: &str) -> String {
        let md5 = |text: String| format!("{:x}", Md5::digest(text));
        let (who, what) = (md5("user:door:pass".into()), md5(format!("{method}:{uri}")));
        format!("response=\"{}\"", md5(format!("{who}:{nonce}:{what}")))
    }

    #[test]
    fn a_login_is_answered_and_again_when_the_server_forgets_it() {
        let (address, served) = server(vec![
            "RTSP/1.0 401 Unauthorized\r\nCSeq: @\r\nWWW-Authenticate: Basic realm=\"door\"\r\n\
             WWW-Authenticate: Digest realm=\"door\", nonce=\"one\"\r\n\r\n",
            "RTSP/1.0 200 OK\r\nCSeq: @\r\n\r\n",
            "RTSP/1.0 401 Unauthorized\r\nCSeq: @\r\nWWW-Authenticate: Digest realm=\"door\", nonce=\"two\", stale=true\r\n\r\n",
            "RTSP/1.0 200 OK\r\nCSeq: @\r\n\r\n",
            "RTSP/1.0 401 Unauthorized\r\nCSeq: @\r\nWWW-Authenticate: Digest realm=\"door\", nonce=\"three\"\r\n\r\n",
            "RTSP/1.0 401 Unauthorized\r\nCSeq: @\r\nWWW-Authenticate: Digest realm=\"door\", nonce=\"four\"\r\n\r\n",
        ]);
        let url = address.url.clone();
        let refused = run(async {
            let mut control = Control::connect(&address).await.unwrap();
            control.request(Method::Describe, &url, &[]).await.unwrap();
            control.request(Method::Setup, &url, &[]).await.unwrap();
            control.request(Method::Play, &url, &[]).await.unwrap_err()
        });
        assert_eq!(
            (refused.state, &refused.reason[..]),
            (CameraState::Refused, "401 Unauthorized: check user and password")
        );
        let requests = served.join().unwrap();
        assert!(!requests[0].contains("Authorization"));
        for (request, nonce, method) in
            [(1, "one", "DESCRIBE"), (2, "one", "SETUP"), (3, "two", "SETUP"), (4, "two", "PLAY"), (5, "three", "PLAY")]
        {
            let answer = field(&requests[request], "Authorization");
            assert!(answer.contains(&digest(nonce, method, url.as_str())), "{nonce} {method}: {answer}");
        }
    }

    #[test]
    fn what_is_no_answer_is_passed_over() {
        let (address, served) = server(vec![
            "$\x01\x00\x03abcOPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\nRTSP/1.0 404 Not Found\r\nCSeq: 77\r\n\r\n\
             \r\nRTSP/1.0 200 OK\r\ncseq: @\r\nContent-Length: 4\r\n\r\nbody",
            "RTSP/1.0 461 Unsupported Transport\r\nCSeq: @\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ]);
        let url = address.url.clone();
        let (answer, refused, unread) = run(async {
            let mut control = Control::connect(&address).await.unwrap();
            let answer = control.request(Method::Describe, &url, &[]).await.unwrap();
            let refused = control.request(Method::Setup, &url, &[]).await.unwrap_err();
            (answer, refused, control.request(Method::Play, &url, &[]).await.unwrap_err())
        });
        assert_eq!(answer.body(), b"body");
        assert_eq!(refused.reason, "461 Unsupported Transport: choose the other RTSP transport, tcp or udp");
        assert_eq!(unread.reason, "the server answers with HTTP, not RTSP: check the port in the URL");
        served.join().unwrap();
    }

    #[test]
    fn a_session_is_kept_alive_until_the_server_ends_it() {
        let ok = "RTSP/1.0 200 OK\r\nCSeq: @\r\n\r\n";
        let offers = "RTSP/1.0 200 OK\r\nCSeq: @\r\nPublic: OPTIONS, GET_PARAMETER\r\n\r\n";
        let (address, served) = server(vec![ok, offers, "RTSP/1.0 454 No\r\nCSeq: @\r\n\r\n", ok]);
        let url = address.url.clone();
        run(async {
            let mut control = Control::connect(&address).await.unwrap();
            control.in_session("ab");
            let tasks = TaskTracker::new();
            let mut outcomes = control.play(url, 1, &tasks);
            assert!(outcomes.recv().await.unwrap().is_ok());
            // two requests a second, and then the server is gone
            let failure = outcomes.recv().await.unwrap().unwrap_err();
            assert_eq!(failure.reason, "the camera ended the stream");
        });
        let requests = served.join().unwrap();
        let methods: Vec<_> = requests.iter().map(|r| r.split(' ').next().unwrap()).collect();
        assert_eq!(methods, ["PLAY", "OPTIONS", "GET_PARAMETER", "GET_PARAMETER"]);
        assert!(requests.iter().all(|request| field(request, "Session") == "ab"));
    }
}
