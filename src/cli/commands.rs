//! What each command does, from what was typed to its end.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use clap::ArgMatches;
use tokio::runtime::Runtime;

use super::{Failure, client::Target, health, send, tail, token, usage};
use crate::{
    auth,
    config::{Auth, Config, Flags, Loaded},
    server, telemetry,
};

/// Runs the command that this process was called with.
pub(super) fn run() -> Result<(), Failure> {
    let Some(matches) = usage::parse(std::env::args_os())? else { return Ok(()) };
    let mut flags = Flags::default();
    flags.take(&matches);
    match matches.subcommand() {
        Some(("migrate", own)) => migrate(load(flags, own)?, own.get_flag("new-history")),
        Some(("check-config", own)) => check_config(&load(flags, own)?),
        Some(("token", own)) => token::run(&load(flags, own)?.config, own),
        Some(("health", own)) => {
            flags.take(own);
            runtime()?.block_on(health::run(&address(&flags, own)?))
        }
        Some(("send", own)) => {
            let target = target(&flags, own)?;
            runtime()?.block_on(send::run(&target, &required(own, "session"), &required(own, "text")))
        }
        Some(("tail", own)) => {
            let target = target(&flags, own)?;
            runtime()?.block_on(tail::run(&target, &required(own, "topic")))
        }
        Some((_, own)) => serve(load(flags, own)?),
        None => serve(load(flags, &matches)?),
    }
}

fn load(mut flags: Flags, own: &ArgMatches) -> Result<Loaded, Failure> {
    flags.take(own);
    Config::load(&flags).map_err(Failure::usage)
}

fn serve(loaded: Loaded) -> Result<(), Failure> {
    start_logs(&loaded)?;
    let runtime = runtime()?;
    let end = runtime.block_on(server::run(loaded.config)).map_err(Failure::caused);
    // Whatever still runs was told to stop and had its time.
    runtime.shutdown_background();
    end
}

fn migrate(loaded: Loaded, new_history: bool) -> Result<(), Failure> {
    start_logs(&loaded)?;
    runtime()?.block_on(server::migrate(&loaded.config, new_history)).map_err(Failure::caused)
}

fn check_config(loaded: &Loaded) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for option in &loaded.effective {
        let value = option.value.as_deref().map_or_else(|| "(not set)".to_owned(), |value| format!("{value:?}"));
        writeln!(out, "{} = {value}  # {}", option.key, option.source).map_err(Failure::caused)?;
    }
    let mut doubts = Vec::new();
    if let Auth::Jwt(options) = &loaded.config.auth {
        doubts = show_keys(&mut out, options)?;
    }
    for warning in loaded.warnings.iter().chain(&doubts) {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

/// Writes what tokens are checked with, and never a secret. What is wrong with it.
fn show_keys(out: &mut impl Write, options: &auth::Options) -> Result<Vec<String>, Failure> {
    if options.secret.is_some() {
        writeln!(out, "key (shared secret) = \"HS256\"  # jwt-secret").map_err(Failure::caused)?;
    }
    match runtime()?.block_on(options.published()) {
        None => Ok(Vec::new()),
        Some(Err(problem)) => Ok(vec![problem]),
        Some(Ok((set, source))) => {
            for key in set.keys() {
                let id = key.id().map_or_else(|| "(without kid)".to_owned(), |id| format!("{id:?}"));
                writeln!(out, "key {id} = {:?}  # {source}", key.algorithms()).map_err(Failure::caused)?;
            }
            Ok(set.left_out().iter().map(|left_out| format!("{source}: {left_out}")).collect())
        }
    }
}

fn start_logs(loaded: &Loaded) -> Result<(), Failure> {
    telemetry::init(&loaded.config.log_level, loaded.config.log_format).map_err(Failure::usage)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::caused)
}

/// The server that was named, or the one that these options would start.
fn address(flags: &Flags, own: &ArgMatches) -> Result<String, Failure> {
    if let Some(url) = own.get_one::<String>("url").filter(|url| !url.is_empty()) {
        return Ok(url.clone());
    }
    let listen = Config::load(flags).map_err(Failure::usage)?.config.listen;
    Ok(format!("http://{}", std::net::SocketAddr::new(reachable(listen.ip()), listen.port())))
}

/// Whom a client's command talks to, and as whom.
fn target(flags: &Flags, own: &ArgMatches) -> Result<Target, Failure> {
    let text = |name| own.get_one::<String>(name).filter(|text| !text.is_empty()).cloned();
    let url = address(flags, own)?;
    let options = [("user_id", text("user")), ("name", text("name")), ("token", text("token"))];
    let identity = options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Target::new(&url, identity).map_err(Failure::usage)
}

/// The address at which this machine reaches what listens on `ip`.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

fn required(own: &ArgMatches, name: &str) -> String {
    own.get_one::<String>(name).cloned().unwrap_or_default()
}
