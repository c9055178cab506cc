//! The forms in which one scenario is run: each version of the protocol over each transport.

use std::net::SocketAddr;

/// A version over a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) version: Version,
    pub(crate) transport: Transport,
}

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// How frames travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    LongPoll,
}

impl Form {
    pub(crate) const V1: Self = Self { version: Version::V1, transport: Transport::WebSocket };
    pub(crate) const V2: Self = Self { version: Version::V2, transport: Transport::WebSocket };
    pub(crate) const V1_POLL: Self = Self { version: Version::V1, transport: Transport::LongPoll };
    pub(crate) const V2_POLL: Self = Self { version: Version::V2, transport: Transport::LongPoll };

    /// Where a client of this form connects.
    pub(crate) fn url(self, address: SocketAddr) -> String {
        let vsn = match self.version {
            Version::V1 => "1.0.0",
            Version::V2 => "2.0.0",
        };
        match self.transport {
            Transport::WebSocket => format!("ws://{address}/socket/websocket?vsn={vsn}"),
            Transport::LongPoll => format!("http://{address}/socket/longpoll?vsn={vsn}"),
        }
    }
}

/// Makes a test of each scenario for each of the forms, in a module each.
macro_rules! in_forms {
    ([$($module:ident = $form:ident),* $(,)?] $scenarios:tt) => {
        $($crate::support::form::in_forms! { @one $module $form, $scenarios })*
    };
    (@one $module:ident $form:ident, { $($name:ident),* $(,)? }) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    Box::pin(super::$name($crate::support::form::Form::$form)).await;
                }
            )*
        }
    };
}

/// Makes a test of each scenario for each version over each transport.
macro_rules! everywhere {
    ($scenarios:tt) => {
        $crate::support::form::in_forms! {
            [
                v1 = V1,
                v2 = V2,
                v1_long_poll = V1_POLL,
                v2_long_poll = V2_POLL,
            ]
            $scenarios
        }
    };
}

/// Makes a test of each scenario for both versions over a WebSocket.
macro_rules! on_a_websocket {
    ($scenarios:tt) => {
        $crate::support::form::in_forms! {
            [v1_websocket = V1, v2_websocket = V2]
            $scenarios
        }
    };
}

pub(crate) use everywhere;
pub(crate) use in_forms;
pub(crate) use on_a_websocket;
