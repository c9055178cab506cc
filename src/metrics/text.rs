//! Families of numbers, and the two texts in which Prometheus reads them.
//!
//! Knows no part of the server. OpenMetrics names a counter's family without `_total` and its number with it; the older
//! text names both with it, and has no end mark. A [`Family`] has the name under which its numbers are asked for, which
//! is the one with `_total`. Its invariant: a family stands in a text once, with its help and its type.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::measure::Reading;

/// The end of every counter's name.
const TOTAL: &str = "_total";

/// How a scrape is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's own text, version 0.0.4.
    Prometheus,
}

impl Format {
    /// What a client wants that sends this `Accept`, if it sends one.
    pub fn accepted(accept: Option<&str>) -> Self {
        let kinds = accept.unwrap_or_default().split(',').map(|range| range.split(';').next().unwrap_or_default());
        let open = kinds.map(str::trim).any(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, from 0 at the start of the server.
    Counter,
    /// How it is at this moment.
    Gauge,
    /// How often something was how large, from 0 at the start of the server.
    Histogram,
}

/// Numbers of one name.
#[derive(Debug, Clone)]
pub(super) struct Family {
    /// The name; that of a counter ends with `_total`.
    pub(super) name: &'static str,
    /// What it says, in one line.
    pub(super) help: &'static str,
    /// What kind of number it is.
    pub(super) kind: Kind,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Count(u64),
    Number(f64),
    Distribution(Reading),
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with(TOTAL), "{name}");
        Self { name, help, kind, samples: Vec::new() }
    }

    /// A number that only grows.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// A number that goes up and down.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    /// A distribution.
    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Histogram)
    }

    /// With a whole number, under these labels.
    #[must_use]
    pub(super) fn count<const N: usize>(self, labels: [(&'static str, &str); N], count: u64) -> Self {
        self.with(labels, Value::Count(count))
    }

    /// As [`Family::count`], of things in memory.
    #[must_use]
    pub(super) fn size<const N: usize>(self, labels: [(&'static str, &str); N], size: usize) -> Self {
        self.count(labels, u64::try_from(size).unwrap_or(u64::MAX))
    }

    /// With a number, under these labels.
    #[must_use]
    pub(super) fn number<const N: usize>(self, labels: [(&'static str, &str); N], number: f64) -> Self {
        self.with(labels, Value::Number(number))
    }

    /// With a distribution, under these labels.
    #[must_use]
    pub(super) fn distribution<const N: usize>(self, labels: [(&'static str, &str); N], reading: Reading) -> Self {
        self.with(labels, Value::Distribution(reading))
    }

    fn with<const N: usize>(mut self, labels: [(&'static str, &str); N], value: Value) -> Self {
        let labels = labels.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        self.samples.push(Sample { labels, value });
        self
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let name = if self.kind == Kind::Counter { self.name.trim_end_matches(TOTAL) } else { self.name };
        let mut family = encoder.encode_descriptor(name, self.help, None, kind)?;
        self.samples.iter().try_for_each(|sample| {
            if sample.labels.is_empty() {
                return self.encode_value(&mut family, &sample.value);
            }
            self.encode_value(&mut family.encode_family(&sample.labels)?, &sample.value)
        })
    }

    fn encode_value(&self, encoder: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
        match (self.kind, value) {
            (Kind::Counter, Value::Count(count)) => encoder.encode_counter::<NoLabelSet, u64, f64>(count, None),
            (Kind::Counter, Value::Number(number)) => encoder.encode_counter::<NoLabelSet, f64, f64>(number, None),
            (_, Value::Count(count)) => encoder.encode_gauge(&i64::try_from(*count).unwrap_or(i64::MAX)),
            (_, Value::Number(number)) => encoder.encode_gauge(number),
            (_, Value::Distribution(Reading { sum, count, buckets })) => {
                encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
        }
    }
}

/// What is registered for one scrape.
#[derive(Debug)]
struct Collected(Vec<Family>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

/// The text of all of these.
pub(super) fn encode(families: Vec<Family>, format: Format) -> String {
    let counters: Vec<&str> = families
        .iter()
        .filter(|family| family.kind == Kind::Counter)
        .map(|family| family.name.trim_end_matches(TOTAL))
        .collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected(families)));
    let mut open = String::with_capacity(32 * 1024);
    if let Err(error) = text::encode(&mut open, &registry) {
        // A text cannot refuse to grow; should the encoder, what it has written is no scrape.
        tracing::error!(%error, "the metrics could not be encoded");
        return String::new();
    }
    match format {
        Format::OpenMetrics => open,
        Format::Prometheus => open.lines().filter_map(|line| older(line, &counters)).collect(),
    }
}

/// A line of OpenMetrics as the older text has it.
fn older(line: &str, counters: &[&str]) -> Option<String> {
    if line == "# EOF" {
        return None;
    }
    let described = ["# HELP ", "# TYPE "].iter().find_map(|start| Some((*start, line.strip_prefix(start)?)));
    let named = described.and_then(|(start, rest)| Some((start, rest.split_once(' ')?)));
    Some(match named {
        Some((start, (name, rest))) if counters.contains(&name) => format!("{start}{name}{TOTAL} {rest}\n"),
        _ => format!("{line}\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Histogram;

    fn families() -> Vec<Family> {
        let sizes = Histogram::numbers();
        sizes.were(3);
        vec![
            Family::counter("a_total", "All of a.").count([("why", "x\"y\\z\n"), ("how", "")], 3),
            Family::counter("b_total", "All of b.").number([], 1.5),
            Family::gauge("c", "The c.").size([], 7).size([("of", "it")], 8),
            Family::histogram("d", "The d.").distribution([("of", "it")], sizes.read()),
            Family::gauge("e_total_not", "No counter.").number([], 0.25),
        ]
    }

    #[test]
    fn openmetrics_names_a_counter_s_family_without_its_total() {
        let text = encode(families(), Format::OpenMetrics);
        for line in [
            "# HELP a All of a.\n# TYPE a counter\n",
            "a_total{why=\"x\\\"y\\\\z\\n\",how=\"\"} 3\n",
            "b_total 1.5\n",
            "# TYPE c gauge\nc 7\nc{of=\"it\"} 8\n",
            "# TYPE d histogram\nd_sum{of=\"it\"} 3.0\nd_count{of=\"it\"} 1\nd_bucket{le=\"1.0\",of=\"it\"} 0\n",
            "d_bucket{le=\"4.0\",of=\"it\"} 1\n",
            "d_bucket{le=\"+Inf\",of=\"it\"} 1\n",
            "e_total_not 0.25\n# EOF\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_older_text_names_a_counter_s_family_with_its_total_and_has_no_end_mark() {
        let text = encode(families(), Format::Prometheus);
        assert!(text.contains("# HELP a_total All of a.\n# TYPE a_total counter\na_total{"), "{text}");
        assert!(text.contains("# TYPE e_total_not gauge\n") && text.contains("# TYPE c gauge\n"), "{text}");
        assert!(!text.contains("EOF"), "{text}");
    }

    #[test]
    fn who_accepts_openmetrics_gets_it_and_everybody_else_the_older_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        for other in [None, Some("*/*"), Some("text/plain"), Some("text/html,application/xml"), Some("")] {
            assert_eq!(Format::accepted(other), Format::Prometheus, "{other:?}");
        }
    }
}
