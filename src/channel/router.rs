//! Which channel serves which topic.
//!
//! Knows no connection. Its invariant: the first pattern in the order of declaration that matches a topic serves it.

use std::sync::Arc;

use super::Channel;

type Factory = Arc<dyn Fn() -> Box<dyn Channel> + Send + Sync>;

/// Patterns and the channels behind them. Clones share them.
#[derive(Clone, Default)]
pub struct Router {
    routes: Vec<Route>,
}

#[derive(Clone)]
struct Route {
    pattern: Pattern,
    factory: Factory,
    /// Whether others than its channel may speak to its topics.
    open: bool,
}

/// What the channels of a route are called that serves every topic.
const ANY: &str = "any";

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
    pub fn route(self, pattern: &str, factory: impl Fn() -> Box<dyn Channel> + Send + Sync + 'static) -> Self {
        self.with(pattern, Arc::new(factory), true)
    }

    /// As [`Router::route`], for topics on which nobody is shown and only the channel itself speaks: what another said
    /// there would pass for the server's own word.
    #[must_use]
    pub fn route_closed(self, pattern: &str, factory: impl Fn() -> Box<dyn Channel> + Send + Sync + 'static) -> Self {
        self.with(pattern, Arc::new(factory), false)
    }

    fn with(mut self, pattern: &str, factory: Factory, open: bool) -> Self {
        let pattern = match pattern.strip_suffix('*') {
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Exact(pattern.to_owned()),
        };
        self.routes.push(Route { pattern, factory, open });
        self
    }

    /// Whether anybody serves `topic`.
    pub fn serves(&self, topic: &str) -> bool {
        self.find(topic).is_some()
    }

    /// Whether anybody serves `topic`, and others may speak there and be shown.
    pub fn is_open(&self, topic: &str) -> bool {
        self.find(topic).is_some_and(|route| route.open)
    }

    /// A new channel for `topic`, if anybody serves it.
    pub fn open(&self, topic: &str) -> Option<Box<dyn Channel>> {
        self.find(topic).map(|route| (route.factory)())
    }

    fn find(&self, topic: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.pattern.matches(topic))
    }
}

impl Router {
    /// What the channels of each route are called, in the order of the routes: what its pattern begins with.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|route| route.pattern.kind())
    }

    /// Which of the routes serves `topic`.
    pub(super) fn place(&self, topic: &str) -> Option<usize> {
        self.routes.iter().position(|route| route.pattern.matches(topic))
    }
}

impl Pattern {
    fn kind(&self) -> &str {
        let (Self::Exact(name) | Self::Prefix(name)) = self;
        let name = name.trim_end_matches(':');
        if name.is_empty() { ANY } else { name }
    }

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

    #[test]
    fn others_speak_where_the_first_pattern_that_matches_lets_them() {
        let none = || -> Box<dyn Channel> { Box::new(Marked(&[])) };
        let router = Router::new().route_closed("news", none).route("room:*", none).route_closed("room:a", none);
        let open = ["news", "room:a", "other"].map(|topic| router.is_open(topic));
        assert_eq!(open, [false, true, false]);
    }

    #[test]
    fn channels_are_called_what_their_topics_begin_with() {
        let none = || -> Box<dyn Channel> { Box::new(Marked(&[])) };
        let router =
            Router::new().route("session:*", none).route("sessions", none).route("a:b:*", none).route("*", none);
        assert_eq!(router.kinds().collect::<Vec<_>>(), ["session", "sessions", "a:b", "any"]);
        let places: Vec<_> = ["sessions", "session:1", "a:b:c", "x"].map(|topic| router.place(topic)).into();
        assert_eq!(places, [Some(1), Some(0), Some(2), Some(3)]);
    }
}
