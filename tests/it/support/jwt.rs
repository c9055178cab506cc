//! Tokens and keys for tests: somebody who issues them, soundly or not.

use aws_lc_rs::{
    hmac, rand, rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use rejoin::{
    auth::{Options, SharedSecret},
    clock,
    config::Auth,
};
use serde_json::{Value, json};

use super::{script::Script, server::TestServer};

/// A secret of the length that is asked for.
pub(crate) const SECRET: &str = "a secret of tests, thirty-two bytes or more";

/// Somebody with a key pair.
pub(crate) struct Issuer {
    kid: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Issuer {
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        Self { kid: kid.to_owned(), pair: Pair::Rsa(Box::new(pair)) }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.to_owned(), pair: Pair::P256(pair) }
    }

    pub(crate) fn p384(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self { kid: kid.to_owned(), pair: Pair::P384(pair) }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: Pair::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    /// The public key as it is published.
    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64URL.encode(bytes);
        let curve = |name: &str, pair: &EcdsaKeyPair| {
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "crv": name, "x": text(x), "y": text(y), "kid": self.kid, "use": "sig"})
        };
        match &self.pair {
            Pair::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": text(n), "e": text(e), "kid": self.kid, "use": "sig"})
            }
            Pair::P256(pair) => curve("P-256", pair),
            Pair::P384(pair) => curve("P-384", pair),
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()), "kid": self.kid})
            }
        }
    }

    /// A token under this algorithm, with the key's id.
    pub(crate) fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.sign(algorithm, &json!({"alg": algorithm, "typ": "JWT", "kid": self.kid}), claims)
    }

    /// A token with any header, signed as `algorithm` says.
    pub(crate) fn sign(&self, algorithm: &str, header: &Value, claims: &Value) -> String {
        let signed = signed_part(header, claims);
        let random = rand::SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    other => panic!("no RSA algorithm: {other}"),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", BASE64URL.encode(signature))
    }
}

/// The published keys of these.
pub(crate) fn key_set(issuers: &[&Issuer]) -> String {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
    json!({"keys": keys}).to_string()
}

/// A token that is signed with HS256 and the secret of tests.
pub(crate) fn hs256(claims: &Value) -> String {
    hmac_with(&json!({"alg": "HS256", "typ": "JWT"}), claims, hmac::HMAC_SHA256, SECRET.as_bytes())
}

/// A token with any header, signed with any secret.
pub(crate) fn hmac_with(header: &Value, claims: &Value, algorithm: hmac::Algorithm, secret: &[u8]) -> String {
    let signed = signed_part(header, claims);
    let signature = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
    format!("{signed}.{}", BASE64URL.encode(signature))
}

/// Header and payload, as they are signed.
pub(crate) fn signed_part(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    clock::now().0 / 1_000
}

/// What a token for an hour says.
pub(crate) fn claims(sub: &str, topics: Value) -> Value {
    json!({"sub": sub, "name": sub.to_uppercase(), "exp": now() + 3_600, "topics": topics})
}

/// A token of the secret of tests for an hour.
pub(crate) fn token(sub: &str, topics: Value) -> String {
    hs256(&claims(sub, topics))
}

/// A token of `sub` for these topics that counts for so many seconds.
pub(crate) fn lasting(sub: &str, topics: Value, seconds: i64) -> String {
    let mut all = claims(sub, topics);
    all["exp"] = (now() + seconds).into();
    hs256(&all)
}

/// A server that asks for tokens of the secret of tests, and its agent.
pub(crate) async fn guarded() -> (TestServer, Script) {
    let secret = Some(SharedSecret::new(SECRET));
    let auth = Auth::Jwt(Box::new(Options { secret, ..Options::default() }));
    Box::pin(TestServer::start_with(|config| config.auth = auth)).await
}
