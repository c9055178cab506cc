//! How tokens are checked, from the options that say so.
//!
//! Its invariant: what could only be a mistake — tokens without anything to check them with, a file without keys —
//! stops the start, and what may be one is a warning.

use super::{Auth, Error, Reader, values};
use crate::{
    auth::{self, KeySet, SharedSecret, Source},
    config::Opt,
    outbound,
};

/// The options that mean nothing without tokens.
const OF_TOKENS: [&str; 5] = ["jwt-secret", "jwks-url", "jwks-file", "jwt-issuer", "jwt-audience"];

#[derive(Clone, Copy)]
enum Kind {
    None,
    Jwt,
}

impl Reader<'_> {
    /// How clients prove who they are.
    pub(super) fn auth(&self) -> Result<Auth, Error> {
        let options = auth::Options {
            secret: self.get_optional("jwt-secret", |text| Ok(SharedSecret::new(text)))?,
            keys: self.keys()?,
            issuer: self.get_optional("jwt-issuer", values::claim)?,
            audience: self.get_optional("jwt-audience", values::claim)?,
        };
        match self.get("auth", values::choice(&[("none", Kind::None), ("jwt", Kind::Jwt)]))? {
            Kind::None => Ok(Auth::None),
            Kind::Jwt if options.secret.is_none() && options.keys.is_none() => {
                let rule = "tokens need something to check them with: set jwt-secret, jwks-url or jwks-file too";
                Err(self.refused("auth", rule.to_owned()))
            }
            Kind::Jwt => Ok(Auth::Jwt(Box::new(options))),
        }
    }

    /// Where keys are published. A file has to hold some that can be used; whether an address does turns out later.
    fn keys(&self) -> Result<Option<Source>, Error> {
        let url = self.get_optional("jwks-url", values::jwks_url)?;
        let file = self.get_optional("jwks-file", |text| {
            let path = self.directory.join(text);
            let set = auth::read_file(&path).and_then(|text| KeySet::read(&text));
            set.map(|_| path).map_err(|problem| format!("{problem}; give a file with the public keys of your login"))
        })?;
        match (url, file) {
            (Some(_), Some(_)) => {
                let rule = "keys come from one place: give jwks-url or jwks-file, not both";
                Err(self.refused("jwks-file", rule.to_owned()))
            }
            (Some(url), None) => Ok(Some(Source::Url(url))),
            (None, Some(path)) => Ok(Some(Source::File(path))),
            (None, None) => Ok(None),
        }
    }

    /// What may be meant, and may be a mistake.
    pub(super) fn doubtful_auth(&self, auth: &Auth) -> Vec<String> {
        let given = |name: &str| Opt::named(name).is_some_and(|option| self.sources.is_given(option.name));
        let Auth::Jwt(options) = auth else {
            let unused = OF_TOKENS.into_iter().filter(|name| given(name));
            return unused.map(|name| format!("{name} is not used: with auth none nobody needs a token")).collect();
        };
        let mut doubts = Vec::new();
        if options.secret.as_ref().is_some_and(SharedSecret::is_short) {
            let text = "jwt-secret has fewer than 32 bytes: whoever holds a token may find it by guessing; give one \
                        such as openssl rand -hex 32 makes";
            doubts.push(text.to_owned());
        }
        if options.keys.is_some() && options.audience.is_none() {
            let text = "jwt-audience is not set: tokens that the same login issues for other services are taken too";
            doubts.push(text.to_owned());
        }
        if let Some(Source::Url(url)) = &options.keys
            && url.scheme() == "http"
            && !outbound::is_loopback(url)
        {
            let text = "jwks-url is not https: whoever sits on the way can put in keys of their own";
            doubts.push(text.to_owned());
        }
        doubts
    }
}
