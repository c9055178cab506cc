//! Traces where they are built in.
//!
//! A span lasts until the last copy of its [`Trace`] is dropped. They wait in a bounded queue for a thread of the SDK,
//! which sends them in batches; what does not fit is dropped there, so that a collector that is away costs memory up to
//! a limit and nobody's time.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{FutureExt as _, Link, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};

use super::{Error, sender::Sender};

/// How long the last spans may take to be sent at the end.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// The one tracer of the process; none before [`Traces::start`] and after [`Traces::stop`].
static TRACER: Mutex<Option<SdkTracer>> = Mutex::new(None);
/// Whether there is one: what is asked everywhere, without the lock.
static ON: AtomicBool = AtomicBool::new(false);

fn tracer() -> Option<SdkTracer> {
    if !ON.load(Ordering::Relaxed) {
        return None;
    }
    TRACER.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set_tracer(tracer: Option<SdkTracer>) {
    ON.store(tracer.is_some(), Ordering::Relaxed);
    *TRACER.lock().unwrap_or_else(PoisonError::into_inner) = tracer;
}

/// A place in a trace: a span of this program that lasts as long as a copy of this is held, or one of somebody else's.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    context: Option<Context>,
}

impl Trace {
    /// What a client says of the trace that it is in, by `traceparent` and `tracestate`.
    pub fn of_client<'a>(headers: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> Self {
        if !ON.load(Ordering::Relaxed) {
            return Self::default();
        }
        let headers: HashMap<String, String> =
            headers.map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
        Self { context: context.span().span_context().is_valid().then_some(context) }
    }

    /// Where the code that asks is.
    pub fn current() -> Self {
        if !ON.load(Ordering::Relaxed) {
            return Self::default();
        }
        let context = Context::current();
        Self { context: context.has_active_span().then_some(context) }
    }

    /// Whether this is a place in a trace.
    pub fn is_traced(&self) -> bool {
        self.context.is_some()
    }

    /// Begins a span for what somebody outside asked for: in this trace, or in one of its own.
    #[must_use]
    pub fn serve(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.begin(name.into(), SpanKind::Server, None)
    }

    /// Begins a span under this one; nothing where nothing is traced.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        self.context.as_ref().map(|_| self.begin(name.into(), SpanKind::Internal, None)).unwrap_or_default()
    }

    /// Begins a span under this one for what somebody outside is asked; nothing where nothing is traced.
    #[must_use]
    pub fn ask(&self, name: &'static str) -> Self {
        self.context.as_ref().map(|_| self.begin(name.into(), SpanKind::Client, None)).unwrap_or_default()
    }

    /// Begins a trace of its own that names this one, if it is one, as its cause.
    #[must_use]
    pub fn consequence(&self, name: &'static str) -> Self {
        Self::default().begin(name.into(), SpanKind::Internal, self.context.as_ref())
    }

    fn begin(&self, name: Cow<'static, str>, kind: SpanKind, cause: Option<&Context>) -> Self {
        let Some(tracer) = tracer() else { return Self::default() };
        let links = cause.map(|cause| vec![Link::with_context(cause.span().span_context().clone())]);
        let mut builder = tracer.span_builder(name).with_kind(kind);
        builder.links = links;
        let nowhere = Context::new();
        let parent = self.context.as_ref().unwrap_or(&nowhere);
        let span = tracer.build_with_context(builder, parent);
        Self { context: Some(Context::new().with_span(span)) }
    }

    /// Names another place as a cause too.
    pub fn link(&self, cause: &Self) {
        if let (Some(context), Some(cause)) = (&self.context, &cause.context) {
            context.span().add_link(cause.span().span_context().clone(), Vec::new());
        }
    }

    /// Notes something about the span: an id, a name or a number, never what somebody said.
    pub fn note(&self, key: &'static str, value: &str) {
        if let Some(context) = &self.context {
            context.span().set_attribute(KeyValue::new(key, value.to_owned()));
        }
    }

    /// Notes that what the span stands for failed; `why` is a code.
    pub fn failed(&self, why: &str) {
        if let Some(context) = &self.context {
            context.span().set_status(Status::error(why.to_owned()));
        }
    }

    /// Runs a future in this place.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        future.with_context(self.context.clone().unwrap_or_default())
    }

    /// Calls a function in this place.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _here = self.context.clone().map(Context::attach);
        work()
    }

    /// The headers that tell another program of this place.
    pub fn headers(&self) -> impl Iterator<Item = (String, String)> {
        let mut headers = HashMap::new();
        if let Some(context) = &self.context {
            TraceContextPropagator::new().inject_context(context, &mut headers);
        }
        headers.into_iter().filter(|(_, value)| !value.is_empty())
    }
}

/// Sends the spans of this process.
#[derive(Debug)]
pub struct Traces {
    provider: Option<SdkTracerProvider>,
}

impl Traces {
    /// Begins to trace, if the variables that OpenTelemetry knows ask for it: by an endpoint, or by
    /// `OTEL_TRACES_EXPORTER=otlp`. To be called in a runtime that goes on until [`Traces::stop`].
    ///
    /// # Errors
    /// Variables that cannot be followed.
    pub fn start(node: &str) -> Result<Self, Error> {
        if !is_asked_for() {
            return Ok(Self { provider: None });
        }
        check_protocol()?;
        let exporter = SpanExporter::builder().with_http().with_http_client(Sender::new(timeout())?);
        let exporter = exporter.build().map_err(|error| Error::Variables(error.to_string()))?;
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(node)).build();
        set_tracer(Some(provider.tracer("rejoin")));
        Ok(Self { provider: Some(provider) })
    }

    /// Sends what waits, within a limit. Nothing is traced after it.
    pub async fn stop(self) {
        let Some(provider) = self.provider else { return };
        set_tracer(None);
        // It blocks until its own thread is done.
        let sending = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS));
        if !matches!(sending.await, Ok(Ok(()))) {
            tracing::warn!("the last spans were not sent: the collector does not take them in time");
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn is_asked_for() -> bool {
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let asked = match variable("OTEL_TRACES_EXPORTER") {
        Some(exporter) => exporter == "otlp",
        None => endpoint.into_iter().any(|name| variable(name).is_some()),
    };
    asked && !is_off
}

fn check_protocol() -> Result<(), Error> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(value) = variable(name) {
            return if value == "http/protobuf" { Ok(()) } else { Err(Error::Protocol { variable: name, value }) };
        }
    }
    Ok(())
}

/// How long one request to the collector may take.
fn timeout() -> Duration {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let given = names.into_iter().find_map(|name| variable(name)?.parse().ok());
    Duration::from_millis(given.unwrap_or(10_000))
}

/// Who sends, unless variables say otherwise.
fn resource(node: &str) -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|given| given.contains("service.name="));
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("rejoin.node", node.to_owned()),
    ]);
    if named { builder.build() } else { builder.with_service_name("rejoin").build() }
}
