//! A reader of Prometheus's text that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    http::Http,
    ws::{LIMIT, within},
};

/// Labels of a series, by name.
type Labels = BTreeMap<String, String>;

/// One family of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    /// Names of numbers, their labels, and the numbers.
    samples: Vec<(String, Labels, f64)>,
}

impl Family {
    /// The names of its labels, but for the bound of a bucket.
    pub(crate) fn labels(&self) -> BTreeSet<&str> {
        self.samples
            .iter()
            .flat_map(|(_, labels, _)| labels.keys())
            .map(String::as_str)
            .filter(|l| *l != "le")
            .collect()
    }
}

/// A scrape, by the names of its families.
#[derive(Debug)]
pub(crate) struct Scrape(pub(crate) BTreeMap<String, Family>);

impl Scrape {
    /// What `/metrics` says in Prometheus's own text.
    pub(crate) async fn of(http: &Http) -> Self {
        let answer = http.get("/metrics").await;
        assert_eq!((answer.status, answer.kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        Self::read(&answer.body)
    }

    /// Scrapes until `ready`.
    pub(crate) async fn until(http: &Http, what: &str, ready: impl Fn(&Self) -> bool) -> Self {
        within(what, async {
            loop {
                let scrape = Self::of(http).await;
                if ready(&scrape) {
                    return scrape;
                }
                tokio::time::sleep(LIMIT / 1_000).await;
            }
        })
        .await
    }

    /// Reads a text, and checks all that its grammar asks for.
    pub(crate) fn read(text: &str) -> Self {
        let (mut families, mut last) = (BTreeMap::<String, Family>::new(), String::new());
        assert!(text.ends_with('\n'), "the last line is not ended");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                let family = Family { help: help.to_owned(), ..Family::default() };
                assert!(families.insert(name.to_owned(), family).is_none(), "{name} is described twice");
                last = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, last, "a type follows the help of its family");
                families.get_mut(name).unwrap().kind = kind.to_owned();
            } else {
                let (name, labels, number) = sample(line);
                let family = families.get_mut(&last).unwrap_or_else(|| panic!("nobody described {line}"));
                assert!(belongs(&last, &family.kind, &name), "{name} stands under {last}");
                let again = family.samples.iter().any(|(known, of, _)| *known == name && *of == labels);
                assert!(!again, "twice: {line}");
                family.samples.push((name, labels, number));
            }
        }
        families.iter().for_each(|(name, family)| check(name, family));
        Self(families)
    }

    /// The number under this name and exactly these labels, if there is one.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut samples = self.0.values().flat_map(|family| &family.samples);
        samples.find(|(known, of, _)| known == name && *of == labels).map(|(.., number)| *number)
    }

    /// The same, where there is one.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("there is no {name} {labels:?} in {self:#?}"))
    }
}

fn belongs(family: &str, kind: &str, name: &str) -> bool {
    match kind {
        "histogram" => ["_sum", "_count", "_bucket"].iter().any(|end| name.strip_suffix(end) == Some(family)),
        "counter" => name == family && name.ends_with("_total"),
        "gauge" => name == family && !name.ends_with("_total"),
        _ => panic!("{family} is a {kind}"),
    }
}

fn check(name: &str, family: &Family) {
    let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(is_word(name) && !family.help.is_empty(), "{name}");
    let buckets = format!("{name}_bucket");
    let mut series = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
    for (_, labels, number) in family.samples.iter().filter(|(sample, ..)| *sample == buckets) {
        let mut labels = labels.clone();
        let bound = labels.remove("le").unwrap().parse().unwrap();
        series.entry(labels).or_default().push((bound, *number));
    }
    for (labels, buckets) in series {
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{name} {labels:?}");
        let count =
            family.samples.iter().find(|(sample, of, _)| sample.ends_with("_count") && *of == labels).unwrap().2;
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name} {labels:?}");
    }
}

/// A line of a number.
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, rest) = line.split_at(end);
    let (labels, number) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest),
        None => (Labels::new(), rest),
    };
    let number = number.strip_prefix(' ').unwrap();
    (name.to_owned(), labels, number.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// Labels up to the brace that closes them, and what follows it.
fn read_labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once("=\"").unwrap();
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (labels, &rest[1..])
}
