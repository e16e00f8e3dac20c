//! `claimgate keygen` and `claimgate mint`: what they make, the gate accepts.

use serde_json::{Value, json};

use crate::desk::{Desk, text};

const NOW: &str = "2027-01-15T08:00:00Z";

/// What `mint` prints, with what it says beside it.
#[track_caller]
fn mint(desk: &Desk, arguments: &[&str], input: &str) -> String {
    let output = desk.run(&[&["mint", "--at", NOW], arguments].concat(), input);
    assert_eq!(text(&output.stderr), "claimgate: this token is for development only\n");
    assert_eq!(output.status.code(), Some(0));
    text(&output.stdout)
}

#[track_caller]
fn explained(desk: &Desk, token: &str) -> Value {
    let arguments = ["explain", "--config", "gate.json", "--token-file", "-", "--at", NOW, "--json"];
    let output = desk.run(&arguments, token);
    assert_eq!(text(&output.stderr), "");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A desk with a key of this algorithm, and a configuration that trusts it.
fn desk(alg: &str) -> Desk {
    let desk = Desk::new();
    let output = desk.run(&["keygen", "--alg", alg, "--kid", "k1", "--key", "k.json", "--jwks", "jwks.json"], "");
    assert_eq!(text(&output.stdout), "wrote k.json\n");
    assert_eq!(text(&output.stderr), "claimgate: this key is for development only\n");
    let jwks: Value = serde_json::from_str(&desk.take("jwks.json")).expect("JSON");
    let provider = json!({"issuer": "https://idp/", "algorithms": [alg], "local_jwks": {"inline": jwks}});
    desk.put("gate.json", &json!({"providers": {"corp": provider}}).to_string());
    desk
}

#[test]
fn keys_of_every_algorithm_sign_what_the_gate_verifies() {
    for alg in claimgate::Algorithm::ALL {
        let desk = desk(alg.name());
        let token = mint(&desk, &["--key", "k.json", "--claim", "iss=https://idp/"], "");
        let answer = explained(&desk, &token);
        assert_eq!((&answer["result"], &answer["alg"]), (&json!(["ok"]), &json!(alg.name())), "{answer}");
    }
}

#[test]
fn what_is_published_holds_no_secret() {
    for alg in ["RS256", "ES256", "ES512", "EdDSA", "ML-DSA-44"] {
        let desk = Desk::new();
        desk.answer(&["keygen", "--alg", alg, "--kid", "k1", "--key", "k.json", "--jwks", "jwks.json"], 0);
        let private: Value = serde_json::from_str(&desk.take("k.json")).expect("JSON");
        let published: Value = serde_json::from_str(&desk.take("jwks.json")).expect("JSON");
        let public = published["keys"][0].as_object().expect("a key");
        let secret = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
        assert!(secret.iter().any(|name| private.get(name).is_some()), "{alg}");
        assert!(!secret.iter().any(|name| public.contains_key(*name)), "{published}");
        assert!(public.iter().all(|(name, value)| private.get(name) == Some(value)), "{published}");
        assert_eq!((&public["kid"], &public["alg"], &public["use"]), (&json!("k1"), &json!(alg), &json!("sig")));
    }
}

#[test]
fn a_key_is_for_its_owner_and_never_overwritten() {
    let desk = desk("ES256");
    let before = desk.take("k.json");
    let trouble = desk.trouble(&["keygen", "--alg", "ES256", "--key", "k.json"]);
    assert!(trouble.contains("k.json: File exists"), "{trouble}");
    assert_eq!(desk.take("k.json"), before);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(desk.path("k.json")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let printed: Value = serde_json::from_str(&desk.answer(&["keygen", "--alg", "es256"], 0)).expect("JSON");
    assert_eq!((&printed["kty"], &printed["alg"]), (&json!("EC"), &json!("ES256")));
}

#[test]
fn claims_and_header_members() {
    let desk = desk("ES256");
    let base = ["--key", "k.json", "--claim", "iss=https://idp/"];
    let minted = |more: &[&str]| explained(&desk, &mint(&desk, &[base.as_slice(), more].concat(), ""));
    let answer = minted(&[]);
    assert_eq!((&answer["iat"], &answer["exp"]), (&json!(1_800_000_000), &json!(1_800_000_300)));
    assert_eq!(minted(&["--claim", "exp=now-61s"])["result"], json!(["token_expired"]));
    assert_eq!(minted(&["--claim", "exp=null"])["result"], json!(["expiration_missing"]));
    assert_eq!(minted(&["--claim", r#"aud=["a","b"]"#])["aud_token"], json!(["a", "b"]));
    assert_eq!(minted(&["--header", "typ=at+jwt"])["typ"], "at+jwt");
    assert_eq!(minted(&["--kid", "k2"])["result"], json!(["key_not_found"]));
    desk.put("claims.yaml", "aud: orders\nexp: now+1h # an hour\n");
    assert_eq!(minted(&["--claims", "claims.yaml"])["exp"], json!(1_800_003_600));
    assert_eq!(minted(&["--claims", "claims.yaml", "--claim", "exp=now+2h"])["exp"], json!(1_800_007_200));
    let piped = mint(&desk, &[base.as_slice(), &["--claims", "-"]].concat(), r#"{"jti": "7"}"#);
    assert_eq!(explained(&desk, &piped)["jti"], "7");
}

/// The key of RFC 8410 §10.3: in PEM as the RFC prints it, and the public half as a JWK.
#[test]
fn a_key_in_pem_signs() {
    let desk = desk("EdDSA");
    let pem = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
    desk.put("rfc8410.pem", &format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n"));
    let public = json!({"kty": "OKP", "crv": "Ed25519", "x": "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"});
    desk.put("jwks.json", &json!({"keys": [public]}).to_string());
    let token = mint(&desk, &["--key", "rfc8410.pem", "--claim", "iss=https://idp/"], "");
    let arguments = ["explain", "--config", "gate.json", "--jwks", "corp=jwks.json", "--token-file", "-", "--at", NOW];
    let answer = text(&desk.run(&arguments, &token).stdout);
    assert!(answer.ends_with("\nsignature    = pass\nresult       = ok\n"), "{answer}");
}

#[test]
fn trouble_repeats_no_key() {
    let desk = desk("RS256");
    let trouble = |arguments: &[&str]| desk.trouble(&[&["mint"], arguments].concat());
    assert!(trouble(&["--key", "none.json"]).contains("none.json: No such file"));
    assert!(trouble(&["--key", "k.json", "--claim", "sub"]).contains("--claim sub: NAME=VALUE was expected"));
    assert!(trouble(&["--key", "k.json", "--claim", "exp=now+x"]).contains("`exp`: `now+x`"));
    let other = trouble(&["--key", "k.json", "--alg", "ES256"]);
    assert!(other.ends_with("k.json: no private key that signs with ES256\n"), "{other}");
    let mut key: Value = serde_json::from_str(&desk.take("k.json")).expect("JSON");
    let secret = key["d"].as_str().expect("a secret").to_owned();
    key["d"] = secret[1..].into();
    desk.put("broken.json", &key.to_string());
    let broken = trouble(&["--key", "broken.json"]);
    assert!(broken.contains("no private key that signs with RS256") && !broken.contains(&secret[8..24]), "{broken}");
    assert!(trouble(&["--key", "jwks.json"]).contains("the key does not say its `alg`, use --alg"));
    desk.put("text", "secret words");
    assert!(trouble(&["--key", "text"]).ends_with("text: neither a JSON object (a JWK) nor PEM\n"));
    desk.put("pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(trouble(&["--key", "pem"]).contains("no private key in PEM"));
}
