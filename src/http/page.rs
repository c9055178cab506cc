//! The demo page and the operators' page, served from the binary: the bundles that `npm run build` makes in `client-js`.

use axum::{
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};

/// The page loads from and talks to its own server only.
const POLICY: (HeaderName, &str) = (
    header::CONTENT_SECURITY_POLICY,
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        POLICY,
    ];
    (headers, text).into_response()
}

/// `GET /`
pub(super) async fn index() -> Response {
    asset("text/html; charset=utf-8", include_str!("../../client-js/demo/dist/index.html"))
}

/// `GET /app.js`
pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../../client-js/demo/dist/app.js"))
}

/// `GET /app.css`
pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../../client-js/demo/dist/app.css"))
}

/// `GET /admin`: the page alone. What it shows it asks for as anybody else does, and with what right.
pub(super) async fn admin_index() -> Response {
    asset("text/html; charset=utf-8", include_str!("../../client-js/admin/dist/index.html"))
}

/// `GET /admin/app.js`
pub(super) async fn admin_script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../../client-js/admin/dist/app.js"))
}

/// `GET /admin/app.css`
pub(super) async fn admin_style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../../client-js/admin/dist/app.css"))
}
