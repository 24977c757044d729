//! The page: five files in the binary, and nothing from elsewhere.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Scripts and styles from this server alone; connections to it alone; not to be framed by other sites.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file at `path`.
pub(crate) fn file(path: &str) -> Response {
    let (kind, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("../page/index.html")),
        "/page.css" => ("text/css; charset=utf-8", include_str!("../page/page.css")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("../page/page.js")),
        "/camera.js" => ("text/javascript; charset=utf-8", include_str!("../page/camera.js")),
        "/found.js" => ("text/javascript; charset=utf-8", include_str!("../page/found.js")),
        "/icon.svg" => ("image/svg+xml", include_str!("../page/icon.svg")),
        _ => {
            return (StatusCode::NOT_FOUND, "not found; there are /, /ws, /stats, /livez and /readyz\n")
                .into_response();
        }
    };
    let mut response = text.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // the files change with the binary, and a page older than its server is worse than a few kilobytes
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
