//! The push `access_token`: a connection goes on under a newer token, at once for all its topics.
//!
//! Knows what proves who somebody is, and no topic. Its invariant: a connection speaks for one user from its beginning
//! to its end, and a token that is refused changes nothing.

use serde::Deserialize;

use crate::{
    auth::{Presented, Refused, Verifier},
    channel::Context,
    session::{Error, fields},
};

/// Renews whom connections speak for. Cheap to clone.
#[derive(Clone)]
pub struct Renewals {
    verifier: Verifier,
}

/// The payload of the push.
#[derive(Deserialize)]
struct Token {
    token: String,
}

impl Renewals {
    /// By what `verifier` says of a token.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }

    /// Handles the push. Nobody proves who they are to a server that asks for no token: there is nothing to renew.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no token in it, [`Error::Unauthorized`] where it is refused or another user's,
    /// [`Error::Unavailable`] where it cannot be checked now.
    pub(super) async fn renew(&self, cx: &mut Context, text: &str) -> Result<(), Error> {
        let Token { token } = fields(text)?;
        if !self.verifier.wants_token() {
            return Ok(());
        }
        let presented = Presented { token: Some(&token), ..Presented::default() };
        let identity = self.verifier.identify(presented).await.map_err(|refused| {
            tracing::info!(why = refused.code(), "a token was not taken for a renewal: {refused}");
            match refused {
                Refused::NoKeys => Error::Unavailable,
                _ => Error::Unauthorized("this token is refused and the old one stays; log in again for a new one"),
            }
        })?;
        if identity.person.id != cx.identity().person.id {
            return Err(Error::Unauthorized("this token is another user's; open a connection of its own for it"));
        }
        cx.set_identity(identity);
        Ok(())
    }
}
