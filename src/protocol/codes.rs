//! Every word and number of the wire that has a fixed meaning.
//!
//! Knows nothing else. `protocol/codes.json` says the same for those who write clients; a test compares the two.

/// Events with a meaning of the protocol's own.
pub mod event {
    /// Client: serve me this topic.
    pub const PHX_JOIN: &str = "phx_join";
    /// Client: stop.
    pub const PHX_LEAVE: &str = "phx_leave";
    /// Server: the answer to a frame.
    pub const PHX_REPLY: &str = "phx_reply";
    /// Server: the channel ended as it should; do not rejoin.
    pub const PHX_CLOSE: &str = "phx_close";
    /// Server: the channel ended as it should not; rejoin.
    pub const PHX_ERROR: &str = "phx_error";
    /// Client: are you there?
    pub const HEARTBEAT: &str = "heartbeat";
    /// Server: who is here.
    pub const PRESENCE_STATE: &str = "presence_state";
    /// Server: who came and who went.
    pub const PRESENCE_DIFF: &str = "presence_diff";
    /// Server: records of the log, in order.
    pub const EVENTS: &str = "events";
    /// Server: this many ephemeral messages did not fit.
    pub const MISSED: &str = "missed";
    /// Server: the connection is about to be closed for a restart.
    pub const DRAINING: &str = "draining";
    /// Server: what this topic was about was deleted.
    pub const DELETED: &str = "deleted";
    /// Server: a session of the live list is new or not as it was.
    pub const SESSION_CHANGED: &str = "session_changed";
    /// Server: a session of the live list is gone.
    pub const SESSION_REMOVED: &str = "session_removed";

    /// All of them.
    pub const ALL: [&str; 14] = [
        PHX_JOIN,
        PHX_LEAVE,
        PHX_REPLY,
        PHX_CLOSE,
        PHX_ERROR,
        HEARTBEAT,
        PRESENCE_STATE,
        PRESENCE_DIFF,
        EVENTS,
        MISSED,
        DRAINING,
        DELETED,
        SESSION_CHANGED,
        SESSION_REMOVED,
    ];
}

/// The topic of the connection itself.
pub const CONNECTION_TOPIC: &str = "phoenix";

/// Why the protocol refuses; the texts are Phoenix's own, which clients compare.
pub mod protocol_reason {
    /// Nobody serves this topic, or it is not joined.
    pub const UNMATCHED_TOPIC: &str = "unmatched topic";
    /// The channel broke while it was joined.
    pub const JOIN_CRASHED: &str = "join crashed";
    /// One connection holds as many topics as it may.
    pub const TOO_MANY_CHANNELS: &str = "too many channels joined";
    /// In `phx_error`: the channel broke.
    pub const CHANNEL_CRASH: &str = "channel_crash";
    /// In `phx_error`: what the channel had shown is no longer true; rejoin.
    pub const CHANNEL_RESTART: &str = "channel_restart";

    /// All of them.
    pub const ALL: [&str; 5] = [UNMATCHED_TOPIC, JOIN_CRASHED, TOO_MANY_CHANNELS, CHANNEL_CRASH, CHANNEL_RESTART];
}

/// Why a push or a join is refused.
pub mod reason {
    /// It cannot be understood.
    pub const INVALID: &str = "invalid";
    /// It may not be done by this identity.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// What it names is not there.
    pub const NOT_FOUND: &str = "not_found";
    /// All slots are taken and the sender did not want to wait.
    pub const BUSY: &str = "busy";
    /// The queue is as long as it may be.
    pub const QUEUE_FULL: &str = "queue_full";
    /// The same id already stands for something else.
    pub const CONFLICT: &str = "conflict";
    /// A field is too large.
    pub const TOO_LARGE: &str = "too_large";
    /// Too many of them.
    pub const RATE_LIMITED: &str = "rate_limited";
    /// This server is about to stop; go to another.
    pub const DRAINING: &str = "draining";
    /// It could not be done in time; repeat it with the same id.
    pub const UNAVAILABLE: &str = "unavailable";

    /// All of them.
    pub const ALL: [&str; 10] =
        [INVALID, UNAUTHORIZED, NOT_FOUND, BUSY, QUEUE_FULL, CONFLICT, TOO_LARGE, RATE_LIMITED, DRAINING, UNAVAILABLE];
}

/// Why a turn failed.
pub mod turn_error {
    /// The agent cannot be reached.
    pub const AGENT_UNAVAILABLE: &str = "agent_unavailable";
    /// The agent refuses our key.
    pub const AGENT_UNAUTHORIZED: &str = "agent_unauthorized";
    /// The agent wants less of us.
    pub const AGENT_RATE_LIMITED: &str = "agent_rate_limited";
    /// The agent does not accept what it was asked.
    pub const AGENT_BAD_REQUEST: &str = "agent_bad_request";
    /// The agent failed.
    pub const AGENT_ERROR: &str = "agent_error";
    /// The answer broke off.
    pub const AGENT_INCOMPLETE: &str = "agent_incomplete";
    /// The agent's code panicked.
    pub const AGENT_CRASHED: &str = "agent_crashed";
    /// No agent has that name.
    pub const UNKNOWN_AGENT: &str = "unknown_agent";
    /// The agent was silent, or the turn ran, for too long.
    pub const TIMEOUT: &str = "timeout";
    /// The answer is longer than it may be.
    pub const TOO_LARGE: &str = "too_large";
    /// Its runner went missing.
    pub const LOST: &str = "lost";
    /// What it said could not be stored.
    pub const STORE_UNAVAILABLE: &str = "store_unavailable";

    /// All of them.
    pub const ALL: [&str; 12] = [
        AGENT_UNAVAILABLE,
        AGENT_UNAUTHORIZED,
        AGENT_RATE_LIMITED,
        AGENT_BAD_REQUEST,
        AGENT_ERROR,
        AGENT_INCOMPLETE,
        AGENT_CRASHED,
        UNKNOWN_AGENT,
        TIMEOUT,
        TOO_LARGE,
        LOST,
        STORE_UNAVAILABLE,
    ];
}

/// A code with which the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode {
    /// The number in the close frame; never 1000, which some clients take for a farewell.
    pub code: u16,
    /// What it is called in `codes.json`.
    pub name: &'static str,
    /// Whether a client should come back.
    pub reconnect: bool,
}

/// The codes with which the server closes a connection.
pub mod close {
    use super::CloseCode;

    /// An operator asked for it.
    pub const DISCONNECTED: CloseCode = CloseCode { code: 1001, name: "disconnected", reconnect: true };
    /// Silence for too long, or framing that is none.
    pub const PROTOCOL: CloseCode = CloseCode { code: 1002, name: "idle_or_protocol_error", reconnect: true };
    /// Text that is not UTF-8.
    pub const NOT_UTF8: CloseCode = CloseCode { code: 1007, name: "not_utf8", reconnect: true };
    /// A reader that reads nothing, or a client that does not keep to a limit.
    pub const POLICY: CloseCode = CloseCode { code: 1008, name: "policy", reconnect: true };
    /// A frame larger than it may be.
    pub const TOO_LARGE: CloseCode = CloseCode { code: 1009, name: "too_large", reconnect: true };
    /// A message that is no frame.
    pub const BAD_FRAME: CloseCode = CloseCode { code: 1011, name: "bad_frame", reconnect: true };
    /// The server restarts.
    pub const RESTART: CloseCode = CloseCode { code: 1012, name: "restart", reconnect: true };

    /// All of them.
    pub const ALL: [CloseCode; 7] = [DISCONNECTED, PROTOCOL, NOT_UTF8, POLICY, TOO_LARGE, BAD_FRAME, RESTART];
}
