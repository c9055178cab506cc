use std::ffi::OsString;

use super::*;
use crate::agent::Secret;

/// What `flags` (a command line), `variables` (`NAME=VALUE`) and a file make together.
fn load(flags: &[&str], variables: &[&str], file: Option<&str>) -> Result<Loaded, String> {
    let directory = tempfile::tempdir().unwrap();
    if let Some(text) = file {
        std::fs::write(directory.path().join("rejoin.toml"), text).unwrap();
    }
    let split = |variable: &&str| {
        let (name, value) = variable.split_once('=').unwrap();
        (OsString::from(name), OsString::from(value))
    };
    let around = Surroundings {
        variables: variables.iter().map(split).collect(),
        directory: directory.path().to_owned(),
        host_name: "box-1".to_owned(),
    };
    let command = clap::Command::new("rejoin").args(args());
    let mut given = Flags::default();
    given.take(&command.try_get_matches_from(std::iter::once(&"rejoin").chain(flags)).unwrap());
    let loaded = Config::load_in(&given, &around).map_err(|error| error.to_string());
    if let Err(text) = &loaded {
        assert!(!text.contains('\n'), "more than one line: {text}");
    }
    loaded
}

fn shown(loaded: &Loaded, key: &str) -> (String, String) {
    let found = loaded.effective.iter().find(|effective| effective.key == key).unwrap();
    (found.value.clone().unwrap_or_default(), found.source.to_string())
}

/// A set with one key that can be used.
const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// The path of a file with this text.
fn key_file(folder: &Path, text: &str) -> String {
    let path = folder.join("keys.json");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn tokens_that_nothing_checks_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (good, secret) = (key_file(folder.path(), KEYS), "x".repeat(32));
    let empty = folder.path().join("empty.json").to_str().unwrap().to_owned();
    std::fs::write(&empty, r#"{"keys":[{"kty":"oct","k":"eHg"}]}"#).unwrap();
    for (flags, expected) in [
        (&["--auth=jwt"][..], "auth: \"jwt\" (from --auth) is not accepted: tokens need something to check them with"),
        (
            &["--auth=jwt", "--jwks-url=ftp://h/k"],
            "jwks-url: \"ftp://h/k\" (from --jwks-url) is not accepted: give one",
        ),
        (
            &["--auth=jwt", "--jwks-file=none.json"],
            "jwks-file: \"none.json\" (from --jwks-file) is not accepted: it ca",
        ),
        (&["--auth=jwt", "--jwks-file", &empty], "jwks-file: "),
        (&["--auth=jwt", "--jwks-url=https://h/k", "--jwks-file", &good], "jwks-file: "),
        (&["--auth=token"], "auth: \"token\" (from --auth) is not accepted: give none or jwt"),
        (&["--listen=0.0.0.0:1"], "listen: \"0.0.0.0:1\" (from --listen) is not accepted: with auth none"),
    ] {
        let text = load(flags, &[], None).unwrap_err();
        assert!(text.starts_with(expected), "{flags:?}: {text}");
    }
    let text = load(&["--auth=jwt", "--jwks-file", &empty], &[], None).unwrap_err();
    assert!(text.contains("no key that tokens can be checked with") && text.contains("jwt-secret"), "{text}");
    let loaded = load(&["--auth=jwt", "--listen=0.0.0.0:1", "--jwt-secret", &secret], &[], None).unwrap();
    assert!(matches!(loaded.config.auth, Auth::Jwt(_)) && loaded.warnings.is_empty(), "{loaded:?}");
    assert!(!format!("{loaded:?}").contains(&secret));
    assert!(load(&["--auth=jwt", "--jwks-file", &good], &[], None).is_ok());
}

#[test]
fn options_of_tokens_that_may_be_a_mistake_are_a_warning() {
    let secret = format!("--jwt-secret={}", "x".repeat(32));
    for (flags, expected) in [
        (&[secret.as_str()][..], Some("jwt-secret is not used: with auth none")),
        (&["--jwt-issuer=i"], Some("jwt-issuer is not used")),
        (&["--auth=jwt", "--jwks-url=https://h/k"], Some("jwt-audience is not set")),
        (&["--auth=jwt", "--jwks-url=http://h/k", "--jwt-audience=a"], Some("jwks-url is not https")),
        (&["--auth=jwt", "--jwks-url=http://127.0.0.1/k", "--jwt-audience=a"], None),
        (&["--auth=jwt", secret.as_str()], None),
        (&["--auth=jwt", "--jwt-secret=short"], Some("jwt-secret has fewer than 32 bytes")),
    ] {
        let warnings = load(flags, &[], None).unwrap().warnings;
        let found = warnings.first().map(String::as_str);
        match expected {
            Some(expected) => assert!(found.is_some_and(|text| text.starts_with(expected)), "{flags:?}: {warnings:?}"),
            None => assert_eq!(found, None, "{flags:?}"),
        }
    }
}

#[test]
fn nothing_given_is_the_defaults() {
    let loaded = load(&[], &[], None).unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 4000)));
    assert_eq!(config.database, Database::Sqlite("rejoin.db".into()));
    assert_eq!((config.lease_ttl, config.lease_renew), (Duration::from_secs(6), Duration::from_secs(1)));
    assert_eq!((config.max_message_bytes, config.max_frame_bytes), (1_048_576, 262_144));
    assert_eq!((config.agent.as_str(), config.node_name.as_str()), ("echo", "box-1"));
    assert_eq!(config.agents["echo"], Spec::Echo { delay: Duration::from_millis(30) });
    assert_eq!((config.rate_limit, config.join_limit), (NonZeroU32::new(100), NonZeroU32::new(20)));
    assert_eq!((config.max_connections, config.max_handshakes), (None, 1_000));
    assert!(config.migrate && config.allowed_origins.is_none() && loaded.warnings.is_empty());
    assert_eq!(loaded.effective.len(), OPTIONS.len());
}

#[test]
fn the_password_of_a_database_is_shown_nowhere() {
    let loaded = load(&[], &["DATABASE_URL=postgres://u:s3cret@h/d"], None).unwrap();
    assert_eq!(shown(&loaded, "database-url").0, "postgres://***@h/d");
    assert!(!format!("{loaded:?}").contains("s3cret"), "{loaded:?}");
    let Database::Postgres(url) = loaded.config.database else { panic!("{:?}", loaded.config.database) };
    assert_eq!(url.expose(), "postgres://u:s3cret@h/d");
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let file = Some("max-topics = 4\nlog-format = \"json\"");
    for (flags, variables, file, topics, source) in [
        (&["--max-topics", "2"][..], &["REJOIN_MAX_TOPICS=3"][..], file, 2, "--max-topics"),
        (&[], &["REJOIN_MAX_TOPICS=3"], file, 3, "REJOIN_MAX_TOPICS"),
        (&[], &["REJOIN_MAX_TOPICS="], file, 4, "rejoin.toml"),
        (&[], &[], file, 4, "rejoin.toml"),
        (&[], &[], None, 100, "default"),
    ] {
        let loaded = load(flags, variables, file).unwrap();
        assert_eq!(loaded.config.max_topics, topics);
        assert_eq!(shown(&loaded, "max-topics"), (topics.to_string(), source.to_owned()));
    }
}

#[test]
fn every_option_can_be_given_in_each_way() {
    let folder = tempfile::tempdir().unwrap();
    let keys = key_file(folder.path(), KEYS);
    let samples = [
        ("listen", "127.0.0.1:0"),
        ("database-url", "sqlite:other.db"),
        ("no-migrate", "true"),
        ("database-pool", "2"),
        ("bus", "nats://127.0.0.1:4222"),
        ("bus-url", "postgres://direct/d"),
        ("node-name", "n1"),
        ("exclusive-node-name", "true"),
        ("lease-ttl", "9s"),
        ("lease-renew", "2s"),
        ("drain-timeout", "0s"),
        ("idle-timeout", "5s"),
        ("agent", "echo"),
        ("echo-delay", "0ms"),
        ("openai-api-key", "sk-1"),
        ("agent-idle-timeout", "1s"),
        ("turn-timeout", "1m"),
        ("max-message-bytes", "64KiB"),
        ("delta-window", "0ms"),
        ("max-queue", "0"),
        ("auth", "none"),
        ("jwt-secret", "a secret of at least thirty-two bytes"),
        ("jwks-url", "https://login.example.com/keys"),
        ("jwks-file", &keys),
        ("jwt-issuer", "https://login.example.com/"),
        ("jwt-audience", "rejoin"),
        ("insecure", "true"),
        ("allowed-origins", "*.example.com"),
        ("max-frame-bytes", "1MiB"),
        ("max-topics", "1"),
        ("max-queue-bytes", "2MiB"),
        ("rate-limit", "50"),
        ("join-limit", "0"),
        ("max-connections", "5000"),
        ("max-handshakes", "10"),
        ("log-level", "info,rejoin=debug"),
        ("log-format", "json"),
    ];
    let pairs = [
        [("openai-base-url", "http://127.0.0.1:1/v1"), ("openai-model", "m")],
        [("http-agent-url", "http://127.0.0.1:1/agent"), ("http-agent-secret", "s3cret")],
    ];
    assert_eq!(samples.len() + pairs.as_flattened().len(), OPTIONS.len(), "an option without a sample");
    for (name, value) in samples.into_iter().chain(pairs.into_iter().flatten()) {
        let pair = pairs.iter().find(|pair| pair.iter().any(|(paired, _)| *paired == name));
        let other = pair.and_then(|pair| pair.iter().find(|(other, _)| *other != name));
        let beside: Vec<_> = other.iter().map(|(name, value)| format!("--{name}={value}")).collect();
        let beside: Vec<_> = beside.iter().map(String::as_str).collect();
        let option = Opt::named(name).unwrap();
        let text = if option.secret { "***" } else { value };
        let flag = format!("--{name}={value}");
        let variable = format!("{}={value}", option.variable());
        let key = format!("{name} = {value:?}");
        for (loaded, source) in [
            (load(&[&beside[..], &[&flag]].concat(), &[], None), format!("--{name}")),
            (load(&beside, &[&variable], None), option.variable()),
            (load(&beside, &[], Some(&key)), "rejoin.toml".to_owned()),
        ] {
            assert_eq!(shown(&loaded.unwrap(), name), (text.to_owned(), source), "{name}");
        }
    }
}

#[test]
fn what_is_refused_names_the_key_its_source_and_what_is_accepted() {
    for (flags, variables, file, expected) in [
        (&["--listen", "x"][..], &[][..], "", "listen: \"x\" (from --listen) is not accepted: give an IP address"),
        (
            &[],
            &["REJOIN_DELTA_WINDOW=5"],
            "",
            "delta-window: \"5\" (from REJOIN_DELTA_WINDOW) is not accepted: give a number with its unit",
        ),
        (
            &[],
            &[],
            "echo-delay = 30",
            "echo-delay: \"30\" (from rejoin.toml) is not accepted: give a number with its unit",
        ),
        (
            &["--bus=kafka"],
            &[],
            "",
            "bus: \"kafka\" (from --bus) is not accepted: give local, postgres or nats://host:4222",
        ),
        (&["--log-format=xml"], &[], "", "log-format: \"xml\" (from --log-format) is not accepted: give text or json"),
        (
            &["--max-queue=-1"],
            &[],
            "",
            "max-queue: \"-1\" (from --max-queue) is not accepted: give a whole number from 0",
        ),
        (&["--insecure=maybe"], &[], "", "insecure: \"maybe\" (from --insecure) is not accepted: give true or false"),
        (&["--log-level=loud"], &[], "", "log-level: \"loud\" (from --log-level) is not accepted: give off, error"),
        (
            &["--bus=nats://"],
            &[],
            "",
            "bus: \"nats://\" (from --bus) is not accepted: give nats://host:4222, or nats://host:4222/name to share a server with another cluster",
        ),
        (
            &["--bus=postgres"],
            &[],
            "",
            "bus: \"postgres\" (from --bus) is not accepted: a bus over Postgres needs a database-url of Postgres: give local, or nats://host:4222",
        ),
        (
            &["--bus-url=mysql://u:p@h"],
            &[],
            "",
            "bus-url: \"mysql://***@h\" (from --bus-url) is not accepted: give a URL such as postgres://user@host/database",
        ),
        (
            &[],
            &["DATABASE_URL=mysql://u:pw@h/d"],
            "",
            "database-url: \"mysql://***@h/d\" (from DATABASE_URL) is not accepted: give sqlite:PATH",
        ),
        (
            &["--lease-ttl=2s"],
            &[],
            "",
            "lease-ttl: \"2s\" (from --lease-ttl) is not accepted: give at least three times lease-renew, 3s",
        ),
        (
            &["--lease-renew=3s"],
            &[],
            "",
            "lease-ttl: \"6s\" (from default) is not accepted: give at least three times lease-renew, 9s",
        ),
        (&["--listen=0.0.0.0:80"], &[], "", "listen: \"0.0.0.0:80\" (from --listen) is not accepted: with auth none"),
        (
            &["--agent=openai"],
            &[],
            "",
            "agent: \"openai\" (from --agent) is not accepted: set openai-base-url and openai-model",
        ),
        (
            &["--agent=bob"],
            &[],
            "",
            "agent: \"bob\" (from --agent) is not accepted: give echo, or a name that the file has",
        ),
        (&["--agent=http"], &[], "", "agent: \"http\" (from --agent) is not accepted: set http-agent-url"),
        (&["--http-agent-secret=s"], &[], "", "http-agent-url: is missing: give the URL of your backend"),
        (&["--openai-model=m"], &[], "", "openai-base-url: is missing: give a URL"),
        (&["--openai-base-url=http://h/v1"], &[], "", "openai-model: is missing: give the model"),
        (&[], &[], "lissen = 1", "lissen: there is no such key (in rejoin.toml): use one of listen, database-url,"),
        (&[], &[], "max-topics = { a = 1 }", "rejoin.toml: max-topics has to be a text, a number"),
        (&[], &[], "listen = \n", "rejoin.toml: line 1 is no TOML ("),
        (&["--config=none.toml"], &[], "", "none.toml: cannot be read ("),
        (&[], &[], "[agents]\nx = 1", "rejoin.toml: agents.x has to be a table"),
        (&[], &[], "agents = 1", "rejoin.toml: agents has to be a table"),
        (&[], &[], "[agents.x]\nmodel = \"m\"", "agents.x.type: is missing: give echo, openai or http"),
        (
            &[],
            &[],
            "[agents.x]\ntype = \"grpc\"",
            "agents.x.type: \"grpc\" (from rejoin.toml) is not accepted: give echo, openai or http",
        ),
        (&[], &[], "[agents.x]\ntype = \"http\"", "agents.x.url: is missing: give a URL"),
        (
            &[],
            &[],
            "[agents.x]\ntype = \"http\"\nurl = \"http://h/a\"\nbase-url = \"http://h/b\"",
            "rejoin.toml: agents.x has url and base-url: give one of them",
        ),
        (
            &[],
            &[],
            "[agents.x]\ntype = \"http\"\nurl = \"app.example.com\"",
            "agents.x.url: \"app.example.com\" (from rejoin.toml) is not accepted: give a URL",
        ),
        (&[], &[], "[agents.x]\ntype = \"openai\"\nmodel = \"m\"", "agents.x.base-url: is missing: give a URL"),
        (
            &[],
            &[],
            "[agents.x]\ntype = \"echo\"\nmodel = \"m\"",
            "agents.x.model: there is no such key (in rejoin.toml): use one of type, echo-delay",
        ),
        (
            &[],
            &[],
            "[agents.x]\ntype = \"openai\"\ntemperature = 1",
            "agents.x.temperature: there is no such key (in rejoin.toml): use one of type, base-url,",
        ),
        (
            &[],
            &[],
            "[agents.\"a b\"]\ntype = \"echo\"",
            "agents.a b: \"a b\" (from rejoin.toml) is not accepted: give 1 to 64",
        ),
        (
            &[],
            &[],
            "[agents.echo]\ntype = \"echo\"",
            "agents.echo: \"echo\" (from rejoin.toml) is not accepted: choose a name other than",
        ),
    ] {
        let error = load(flags, variables, Some(file)).unwrap_err();
        assert!(error.starts_with(expected), "\n   found: {error}\nexpected: {expected}");
    }
}

#[test]
fn others_can_reach_the_server_only_where_that_is_said() {
    for flags in [&["--listen=0.0.0.0:0", "--insecure"][..], &["--listen=[::1]:0"], &["--listen=localhost:0"]] {
        assert!(load(flags, &[], None).is_ok(), "{flags:?}");
    }
}

#[test]
fn unknown_variables_are_a_warning_and_nothing_more() {
    let loaded = load(&[], &["REJOIN_PORT=1", "REJOIN_URL=x", "REJOIN_CONFIG=", "PATH=x"], None).unwrap();
    assert_eq!(loaded.warnings, ["REJOIN_PORT: there is no such option, so the variable has no effect"]);
}

#[test]
fn a_named_file_is_read_and_its_agents_are_made() {
    let file = r#"
        agent = "helper"
        allowed-origins = ["a.org", "*.b.org"]
        [agents.helper]
        type = "openai"
        base-url = "https://u:pw@api.example.com/v1"
        model = "m1"
        api-key = "sk-hidden"
        system = "Be brief."
        max-messages = 20
        [agents.parrot]
        type = "echo"
        [agents.slow]
        type = "echo"
        echo-delay = "1s"
    "#;
    let loaded = load(&["--echo-delay=5ms"], &["OPENAI_API_KEY=sk-other"], Some(file)).unwrap();
    let config = &loaded.config;
    assert_eq!(config.agents.keys().collect::<Vec<_>>(), ["echo", "helper", "parrot", "slow"]);
    assert_eq!(config.agents["parrot"], Spec::Echo { delay: Duration::from_millis(5) });
    assert_eq!(config.agents["slow"], Spec::Echo { delay: Duration::from_secs(1) });
    let Spec::OpenAi(helper) = &config.agents["helper"] else { panic!("not openai") };
    assert_eq!(helper.api_key.as_ref().map(Secret::expose), Some("sk-hidden"));
    assert_eq!((helper.max_messages, helper.system.as_deref()), (Some(20), Some("Be brief.")));
    assert_eq!(config.allowed_origins.as_deref().unwrap(), ["a.org", "*.b.org"]);
    assert_eq!(shown(&loaded, "agents.helper.model"), ("m1".to_owned(), "rejoin.toml".to_owned()));
    let everything = format!("{loaded:?}");
    let printed: String = loaded.effective.iter().filter_map(|effective| effective.value.clone()).collect();
    for secret in ["sk-hidden", "sk-other"] {
        assert!(!everything.contains(secret) && !printed.contains(secret), "{secret} is shown");
    }
    assert!(!printed.contains("pw@"), "the password of a URL is shown");
}

#[test]
fn the_openai_options_make_an_agent_and_its_key_is_not_shown_when_another_value_is_refused() {
    let flags = ["--agent=openai", "--openai-base-url=http://127.0.0.1:9/v1", "--openai-model=m"];
    let config = load(&flags, &["OPENAI_API_KEY=sk-hidden"], None).unwrap().config;
    let Spec::OpenAi(options) = &config.agents["openai"] else { panic!("not openai") };
    assert_eq!(options.api_key.as_ref().map(Secret::expose), Some("sk-hidden"));
    let both = load(&flags, &["OPENAI_API_KEY=sk-a", "REJOIN_OPENAI_API_KEY=sk-b"], None).unwrap();
    assert_eq!(shown(&both, "openai-api-key"), ("***".to_owned(), "REJOIN_OPENAI_API_KEY".to_owned()));
}

#[test]
fn backends_are_agents_and_one_elsewhere_without_a_secret_deserves_a_word() {
    let file = r#"
        agent = "planner"
        [agents.planner]
        type = "http"
        url = "https://u:pw@app.example.com/agent?team=1"
        secret = "s3cret-planner"
        max-messages = 20
        [agents.open]
        type = "http"
        url = "http://app.example.com/agent"
        [agents.near]
        type = "http"
        base-url = "http://127.0.0.1:9000"
    "#;
    let flags = ["--http-agent-url=http://10.0.0.1/agent", "--http-agent-secret=s3cret-flag"];
    let loaded = load(&flags, &[], Some(file)).unwrap();
    let Spec::Http(planner) = &loaded.config.agents["planner"] else { panic!("not http") };
    assert_eq!(planner.secret.as_ref().map(Secret::expose), Some("s3cret-planner"));
    assert_eq!((planner.url.as_str(), planner.max_messages), ("https://u:pw@app.example.com/agent?team=1", Some(20)));
    assert_eq!(loaded.config.agents.keys().collect::<Vec<_>>(), ["echo", "http", "near", "open", "planner"]);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].starts_with("agent open: without a secret"), "{:?}", loaded.warnings);
    let printed: String = loaded.effective.iter().filter_map(|effective| effective.value.clone()).collect();
    for secret in ["s3cret-planner", "s3cret-flag", "pw@"] {
        assert!(!printed.contains(secret), "{secret} is shown");
    }
    assert!(!format!("{loaded:?}").contains("s3cret"), "a secret is shown");
}

#[test]
fn the_bus_is_local_unless_it_is_said_or_the_database_is_on_a_server() {
    let loaded = load(&[], &[], None).unwrap();
    assert_eq!((loaded.config.bus, loaded.warnings), (Bus::Local, Vec::<String>::new()));
    let loaded = load(&["--bus", "nats://u:p@h:4222"], &[], None).unwrap();
    assert_eq!(shown(&loaded, "bus").0, "nats://***@h:4222");
    assert_eq!(loaded.config.bus, Bus::Nats(Secret::new("nats://u:p@h:4222")));
    let loaded = load(&["--bus-url", "postgres://h/d"], &[], None).unwrap();
    assert_eq!(loaded.warnings, ["bus-url is not used: it is for bus postgres"]);
}
