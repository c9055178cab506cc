//! What a request carries — parameters, segments of its path, its body — and the form of its answer.
//!
//! What axum would refuse in plain text is refused here as a [`Problem`]. The invariant: every request is answered
//! within [`LIMIT`].

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequestParts, Path, Query, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
    response::Response,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time;

use super::{Api, error::Problem};
use crate::{session, transport::TooSlow};

/// Every request is answered within this.
const LIMIT: Duration = Duration::from_secs(8);
/// How many messages, events or sessions a page has if the request does not say, and at most.
const PAGE: (usize, usize) = (100, 500);

/// What a handler answers.
pub(super) type Answer = Result<Response, Problem>;

/// Query parameters, with a problem for those that cannot be read.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(params)| Self(params)).map_err(|error| Problem::parameters(&error))
    }
}

/// The parameters in a path, with a problem for those that cannot be read.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + std::marker::Send> FromRequestParts<Api> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, api).await;
        path.map(|Path(segments)| Self(segments))
            .map_err(|_| Problem::invalid("the path cannot be read; write each part of it as UTF-8, percent-encoded"))
    }
}

/// A body's text.
pub(super) type Body = Result<Bytes, BytesRejection>;

/// The text of a body.
pub(super) fn text(body: Body) -> Result<String, Problem> {
    let bytes = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too large; send less at once")
        }
        _ if TooSlow::is_behind(&error) => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "invalid", "the body came too slowly; send it at once")
        }
        _ => Problem::invalid("the body could not be read; send it whole"),
    })?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::invalid("the body is not UTF-8; send JSON as UTF-8"))
}

/// The outcome of a request about a session, or `unavailable` when it takes too long.
pub(super) async fn within<T>(answer: impl Future<Output = Result<T, session::Error>>) -> Result<T, Problem> {
    let answer = time::timeout(LIMIT, Box::pin(answer)).await;
    answer.unwrap_or(Err(session::Error::Unavailable)).map_err(Problem::from)
}

/// A value as JSON.
pub(super) fn as_json<T: Serialize>(value: &T) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "unavailable", format!("the answer cannot be encoded: {error}"))
    })
}

/// How much a page may hold that a request asks for.
pub(super) fn page(limit: Option<u32>) -> Result<usize, Problem> {
    match limit.map_or(PAGE.0, |limit| usize::try_from(limit).unwrap_or(PAGE.1)) {
        0 => Err(Problem::invalid(format!("limit is 0; use 1 to {}", PAGE.1))),
        limit => Ok(limit.min(PAGE.1)),
    }
}
