//! Where a request carries its token, and what it is told when that is not enough.
//!
//! `Authorization: Bearer` goes before the parameter `token`, which is there for those who cannot set headers. Its
//! invariant: a refusal says why in the words of RFC 6750, and never holds a part of the token.

use axum::{
    extract::Query,
    http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION, request::Parts},
};
use serde::Deserialize;

use super::error::Problem;
use crate::auth::{self, Identity, Presented, Verifier};

#[derive(Deserialize)]
struct Fields {
    token: Option<String>,
    user_id: Option<String>,
    name: Option<String>,
}

/// Whom a request speaks for.
pub(super) async fn identify(verifier: &Verifier, parts: &Parts) -> Result<Identity, Problem> {
    let Query(fields): Query<Fields> = Query::try_from_uri(&parts.uri).map_err(|error| Problem::parameters(&error))?;
    let bearer = bearer(&parts.headers).map_err(|refused| problem(&refused))?;
    let presented = Presented {
        token: bearer.or(fields.token.as_deref()),
        user_id: fields.user_id.as_deref(),
        name: fields.name.as_deref(),
    };
    verifier.identify(presented).await.map_err(|refused| {
        tracing::debug!(why = refused.code(), path = parts.uri.path(), "a request was refused: {refused}");
        problem(&refused)
    })
}

/// The token of the one `Authorization` header. Another scheme than `Bearer` is none of this server's.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, auth::Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(auth::Refused::Malformed("there are several Authorization headers"));
    }
    let text = value.to_str().map_err(|_| auth::Refused::Malformed("the Authorization header is no text"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    Ok(scheme.eq_ignore_ascii_case("Bearer").then_some(token.trim()))
}

fn problem(refused: &auth::Refused) -> Problem {
    match refused {
        auth::Refused::Parameters(text) => Problem::invalid(text.clone()),
        auth::Refused::NoKeys => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", refused.to_string()),
        _ => Problem::unidentified(refused.to_string(), challenge(refused)),
    }
}

/// What a client is asked for. Texts of refusals are kept to what a header may hold.
fn challenge(refused: &auth::Refused) -> HeaderValue {
    const PLAIN: HeaderValue = HeaderValue::from_static("Bearer realm=\"rejoin\"");
    if *refused == auth::Refused::Missing {
        return PLAIN;
    }
    let text: String =
        refused.to_string().chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
    let challenge = format!("Bearer realm=\"rejoin\", error=\"invalid_token\", error_description=\"{text}\"");
    HeaderValue::from_str(&challenge).unwrap_or(PLAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_bearer_of_the_one_header_is_the_token() {
        for (values, token) in [
            (&["Bearer a.b.c"][..], Some("a.b.c")),
            (&["bearer  a.b.c "], Some("a.b.c")),
            (&["Bearer"], Some("")),
            (&["Basic YTpi"], None),
            (&[], None),
        ] {
            assert_eq!(bearer(&headers(values)), Ok(token), "{values:?}");
        }
        assert!(bearer(&headers(&["Bearer a", "Bearer b"])).is_err());
    }

    #[test]
    fn a_challenge_is_a_header_whatever_the_reason() {
        assert_eq!(challenge(&auth::Refused::Missing), "Bearer realm=\"rejoin\"");
        let odd = challenge(&auth::Refused::Claims("sub \"ü\\\"\n is reserved".to_owned()));
        let text = odd.to_str().unwrap();
        assert!(text.contains("error=\"invalid_token\"") && text.ends_with("used: sub  is reserved\""), "{text}");
    }
}
