//! From what a client presents to whom it speaks for.
//!
//! Knows no request and no connection. Its invariant: a claim is used for nothing before the signature over it is
//! right, and which key that is right for was decided by this server's options and the key's own description.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Algorithm;
use tokio::time::Instant;

use super::{
    Identity, Keeper, Refused, SharedSecret, Source,
    claims::{self, Rules},
    keeper::Renewed,
    keeper::{Keys, Pace},
    key::{Fit, KeySet},
    token::Token,
};
use crate::{clock, model::Person};

/// How tokens are checked.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Checks tokens that are signed with HS256.
    pub secret: Option<SharedSecret>,
    /// Where the keys for all other tokens are published.
    pub keys: Option<Source>,
    /// The `iss` that every token has to have.
    pub issuer: Option<String>,
    /// What the `aud` of every token has to name.
    pub audience: Option<String>,
}

impl Options {
    /// The keys as they are published at this moment, and where; none where there is no such place.
    ///
    /// # Errors
    /// What is wrong with the place, in one line that names it.
    pub async fn published(&self) -> Option<Result<(KeySet, String), String>> {
        let source = self.keys.as_ref()?;
        Some(match source.load().await {
            Ok(set) => Ok((set, source.to_string())),
            Err(problem) => Err(format!("{source}: {problem}")),
        })
    }
}

/// Says for whom a client speaks. Clones share the keys.
#[derive(Clone)]
pub struct Verifier {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    secret: Option<SharedSecret>,
    keys: Option<Keys>,
    rules: Rules,
    /// What a token may be signed with, for texts.
    accepted: &'static str,
}

/// What a client presents.
#[derive(Clone, Copy, Default)]
pub struct Presented<'a> {
    /// Its token.
    pub token: Option<&'a str>,
    /// Who it says it is; counts only where no tokens are asked for.
    pub user_id: Option<&'a str>,
    /// What it says it is called, likewise.
    pub name: Option<&'a str>,
}

impl Verifier {
    /// Asks for no tokens: everybody is who they say they are, and may do everything.
    pub fn open() -> Self {
        Self { inner: None }
    }

    /// Asks for tokens. Where keys are published a task begins to read them, which ends with the [`Keeper`]. To be
    /// called inside a tokio runtime.
    pub fn start(options: Options) -> (Self, Option<Keeper>) {
        Self::start_at(options, Pace::default())
    }

    pub(super) fn start_at(options: Options, pace: Pace) -> (Self, Option<Keeper>) {
        let accepted = match (&options.secret, &options.keys) {
            (Some(_), Some(_)) => "HS256 and the shared secret, or with a published key",
            (Some(_), None) => "HS256 and the shared secret",
            (None, _) => "a published key (RS, PS, ES or EdDSA)",
        };
        let (keys, keeper) = options.keys.map(|source| Keys::start(source, pace)).unzip();
        let rules = Rules { issuer: options.issuer, audience: options.audience };
        let inner = Inner { secret: options.secret, keys, rules, accepted };
        (Self { inner: Some(Arc::new(inner)) }, keeper)
    }

    /// Whether tokens are asked for.
    pub fn wants_token(&self) -> bool {
        self.inner.is_some()
    }

    /// Waits until published keys are there, at most for `patience`. Whether all that is needed is there.
    pub async fn ready_within(&self, patience: Duration) -> bool {
        match self.keys() {
            Some(keys) => keys.first(patience).await,
            None => true,
        }
    }

    /// What keeps tokens from being checked at this moment, if anything does.
    pub fn problem(&self) -> Option<String> {
        self.keys()?.problem()
    }

    /// Whom a client speaks for, as far as the keys that are held can say.
    ///
    /// # Errors
    /// Why nobody. [`Verifier::may_change`] says whether it is worth to ask [`Verifier::identify`].
    pub fn check(&self, presented: Presented<'_>) -> Result<Identity, Refused> {
        let Some(inner) = &self.inner else {
            return Identity::open(presented.user_id, presented.name).map_err(Refused::Parameters);
        };
        let token = presented.token.filter(|token| !token.is_empty()).ok_or(Refused::Missing)?;
        inner.check(token)
    }

    /// Whether reading the published keys again may change a refusal.
    pub fn may_change(&self, refused: &Refused) -> bool {
        refused.wants_keys() && self.keys().is_some()
    }

    /// Whom a client speaks for. Where a key is missing they are read again first, which takes a bounded time.
    ///
    /// # Errors
    /// Why nobody.
    pub async fn identify(&self, presented: Presented<'_>) -> Result<Identity, Refused> {
        match (self.check(presented), self.keys()) {
            (Err(refused), Some(keys)) if refused.wants_keys() => {
                match (keys.renew().await, self.check(presented)) {
                    // Nobody can say that the token is wrong: its key may be one that cannot be read now.
                    (Renewed::Failed, Err(refused)) if refused.wants_keys() => Err(Refused::NoKeys),
                    (Renewed::Unasked, _) => Err(refused),
                    (_, outcome) => outcome,
                }
            }
            (outcome, _) => outcome,
        }
    }

    fn keys(&self) -> Option<&Keys> {
        self.inner.as_ref()?.keys.as_ref()
    }
}

impl Inner {
    fn check(&self, text: &str) -> Result<Identity, Refused> {
        let token = Token::read(text)?;
        let payload = match token.algorithm() {
            Some(Algorithm::HS256) => {
                let secret = self.secret.as_ref().ok_or_else(|| self.foreign())?;
                token.open(&secret.checks, Algorithm::HS256)?
            }
            Some(algorithm) => self.open_published(&token, algorithm)?,
            None => return Err(self.foreign()),
        };
        let now = clock::now();
        let claims = claims::read(&payload, &self.rules, now)?;
        let lasts = claims.expires.map(|expires| u64::try_from(expires.0 - now.0).unwrap_or_default());
        let expires = lasts.map(|lasts| Instant::now() + Duration::from_millis(lasts.min(FAR_MS)));
        let person = Person { id: claims.user_id, name: claims.name };
        Ok(Identity { person, rights: claims.rights, expires })
    }

    fn open_published(&self, token: &Token<'_>, algorithm: Algorithm) -> Result<Vec<u8>, Refused> {
        let keys = self.keys.as_ref().ok_or_else(|| self.foreign())?;
        let set: Arc<KeySet> = keys.set().ok_or(Refused::NoKeys)?;
        match set.find(token.key_id(), algorithm) {
            Fit::One(key) => token.open(key.checks(), algorithm),
            Fit::None => Err(Refused::UnknownKey),
            Fit::Several => Err(Refused::AmbiguousKey),
        }
    }

    fn foreign(&self) -> Refused {
        Refused::Algorithm { accepted: self.accepted.to_owned() }
    }
}

/// Ten years: as good as no end, and no clock overflows.
const FAR_MS: u64 = 10 * 365 * 24 * 3_600_000;
