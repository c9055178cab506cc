//! The keys that tokens are checked with.
//!
//! Pure. A key is bound to the algorithms that its own description allows, whatever a token's header says: a shared
//! secret checks HS256 and nothing else, a published key never HS256. The invariant: a [`Key`] that exists is sound
//! enough for its algorithms; what is not is left out of its set, with the reason.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::complaint;

/// The most keys of a set.
const MAX_KEYS: usize = 100;
/// The longest id of a key, in bytes.
const MAX_ID: usize = 512;
/// Bytes of a secret for HS256: as many as its hash has, which RFC 7518 asks for.
const LONG_SECRET: usize = 32;
/// Bits of an RSA key.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// A published key.
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    checks: DecodingKey,
}

/// Published keys, and what became of those that cannot be used.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    left_out: Vec<String>,
}

/// How many keys of a set fit a token.
pub(super) enum Fit<'a> {
    None,
    One(&'a Key),
    Several,
}

/// A secret that signs and checks tokens with HS256.
#[derive(Clone)]
pub struct SharedSecret {
    pub(super) checks: DecodingKey,
    pub(super) signs: EncodingKey,
    is_short: bool,
}

/// A key as it is published.
#[derive(Deserialize)]
struct Published {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The algorithm of a header or a key, by its name. What is not listed is not spoken, `none` first of all.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    // The new name of the one curve that is meant by the old name too.
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    let all = [RSA, P256, P384, ED25519, &[Algorithm::HS256]];
    all.into_iter().flatten().copied().find(|algorithm| format!("{algorithm:?}") == name)
}

impl SharedSecret {
    /// A secret, as its bytes.
    pub fn new(secret: &str) -> Self {
        let (bytes, is_short) = (secret.as_bytes(), secret.len() < LONG_SECRET);
        Self { checks: DecodingKey::from_secret(bytes), signs: EncodingKey::from_secret(bytes), is_short }
    }

    /// Whether it is shorter than the hash that it is used with, so that it may be found by guessing: whoever holds a
    /// token can try as many as they like.
    pub fn is_short(&self) -> bool {
        self.is_short
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// Its name, where it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// What it may check, as one text.
    pub fn algorithms(&self) -> String {
        let names: Vec<_> = self.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        names.join(" ")
    }

    pub(super) fn checks(&self) -> &DecodingKey {
        &self.checks
    }

    fn fits(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm) && (id.is_none() || self.id.as_deref() == id)
    }

    fn read(text: &str) -> Result<Self, String> {
        let published: Published =
            serde_json::from_str(text).map_err(|error| format!("it is no key ({})", complaint(&error)))?;
        published.check_purpose()?;
        let (fitting, checks) = match (published.kty.as_str(), published.crv.as_deref()) {
            ("RSA", _) => (RSA, published.rsa()?),
            ("EC", Some("P-256")) => (P256, published.curve(32)?),
            ("EC", Some("P-384")) => (P384, published.curve(48)?),
            ("OKP", Some("Ed25519")) => (ED25519, published.edwards()?),
            ("oct", _) => return Err("a shared secret is not published; give it as jwt-secret".to_owned()),
            (kind, Some(curve)) => return Err(format!("kty {kind:?} with crv {curve:?} is not supported")),
            (kind, None) => return Err(format!("kty {kind:?} is not supported")),
        };
        let algorithms = published.narrow(fitting)?;
        if published.kid.as_ref().is_some_and(|id| id.len() > MAX_ID) {
            return Err(format!("its kid has more than {MAX_ID} bytes"));
        }
        Ok(Self { id: published.kid, algorithms, checks })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl Published {
    fn check_purpose(&self) -> Result<(), String> {
        if self.purpose.as_ref().is_some_and(|purpose| purpose != "sig") {
            return Err("its use is not sig".to_owned());
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("its key_ops do not hold verify".to_owned());
        }
        Ok(())
    }

    /// Of the algorithms that fit the kind of key, the one that the key is for, or all.
    fn narrow(&self, fitting: &[Algorithm]) -> Result<Vec<Algorithm>, String> {
        let Some(name) = &self.alg else { return Ok(fitting.to_vec()) };
        let own = algorithm(name).filter(|own| fitting.contains(own));
        own.map(|own| vec![own]).ok_or_else(|| format!("its alg {name:?} is not supported for a key of its kind"))
    }

    fn rsa(&self) -> Result<DecodingKey, String> {
        let (modulus, exponent) = (bytes(self.n.as_deref(), "n")?, bytes(self.e.as_deref(), "e")?);
        let modulus: Vec<u8> = modulus.into_iter().skip_while(|byte| *byte == 0).collect();
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            let (least, most) = RSA_BITS.into_inner();
            return Err(format!("an RSA key has {least} to {most} bits, this one {bits}"));
        }
        Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
    }

    fn curve(&self, length: usize) -> Result<DecodingKey, String> {
        let point = [bytes(self.x.as_deref(), "x")?, bytes(self.y.as_deref(), "y")?];
        if point.iter().any(|part| part.len() != length) {
            return Err(format!("x and y of a key on its curve have {length} bytes each"));
        }
        Ok(DecodingKey::from_ec_der(&[&[4], point.concat().as_slice()].concat()))
    }

    fn edwards(&self) -> Result<DecodingKey, String> {
        let point = bytes(self.x.as_deref(), "x")?;
        if point.len() != 32 {
            return Err("x of a key on Ed25519 has 32 bytes".to_owned());
        }
        Ok(DecodingKey::from_ed_der(&point))
    }
}

fn bytes(text: Option<&str>, member: &str) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("its {member} is missing"))?;
    BASE64URL.decode(text).map_err(|_| format!("its {member} is no base64url"))
}

impl KeySet {
    /// Reads a set as it is published: `{"keys":[…]}`.
    ///
    /// # Errors
    /// What is wrong with a text that is no set, or has no key that can be used.
    pub fn read(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let document: Document<'_> = serde_json::from_str(text)
            .map_err(|error| format!("it is no set of keys ({}): write {{\"keys\":[…]}}", complaint(&error)))?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!("it has more than {MAX_KEYS} keys: publish only those in use"));
        }
        let mut set = Self::default();
        for (at, key) in document.keys.iter().enumerate() {
            set.add(at, Key::read(key.get()));
        }
        if set.keys.is_empty() {
            let why = set.left_out.first().map(|why| format!("; {why}")).unwrap_or_default();
            return Err(format!("it has no key that tokens can be checked with{why}"));
        }
        Ok(set)
    }

    fn add(&mut self, at: usize, key: Result<Key, String>) {
        let place = format!("key {} of the set", at + 1);
        match key {
            Ok(key) if self.keys.iter().any(|other| other.is_same(&key)) => {
                self.left_out.push(format!("{place} is left out: another one has the same kid"));
            }
            Ok(key) => self.keys.push(key),
            Err(why) => self.left_out.push(format!("{place} is left out: {why}")),
        }
    }

    /// The keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// What cannot be used, each with its reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The key for a token that names it, or for one that names none.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Fit<'_> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(id, algorithm));
        match (fitting.next(), fitting.next()) {
            (None, _) => Fit::None,
            (Some(key), None) => Fit::One(key),
            (Some(_), Some(_)) => Fit::Several,
        }
    }
}

impl Key {
    /// Whether a token that names one of them cannot tell which is meant.
    fn is_same(&self, other: &Self) -> bool {
        self.id.is_some() && self.id == other.id && self.algorithms.iter().any(|own| other.algorithms.contains(own))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(length: usize) -> String {
        BASE64URL.encode(vec![0xa5; length])
    }

    fn key(change: Value) -> Result<Key, String> {
        let mut key = json!({"kty": "RSA", "kid": "k", "n": text(256), "e": "AQAB"});
        for (name, value) in change.as_object().unwrap() {
            key[name] = value.clone();
        }
        Key::read(&key.to_string())
    }

    #[test]
    fn a_key_is_bound_to_what_its_kind_and_its_description_allow() {
        let rsa = "RS256 RS384 RS512 PS256 PS384 PS512";
        for (change, algorithms) in [
            (json!({}), rsa),
            (json!({"use": "sig", "key_ops": ["verify"], "x5t": "ignored"}), rsa),
            (json!({"alg": "PS384"}), "PS384"),
            (json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32)}), "ES256"),
            (json!({"kty": "EC", "crv": "P-384", "x": text(48), "y": text(48), "alg": "ES384"}), "ES384"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": text(32)}), "EdDSA"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": text(32), "alg": "Ed25519"}), "EdDSA"),
        ] {
            assert_eq!(key(change.clone()).unwrap().algorithms(), algorithms, "{change}");
        }
    }

    #[test]
    fn what_cannot_check_a_token_is_left_out_with_the_reason() {
        for (change, reason) in [
            (json!({"kty": "oct", "k": text(32)}), "jwt-secret"),
            (json!({"alg": "HS256"}), "alg \"HS256\" is not supported"),
            (json!({"alg": "none"}), "alg \"none\" is not supported"),
            (json!({"alg": "ES256"}), "alg \"ES256\" is not supported"),
            (json!({"use": "enc"}), "use is not sig"),
            (json!({"key_ops": ["sign"]}), "key_ops"),
            (json!({"n": text(128)}), "2048 to 8192 bits, this one 1024"),
            (json!({"n": text(1025)}), "2048 to 8192 bits"),
            (json!({"n": ""}), "this one 0"),
            (json!({"n": "a+b"}), "no base64url"),
            (json!({"e": null}), "e is missing"),
            (json!({"kty": "EC", "crv": "P-256", "x": text(31), "y": text(32)}), "32 bytes each"),
            (json!({"kty": "EC", "crv": "P-521", "x": text(66), "y": text(66)}), "not supported"),
            (json!({"kty": "EC"}), "not supported"),
            (json!({"kty": "OKP", "crv": "Ed448", "x": text(57)}), "not supported"),
            (json!({"kid": 1}), "it is no key"),
            (json!({"kid": "x".repeat(513)}), "512 bytes"),
        ] {
            let why = key(change.clone()).unwrap_err();
            assert!(why.contains(reason), "{change}: {why}");
        }
    }

    #[test]
    fn a_set_keeps_what_can_be_used_and_tells_of_the_rest() {
        let (one, two) = (json!({"kty": "OKP", "crv": "Ed25519", "x": text(32)}), json!({"kty": "oct"}));
        let mut named = one.clone();
        named["kid"] = "a".into();
        let set = KeySet::read(&json!({"keys": [one, two, named, named], "more": 1}).to_string()).unwrap();
        assert_eq!(set.keys().iter().map(Key::id).collect::<Vec<_>>(), [None, Some("a")]);
        assert_eq!(set.left_out().len(), 2);
        assert!(set.left_out()[1].contains("key 4 of the set is left out: another one has the same kid"));
        assert!(matches!(set.find(Some("a"), Algorithm::EdDSA), Fit::One(_)));
        assert!(matches!(set.find(Some("b"), Algorithm::EdDSA), Fit::None));
        assert!(matches!(set.find(Some("a"), Algorithm::ES256), Fit::None));
        assert!(matches!(set.find(None, Algorithm::EdDSA), Fit::Several), "a token without kid has to be plain");
        for bad in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct"}]}"#] {
            assert!(KeySet::read(bad).is_err(), "{bad}");
        }
        let many = vec![json!({}); MAX_KEYS + 1];
        assert!(KeySet::read(&json!({"keys": many}).to_string()).unwrap_err().contains("100 keys"));
    }

    #[test]
    fn a_secret_is_never_shown_and_says_whether_it_is_short() {
        let secret = SharedSecret::new(&"s3cret-".repeat(5));
        assert_eq!((format!("{secret:?}").as_str(), secret.is_short()), ("***", false));
        assert!(SharedSecret::new(&"x".repeat(31)).is_short() && !SharedSecret::new(&"x".repeat(32)).is_short());
    }
}
