//! What holds for many operations alike, added to the document: how they are refused, who may ask, what a path names.

use serde_json::{Value, json};

use super::shapes;

/// Completes a document whose operations say only what is their own, for a server that asks for tokens or not.
pub(super) fn complete(document: &mut Value, wants_token: bool) {
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let components = &mut document["components"];
    for (name, shape) in shapes::all() {
        components["schemas"][name] = shape;
    }
    shapes::correct(&mut components["schemas"]);
    components["securitySchemes"] = security_schemes();
    components["responses"] = refusals();
    for (path, methods) in entries(&mut document["paths"]).filter(|(path, _)| path.starts_with("/api/")) {
        entries(methods).for_each(|(method, operation)| {
            refine(path, method, operation);
            identify(operation, wants_token);
        });
    }
}

fn entries(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A token, where the server asks for one (`auth = jwt`)."
        },
        "token": {
            "type": "apiKey", "in": "query", "name": "token",
            "description": "The same token, for an EventSource, which sends no headers."
        }
    })
}

/// The refusals by their names: what each means, its codes, its headers.
fn refusals() -> Value {
    let retry = json!({ "Retry-After": { "description": "Seconds to wait.", "schema": { "type": "integer" } } });
    let challenge =
        json!({ "WWW-Authenticate": { "description": "What is asked for.", "schema": { "type": "string" } } });
    let refusal = |text: &str, codes: &[&str], headers: Value| {
        let codes = json!({ "properties": { "code": { "enum": codes } } });
        let schema = json!({ "allOf": [{ "$ref": "#/components/schemas/Problem" }, codes] });
        let content = json!({ "application/problem+json": { "schema": schema } });
        json!({ "description": text, "headers": headers, "content": content })
    };
    let none = || json!({});
    json!({
        "Invalid": refusal("The request cannot be understood; `detail` says what would be.", &["invalid"], none()),
        "Unidentified": refusal("There is no token, or not a good one.", &["unauthorized"], challenge),
        "Unauthorized": refusal("The token, the origin or the host does not allow it.", &["unauthorized"], none()),
        "NotFound": refusal("What it names is not there.", &["not_found"], none()),
        "Slow": refusal("The body came too slowly.", &["invalid"], none()),
        "Conflict": refusal("What is there already does not go with it.", &["conflict", "busy"], none()),
        "TooLarge": refusal("The body is too large, or a field of it.", &["too_large"], none()),
        "TooMany": refusal(
            "Too many writes, then with the seconds to wait; or too many turns that wait.",
            &["rate_limited", "queue_full"],
            retry.clone()
        ),
        "Unavailable": refusal("Not now; whether it happened is open.", &["unavailable", "draining"], retry),
    })
}

/// Adds refusals and what the path names to one operation.
fn refine(path: &str, method: &str, operation: &mut Value) {
    let names = |what: &str| path.contains(what);
    if let Some(body) = operation.get_mut("requestBody") {
        // What has no body says of what type it would be, and nothing that makes clients of a document does.
        body["required"] = true.into();
    }
    link(operation);
    // What makes a session that is not there may still meet one that is just being deleted.
    add_refusals(method, names("{id}"), operation);
    let parameters = &mut operation["parameters"];
    if !parameters.is_array() {
        *parameters = json!([]);
    }
    if let Value::Array(parameters) = parameters {
        let all =
            [("{id}", "id", shapes::session_id()), ("{turn}", "turn", json!({ "type": "string", "format": "uuid" }))];
        for (_, name, schema) in all.into_iter().filter(|(place, ..)| names(place)) {
            parameters.retain(|parameter| parameter["name"] != name);
            parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        }
    }
}

/// Says where a turn that was asked for can be named.
fn link(operation: &mut Value) {
    let turn = |operation: &str| {
        let places = json!({ "path.id": "$request.path.id", "path.turn": "$response.body#/turn_id" });
        json!({ "operationId": operation, "parameters": places })
    };
    if operation["operationId"] == "send_message" || operation["operationId"] == "retry_turn" {
        operation["responses"]["202"]["links"] = json!({ "cancel": turn("cancel_turn"), "retry": turn("retry_turn") });
    }
}

fn add_refusals(method: &str, may_miss: bool, operation: &mut Value) {
    let body = operation.pointer("/requestBody/content/application~1json/schema/$ref");
    let has_body = body.is_some_and(|shape| shape != "#/components/schemas/Unread");
    let answers = &mut operation["responses"];
    let every = [("400", "Invalid"), ("401", "Unidentified"), ("403", "Unauthorized"), ("503", "Unavailable")];
    let some = [
        (may_miss || answers["404"].is_object(), "404", "NotFound"),
        (has_body, "408", "Slow"),
        (answers["409"].is_object(), "409", "Conflict"),
        (has_body, "413", "TooLarge"),
        (method != "get", "429", "TooMany"),
    ];
    let some = some.into_iter().filter(|(holds, ..)| *holds).map(|(_, status, name)| (status, name));
    for (status, name) in every.into_iter().chain(some) {
        let answer = &mut answers[status];
        let own = answer["description"].take();
        *answer = json!({ "$ref": format!("#/components/responses/{name}") });
        // A reference may carry a description of its own.
        if own.is_string() {
            answer["description"] = own;
        }
    }
}

/// Adds who may ask: whoever has a token; or anybody, who then says who that is.
fn identify(operation: &mut Value, wants_token: bool) {
    let (bearer, token) = (json!({ "bearer": [] }), json!({ "token": [] }));
    operation["security"] = if wants_token { json!([bearer, token]) } else { json!([{}, bearer, token]) };
    if wants_token {
        return;
    }
    let id = json!({ "type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]{0,128}$" });
    let name = json!({ "type": "string", "maxLength": 256, "pattern": "^[^\\u0000]*$" });
    let parameter = |name: &str, description: &str, schema: Value| {
        let mut parameter = json!({ "name": name, "in": "query", "required": false, "schema": schema });
        parameter["description"] = description.into();
        parameter
    };
    let who = "Who asks. A guest if left out. What begins with `agent:` is reserved.";
    if let Value::Array(parameters) = &mut operation["parameters"] {
        parameters.push(parameter("user_id", who, id));
        parameters.push(parameter("name", "The name to show; the id if left out.", name));
    }
}
