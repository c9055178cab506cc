//! Why nobody is let in.
//!
//! The texts are for whoever presented the token, and say what to do. Its invariant: none of them holds a part of a
//! token, so that they may be logged and answered.

/// Why a token, or what a client says of itself, gives no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("a token is needed: send it as authToken, as the parameter token, or as Authorization: Bearer")]
    Missing,
    /// What was sent is none.
    #[error("the token is no signed JWT ({0}): send it as the login gave it")]
    Malformed(&'static str),
    /// It is signed in a way that no key here is for, or not at all.
    #[error("the token's algorithm is not accepted: sign it with {accepted}")]
    Algorithm {
        /// What is accepted.
        accepted: String,
    },
    /// No key here has its id and fits its algorithm.
    #[error("no key fits the token: sign it with a key that is published, and name that by kid")]
    UnknownKey,
    /// It names no key, and several fit.
    #[error("several keys fit the token: name the one that signed it by kid")]
    AmbiguousKey,
    /// It was changed, or signed with another key.
    #[error("the token's signature is wrong: log in again")]
    Signature,
    /// Its time is over.
    #[error("the token has expired: log in again")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet: repeat this later, and check the clock of whoever issued it")]
    TooEarly,
    /// Somebody else issued it, or it does not say who.
    #[error("the token is of another issuer: log in where this server's tokens are issued")]
    Issuer,
    /// It is meant for another service, or does not say for which.
    #[error("the token is for another audience: ask for one that is meant for this server")]
    Audience,
    /// What it says is not what it has to say.
    #[error("the token's claims cannot be used: {0}")]
    Claims(String),
    /// It renews somebody else.
    #[error("the token is another user's: connect anew to come as somebody else")]
    OtherUser,
    /// The keys could not be fetched, so nothing can be said of the token.
    #[error("the keys that tokens are checked with cannot be read now: repeat this later")]
    NoKeys,
    /// What a client says of itself cannot be.
    #[error("{0}")]
    Parameters(String),
}

impl Refused {
    /// One word for logs and tables.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Algorithm { .. } => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::AmbiguousKey => "ambiguous_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::TooEarly => "too_early",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims(_) => "claims",
            Self::OtherUser => "other_user",
            Self::NoKeys => "no_keys",
            Self::Parameters(_) => "parameters",
        }
    }

    /// Whether newer keys may change the answer.
    pub(super) fn wants_keys(&self) -> bool {
        matches!(self, Self::UnknownKey | Self::NoKeys)
    }
}
