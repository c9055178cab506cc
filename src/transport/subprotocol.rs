//! What a client offers as sub-protocols of its WebSocket: `phoenix`, and beside it a token.
//!
//! Pure. A browser cannot set headers on a WebSocket, so clients carry their token as the name of a sub-protocol. The
//! invariant: what is answered was offered, and a token is never answered.

use std::{borrow::Cow, fmt};

use axum::http::{HeaderMap, header::SEC_WEBSOCKET_PROTOCOL};

use super::base64;

/// The sub-protocol of Phoenix clients.
pub(super) const PHOENIX: &str = "phoenix";
/// What stands before a token.
const TOKEN_PREFIX: &str = "base64url.bearer.phx.";

/// A token as the client gave it: any bytes, since clients write Latin-1.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken(Vec<u8>);

impl AuthToken {
    pub(super) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text; what is no UTF-8 becomes U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(…)")
    }
}

/// What is made of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Whether `phoenix` is answered.
    pub(super) phoenix: bool,
    /// The token among the names.
    pub(super) token: Option<AuthToken>,
}

/// Why an offer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadOffer {
    #[error("none of the sub-protocols is spoken here: offer {PHOENIX:?}")]
    Foreign,
    #[error("the token among the sub-protocols is no base64: write it as btoa() does")]
    NotBase64,
}

/// Reads an offer of a client whose token is not asked for: `phoenix` is answered where it is offered, since browsers
/// give up when nothing is, and everything else is ignored.
pub(super) fn without_token(headers: &HeaderMap) -> Offer {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    Offer { phoenix: lines.flat_map(names).any(|name| name == PHOENIX), token: None }
}

/// Reads an offer that may carry a token. Only the first line of the header counts. Several tokens are none.
///
/// # Errors
/// [`BadOffer`] where nothing that is offered is spoken here, or the one token cannot be read.
pub(super) fn with_token(headers: &HeaderMap) -> Result<Offer, BadOffer> {
    let Some(line) = headers.get(SEC_WEBSOCKET_PROTOCOL) else { return Ok(Offer { phoenix: false, token: None }) };
    let mut offered: Vec<&str> = names(line.to_str().map_err(|_| BadOffer::Foreign)?).collect();
    let mut tokens = offered.iter().enumerate().filter(|(_, name)| name.starts_with(TOKEN_PREFIX));
    let only = match (tokens.next(), tokens.next()) {
        (Some((place, _)), None) => Some(place),
        _ => None,
    };
    let token = match only.map(|place| offered.remove(place)).and_then(|name| name.strip_prefix(TOKEN_PREFIX)) {
        Some(text) => Some(AuthToken::new(base64::decode(text.as_bytes()).ok_or(BadOffer::NotBase64)?)),
        None => None,
    };
    let phoenix = offered.contains(&PHOENIX);
    if phoenix || offered.is_empty() { Ok(Offer { phoenix, token }) } else { Err(BadOffer::Foreign) }
}

fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
        }
        headers
    }

    /// Whether `phoenix` is answered, and the token.
    fn offer(lines: &[&'static str]) -> Result<(bool, Option<Vec<u8>>), BadOffer> {
        let offer = with_token(&headers(lines))?;
        Ok((offer.phoenix, offer.token.map(|token| token.bytes().to_vec())))
    }

    #[test]
    fn a13_a_token_stands_beside_phoenix() {
        let tok = Some(b"tok".to_vec());
        assert_eq!(offer(&["phoenix, base64url.bearer.phx.dG9r"]), Ok((true, tok.clone())));
        assert_eq!(offer(&["base64url.bearer.phx.dG9r,phoenix"]), Ok((true, tok)));
        assert_eq!(offer(&["phoenix"]), Ok((true, None)));
        assert_eq!(offer(&[]), Ok((false, None)));
    }

    #[test]
    fn a14_a_token_alone_two_tokens_and_foreign_names() {
        assert_eq!(offer(&["base64url.bearer.phx.dG9r"]), Ok((false, Some(b"tok".to_vec()))));
        let two = "base64url.bearer.phx.dG9r, phoenix, base64url.bearer.phx.dG9y";
        assert_eq!(offer(&[two]), Ok((true, None)));
        assert_eq!(offer(&["base64url.bearer.phx.dG9r, base64url.bearer.phx.dG9y"]), Err(BadOffer::Foreign));
        assert_eq!(offer(&["mqtt"]), Err(BadOffer::Foreign));
        assert_eq!(offer(&["mqtt, base64url.bearer.phx.dG9r"]), Err(BadOffer::Foreign));
        assert_eq!(offer(&["mqtt", "phoenix"]), Err(BadOffer::Foreign), "the first line counts");
    }

    #[test]
    fn a15_tokens_are_bytes() {
        let latin = offer(&["phoenix, base64url.bearer.phx.dPZrPz5lbg"]).unwrap();
        assert_eq!(latin, (true, Some(vec![0x74, 0xf6, 0x6b, 0x3f, 0x3e, 0x65, 0x6e])));
        assert_eq!(offer(&["base64url.bearer.phx.+-=="]), Ok((false, Some(vec![0xfb]))));
        assert_eq!(offer(&["phoenix, base64url.bearer.phx.%%%"]), Err(BadOffer::NotBase64));
        let token = AuthToken::new([0x74, 0xf6]);
        assert_eq!((token.text().as_ref(), format!("{token:?}").as_str()), ("t\u{fffd}", "AuthToken(…)"));
    }

    #[test]
    fn phoenix_is_answered_from_any_line_where_no_token_is_asked_for() {
        assert!(without_token(&headers(&["base64url.bearer.phx.%%%, phoenix"])).phoenix);
        assert!(without_token(&headers(&["mqtt", "phoenix"])).phoenix);
        assert!(!without_token(&headers(&["mqtt, phoenix2"])).phoenix);
        assert!(!without_token(&headers(&[])).phoenix);
    }
}
