//! Where the transports answer: one mount is a path with a transport's name behind it.
//!
//! Knows paths and nothing of requests. Its invariant: a path that a router would choke on is refused as text.

use axum::{Router, routing::any};

use super::{State, long_poll, websocket};

/// Where clients connect unless told otherwise.
const USUAL: &str = "/socket";

/// Why nothing can be mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be mounted at {path:?}: write /segments of letters, digits, '-', '_', '.' or {{name}}, each once")]
pub struct BadMount {
    path: String,
}

/// The transports at `/socket`: `/socket/websocket` and `/socket/longpoll`.
pub fn routes(state: State) -> Router {
    at(USUAL, state)
}

/// The transports at another path. A segment `{name}` of it stands for any text, which becomes the parameter `name`
/// of those who connect: `/ws/{user_id}`. Mounts are merged as routers; two at one path cannot be.
///
/// # Errors
/// [`BadMount`] for what is no such path.
pub fn mount(path: &str, state: State) -> Result<Router, BadMount> {
    if is_sound(path) { Ok(at(path, state)) } else { Err(BadMount { path: path.to_owned() }) }
}

fn at(path: &str, state: State) -> Router {
    Router::new()
        .route(&format!("{path}/websocket"), any(websocket::upgrade))
        .route(&format!("{path}/longpoll"), any(long_poll::serve))
        .with_state(state)
}

fn is_sound(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let segments: Vec<&str> = rest.split('/').collect();
    let variables: Vec<&str> = segments.iter().filter_map(|segment| variable(segment)).collect();
    let once = |name: &&str| variables.iter().filter(|other| *other == name).count() == 1;
    segments.iter().all(|segment| is_word(variable(segment).unwrap_or(segment))) && variables.iter().all(once)
}

fn variable(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a17_paths_with_several_segments_and_variables_are_sound() {
        for good in ["/socket", "/ws/{user_id}", "/a/b-c/{d}/e.f/{g}"] {
            assert!(is_sound(good), "{good}");
        }
        for bad in
            ["", "/", "socket", "/a/", "/a//b", "/{", "/{}", "/{a}/{a}", "/{*all}", "/a{b}", "/:a", "/*a", "/a b"]
        {
            assert!(!is_sound(bad), "{bad}");
        }
    }
}
