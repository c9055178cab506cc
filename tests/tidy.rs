//! The house's own rules, checked as a test: layers, migration pairs, codes, what no file may contain. Fast.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests and their helpers fail by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use rejoin::protocol::codes;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "node_modules" && name != "target") {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Modules by the number of their layer, as `src/lib.rs` groups them.
fn layers() -> BTreeMap<String, usize> {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (mut layer, mut layers) = (0, BTreeMap::new());
    for line in map.lines() {
        if line.starts_with("// layer: ") {
            layer += 1;
        } else if let Some(module) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            assert!(layer > 0, "{module} stands before the first layer in src/lib.rs");
            layers.insert(module.to_owned(), layer);
        }
    }
    layers
}

/// The module of `src` that a file belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.iter().next().unwrap().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a text names as `crate::module`, grouped imports included. Comments do not count.
fn uses(text: &str, modules: &BTreeMap<String, usize>) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group_heads(group),
            None => vec![rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()],
        };
        found.extend(names.into_iter().filter(|name| modules.contains_key(*name)).map(str::to_owned));
    }
    found
}

/// The first words of the entries of a `{a, b::c, d::{e, f}}` group.
fn group_heads(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut heads) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.push(&group[begin..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    let word = |entry: &&str| !entry.trim().is_empty();
    let head =
        |entry: &str| entry.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().len();
    heads.iter().filter(|entry| word(entry)).map(|entry| &entry.trim()[..head(entry)]).collect()
}

#[test]
fn a_module_uses_only_modules_of_the_layers_above_it() {
    let layers = layers();
    assert!(layers.len() > 15, "only {} modules were found", layers.len());
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), ".rs") {
        let module = module_of(&path);
        let Some(&own) = layers.get(&module) else { continue };
        for used in uses(&fs::read_to_string(&path).unwrap(), &layers) {
            // The foundations are one layer whose parts may lean on each other in the order of the map.
            let foundation = own == 1 && layers[&used] == 1;
            if used != module && layers[&used] >= own && !foundation {
                wrong.push(format!("{} uses {used}, which is not above {module}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_of_layers_sees_grouped_and_nested_imports() {
    let layers = layers();
    let text = "use crate::{\n    clock::{self, now},\n    model::{Turn, machine::{Op, End}},\n    store,\n};\nfn f() { crate::http::x() }";
    let found: Vec<String> = uses(text, &layers).into_iter().collect();
    assert_eq!(found, ["clock", "http", "model", "store"]);
}

#[test]
fn only_the_rooms_that_may_know_a_crate_name_it() {
    let rooms = [
        ("axum::", vec!["transport", "http", "server"]),
        ("sqlx::", vec!["store", "pubsub"]),
        ("async_nats::", vec!["pubsub"]),
        ("tokio_tungstenite::", vec!["transport", "protocol", "cli"]),
        ("anyhow::", vec!["cli"]),
        ("clap::", vec!["cli", "config"]),
        ("prometheus_client::", vec!["metrics"]),
    ];
    let pure = ["src/protocol/", "src/model/", "src/presence/state.rs", "src/channel/gate.rs", "src/session/judge.rs"];
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        for (name, rooms) in &rooms {
            if text.contains(name) && !rooms.contains(&module_of(&path).as_str()) {
                wrong.push(format!("{shown} names {name}"));
            }
        }
        if pure.iter().any(|pure| shown.starts_with(pure)) {
            wrong.extend(
                ["tokio::", "async fn", "Mutex"]
                    .iter()
                    .filter(|word| text.contains(**word))
                    .map(|word| format!("{shown} is pure and names {word}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_store_has_the_same_migrations() {
    let mut by_store = Vec::new();
    for folder in fs::read_dir(root().join("migrations")).unwrap() {
        let names: Vec<String> = files(&folder.unwrap().path(), ".sql")
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(!names.is_empty());
        by_store.push(names);
    }
    assert!(by_store.windows(2).all(|pair| pair[0] == pair[1]), "{by_store:?}");
}

#[test]
fn codes_are_those_of_the_shared_list() {
    let list: Value = serde_json::from_str(&fs::read_to_string(root().join("protocol/codes.json")).unwrap()).unwrap();
    let shared = |key: &str| -> BTreeSet<String> {
        match &list[key] {
            Value::Array(names) => names.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
            Value::Object(map) => map.keys().cloned().collect(),
            other => panic!("{key} is {other}"),
        }
    };
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(shared("reasons"), own(&codes::reason::ALL));
    assert_eq!(shared("turn_errors"), own(&codes::turn_error::ALL));
    assert_eq!(shared("system_events"), own(&codes::event::ALL));
}

#[test]
fn no_file_is_unfinished_by_its_own_word() {
    let words = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX", "for now"];
    let mut wrong = Vec::new();
    for folder in ["src", "tests/it", "benches", "protocol", "client-js/src", "client-js/demo", "client-js/test"] {
        for ending in [".rs", ".ts", ".md", ".json", ".html", ".css"] {
            for path in files(&root().join(folder), ending) {
                if path.components().any(|part| part.as_os_str() == "dist") {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                wrong.extend(
                    words.iter().filter(|word| text.contains(**word)).map(|word| format!("{}: {word}", path.display())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn documents_name_every_option_and_every_reason() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for option in rejoin::config::OPTIONS {
        assert!(readme.contains(&format!("`{}`", option.name)), "README.md does not name the option {}", option.name);
    }
    let protocol = fs::read_to_string(root().join("protocol/PROTOCOL.md")).unwrap();
    for name in codes::reason::ALL.iter().chain(&codes::turn_error::ALL) {
        assert!(protocol.contains(&format!("`{name}`")), "protocol/PROTOCOL.md does not explain {name}");
    }
}
