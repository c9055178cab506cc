//! Traces: which request led to which write and which answer, told to a collector over OTLP.
//!
//! A [`Trace`] is handed from part to part by hand, or is the current one of the future that [`Trace::run`] runs. It knows
//! nothing of who is traced. Without the feature `otlp`, and with it where no `OTEL_…` variable asks for it, nothing is
//! traced; without the feature a [`Trace`] has no size either. The invariant: spans hold ids, names and numbers, never what
//! people or agents say, and no tokens.

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod on;
#[cfg(feature = "otlp")]
mod sender;

#[cfg(not(feature = "otlp"))]
pub use off::{Trace, Traces};
#[cfg(feature = "otlp")]
pub use on::{Trace, Traces};

/// Whether this program can trace at all.
pub const BUILT_IN: bool = cfg!(feature = "otlp");

/// Why traces cannot be sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only one of the protocols of OTLP is spoken.
    #[error("{variable} is {value:?}: traces are sent as http/protobuf, so give that or nothing")]
    Protocol {
        /// The variable that asks for another one.
        variable: &'static str,
        /// What it says.
        value: String,
    },
    /// Some other variable is not as it has to be.
    #[error("traces cannot be sent as the OTEL_… variables say: {0}")]
    Variables(String),
    /// The HTTP client could not be built.
    #[error("the HTTP client for traces could not be set up: check this machine's TLS certificates")]
    Client(#[source] reqwest::Error),
}
