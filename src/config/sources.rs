//! Where the text of an option comes from: flag before environment before file before default.
//!
//! It knows names and texts and no types. Its invariant: whatever is refused is refused with one line that names the
//! key, where its value came from, and what would be accepted.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    options::{Flags, OPTIONS, OTHER_VARIABLES, Opt},
    values::{Parsed, without_password},
};

/// Why options cannot be used. Each text is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that its option does not take.
    #[error("{key}: {shown} (from {source_of}) is not accepted: {rule}")]
    Value {
        /// The option, or `agents.NAME.KEY`.
        key: String,
        /// The value as it may be shown.
        shown: String,
        /// Where it came from.
        source_of: Source,
        /// What would be accepted.
        rule: String,
    },
    /// An option that others need and nobody gave.
    #[error("{key}: {rule}")]
    Missing {
        /// The option, or `agents.NAME.KEY`.
        key: String,
        /// What to do.
        rule: String,
    },
    /// A key of the file that no option has.
    #[error("{key}: there is no such key (in {file}): use one of {accepted}")]
    UnknownKey {
        /// The key, with its table.
        key: String,
        /// The file.
        file: String,
        /// The keys that exist there.
        accepted: String,
    },
    /// A file that cannot be read as one of options.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody gave it.
    Default,
    /// A key of this file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// What a process finds around itself.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The environment.
    pub variables: BTreeMap<OsString, OsString>,
    /// Where `rejoin.toml` is looked for and relative paths begin.
    pub directory: PathBuf,
    /// The machine's name.
    pub host_name: String,
}

impl Surroundings {
    /// Those of this process.
    pub fn current() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host_name = if name.is_empty() { "node".to_owned() } else { name };
        Self { variables: std::env::vars_os().collect(), directory: PathBuf::new(), host_name }
    }
}

/// A text and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: Source,
}

impl Given {
    /// Its value as `parse` reads it; the error names `key` and does not show a secret.
    pub(super) fn parse<T>(&self, key: &str, secret: bool, parse: impl Fn(&str) -> Parsed<T>) -> Result<T, Error> {
        parse(&self.text).map_err(|rule| self.refused(key, secret, rule))
    }

    pub(super) fn refused(&self, key: &str, secret: bool, rule: String) -> Error {
        Error::Value {
            key: key.to_owned(),
            shown: format!("{:?}", self.shown(secret)),
            source_of: self.source.clone(),
            rule,
        }
    }

    /// The text as it may be seen by whoever reads the output.
    pub(super) fn shown(&self, secret: bool) -> String {
        if secret { "***".to_owned() } else { without_password(&self.text) }
    }
}

/// The texts of all options that have one, and what the file says of agents.
#[derive(Debug)]
pub(super) struct Sources {
    given: BTreeMap<&'static str, Given>,
    pub(super) agents: Option<(PathBuf, toml::Value)>,
    pub(super) warnings: Vec<String>,
}

impl Sources {
    /// Reads everything there is.
    pub(super) fn gather(flags: &Flags, around: &Surroundings) -> Result<Self, Error> {
        let mut sources = Self { given: BTreeMap::new(), agents: None, warnings: unknown_variables(around) };
        if let Some((path, table)) = read_file(flags, around)? {
            sources.add_file(&path, table)?;
        }
        for option in OPTIONS {
            sources.add_variable(option, around)?;
            if let Some(text) = flags.get(option.name) {
                sources.add(option, text.to_owned(), Source::Flag(option.name));
            }
        }
        Ok(sources)
    }

    /// What was given for an option, or its default.
    pub(super) fn get(&self, option: &Opt) -> Option<Given> {
        let default = || option.default.map(|text| Given { text: text.to_owned(), source: Source::Default });
        self.given.get(option.name).cloned().or_else(default)
    }

    pub(super) fn add(&mut self, option: &Opt, text: String, source: Source) {
        self.given.insert(option.name, Given { text, source });
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    fn add_variable(&mut self, option: &Opt, around: &Surroundings) -> Result<(), Error> {
        let own = option.variable();
        for name in std::iter::once(own.as_str()).chain(option.also) {
            if let Some(text) = variable(around, name)? {
                self.add(option, text, Source::Variable(name.to_owned()));
                break;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path, table: toml::Table) -> Result<(), Error> {
        for (key, value) in table {
            if key == "agents" {
                self.agents = Some((path.to_owned(), value));
                continue;
            }
            let Some(option) = Opt::named(&key) else {
                let names = OPTIONS.iter().map(|option| option.name).chain(["agents.NAME"]);
                return Err(unknown_key(path, key, names));
            };
            let text = text_of(&value).ok_or_else(|| file_error(path, not_a_value(&key)))?;
            self.add(option, text, Source::File(path.to_owned()));
        }
        Ok(())
    }
}

pub(super) fn unknown_key(path: &Path, key: String, accepted: impl Iterator<Item = &'static str>) -> Error {
    let accepted = accepted.collect::<Vec<_>>().join(", ");
    Error::UnknownKey { key, file: path.display().to_string(), accepted }
}

pub(super) fn file_error(path: &Path, problem: String) -> Error {
    Error::File { file: path.display().to_string(), problem }
}

pub(super) fn not_a_value(key: &str) -> String {
    format!("{key} has to be a text, a number, true or false, or a list of texts")
}

/// The text of a value of the file, as a flag would give it.
pub(super) fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// A variable that is set to something: orchestrators set what they do not mean to an empty text.
fn variable(around: &Surroundings, name: &str) -> Result<Option<String>, Error> {
    match around.variables.get(&OsString::from(name)).map(|text| text.to_str()) {
        Some(None) => {
            Err(Error::Missing { key: name.to_owned(), rule: "its value is not UTF-8: set it to text".to_owned() })
        }
        Some(Some("")) | None => Ok(None),
        Some(Some(text)) => Ok(Some(text.to_owned())),
    }
}

/// The file that was named, which has to exist, or the one that lies here, which need not.
fn read_file(flags: &Flags, around: &Surroundings) -> Result<Option<(PathBuf, toml::Table)>, Error> {
    let variable = variable(around, "REJOIN_CONFIG")?;
    let named = flags.file().map(str::to_owned).or(variable);
    let path = PathBuf::from(named.as_deref().unwrap_or("rejoin.toml"));
    let text = match std::fs::read_to_string(around.directory.join(&path)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(None),
        Err(error) => return Err(file_error(&path, format!("cannot be read ({error}): give a file that can"))),
    };
    let table = text.parse::<toml::Table>().map_err(|error| file_error(&path, syntax(&text, &error)))?;
    Ok(Some((path, table)))
}

/// What is wrong with a file that is no TOML, on one line.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    format!("line {line} is no TOML ({message}): write KEY = VALUE")
}

fn unknown_variables(around: &Surroundings) -> Vec<String> {
    let known: Vec<_> = OPTIONS.iter().map(Opt::variable).collect();
    let names = around.variables.keys().filter_map(|name| name.to_str());
    names
        .filter(|name| name.starts_with("REJOIN_") && !OTHER_VARIABLES.contains(name))
        .filter(|name| !known.iter().any(|known| known == name))
        .map(|name| format!("{name}: there is no such option, so the variable has no effect"))
        .collect()
}
