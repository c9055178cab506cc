//! Replays what the fuzzer has kept, `protocol/vectors/fuzz`, through the checks that it ran.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;

/// Runs a check on every input that is kept for it.
fn replay(target: &str, check: fn(&[u8])) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("protocol/vectors/fuzz/{target}.hex"));
    let inputs = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(inputs.lines().count() > 10, "{target} has hardly any inputs");
    for line in inputs.lines() {
        let input: Vec<u8> =
            (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
        check(&input);
    }
}

#[test]
fn version_1_survives_what_was_kept() {
    replay("v1", checks::v1);
}

#[test]
fn version_2_as_text_survives_what_was_kept() {
    replay("v2_text", checks::v2_text);
}

#[test]
fn version_2_as_bytes_survives_what_was_kept() {
    replay("v2_binary", checks::v2_binary);
}

#[test]
fn parameters_survive_what_was_kept() {
    replay("params", checks::params);
}

#[test]
fn long_poll_bodies_survive_what_was_kept() {
    replay("long_poll", checks::long_poll);
}
