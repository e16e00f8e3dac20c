//! `envoy/observability/` against the metrics that a real Envoy shows: every query asks for a metric that exists, by labels
//! that it has, and every alert is seen to fire and not to fire.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use claimgate_testbed::{Algorithm, Gate, Issuer, Key, eventually, unix_time};
use regex::Regex;
use serde_json::{Value, json};

#[test]
fn every_query_asks_for_what_there_is() {
    let shown = shown_by_envoy();
    let (rules, dashboard) = (yaml("rules.yaml"), dashboard());
    let mut asked = BTreeSet::new();
    for query in rules_in(&rules).map(|rule| text(&rule["expr"])).chain(dashboard.iter().map(String::as_str)) {
        check(query, &shown, &mut asked);
    }
    let unused: Vec<&String> = shown.keys().filter(|name| !asked.contains(*name)).collect();
    // What these count for the other mode, or for whom something is wrong, is no picture for every day.
    let left_out = ["claimgate_shadow_allowed", "claimgate_shadow_bypassed", "claimgate_shadow_verified"];
    assert_eq!(unused, left_out, "metrics that neither the dashboard nor a rule shows");
}

#[test]
fn the_readme_names_every_metric() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the file");
    for name in shown_by_envoy().keys() {
        assert!(readme.contains(&format!("`{name}")), "README.md does not name {name}");
    }
}

#[test]
fn the_example_makes_the_labels_that_the_snippet_makes() {
    let (example, snippet) = (yaml("../envoy.yaml"), yaml("../stats_tags.yaml"));
    assert!(snippet["stats_config"]["stats_tags"].as_array().is_some_and(|tags| !tags.is_empty()));
    assert_eq!(example["stats_config"], snippet["stats_config"]);
}

#[test]
fn every_alert_is_tested_both_ways() {
    let (rules, tests) = (yaml("rules.yaml"), yaml("rules_test.yaml"));
    let cases = tests["tests"].as_array().into_iter().flatten();
    let cases: Vec<&Value> = cases.flat_map(|test| test["alert_rule_test"].as_array().expect("cases")).collect();
    for alert in rules_in(&rules).filter_map(|rule| rule["alert"].as_str()) {
        let alerts = |case: &&&Value| case["exp_alerts"].as_array().expect("alerts").len();
        let of_alert = || cases.iter().filter(|case| case["alertname"] == alert);
        assert!(of_alert().any(|case| alerts(&case) > 0), "{alert} is never seen to fire");
        assert!(of_alert().any(|case| alerts(&case) == 0) || of_alert().count() > 1, "{alert} always fires");
    }
}

/// Prometheus' own tool reads the rules, runs their tests, and reads the queries of the dashboard.
#[test]
fn promtool_agrees() {
    if let Err(error) = Command::new("promtool").arg("--version").output() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI=true, and there is no `promtool`: {error}");
        let why = format!("NOT RUN: envoy/observability/ in `promtool`, which comes with Prometheus: {error}");
        // To the terminal, also when the test succeeds.
        let _lost = writeln!(io::stderr(), "{why}");
        return;
    }
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").current_dir(folder()).args(arguments).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}\n{}", String::from_utf8_lossy(&text));
    };
    promtool(&["check", "rules", "rules.yaml"]);
    promtool(&["test", "rules", "rules_test.yaml"]);

    let records = dashboard().into_iter().enumerate().map(|(number, query)| {
        let query = query.replace("$__rate_interval", "5m");
        json!({ "record": format!("query_{number}"), "expr": query })
    });
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": records.collect::<Vec<_>>() }] });
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dashboard.json");
    fs::write(&file, rules.to_string()).expect("a file");
    promtool(&["check", "rules", file.to_str().expect("a path that is text")]);
}

/// Checks one query, and notes which metrics it asks for.
#[track_caller]
fn check(query: &str, shown: &BTreeMap<String, BTreeSet<String>>, asked: &mut BTreeSet<String>) {
    let expression = |text| Regex::new(text).expect("an expression");
    let selector = expression(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?");
    let matcher = expression(r#"([a-z_]+)(?:=|=~)"([^"]*)""#);
    let grouping = expression(r"by \(([^)]*)\)");
    let readme = fs::read_to_string(root().join("README.md")).expect("the file");
    let metrics = selector.captures_iter(query).filter(|found| found[1].starts_with("claimgate_"));
    for found in metrics {
        let name = &found[1];
        let labels = shown.get(name).unwrap_or_else(|| panic!("`{query}`: Envoy shows no `{name}`"));
        // Prometheus itself adds the name of the job.
        let known = |label: &str| label == "job" || labels.contains(label);
        for matched in matcher.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
            assert!(known(&matched[1]), "`{query}`: `{name}` has no label `{}`", &matched[1]);
            for value in matched[2].split('|').filter(|value| !value.starts_with('$')) {
                assert!(readme.contains(&format!("`{value}`")), "`{query}`: README.md has no `{value}`");
            }
        }
        for labels in grouping.captures_iter(query) {
            for label in labels[1].split(", ") {
                assert!(known(label), "`{query}`: `{name}` has no label `{label}`");
            }
        }
        asked.insert(name.to_owned());
    }
}

/// The gate's metrics and their labels, after requests that lead to each of them.
fn shown_by_envoy() -> BTreeMap<String, BTreeSet<String>> {
    let key = Key::new(Algorithm::ES256, "k1");
    let issuer = Issuer::start(&[&key]);
    let configuration = json!({
        "providers": {"corp": {
            "issuer": "https://idp.example.com/",
            "remote_jwks": {"http_uri": {"uri": issuer.url(), "cluster": "idp", "timeout": "2s"}},
        }},
        "rules": [
            {"match": {"path": "/open"}},
            {"match": {"path": "/shadow/open"}, "mode": "shadow"},
            {"match": {"prefix": "/shadow"}, "mode": "shadow", "requires": {"provider_name": "corp"}},
            {"match": {"prefix": "/"}, "requires": {"provider_name": "corp"}},
        ],
    });
    let stats_config = yaml("../stats_tags.yaml")["stats_config"].clone();
    let gate = Gate::plugin(&configuration).cluster("idp", issuer.addr()).stats_config(stats_config).start();
    let gate = gate.expect("the gate starts");
    let claims = json!({"iss": "https://idp.example.com/", "exp": unix_time() + 600});
    let token = key.sign(&claims);
    for folder in ["/", "/shadow/"] {
        gate.get(folder).bearer(&token).send();
        gate.get(folder).send();
        gate.get(&format!("{folder}open")).send();
    }
    eventually("the gauges are shown", || gate.prometheus().contains("claimgate_jwks_keys").then_some(()));
    let mut shown = BTreeMap::<String, BTreeSet<String>>::new();
    for line in gate.prometheus().lines().filter(|line| line.starts_with("claimgate_")) {
        let (name, rest) = line.split_once('{').expect("a metric");
        let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
        shown.entry(name.to_owned()).or_default().extend(labels);
    }
    shown
}

/// The queries of the dashboard.
fn dashboard() -> Vec<String> {
    let file = fs::read_to_string(folder().join("dashboard.json")).expect("the file");
    let dashboard: Value = serde_json::from_str(&file).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<String> = targets.map(|target| text(&target["expr"]).to_owned()).collect();
    assert!(queries.len() > 10, "{} queries only: is it read rightly?", queries.len());
    queries
}

fn rules_in(file: &Value) -> impl Iterator<Item = &Value> {
    file["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array().expect("rules"))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn yaml(path: &str) -> Value {
    let path = folder().join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> std::path::PathBuf {
    root().join("envoy/observability")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
