//! PubSub.
