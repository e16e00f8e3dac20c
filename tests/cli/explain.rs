//! `claimgate explain`: the same decision as the gate's, told on the command line, with its exit status.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use claimgate_testbed::{Algorithm, Key, key_set};
use serde_json::{Value, json};

const AT: &str = "2027-01-15T08:00:00Z";
const NOW: u64 = 1_800_000_000;

/// A directory with a configuration, a key set and a token.
struct Desk {
    directory: tempfile::TempDir,
    key: Key,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { directory: tempfile::tempdir().expect("a directory"), key: Key::new(Algorithm::ES256, "k1") };
        desk.put(
            "config.json",
            &json!({"providers": {"corp": {"issuer": "https://auth.example.com", "audiences": ["web-prod"],
                "remote_jwks": {"http_uri": {"uri": "https://auth.example.com/jwks", "cluster": "idp"}}}}})
            .to_string(),
        );
        desk.put("jwks.json", &key_set(&[&desk.key]).to_string());
        desk
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn token(&self, iss: &str, aud: &str) -> String {
        self.key.sign(&json!({"iss": iss, "aud": aud, "iat": NOW - 60, "exp": NOW + 600, "sub": "alice"}))
    }

    /// Runs `explain`, with the token on standard input.
    fn explain(&self, arguments: &[&str], token: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_claimgate"))
            .current_dir(self.directory.path())
            .args(["explain", "--config", "config.json"])
            .args(arguments)
            .args(if arguments.contains(&"--at") { [].as_slice() } else { &["--at", AT] })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // A command that does not read its input may have ended before it is written.
        let _unread = child.stdin.take().expect("a pipe").write_all(token.as_bytes());
        child.wait_with_output().expect("the binary ends")
    }
}

const WITH_KEYS: [&str; 4] = ["--jwks", "corp=jwks.json", "--token-file", "-"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn a_token_of_another_environment() {
    let desk = Desk::new();
    let output = desk.explain(&WITH_KEYS, &desk.token("https://auth.staging.example.com", "web-staging"));
    assert_eq!(
        text(&output.stdout),
        "\
rejected with 401: The token comes from an issuer that is not accepted
provider     = corp
alg          = ES256
kid          = k1
keys         = k1
iat          = 2027-01-15T07:59:00Z
exp          = 2027-01-15T08:10:00Z
iss_token    = https://auth.staging.example.com
iss_expected = https://auth.example.com
aud_token    = web-staging
aud_expected = web-prod
signature    = pass
found        = issuer_mismatch: `iss` is not the issuer that is expected
found        = audience_mismatch: `aud` names none of the audiences that are expected
result       = issuer_mismatch, audience_mismatch
"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_accepted_token_in_json_and_with_a_trailing_newline() {
    let desk = Desk::new();
    let token = format!("{}\n", desk.token("https://auth.example.com", "web-prod"));
    let output = desk.explain(&[WITH_KEYS.as_slice(), &["--json"]].concat(), &token);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&answer["decision"], &answer["result"]), (&json!("allow"), &json!(["ok"])));
    assert_eq!(answer["signature"], "pass");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_header_line_instead_of_a_file() {
    let desk = Desk::new();
    let header = format!("Authorization: Bearer {}", desk.token("https://auth.example.com", "web-prod"));
    let output = desk.explain(&["--jwks", "corp=jwks.json", "--header", &header], "");
    assert!(text(&output.stdout).ends_with("result       = ok\n"), "{}", text(&output.stdout));
}

#[test]
fn without_keys_it_cannot_tell() {
    let desk = Desk::new();
    let output = desk.explain(&["--token-file", "-"], &desk.token("https://auth.example.com", "web-prod"));
    assert!(text(&output.stdout).ends_with("result       = jwks_unavailable\n"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("signature    = not checked\n"));
    assert_eq!(output.status.code(), Some(2));
}

#[track_caller]
fn trouble(desk: &Desk, arguments: &[&str], expected: &str) {
    let output = desk.explain(arguments, "");
    assert_eq!(text(&output.stderr), format!("claimgate: {expected}\n"));
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(2)));
}

#[test]
fn trouble_is_told_and_exits_with_2() {
    let desk = Desk::new();
    desk.put("empty.json", r#"{"keys":[]}"#);
    trouble(&desk, &["--token-file", "none.jwt"], "none.jwt: No such file or directory (os error 2)");
    trouble(&desk, &["--jwks", "crop=jwks.json"], "--jwks crop=jwks.json: the configuration has no provider `crop`");
    trouble(&desk, &["--jwks", "jwks.json"], "--jwks jwks.json: PROVIDER=FILE was expected");
    trouble(&desk, &["--jwks", "corp=empty.json"], "the key set given for `corp`: no usable key in the set");
    trouble(&desk, &["--header", "nonsense"], "--header: 'Name: value' was expected");
    trouble(
        &desk,
        &["--at", "noon"],
        "--at noon: seconds since 1970 or a time such as 2026-01-02T03:04:05Z was expected",
    );
    desk.put("config.json", r#"{"providers":{}}"#);
    trouble(&desk, &[], "config.json: providers: no provider, at least one was expected");
}

#[test]
fn what_a_token_says_does_nothing_to_a_terminal() {
    let desk = Desk::new();
    let output = desk.explain(&WITH_KEYS, &desk.token("\u{1b}[2J\r\nresult = ok", "web-prod"));
    assert!(!text(&output.stdout).contains(['\u{1b}', '\r']), "{:?}", text(&output.stdout));
    assert_eq!(text(&output.stdout).lines().filter(|line| line.starts_with("result")).count(), 1);
}
