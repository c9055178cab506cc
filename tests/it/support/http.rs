//! A client of the HTTP API that sees status, type and body of every answer. Every wait has a limit.

use reqwest::{Client, Method, Response, Url, header::HeaderValue};
use serde_json::Value;

use super::ws::{LIMIT, within};

/// Requests to one server.
pub(crate) struct Http {
    client: Client,
    base: Url,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    /// The seconds in `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: String,
}

impl Http {
    /// For the server whose root is `base`.
    pub(crate) fn new(base: &str) -> Self {
        let client = Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        Self { client, base: base.parse().unwrap() }
    }

    /// Reads `path`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    /// Writes JSON as a sound client does.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Changes with JSON.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PATCH, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Deletes, without a body and without a word about its type.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[], "").await
    }

    /// Any request.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.client.request(method, self.base.join(path).unwrap()).body(body);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Answer::read(within("an answer", request.send()).await.unwrap()).await
    }
}

impl Answer {
    async fn read(response: Response) -> Self {
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let kind = header("content-type").unwrap_or_default();
        let retry_after = header("retry-after").map(|seconds| seconds.parse().unwrap());
        let status = response.status().as_u16();
        Self { status, kind, retry_after, body: response.text().await.unwrap() }
    }

    /// The JSON of an answer with this status.
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!((self.status, self.kind.as_str()), (status, "application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks that it is a refusal with this status and code, in the form in which every refusal comes.
    pub(crate) fn refuses(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.kind.as_str()), (status, "application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.len() > 5), "a text for a person: {problem}");
    }
}

/// The keys of an object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
