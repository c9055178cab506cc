//! Tokens made here, for those who try the server out.
//!
//! A login of one's own makes them in production. Its invariant: what is minted passes the checks of a server with the
//! same options.

use std::time::Duration;

use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    Options,
    claims::{self, Rules},
};
use crate::clock::{self, Timestamp};

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// The user's id.
    pub sub: &'a str,
    /// The name to show; the id without it.
    pub name: Option<&'a str>,
    /// The object of patterns with an access for each, as JSON.
    pub topics: &'a RawValue,
    /// How long it is valid.
    pub ttl: Duration,
}

#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: i64,
    exp: i64,
    topics: &'a RawValue,
}

/// Makes a token that is signed with the secret of `options`.
///
/// # Errors
/// What to do where there is no secret, or a server would refuse the token.
pub fn mint(token: &NewToken<'_>, options: &Options) -> Result<String, String> {
    let secret = options.secret.as_ref().ok_or("jwt-secret is missing: give the secret that the server has")?;
    let now = clock::now();
    let ttl = i64::try_from(token.ttl.as_secs()).unwrap_or(i64::MAX / 2_000);
    let payload = Payload {
        sub: token.sub,
        name: token.name,
        iss: options.issuer.as_deref(),
        aud: options.audience.as_deref(),
        iat: now.0 / 1_000,
        exp: now.0 / 1_000 + ttl,
        topics: token.topics,
    };
    let text = serde_json::to_string(&payload).map_err(|error| error.to_string())?;
    let rules = Rules { issuer: options.issuer.clone(), audience: options.audience.clone() };
    // Judged as of the second in which it begins, so that the shortest one passes too.
    claims::read(text.as_bytes(), &rules, Timestamp(payload.iat * 1_000)).map_err(|refused| refused.to_string())?;
    let signed = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &as_value(&text)?, &secret.signs);
    signed.map_err(|error| format!("the token cannot be signed ({error})"))
}

fn as_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
