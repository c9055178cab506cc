//! Options as a shell sees them: the binary's output and exit codes.

use std::process::{Command, Output};

/// Runs the binary in an empty directory with no environment but `variables`.
fn rejoin(args: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Output {
    let directory = tempfile::tempdir().unwrap();
    if let Some(text) = file {
        std::fs::write(directory.path().join("rejoin.toml"), text).unwrap();
    }
    Command::new(env!("CARGO_BIN_EXE_rejoin"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(directory.path())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn check_config_shows_every_option_its_source_and_no_secret() {
    let file = "max-topics = 7\n[agents.a]\ntype = \"openai\"\nbase-url = \"http://h/v1\"\nmodel = \"m\"\napi-key = \"sk-file\"";
    let variables = [("OPENAI_API_KEY", "sk-env"), ("REJOIN_MAX_QUEUE", "3"), ("REJOIN_PORT", "1")];
    let output = rejoin(&["check-config", "--listen", "[::1]:0"], &variables, Some(file));
    let (shown, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    for line in [
        "listen = \"[::1]:0\"  # --listen",
        "max-topics = \"7\"  # rejoin.toml",
        "max-queue = \"3\"  # REJOIN_MAX_QUEUE",
        "openai-api-key = \"***\"  # OPENAI_API_KEY",
        "allowed-origins = (not set)  # default",
        "lease-ttl = \"6s\"  # default",
        "agents.a.api-key = \"***\"  # rejoin.toml",
        "agents.a.model = \"m\"  # rejoin.toml",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
    }
    assert!(!shown.contains("sk-") && !errors.contains("sk-"));
    assert_eq!(errors, "warning: REJOIN_PORT: there is no such option, so the variable has no effect\n");
}

#[test]
fn what_cannot_be_used_ends_with_two_and_one_line_and_nothing_on_stdout() {
    for (args, variables, file, said) in [
        (&["--lissen=x"][..], &[][..], "", "error: unexpected argument '--lissen' found; did you mean --listen?"),
        (&["serve", "--listen=x"], &[], "", "error: listen: \"x\" (from --listen) is not accepted"),
        (&["--listen=x", "serve"], &[], "", "error: listen: \"x\" (from --listen) is not accepted"),
        (
            &["check-config"],
            &[("REJOIN_BUS", "kafka")],
            "",
            "error: bus: \"kafka\" (from REJOIN_BUS) is not accepted: give local, postgres or nats://host:4222",
        ),
        (&["migrate"], &[], "listen = 5", "error: listen: \"5\" (from rejoin.toml) is not accepted"),
        (&[], &[], "colour = 5", "error: colour: there is no such key (in rejoin.toml): use one of listen,"),
        (
            &["--listen=0.0.0.0:0"],
            &[],
            "",
            "error: listen: \"0.0.0.0:0\" (from --listen) is not accepted: with auth none",
        ),
        (
            &["--agent=openai", "--openai-api-key=sk-1"],
            &[],
            "",
            "error: agent: \"openai\" (from --agent) is not accepted",
        ),
        (&["send", "a b", "hi"], &[], "", "error: \"a b\" names no session"),
        (&["tail"], &[], "", "error: the following required arguments were not provided: <topic>"),
        (&["tail", "room:x", "--url=nowhere"], &[], "", "error: nowhere is no address of a server"),
    ] {
        let output = rejoin(args, variables, Some(file));
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
        assert!(errors.starts_with(said), "{errors}");
        assert!(errors.lines().count() == 1 && output.stdout.is_empty() && !errors.contains("sk-1"), "{errors}");
    }
}

#[test]
fn a_flag_before_the_command_counts_unless_the_command_has_its_own() {
    for (args, listen) in [
        (&["--listen=127.0.0.1:1", "check-config"][..], "\"127.0.0.1:1\"  # --listen"),
        (&["--listen=127.0.0.1:1", "check-config", "--listen=127.0.0.1:2"], "\"127.0.0.1:2\"  # --listen"),
    ] {
        let shown = text(&rejoin(args, &[], None).stdout);
        assert!(shown.contains(&format!("listen = {listen}\n")), "{shown}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [["--help"], ["--version"]] {
        let output = rejoin(&args, &[("OPENAI_API_KEY", "sk-env"), ("REJOIN_TOKEN", "tok-env")], None);
        let shown = text(&output.stdout);
        assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), true));
        assert!(!shown.is_empty() && !shown.contains("sk-env"));
    }
    let send = rejoin(&["send", "--help"], &[("REJOIN_TOKEN", "tok-env")], None);
    assert!(!text(&send.stdout).contains("tok-env"));
}
