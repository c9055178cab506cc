//! The agents that the options make: the built-in ones and those of the file's `[agents.NAME]` tables.
//!
//! It knows what each type of agent takes and builds none. Its invariant: the result holds an agent for every table,
//! each with all that its type needs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Effective,
    sources::{Error, Given, Source, file_error, not_a_value, text_of, unknown_key},
    values::{agent_name, api_key, backend_url, base_url, count, duration, shared_secret},
};
use crate::agent::{Spec, http, openai};

/// Names that tables cannot take: those of the built-in agents and of a type.
const BUILT_IN: [&str; 3] = ["echo", "openai", "http"];
const ECHO_KEYS: &[&str] = &["type", "echo-delay"];
const OPENAI_KEYS: &[&str] = &["type", "base-url", "model", "api-key", "system", "max-messages"];
/// `base-url` is another name for `url`: the address of an agent of type openai is called so.
const HTTP_KEYS: &[&str] = &["type", "url", "base-url", "secret", "max-messages"];
const SECRET_KEYS: [&str; 2] = ["api-key", "secret"];
const TYPES: &str = "give echo, openai or http";

/// Agents by name, and what they were made of.
pub(super) type Agents = (BTreeMap<String, Spec>, Vec<Effective>);

/// The agents of the file's tables. `echo_delay` is that of echo agents that set none.
pub(super) fn read(path: &Path, value: &toml::Value, echo_delay: Duration) -> Result<Agents, Error> {
    let tables = value.as_table().ok_or_else(|| file_error(path, tables_rule("agents")))?;
    let mut agents = BTreeMap::new();
    let mut effective = Vec::new();
    for (name, value) in tables {
        let key = format!("agents.{name}");
        let given = Given { text: name.clone(), source: Source::File(path.to_owned()) };
        given.parse(&key, false, agent_name)?;
        if BUILT_IN.contains(&name.as_str()) {
            return Err(given.refused(&key, false, format!("choose a name other than {}", BUILT_IN.join(", "))));
        }
        let values = value.as_table().ok_or_else(|| file_error(path, tables_rule(&key)))?;
        let table = Table { key, path: path.to_owned(), values };
        agents.insert(name.clone(), table.spec(echo_delay)?);
        effective.extend(table.effective());
    }
    Ok((agents, effective))
}

fn tables_rule(key: &str) -> String {
    format!("{key} has to be a table: write [agents.NAME], and under it type = \"openai\", \"http\" or \"echo\"")
}

/// One `[agents.NAME]`.
struct Table<'a> {
    key: String,
    path: PathBuf,
    values: &'a toml::Table,
}

impl Table<'_> {
    fn spec(&self, echo_delay: Duration) -> Result<Spec, Error> {
        let kind = self.required("type", TYPES)?;
        match kind.text.as_str() {
            "echo" => {
                self.only(ECHO_KEYS)?;
                Ok(Spec::Echo { delay: self.parsed("echo-delay", duration)?.unwrap_or(echo_delay) })
            }
            "openai" => {
                self.only(OPENAI_KEYS)?;
                let url = self.required("base-url", "give a URL such as https://api.example.com/v1")?;
                Ok(Spec::OpenAi(openai::Options {
                    base_url: url.parse(&self.key_of("base-url"), false, base_url)?,
                    model: self.required("model", "give the model's name")?.text,
                    api_key: self.parsed("api-key", api_key)?,
                    system: self.get("system")?.map(|system| system.text),
                    max_messages: self.parsed("max-messages", count(1, 100_000))?,
                }))
            }
            "http" => {
                self.only(HTTP_KEYS)?;
                let name = if self.values.contains_key("base-url") { "base-url" } else { "url" };
                if name == "base-url" && self.values.contains_key("url") {
                    let rule = format!("{} has url and base-url: give one of them", self.key);
                    return Err(file_error(&self.path, rule));
                }
                let url = self.required(name, "give a URL such as https://app.example.com/agent")?;
                Ok(Spec::Http(http::Options {
                    url: url.parse(&self.key_of(name), false, backend_url)?,
                    secret: self.parsed("secret", shared_secret)?,
                    max_messages: self.parsed("max-messages", count(1, 100_000))?,
                }))
            }
            _ => Err(kind.refused(&self.key_of("type"), false, TYPES.to_owned())),
        }
    }

    fn key_of(&self, name: &str) -> String {
        format!("{}.{name}", self.key)
    }

    fn get(&self, name: &str) -> Result<Option<Given>, Error> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let text = text_of(value).ok_or_else(|| file_error(&self.path, not_a_value(&self.key_of(name))))?;
        Ok(Some(Given { text, source: Source::File(self.path.clone()) }).filter(|given| !given.text.is_empty()))
    }

    fn required(&self, name: &str, rule: &str) -> Result<Given, Error> {
        let missing = || Error::Missing { key: self.key_of(name), rule: format!("is missing: {rule}") };
        self.get(name)?.ok_or_else(missing)
    }

    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
        self.get(name)?.map(|given| given.parse(&self.key_of(name), SECRET_KEYS.contains(&name), parse)).transpose()
    }

    fn only(&self, accepted: &'static [&'static str]) -> Result<(), Error> {
        match self.values.keys().find(|key| !accepted.contains(&key.as_str())) {
            Some(key) => Err(unknown_key(&self.path, self.key_of(key), accepted.iter().copied())),
            None => Ok(()),
        }
    }

    fn effective(&self) -> impl Iterator<Item = Effective> {
        self.values.iter().filter_map(|(name, value)| {
            let given = Given { text: text_of(value)?, source: Source::File(self.path.clone()) };
            Some(Effective {
                key: self.key_of(name),
                value: Some(given.shown(SECRET_KEYS.contains(&name.as_str()))),
                source: given.source,
            })
        })
    }
}
