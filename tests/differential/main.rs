//! Envoy's `jwt_authn` and the plugin, with the same configuration in the same Envoy, are sent the same requests. What
//! clients and upstream see may differ only where `tests/differences.json` says so.
//!
//! `CLAIMGATE_SEED`, `CLAIMGATE_CONFIGS` and `CLAIMGATE_REQUESTS` give other requests than the usual ones.

mod case;
mod differences;
mod generate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use claimgate::Config;
use claimgate_testbed::{Behaviour, Gate, Issuer, plugin};
use fastrand::Rng;
use serde_json::Value;

use case::{Case, Outcome, Request};
use differences::{Example, Seen};
use generate::World;

#[test]
fn generated_requests_differ_only_as_listed() {
    let seed = setting("CLAIMGATE_SEED", 1);
    let (configurations, requests) = (setting("CLAIMGATE_CONFIGS", 40), setting("CLAIMGATE_REQUESTS", 1000));
    let (list, world) = (differences::list(), World::new());
    let configurations: Vec<(Rng, Value)> = (0..configurations)
        .map(|number| {
            let mut rng = Rng::with_seed(seed << 16 | number);
            let configuration = generate::configuration(&mut rng, &world);
            (rng, configuration)
        })
        .collect();
    let (gate, _issuer) = pairs(configurations.iter().map(|(_, configuration)| configuration));

    let (mut counts, mut unlisted) = (BTreeMap::<&str, usize>::new(), String::new());
    let (mut passed, mut sent) = (0, 0);
    let each = requests.div_ceil(configurations.len() as u64);
    for (number, (mut rng, configuration)) in configurations.into_iter().enumerate() {
        for _ in 0..each.min(requests - sent) {
            sent += 1;
            let request = generate::request(&mut rng, &world, &configuration);
            let case = Case { configuration: &configuration, request: &request };
            let (native, ours) = outcomes(&gate, number, &request);
            passed += u64::from(native.passed());
            if native.agrees_with(&ours) {
                *counts.entry("none").or_default() += 1;
                continue;
            }
            let seen = Seen { case, native: &native, ours: &ours };
            let listed = differences::explain(&list, &seen);
            for id in &listed {
                *counts.entry(id).or_default() += 1;
            }
            if listed.is_empty() {
                write!(unlisted, "\n==== seed {seed}, request {sent}, configuration {number}:\n{configuration:#}\n\n")
                    .and_then(|()| write!(unlisted, "{request}\n\nnative: {native}\n\nours: {ours}\n"))
                    .expect("a string takes everything");
            }
        }
    }
    println!("seed {seed}: {sent} requests, {passed} of them passed by jwt_authn; differences: {counts:#?}");
    assert_eq!(gate.trap(), None);
    assert!(unlisted.is_empty(), "differences that tests/differences.json does not list:{unlisted}");
    assert!((sent / 5..=sent * 4 / 5).contains(&passed), "requests that all end the same way show little");
}

/// A difference that no longer occurs is no longer to be listed.
#[test]
fn listed_differences_occur() {
    let (list, world) = (differences::list(), World::new());
    // Some examples are of the second: none that passes while the plugin is built.
    plugin().expect("the plugin is built");
    let examples: Vec<Example> = list.iter().map(|(_, kind)| (kind.example)(&world)).collect();
    let (gate, _issuer) = pairs(examples.iter().map(|example| &example.configuration));
    let mut wrong = String::new();
    for (number, ((entry, kind), example)) in list.iter().zip(&examples).enumerate() {
        let case = Case { configuration: &example.configuration, request: &example.request };
        let (native, ours) = outcomes(&gate, number, &example.request);
        let seen = Seen { case, native: &native, ours: &ours };
        let found = [
            entry.example.native.check(&native).map(|error| format!("native: {error}")),
            entry.example.ours.check(&ours).map(|error| format!("ours: {error}")),
            kind.fails_to_explain(&list, &seen),
        ];
        for error in found.into_iter().flatten() {
            write!(wrong, "\n==== `{}`: {error}\n{}\nnative: {native}\nours: {ours}\n", entry.id, example.request)
                .expect("a string takes everything");
        }
    }
    assert_eq!(gate.trap(), None);
    assert!(wrong.is_empty(), "tests/differences.json lists what is not so:{wrong}");
}

#[test]
fn the_readme_has_each_difference() {
    let readme = include_str!("../../README.md");
    let heading = "## Where it differs from `jwt_authn`";
    let section = readme.lines().skip_while(|line| *line != heading).skip(1);
    let rows = section.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|')).skip(2);
    let rows: BTreeSet<String> = rows.map(str::to_owned).collect();
    let list: BTreeSet<String> = differences::list().iter().map(|(entry, _)| entry.readme_row()).collect();
    let report = |rows: Vec<&String>| rows.into_iter().fold(String::new(), |text, row| text + "\n" + row);
    let (missing, unknown) = (report(list.difference(&rows).collect()), report(rows.difference(&list).collect()));
    assert!(missing.is_empty(), "in tests/differences.json, not in the README:{missing}");
    assert!(unknown.is_empty(), "in the README, not in tests/differences.json:{unknown}");
}

/// A gate with two listeners for each configuration: `jwt_authn` and the plugin. The issuer answers nobody.
fn pairs<'a>(configurations: impl Iterator<Item = &'a Value>) -> (Gate, Issuer) {
    let pair = |configuration: &Value| {
        if let Err(error) = Config::parse(configuration.to_string().as_bytes()) {
            panic!("the plugin refuses what `jwt_authn` accepts: {error}\n{configuration:#}");
        }
        Gate::native(configuration).beside(Gate::plugin(configuration))
    };
    let all = configurations.map(pair).reduce(|all, pair| all.beside(pair)).expect("a configuration");
    let issuer = Issuer::start(&[]);
    issuer.behave(Behaviour::Refuse);
    let gate = all.cluster("nobody", issuer.addr()).concurrency(1).start().unwrap_or_else(|error| panic!("{error}"));
    (gate, issuer)
}

/// What the filters of one pair made of a request: `jwt_authn`, then the plugin.
fn outcomes(gate: &Gate, pair: usize, request: &Request) -> (Outcome, Outcome) {
    let send = |listener| request.send(gate.listener(listener), gate.upstream());
    (send(2 * pair), send(2 * pair + 1))
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is `{value}`, a number was expected")),
        Err(_) => default,
    }
}
