//! Shadow mode: the same decisions, and nothing done.

use claimgate::{Decision, DecisionCounters, Effects, LogGate, Mode, Report, UnixTime, rejection_line, reply};
use claimgate_testbed::{Algorithm::ES256, Key, key_set, tampered};
use serde_json::{Value, json};

use crate::gate::{Gate, ISSUER, NOW, bearer, claims, merge, request};

fn key() -> Key {
    Key::new(ES256, "k")
}

fn gate(settings: Value) -> Gate {
    let mut configuration = json!({"providers": {"corp": {"issuer": ISSUER, "audiences": ["orders"],
        "local_jwks": {"inline": key_set(&[&key()])},
        "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}],
        "claim_to_filter_state": [{"key": "sub", "claim_name": "sub"}]}}});
    merge(&mut configuration, settings);
    Gate::of(configuration)
}

/// What a gate does with a request: the outcome told to the host, and the counters.
#[track_caller]
fn untouched(gate: &mut Gate, token: Option<&str>) -> (&'static str, Vec<String>) {
    let headers = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|value| ("authorization", value.as_str())).chain([("x-sub", "spoofed")]).collect();
    let request = request(&headers);
    let decision = gate.decide(&request);
    let counters = DecisionCounters::default().names(&gate.config, &decision);
    match reply(&request, &gate.config, decision) {
        Effects::Forward(forwarded) => {
            assert_eq!((forwarded.remove, forwarded.set, forwarded.states), (vec![], vec![], vec![]));
            (forwarded.outcome, counters)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_shadow_decides_and_does_nothing() {
    let mut gate = gate(json!({"mode": "shadow", "environment": "staging"}));
    let token = key().sign(&claims());
    let (outcome, counters) = untouched(&mut gate, Some(&token));
    assert_eq!(outcome, "ok");
    assert_eq!(
        counters,
        [
            "claimgate_shadow_allowed.;provider=corp;.;environment=staging;",
            "claimgate_shadow_verified.;provider=corp;.;kid=k;.;environment=staging;",
        ]
    );
    let (outcome, counters) = untouched(&mut gate, Some(&tampered(&token)));
    assert_eq!(outcome, "signature_invalid");
    assert_eq!(
        counters,
        ["claimgate_shadow_rejected.;reason=signature_invalid;.;provider=corp;.;environment=staging;"]
    );
    let (outcome, _) = untouched(&mut gate, None);
    assert_eq!(outcome, "header_missing");
}

#[test]
fn the_decision_itself_is_the_same() {
    let (mut shadow, mut enforced) = (gate(json!({"mode": "shadow"})), gate(json!({})));
    let token = key().sign(&claims());
    for token in [token.clone(), tampered(&token), "x".to_owned()] {
        let without_mode = |decision| match decision {
            Decision::Allow(allow) => format!("{:?}", claimgate::Allow { mode: Mode::Enforce, ..allow }),
            Decision::Reject(rejection) => format!("{:?}", claimgate::Rejection { mode: Mode::Enforce, ..rejection }),
            Decision::Await(need) => format!("{need:?}"),
        };
        assert_eq!(without_mode(shadow.decide(&bearer(&token))), without_mode(enforced.decide(&bearer(&token))));
    }
}

#[test]
fn one_rule_may_be_a_shadow_or_not() {
    let rule = |prefix: &str, mode: Value| {
        let mut rule = json!({"match": {"prefix": prefix}, "requires": {"provider_name": "corp"}});
        merge(&mut rule, mode);
        rule
    };
    for (global, mode, shadows) in [("enforce", "shadow", true), ("shadow", "enforce", false)] {
        let mut gate =
            gate(json!({"mode": global, "rules": [rule("/orders", json!({"mode": mode})), rule("/", json!({}))]}));
        let request = request(&[]);
        let decision = gate.decide(&request);
        let is_forwarded = matches!(reply(&request, &gate.config, decision), Effects::Forward(_));
        assert_eq!(is_forwarded, shadows);
        let other = claimgate::Request::new([(":path", "/")]);
        let decision = gate.decide(&other);
        assert_eq!(matches!(reply(&other, &gate.config, decision), Effects::Forward(_)), !shadows);
    }
}

#[test]
fn a_line_says_that_it_is_of_a_shadow_and_of_which_environment() {
    let mut gate = gate(json!({"mode": "shadow", "environment": "prod-eu"}));
    let request = request(&[]);
    let Decision::Reject(rejection) = gate.decide(&request) else { panic!("allowed") };
    assert_eq!(LogGate::default().admit(rejection.reason(), UnixTime::from_secs(NOW)), Some(0));
    let line =
        rejection_line(&request, &gate.config, &rejection, &Report::default(), None, 0, UnixTime::from_secs(NOW));
    let line: Value = serde_json::from_str(&line.text).expect("a line is JSON");
    assert_eq!(line["event"], "shadow_rejected");
    assert_eq!(line["environment"], "prod-eu");
}
