//! Lets clients in by what they present: a token, or who they say they are where none is asked for.
//!
//! Knows where a client puts a token. Its invariant: a token is handed to the verifier and to nobody else, and is in no
//! text that is logged or answered.

use std::{borrow::Cow, sync::Arc};

use axum::http::StatusCode;

use super::{Admission, Connect, ConnectInfo, Refused};
use crate::auth::{self, Identity, Presented, Verifier};

/// The usual way to decide who connects. A token beside the parameters goes before one among them. Refusals are 403,
/// or 503 where the keys for tokens cannot be read.
pub fn identify(verifier: Verifier) -> Connect {
    Arc::new(move |client| admit(&verifier, client))
}

fn admit(verifier: &Verifier, client: &ConnectInfo<'_>) -> Admission {
    let token = token(client);
    let presented = Presented { token: token.as_deref(), user_id: client.get("user_id"), name: client.get("name") };
    match verifier.check(presented) {
        Err(refused) if verifier.may_change(&refused) => {
            let (verifier, token) = (verifier.clone(), token.unwrap_or_default().into_owned());
            Admission::Later(Box::pin(async move {
                let presented = Presented { token: Some(&token), ..Presented::default() };
                decided(verifier.identify(presented).await)
            }))
        }
        outcome => decided(outcome).into(),
    }
}

fn token<'a>(client: &'a ConnectInfo<'_>) -> Option<Cow<'a, str>> {
    let beside = client.auth_token().map(|token| token.text()).filter(|token| !token.is_empty());
    beside.or_else(|| client.get("token").map(Cow::Borrowed))
}

fn decided(outcome: Result<Identity, auth::Refused>) -> Result<Identity, Refused> {
    outcome.map_err(|refused| {
        tracing::info!(why = refused.code(), "a client was refused: {refused}");
        let status =
            if refused == auth::Refused::NoKeys { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
        Refused::new(status).with_body(refused.to_string())
    })
}
