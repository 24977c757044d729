//! Who may talk to the server. A web page of another site runs in the user's browser and can reach loopback addresses, so
//! it is the browser's `Origin` and `Host` headers that tell a stranger's page from ours.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use std::net::IpAddr;

/// The rules.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Origins that are let in besides our own page's; `*` for all.
    allowed: Vec<String>,
    /// Only this machine reaches the server, so only names of this machine are its names.
    loopback: bool,
}

/// Why a request was refused, as the answer says it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error(
        "the name '{0}' is not one of this server's, which listens on loopback alone: \
         open it as 127.0.0.1 or localhost, or name the page's origin in ORIGINS"
    )]
    Host(String),
    #[error(
        "pages of the origin '{0}' may not connect here: name it in the setting ORIGINS of ws-publisher to let them in"
    )]
    Origin(String),
    #[error("the request has no Host header, or more than one")]
    NoHost,
}

impl Denied {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            // RFC 9112, 3.2
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::Host(_) | Self::Origin(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// What a load balancer or a monitor asks for, often by HTTP/1.0 and without a `Host`.
const FIGURES: [&str; 4] = ["/healthz", "/livez", "/readyz", "/stats"];

impl Access {
    /// `origins`: a list separated by commas, as the setting has it.
    pub(crate) fn new(origins: &str, loopback: bool) -> Self {
        let allowed = origins
            .split(',')
            .map(|o| o.trim().trim_end_matches('/').to_ascii_lowercase())
            .filter(|o| !o.is_empty())
            .collect();
        Self { allowed, loopback }
    }

    /// Checks a request. Programs send no `Origin`: the check is for browsers.
    pub(crate) fn check(&self, version: Version, path: &str, headers: &HeaderMap) -> Result<(), Denied> {
        let text = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).to_ascii_lowercase();
        let origin = headers.get(header::ORIGIN).map(text);
        let listed = |origin: &str| self.allowed.iter().any(|a| a == "*" || a == origin);
        let mut hosts = headers.get_all(header::HOST).iter().map(text);
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host,
            // no browser speaks HTTP/1.0
            (None, _) if version == Version::HTTP_10 && origin.is_none() && FIGURES.contains(&path) => return Ok(()),
            _ => return Err(Denied::NoHost),
        };
        let ours = ["http", "https"].map(|scheme| format!("{scheme}://{host}"));
        // a name that an attacker's DNS leads to 127.0.0.1 is the attacker's, though Origin and Host agree
        if self.loopback && !is_local(&host) && !ours.iter().any(|origin| listed(origin)) {
            return Err(Denied::Host(host));
        }
        match origin {
            Some(origin) if !listed(&origin) && !ours.contains(&origin) => Err(Denied::Origin(origin)),
            _ => Ok(()),
        }
    }
}

/// Whether a `Host` header names this machine in a way that DNS has no part in.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(origins: &str, loopback: bool, host: &str, origin: Option<&str>) -> Result<(), Denied> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        Access::new(origins, loopback).check(Version::HTTP_11, "/", &headers)
    }

    #[test]
    fn our_own_page_and_programs_come_in() {
        for host in ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080"] {
            assert_eq!(check("", true, host, None), Ok(()));
            assert_eq!(check("", true, host, Some(&format!("http://{host}"))), Ok(()));
        }
        assert_eq!(check("", false, "cam.lan:8080", Some("http://cam.lan:8080")), Ok(()));
        assert_eq!(check("", false, "cam.lan", Some("https://cam.lan")), Ok(()), "behind a proxy that adds TLS");
    }

    #[test]
    fn pages_of_other_sites_stay_out() {
        let evil = "http://evil.example";
        assert_eq!(check("", true, "127.0.0.1:8080", Some(evil)), Err(Denied::Origin(evil.into())));
        assert_eq!(check("", true, "127.0.0.1:8080", Some("null")), Err(Denied::Origin("null".into())));
        assert!(check("", true, "127.0.0.1:8080", Some("http://127.0.0.1:9090")).is_err());
        // DNS rebinding: Origin and Host agree, but the name is a stranger's
        let host = "evil.example:8080";
        assert_eq!(check("", true, host, Some("http://evil.example:8080")), Err(Denied::Host(host.into())));
        assert_eq!(check("", true, host, None), Err(Denied::Host(host.into())));
        assert_eq!(check("", false, "cam.lan", Some(evil)), Err(Denied::Origin(evil.into())));
    }

    #[test]
    fn origins_can_be_let_in() {
        let list = "https://wall.example/, http://Other.example:81";
        assert_eq!(check(list, true, "127.0.0.1:8080", Some("https://wall.example")), Ok(()));
        assert_eq!(check(list, true, "127.0.0.1:8080", Some("http://other.example:81")), Ok(()));
        assert!(check(list, true, "127.0.0.1:8080", Some("http://wall.example")).is_err());
        assert_eq!(check("*", true, "any.name", Some("http://evil.example")), Ok(()));
        assert_eq!(check("http://my.name:8080", true, "my.name:8080", None), Ok(()));
        // behind a proxy that adds TLS and keeps the Host (Apache's ProxyPreserveHost), as a user names its page
        let page = "https://wall.example";
        assert_eq!(check(page, true, "wall.example", Some(page)), Ok(()));
    }

    #[test]
    fn monitors_may_leave_the_host_out_where_their_version_of_http_does() {
        let check = |version, path: &str, headers: &[(header::HeaderName, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, HeaderValue::from_static(value));
            }
            Access::new("", true).check(version, path, &map).map_err(|e| e.status().as_u16())
        };
        for path in ["/livez", "/healthz", "/readyz", "/stats"] {
            assert_eq!(check(Version::HTTP_10, path, &[]), Ok(()));
            assert_eq!(check(Version::HTTP_11, path, &[]), Err(400));
            assert_eq!(check(Version::HTTP_10, path, &[(header::ORIGIN, "http://evil.example")]), Err(400));
            assert_eq!(check(Version::HTTP_10, path, &[(header::HOST, "evil.example")]), Err(403));
        }
        assert_eq!(check(Version::HTTP_10, "/ws", &[]), Err(400));
        assert_eq!(check(Version::HTTP_11, "/", &[(header::HOST, "127.0.0.1"), (header::HOST, "localhost")]), Err(400));
    }
}
