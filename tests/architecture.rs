//! What `design` promises, held by tests: the direction of the modules, what the plugin asks of a host, its size, and
//! that the README tells of each field and reason there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use claimgate::{RawConfig, Reason};
use serde_json::Value;

/// A module uses only modules above it.
const FLOW: [&str; 22] = [
    "limits",
    "time",
    "budget",
    "brake",
    "rejection",
    "json",
    "request",
    "matcher",
    "extract",
    "jws",
    "jwk",
    "signature",
    "keystore",
    "parking",
    "claims",
    "token_cache",
    "policy",
    "config",
    "decide",
    "reply",
    "observe",
    "filter",
];

/// Largest plugin accepted, in bytes.
const PLUGIN_BYTES: usize = 1_000_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The source files of a module: its own and those in its folder.
fn sources(module: &str) -> Vec<PathBuf> {
    let mut files = vec![root().join(format!("src/{module}.rs"))];
    let mut folders = vec![root().join("src").join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("a directory entry").path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn modules_use_only_modules_above_them() {
    let library = read("src/lib.rs");
    let declared: Vec<&str> = library
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(declared, FLOW, "src/lib.rs lists the modules in the order of the flow");
    for (place, module) in FLOW.iter().enumerate() {
        for file in sources(module) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            for used in text.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let above = FLOW.iter().position(|module| *module == used);
                assert!(above.is_some_and(|above| above <= place), "{} uses `{used}`", file.display());
            }
        }
    }
}

#[test]
fn crypto_is_named_in_one_module() {
    for module in FLOW.iter().filter(|module| **module != "signature") {
        for file in sources(module) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            for name in ["p256", "p384", "p521", "k256", "curve25519_dalek", "ml_dsa", "hmac", "sha2"] {
                assert!(!text.contains(&format!("{name}::")), "{} names {name}", file.display());
            }
        }
    }
}

/// A host that does not have a function does not load a plugin which imports it.
#[test]
fn the_plugin_asks_hosts_for_nothing_unusual() {
    let plugin = std::fs::read(claimgate_testbed::plugin().expect("the plugin is built")).expect("the plugin is read");
    println!("claimgate.wasm: {} bytes", plugin.len());
    assert!(
        plugin.len() <= PLUGIN_BYTES,
        "claimgate.wasm has {} bytes, at most {PLUGIN_BYTES} were expected",
        plugin.len()
    );

    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    for payload in wasmparser::Parser::new(0).parse_all(&plugin) {
        match payload.expect("the plugin is WebAssembly") {
            wasmparser::Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.expect("an import");
                    imports.insert(format!("{}.{}", import.module, import.name));
                }
            }
            wasmparser::Payload::ExportSection(section) => {
                exports.extend(section.into_iter().map(|export| export.expect("an export").name.to_owned()));
            }
            _ => {}
        }
    }
    let allowed = read("tests/imports.txt");
    let allowed: BTreeSet<String> = allowed.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let unusual: Vec<&String> = imports.difference(&allowed).collect();
    assert!(unusual.is_empty(), "not in tests/imports.txt: {unusual:?}");
    let stale: Vec<&String> = allowed.difference(&imports).collect();
    assert!(stale.is_empty(), "no longer imported, in tests/imports.txt still: {stale:?}");
    let expected = [
        "_initialize",
        "memory",
        "proxy_abi_version_0_2_1",
        "proxy_on_configure",
        "proxy_on_context_create",
        "proxy_on_delete",
        "proxy_on_http_call_response",
        "proxy_on_memory_allocate",
        "proxy_on_request_headers",
        "proxy_on_tick",
        "proxy_on_vm_start",
    ];
    // A further callback would be a further call for every request in Envoy.
    assert_eq!(exports, expected.map(str::to_owned).into());
}

/// The rows of the table under a heading of the README: the first cell of each, without its backticks.
fn table(readme: &str, heading: &str) -> BTreeSet<String> {
    let lines = readme.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with('#'));
    let cells = lines.filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(cell, _)| cell.to_owned()));
    cells.collect()
}

#[test]
fn the_readme_names_each_field_of_the_configuration() {
    let readme = read("README.md");
    let schema = serde_json::to_value(schemars::schema_for!(RawConfig)).expect("a schema is JSON");
    let of = |object: &Value| -> BTreeSet<String> {
        object["properties"].as_object().expect("an object's schema").keys().cloned().collect()
    };
    let defined = |name: &str| of(&schema["$defs"][name]);
    for (heading, fields) in [
        ("### `configuration`", of(&schema)),
        ("### `verifications_per_second`", defined("RawVerificationRates")),
        ("### `providers.<name>`", defined("RawProvider")),
        ("### `remote_jwks`", defined("RawRemoteJwks")),
        ("### `http_uri`", defined("RawJwksHttp")),
        ("### `local_jwks`", defined("RawLocalJwks")),
        ("### `claim_to_headers`", defined("RawClaimToHeader")),
        ("### `claim_to_filter_state`", defined("RawClaimToFilterState")),
        ("### `from_headers`", defined("RawFromHeader")),
        ("### `claims`", defined("RawClaimRule")),
        ("### `jwt_cache_config`", defined("RawJwtCacheConfig")),
        ("### `async_fetch`", defined("RawAsyncFetch")),
        ("### `retry_policy`", defined("RawRetryPolicy")),
        ("### `retry_back_off`", defined("RawBackOff")),
        ("### `rules`", defined("RawRule")),
        ("### `headers`", defined("RawHeaderMatcher")),
        ("### `query_parameters`", defined("RawQueryParameterMatcher")),
        ("### `string_match`", defined("RawStringMatcher")),
        ("### `match`", defined("RawMatch")),
        ("### `requires`", defined("RawRequirement")),
    ] {
        assert_eq!(table(&readme, heading), fields, "the README's table under {heading}");
    }
}

#[test]
fn the_readme_names_each_reason_and_its_status() {
    let readme = read("README.md");
    for reason in Reason::ALL {
        let row = format!("| `{reason}` | {} |", reason.status());
        assert!(readme.contains(&row), "the README has no row `{row}`");
    }
}

/// Every test that the table of attacks names is there, and so is every group of the attack corpus; and of the corpus,
/// no group that is in no row.
#[test]
fn the_attacks_are_proven_by_tests_that_exist() {
    let security = read("SECURITY.md");
    let corpus: Value = serde_json::from_str(&read("tests/vectors/data/attacks.json")).expect("the attack corpus");
    let groups = corpus["cases"].as_array().expect("cases").iter().map(|case| case["group"].as_str().expect("a group"));
    // Those of good requests stop nothing.
    let mut unnamed: BTreeSet<&str> = groups.filter(|group| *group != "good").collect();
    let mut proofs = 0;
    for row in security.lines().filter(|line| line.starts_with("| ")) {
        for name in row.split('`').skip(1).step_by(2) {
            if let Some(group) = name.strip_prefix("attacks:") {
                assert!(unnamed.remove(group), "no group `{group}` in the corpus, or named twice");
            } else if let Some((file, test)) = name.split_once("::") {
                assert!(read(file).contains(&format!("fn {test}(")), "SECURITY.md names {name}, which is not there");
            } else {
                continue;
            }
            proofs += 1;
        }
    }
    assert!(unnamed.is_empty(), "in the corpus, and not in SECURITY.md: {unnamed:?}");
    assert!(proofs > 60, "{proofs} proofs");
}
