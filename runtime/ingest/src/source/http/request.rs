//! A request for a camera's pictures, and what comes back.

use super::camera::Failure;
use crate::source::address::Address;
use crate::source::probe::RECORD_HLS;
use crate::source::url::redact_url;
use http_auth::{PasswordClient, PasswordParams};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use millrace_frame::CameraState;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// The pictures of a camera, as bytes that come.
pub(super) struct Stream {
    pub(super) body: Incoming,
    /// What drives the connection.
    _connection: AbortOnDropHandle<()>,
}

/// Asks for the pictures, with the login that the camera wants.
pub(super) async fn connect(address: &Address) -> Result<Stream, Failure> {
    let (response, connection) = ask(address, None).await?;
    let (response, connection) = match (response.status(), &address.credentials) {
        (StatusCode::UNAUTHORIZED, Some(_)) => {
            let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let unknown = || refused("the camera asks for a login of an unknown kind");
            let login = PasswordClient::try_from(challenge.ok_or_else(unknown)?).map_err(|_| unknown())?;
            ask(address, Some(login)).await?
        }
        _ => (response, connection),
    };
    let status = response.status();
    if status.is_redirection() {
        let place = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        return Err(refused(format!(
            "{status}: the pictures are at another address, '{}'; name that",
            redact_url(place)
        )));
    }
    if !status.is_success() {
        return Err(refused(status.to_string()));
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        return Err(refused(format!("{status}: the camera has nothing at this address; check the path in the URL")));
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let coding = header(CONTENT_ENCODING).unwrap_or("identity").trim().to_ascii_lowercase();
    if coding != "identity" {
        let coding = address.scrubbed(&coding);
        return Err(refused(format!(
            "the camera compresses its answer ('{coding}'), which was not asked for; switch that off"
        )));
    }
    let kind = header(CONTENT_TYPE).unwrap_or("nothing named");
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "multipart/x-mixed-replace" | "multipart/mixed" | "video/x-motion-jpeg" | "video/mjpeg" => {}
        "image/jpeg" => {
            return Err(refused(
                "the camera sends a single picture (image/jpeg); name the address of its Motion JPEG stream",
            ));
        }
        "application/vnd.apple.mpegurl" | "application/x-mpegurl" | "audio/mpegurl" | "audio/x-mpegurl" => {
            return Err(refused(format!("this is an HLS playlist, which is not read; {RECORD_HLS}")));
        }
        other => {
            let other = address.scrubbed(other);
            return Err(refused(format!(
                "the camera sends '{other}'; multipart/x-mixed-replace (Motion JPEG) is expected"
            )));
        }
    }
    Ok(Stream { body: response.into_body(), _connection: connection })
}

type Answer = (Response<Incoming>, AbortOnDropHandle<()>);

async fn ask(address: &Address, login: Option<PasswordClient>) -> Result<Answer, Failure> {
    let lost = |e: &dyn std::error::Error| Failure::new(CameraState::Connecting, address.scrubbed(&chain(e)));
    let host = address.url.host_str().unwrap_or_default();
    // an IPv6 address has brackets in a URL, and none as a name
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let port = address.url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((name, port)).await.map_err(|e| lost(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost(&e))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // what goes wrong is said by the answer or by its body, too
        let _ = connection.await;
    }));
    let path = &address.url[url::Position::BeforePath..url::Position::AfterQuery];
    let place = if address.url.port().is_some() { format!("{host}:{port}") } else { host.to_owned() };
    let mut request = Request::get(path)
        .header(HOST, place)
        .header(USER_AGENT, "millrace")
        .header(ACCEPT, "multipart/x-mixed-replace, image/jpeg");
    if let (Some(mut login), Some(credentials)) = (login, &address.credentials) {
        let params = PasswordParams {
            username: &credentials.username,
            password: &credentials.password,
            uri: path,
            method: "GET",
            body: Some(&[]),
        };
        // the reason could name the user
        let answer = login.respond(&params).map_err(|_| refused("the camera's kind of login cannot be answered"))?;
        request = request.header(AUTHORIZATION, answer);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| lost(&e))?;
    let response = sender.send_request(request).await.map_err(|e| lost(&e))?;
    Ok((response, connection))
}

fn refused(reason: impl Into<String>) -> Failure {
    Failure::new(CameraState::Refused, reason)
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
