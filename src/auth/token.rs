//! A token as it is written: header, payload and signature, each in base64url, with points between.
//!
//! Pure. Of the header only the algorithm and the key's id are read, to choose among keys that this server has; no
//! address in it (`jku`, `x5u`) and no key (`jwk`, `x5c`) is ever looked at. The invariant: the payload is given out by
//! [`Token::open`] alone, once the signature is right.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{Deserialize, de::IgnoredAny};

use super::{Refused, key::algorithm};

/// The longest token, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// A token whose signature was not checked yet.
pub(super) struct Token<'a> {
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
    /// Header and payload with the point between them, which is what was signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Says that the token means nothing to those who do not know what it names.
    crit: Option<IgnoredAny>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(super) fn read(text: &'a str) -> Result<Self, Refused> {
        if text.len() > MAX_TOKEN {
            return Err(Refused::Malformed("it is longer than 16 KiB"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refused::Malformed("it has no points"))?;
        let (header, payload) = signed.split_once('.').ok_or(Refused::Malformed("it has one point"))?;
        if payload.contains('.') {
            return Err(Refused::Malformed("it has more than two points"));
        }
        let header = BASE64URL.decode(header).map_err(|_| Refused::Malformed("its header is no base64url"))?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_| Refused::Malformed("its header is none of a JWT"))?;
        if header.crit.is_some() {
            return Err(Refused::Malformed("its header has crit, and nothing that it could name is known here"));
        }
        Ok(Self { algorithm: algorithm(&header.alg), key_id: header.kid, signed, payload, signature })
    }

    /// How it says that it is signed; none for what is not spoken here.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// Which key it says that it is signed with.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The payload, if `key` has signed it with `algorithm`.
    pub(super) fn open(&self, key: &DecodingKey, algorithm: Algorithm) -> Result<Vec<u8>, Refused> {
        // Whatever it cannot read is no signature.
        if !crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm).unwrap_or(false) {
            return Err(Refused::Signature);
        }
        BASE64URL.decode(self.payload).map_err(|_| Refused::Malformed("its payload is no base64url"))
    }
}
