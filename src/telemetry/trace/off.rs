//! Traces where they are not built in: nothing, at no cost.

use std::borrow::Cow;

use super::Error;

/// A place in a trace that is not there.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    _nowhere: (),
}

impl Trace {
    /// What a client says of the trace that it is in.
    pub fn of_client<'a>(_headers: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> Self {
        Self::default()
    }

    /// Where the code that asks is.
    pub fn current() -> Self {
        Self::default()
    }

    /// Whether this is a place in a trace: never.
    pub fn is_traced(&self) -> bool {
        false
    }

    /// Begins a span for what somebody outside asked for.
    #[must_use]
    pub fn serve(&self, _name: impl Into<Cow<'static, str>>) -> Self {
        Self::default()
    }

    /// Begins a span under this one.
    #[must_use]
    pub fn child(&self, _name: &'static str) -> Self {
        Self::default()
    }

    /// Begins a span under this one for what somebody outside is asked.
    #[must_use]
    pub fn ask(&self, _name: &'static str) -> Self {
        Self::default()
    }

    /// Begins a trace of its own that names this one as its cause.
    #[must_use]
    pub fn consequence(&self, _name: &'static str) -> Self {
        Self::default()
    }

    /// Names this one as a cause too.
    pub fn link(&self, _cause: &Self) {}

    /// Notes something about the span.
    pub fn note(&self, _key: &'static str, _value: &str) {}

    /// Notes that what the span stands for failed.
    pub fn failed(&self, _why: &str) {}

    /// Runs a future in this place.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        future
    }

    /// Calls a function in this place.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        work()
    }

    /// The headers that tell another program of this place.
    pub fn headers(&self) -> impl Iterator<Item = (String, String)> {
        std::iter::empty()
    }
}

/// Sends no traces.
#[derive(Debug)]
pub struct Traces;

impl Traces {
    /// Says so where traces are asked for.
    ///
    /// # Errors
    /// None.
    pub fn start(_node: &str) -> Result<Self, Error> {
        let asked = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
        if let Some(variable) = asked.into_iter().find(|variable| std::env::var_os(variable).is_some()) {
            tracing::warn!("{variable} has no effect: this program was built without traces (cargo feature otlp)");
        }
        Ok(Self)
    }

    /// There is nothing to send.
    pub async fn stop(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn work() -> [u8; 100] {
        [0; 100]
    }

    #[test]
    fn what_is_not_built_in_has_no_size() {
        assert_eq!(size_of_val(&Trace::current().run(work())), size_of_val(&work()));
        assert_eq!(size_of::<Trace>(), 0);
    }
}
