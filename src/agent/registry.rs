//! The agents of a server, by name.
//!
//! Built once at the start from [`Spec`]s and never changed. It knows no session: a send names an agent or takes the
//! default. Its invariant: the default is among the agents.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Agent, Echo, Error, Http, OpenAi, http, openai};

/// What kind of agent stands behind a name, and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// Repeats the prompt.
    Echo {
        /// The pause before each word.
        delay: Duration,
    },
    /// Asks an endpoint for chat completions.
    OpenAi(openai::Options),
    /// Asks a backend of the user's own.
    Http(http::Options),
}

impl Spec {
    /// The name of the kind, as an option's value gives it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "echo",
            Self::OpenAi(_) => "openai",
            Self::Http(_) => "http",
        }
    }
}

/// Agents by name, one of them the default. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    agents: Arc<BTreeMap<String, Arc<dyn Agent>>>,
    default: Arc<str>,
}

impl Registry {
    /// Sets up every agent of `specs`.
    ///
    /// # Errors
    /// [`Error::Unknown`] if `default` is not among them; what [`OpenAi::new`] or [`Http::new`] says of one that cannot be set up.
    pub fn build(default: &str, specs: &BTreeMap<String, Spec>) -> Result<Self, Error> {
        let mut agents: BTreeMap<String, Arc<dyn Agent>> = BTreeMap::new();
        for (name, spec) in specs {
            let agent: Arc<dyn Agent> = match spec {
                Spec::Echo { delay } => Arc::new(Echo::new(*delay)),
                Spec::OpenAi(options) => Arc::new(OpenAi::new(name, options.clone())?),
                Spec::Http(options) => Arc::new(Http::new(name, options.clone())?),
            };
            agents.insert(name.clone(), agent);
        }
        Self::new(default, agents)
    }

    /// A registry of agents that exist already, as a program that brings its own makes it.
    ///
    /// # Errors
    /// [`Error::Unknown`] if `default` is not among them.
    pub fn new(default: &str, agents: BTreeMap<String, Arc<dyn Agent>>) -> Result<Self, Error> {
        if !agents.contains_key(default) {
            let known = agents.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::Unknown { name: default.to_owned(), known });
        }
        Ok(Self { agents: Arc::new(agents), default: default.into() })
    }

    /// The name of the agent that answers where none is named.
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The agent of that name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Agent>> {
        self.agents.get(name).cloned()
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("default", &self.default).field("agents", &self.agents.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> BTreeMap<String, Spec> {
        let options = openai::Options {
            base_url: "http://127.0.0.1:1/v1".to_owned(),
            model: "m".to_owned(),
            api_key: None,
            system: None,
            max_messages: Some(7),
        };
        BTreeMap::from([
            ("echo".to_owned(), Spec::Echo { delay: Duration::ZERO }),
            ("claude".to_owned(), Spec::OpenAi(options)),
        ])
    }

    #[test]
    fn agents_are_found_by_name_and_the_default_is_one_of_them() {
        let registry = Registry::build("claude", &specs()).unwrap();
        assert_eq!(registry.default_name(), "claude");
        assert_eq!(registry.names().collect::<Vec<_>>(), ["claude", "echo"]);
        assert_eq!(registry.get("claude").unwrap().max_messages(), 7);
        assert!(registry.get("nobody").is_none());
    }

    #[test]
    fn an_unknown_default_names_the_ones_that_exist() {
        let error = Registry::build("gpt", &specs()).unwrap_err();
        assert_eq!(error.to_string(), "there is no agent \"gpt\": use one of claude, echo");
    }
}
