//! Which channel serves which topic.
//!
//! Knows no connection. Its invariant: the first pattern in the order of declaration that matches a topic serves it.

use std::sync::Arc;

use super::Channel;

type Factory = Arc<dyn Fn() -> Box<dyn Channel> + Send + Sync>;

/// Patterns and the channels behind them. Clones share them.
#[derive(Clone, Default)]
pub struct Router {
    routes: Vec<(Pattern, Factory)>,
}

#[derive(Clone)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

impl Router {
    /// No routes yet: no topic is served.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route. `pattern` is a topic, or a prefix followed by `*`; `factory` makes the channel for each join.
    #[must_use]
    pub fn route(mut self, pattern: &str, factory: impl Fn() -> Box<dyn Channel> + Send + Sync + 'static) -> Self {
        let pattern = match pattern.strip_suffix('*') {
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Exact(pattern.to_owned()),
        };
        self.routes.push((pattern, Arc::new(factory)));
        self
    }

    /// Whether anybody serves `topic`.
    pub fn serves(&self, topic: &str) -> bool {
        self.routes.iter().any(|(pattern, _)| pattern.matches(topic))
    }

    /// A new channel for `topic`, if anybody serves it.
    pub fn open(&self, topic: &str) -> Option<Box<dyn Channel>> {
        let matching = self.routes.iter().find(|(pattern, _)| pattern.matches(topic));
        matching.map(|(_, factory)| factory())
    }
}

impl Pattern {
    fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Exact(name) => name == topic,
            Self::Prefix(prefix) => topic.starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Context, Joined, Next, Refusal};
    use crate::protocol::Payload;

    struct Marked(&'static [&'static str]);

    #[async_trait::async_trait]
    impl Channel for Marked {
        async fn join(&mut self, _: &mut Context, _: Payload) -> Result<Joined, Refusal> {
            Ok(Joined::default())
        }
        async fn handle_in(&mut self, _: &mut Context, _: &str, _: Payload) -> Next {
            Next::NoReply
        }
        fn intercepts(&self) -> &'static [&'static str] {
            self.0
        }
    }

    #[test]
    fn c33_the_first_pattern_that_matches_serves() {
        let router = Router::new()
            .route("exact", || Box::new(Marked(&["exact"])))
            .route("food*", || Box::new(Marked(&["food"])))
            .route("foo*", || Box::new(Marked(&["foo"])));
        let served = |topic: &str| router.open(topic).map(|channel| channel.intercepts()[0]);
        assert_eq!(served("exact"), Some("exact"));
        assert_eq!(served("exactly"), None);
        assert_eq!(served("food:1"), Some("food"));
        assert_eq!(served("foo"), Some("foo"));
        assert_eq!(served("fo"), None);
    }
}
