//! What only an endpoint of chat completions can do wrong; the rest is shared ([`crate::agent::failure`]).

use reqwest::{Response, Url};
use serde_json::Value;

use super::{Options, assembler::Fault};
use crate::{
    agent::failure::{self, Endpoint, Terms, failure},
    model::TurnError,
};

const TERMS: Terms = Terms {
    noun: "endpoint",
    address: "base URL",
    credential: "API key",
    check_credential: "Check the key and what it may use",
    quote_unauthorized: false,
    check_request: "Check the model's name, the base URL and the length of the session",
    check_service: "Check that the base URL is that of a streaming chat-completions API; often it ends with /v1",
    check_stream: "check that the base URL is that of a chat-completions API",
    look_at: "the endpoint's own status",
};

/// The endpoint as errors speak of it.
pub(super) fn endpoint(base: &Url, options: &Options) -> Endpoint {
    let request = format!("the request for the model {:?}", options.model);
    Endpoint::new(&TERMS, base, request, options.api_key.clone())
}

/// The response, if it is a stream of events.
pub(super) async fn check(endpoint: &Endpoint, response: Response) -> Result<Response, TurnError> {
    let response = endpoint.admit(response).await?;
    let kind = failure::content_type(&response);
    if kind.starts_with("text/html") {
        return Err(endpoint.wrong_type("a web page"));
    }
    if !kind.starts_with("application/json") {
        return Ok(response);
    }
    let body: Option<Value> = serde_json::from_str(&failure::body(response).await).ok();
    match body.as_ref().and_then(|body| body.get("error")) {
        Some(error) => Err(endpoint.reported(error)),
        None => Err(endpoint.wrong_type("one JSON document instead of a stream")),
    }
}

/// The endpoint's rules cut the answer.
pub(super) fn filtered(endpoint: &Endpoint) -> TurnError {
    let text =
        format!("{} stopped this answer by its content filter. Change the message and send it again.", endpoint.name());
    failure("agent_error", text, false)
}

/// A chunk that could not be taken.
pub(super) fn fault(endpoint: &Endpoint, fault: &Fault) -> TurnError {
    match fault {
        Fault::Malformed => endpoint.garbled("a chunk that is not the JSON of a chat completion"),
        Fault::Reported(error) => endpoint.reported(error),
    }
}
