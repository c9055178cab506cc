//! Options: what the server was told, as values that have been checked.
//!
//! `options` is the table of them, `sources` finds their texts, `values` reads those, `agents` makes the agents,
//! `identity` says how tokens are checked; here they become one [`Config`]. It knows nothing of what the parts do with it. Its invariant: a [`Config`] can be
//! started with; whatever cannot is an error of one line, before anything runs.

mod agents;
mod identity;
mod options;
mod sources;
mod values;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    options::{Flags, OPTIONS, Opt, args},
    sources::{Error, Source, Surroundings},
};
use self::{sources::Sources, values::Parsed};
use crate::{
    agent::{self, Secret, Spec, http, openai},
    auth, outbound, telemetry,
};

/// How nodes tell each other of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// Within this process: the only node of its database.
    Local,
    /// LISTEN and NOTIFY, on a direct connection to this URL.
    Postgres(Secret),
    /// The NATS server at this URL.
    Nats(Secret),
}

/// Where sessions are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A file, for one server at a time.
    Sqlite(PathBuf),
    /// A database of a server, by its address with user and password, for any number of servers.
    Postgres(Secret),
}

/// How clients prove who they are.
#[derive(Debug, Clone)]
pub enum Auth {
    /// They do not: everyone is who they say, and may do everything.
    None,
    /// By tokens, which are checked in this way.
    Jwt(Box<auth::Options>),
}

/// Every option, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where sessions are stored.
    pub database: Database,
    /// Whether to bring the database up to date at start; otherwise one that needs it is refused.
    pub migrate: bool,
    /// Connections to the database.
    pub database_pool: usize,
    /// How nodes tell each other of events.
    pub bus: Bus,
    /// A label, never an identity.
    pub node_name: String,
    /// The operator's promise that no two nodes use this name at once.
    pub exclusive_node_name: bool,
    /// How long a node that stands still keeps its turns; at least three times `lease_renew`.
    pub lease_ttl: Duration,
    /// How often a node renews its lease.
    pub lease_renew: Duration,
    /// Time for running turns when the server is asked to end.
    pub drain_timeout: Duration,
    /// Silence from a client until its socket is closed.
    pub idle_timeout: Duration,
    /// The agent that answers where a send names none; one of `agents`.
    pub agent: String,
    /// All agents by name.
    pub agents: BTreeMap<String, Spec>,
    /// Silence of an agent until its turn fails.
    pub agent_idle_timeout: Duration,
    /// Length of a turn until it fails.
    pub turn_timeout: Duration,
    /// Bytes of an answer until its turn fails.
    pub max_message_bytes: usize,
    /// How long deltas of one turn are gathered into one event; zero for each alone.
    pub delta_window: Duration,
    /// Queued turns of one session.
    pub max_queue: usize,
    /// How clients prove who they are.
    pub auth: Auth,
    /// Whether `Auth::None` is allowed on an address that others can reach.
    pub insecure: bool,
    /// Origins that browsers may come from, in lower case: `HOST`, `*.HOST`, either with scheme or port, or one `*`
    /// for any. None: the host that was asked for.
    pub allowed_origins: Option<Vec<String>>,
    /// Bytes of a frame from a client.
    pub max_frame_bytes: usize,
    /// Topics that one connection may join.
    pub max_topics: usize,
    /// Bytes that may wait for one slow reader.
    pub max_queue_bytes: usize,
    /// Requests of one connection in a second, and writes of one user over HTTP; none for any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Joins among the requests of one connection; none for any number.
    pub join_limit: Option<NonZeroU32>,
    /// Clients that are connected at once; none for any number.
    pub max_connections: Option<usize>,
    /// Connections of one address that have not asked for anything yet.
    pub max_handshakes: usize,
    /// What is logged.
    pub log_level: String,
    /// How it is logged.
    pub log_format: telemetry::Format,
}

/// An option as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The option's name, or `agents.NAME.KEY`.
    pub key: String,
    /// Its text, a secret as `***`; none if it is not set.
    pub value: Option<String>,
    /// Where it came from.
    pub source: Source,
}

/// A [`Config`] and how it came to be.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The options.
    pub config: Config,
    /// Each option in the table's order, then the agents of the file.
    pub effective: Vec<Effective>,
    /// What deserves a word and stops nothing.
    pub warnings: Vec<String>,
}

impl Config {
    /// The options of this process: `flags`, its environment, its file, defaults.
    ///
    /// # Errors
    /// The first value that cannot be used, in one line.
    pub fn load(flags: &Flags) -> Result<Loaded, Error> {
        Self::load_in(flags, &Surroundings::current())
    }

    /// The options of a process in these surroundings.
    ///
    /// # Errors
    /// The first value that cannot be used, in one line.
    pub fn load_in(flags: &Flags, around: &Surroundings) -> Result<Loaded, Error> {
        let mut sources = Sources::gather(flags, around)?;
        if let Some(option) = Opt::named("node-name").filter(|option| !sources.is_given(option.name)) {
            sources.add(option, around.host_name.clone(), Source::Default);
        }
        if let Some(option) = Opt::named("bus").filter(|option| !sources.is_given(option.name)) {
            let default = if is_postgres(&sources) { "postgres" } else { "local" };
            sources.add(option, default.to_owned(), Source::Default);
        }
        let reader = Reader { sources: &sources, directory: &around.directory };
        let (agents, of_agents) = reader.agents()?;
        let config = reader.config(agents)?;
        reader.check(&config)?;
        let effective = reader.effective().chain(of_agents).collect();
        let doubts = reader.doubtful_bus(&config.bus).into_iter().chain(unsigned(&config.agents));
        let doubts = doubts.chain(reader.doubtful_auth(&config.auth));
        let warnings = sources.warnings.iter().cloned().chain(doubts).collect();
        Ok(Loaded { config, effective, warnings })
    }
}

/// Whether sessions are stored in Postgres.
fn is_postgres(sources: &Sources) -> bool {
    let url = Opt::named("database-url").and_then(|option| sources.get(option));
    url.is_some_and(|given| given.text.starts_with("postgres:") || given.text.starts_with("postgresql:"))
}

/// A word about each backend that could be asked by anybody who finds it.
fn unsigned(agents: &BTreeMap<String, Spec>) -> impl Iterator<Item = String> {
    agents.iter().filter_map(|(name, spec)| {
        let Spec::Http(options) = spec else { return None };
        let is_near = agent::parse_url(&options.url).as_ref().is_some_and(outbound::is_loopback);
        let open = options.secret.is_none() && !is_near;
        open.then(|| {
            format!(
                "agent {name}: without a secret its requests are not signed, so that its backend cannot tell who asks"
            )
        })
    })
}

/// Reads values by the names of their options.
struct Reader<'a> {
    sources: &'a Sources,
    /// Where relative paths begin.
    directory: &'a Path,
}

impl Reader<'_> {
    fn config(&self, agents: BTreeMap<String, Spec>) -> Result<Config, Error> {
        use values::{bytes, choice, count, duration, duration_from, duration_to, switch};
        let millisecond = Duration::from_millis(1);
        Ok(Config {
            listen: self.get("listen", values::address)?,
            database: self.get("database-url", values::database)?,
            migrate: !self.get("no-migrate", switch)?,
            database_pool: self.get("database-pool", count(1, 1_000))?,
            bus: self.bus()?,
            node_name: self.get("node-name", values::label)?,
            exclusive_node_name: self.get("exclusive-node-name", switch)?,
            lease_ttl: self.get("lease-ttl", duration_from(millisecond))?,
            lease_renew: self.get("lease-renew", duration_from(10 * millisecond))?,
            drain_timeout: self.get("drain-timeout", duration)?,
            idle_timeout: self.get("idle-timeout", duration_from(millisecond))?,
            agent: self.get("agent", self.one_of(&agents))?,
            agents,
            agent_idle_timeout: self.get("agent-idle-timeout", duration_from(millisecond))?,
            turn_timeout: self.get("turn-timeout", duration_from(millisecond))?,
            max_message_bytes: self.get("max-message-bytes", bytes(1, 1 << 30))?,
            delta_window: self.get("delta-window", duration_to(Duration::from_secs(10)))?,
            max_queue: self.get("max-queue", count(0, 100_000))?,
            auth: self.auth()?,
            insecure: self.get("insecure", switch)?,
            allowed_origins: self.get_optional("allowed-origins", values::origins)?,
            max_frame_bytes: self.get("max-frame-bytes", bytes(1 << 10, 64 << 20))?,
            max_topics: self.get("max-topics", count(1, 100_000))?,
            max_queue_bytes: self.get("max-queue-bytes", bytes(64 << 10, 1 << 30))?,
            rate_limit: self.get("rate-limit", values::rate)?,
            join_limit: self.get("join-limit", values::rate)?,
            max_connections: self.get_optional("max-connections", count(1, 100_000_000))?,
            max_handshakes: self.get("max-handshakes", count(1, 1_000_000))?,
            log_level: self.get("log-level", values::log_filter)?,
            log_format: self
                .get("log-format", choice(&[("text", telemetry::Format::Text), ("json", telemetry::Format::Json)]))?,
        })
    }

    /// The bus, and where it is.
    fn bus(&self) -> Result<Bus, Error> {
        let direct = self.get_optional("bus-url", values::postgres_url)?;
        match self.get("bus", values::bus)? {
            values::BusKind::Local => Ok(Bus::Local),
            values::BusKind::Nats(url) => Ok(Bus::Nats(url)),
            values::BusKind::Postgres if !is_postgres(self.sources) => {
                let rule = "a bus over Postgres needs a database-url of Postgres: give local, or nats://host:4222";
                Err(self.refused("bus", rule.to_owned()))
            }
            values::BusKind::Postgres => match direct {
                Some(url) => Ok(Bus::Postgres(url)),
                None => Ok(Bus::Postgres(self.get("database-url", values::postgres_url)?)),
            },
        }
    }

    /// What may be meant, and may be a mistake.
    fn doubtful_bus(&self, bus: &Bus) -> Option<String> {
        let has_url = Opt::named("bus-url").is_some_and(|option| self.sources.is_given(option.name));
        match bus {
            Bus::Postgres(_) => None,
            _ if has_url => Some("bus-url is not used: it is for bus postgres".to_owned()),
            Bus::Local if is_postgres(self.sources) => Some(
                "bus local on Postgres is for one server alone: others see its events only by comparing with the \
                 database"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What no single option can be blamed for.
    fn check(&self, config: &Config) -> Result<(), Error> {
        if config.lease_ttl < 3 * config.lease_renew {
            let least = humantime::format_duration(3 * config.lease_renew);
            return Err(self.refused("lease-ttl", format!("give at least three times lease-renew, {least}")));
        }
        if matches!(config.auth, Auth::None) && !config.listen.ip().is_loopback() && !config.insecure {
            let rule = "with auth none everyone who reaches this address may do everything: listen on 127.0.0.1 or \
                        [::1], set auth jwt, or set insecure";
            return Err(self.refused("listen", rule.to_owned()));
        }
        Ok(())
    }

    /// All agents: the built-in ones, then those of the file.
    fn agents(&self) -> Result<agents::Agents, Error> {
        let delay = self.get("echo-delay", values::duration)?;
        let (mut agents, effective) = match &self.sources.agents {
            Some((path, value)) => agents::read(path, value, delay)?,
            None => Default::default(),
        };
        agents.insert("echo".to_owned(), Spec::Echo { delay });
        if let Some(options) = self.openai()? {
            agents.insert("openai".to_owned(), Spec::OpenAi(options));
        }
        if let Some(options) = self.http()? {
            agents.insert("http".to_owned(), Spec::Http(options));
        }
        Ok((agents, effective))
    }

    /// The agent of the `openai-…` options, which needs an address and a model or neither.
    fn openai(&self) -> Result<Option<openai::Options>, Error> {
        let base_url = self.get_optional("openai-base-url", values::base_url)?;
        let model = self.get_optional("openai-model", |text| Ok(text.to_owned()))?;
        let api_key = self.get_optional("openai-api-key", values::api_key)?;
        let missing = |key: &str, rule: &str| Err(Error::Missing { key: key.to_owned(), rule: rule.to_owned() });
        match (base_url, model) {
            (Some(base_url), Some(model)) => {
                Ok(Some(openai::Options { base_url, model, api_key, system: None, max_messages: None }))
            }
            (Some(_), None) => missing("openai-model", "is missing: give the model to ask for beside openai-base-url"),
            (None, Some(_)) => missing(
                "openai-base-url",
                "is missing: give a URL such as https://api.example.com/v1 beside openai-model",
            ),
            (None, None) => Ok(None),
        }
    }

    /// The agent of the `http-agent-…` options.
    fn http(&self) -> Result<Option<http::Options>, Error> {
        let url = self.get_optional("http-agent-url", values::backend_url)?;
        let secret = self.get_optional("http-agent-secret", values::shared_secret)?;
        match (url, secret) {
            (Some(url), secret) => Ok(Some(http::Options { url, secret, max_messages: None })),
            (None, Some(_)) => Err(Error::Missing {
                key: "http-agent-url".to_owned(),
                rule: "is missing: give the URL of your backend beside http-agent-secret".to_owned(),
            }),
            (None, None) => Ok(None),
        }
    }

    fn one_of(&self, agents: &BTreeMap<String, Spec>) -> impl Fn(&str) -> Parsed<String> {
        move |text| {
            if agents.contains_key(text) {
                return Ok(text.to_owned());
            }
            match text {
                "openai" => return Err("set openai-base-url and openai-model, which this agent needs".to_owned()),
                "http" => return Err("set http-agent-url, which this agent needs".to_owned()),
                _ => {}
            }
            let names: Vec<_> = agents.keys().map(String::as_str).collect();
            Err(format!("give {}, or a name that the file has an [agents.NAME] table for", names.join(" or ")))
        }
    }

    fn get<T>(&self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Result<T, Error> {
        let unset = || Error::Missing { key: name.to_owned(), rule: "is missing: set it".to_owned() };
        self.get_optional(name, parse)?.ok_or_else(unset)
    }

    fn get_optional<T>(&self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Result<Option<T>, Error> {
        let Some(option) = Opt::named(name) else { return Ok(None) };
        self.sources.get(option).map(|given| given.parse(name, option.secret, parse)).transpose()
    }

    fn refused(&self, name: &str, rule: String) -> Error {
        match Opt::named(name).and_then(|option| self.sources.get(option)) {
            Some(given) => given.refused(name, false, rule),
            None => Error::Missing { key: name.to_owned(), rule },
        }
    }

    fn effective(&self) -> impl Iterator<Item = Effective> {
        OPTIONS.iter().map(|option| {
            let given = self.sources.get(option);
            let source = given.as_ref().map_or(Source::Default, |given| given.source.clone());
            let value = given.map(|given| given.shown(option.secret));
            Effective { key: option.name.to_owned(), value, source }
        })
    }
}

#[cfg(test)]
mod tests;
