//! `docs/runbook.md` as an engineer on call uses it: each shell block is run as it stands, in a directory that holds what
//! the page says one has at hand, against a real Envoy that has refused a request for every reason. Only ports and the
//! issuer's address are others than on the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use claimgate::Reason;
use claimgate_testbed::{
    Algorithm, Answer, Behaviour, Gate, Issuer, Key, encode_part, eventually, tampered, unix_time,
};
use regex_lite::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn every_command_does_what_the_runbook_says() {
    if let Some(missing) =
        ["bash", "curl"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_err())
    {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI=true, and there is no `{missing}`");
        // To the terminal, also when the test succeeds.
        let _lost = writeln!(io::stderr(), "NOT RUN: docs/runbook.md, for want of `{missing}`");
        return;
    }
    let page = page();
    let desk = Desk::new(&page);
    let (mut run, mut wrong) = (0_usize, Vec::new());
    for section in &page {
        desk.set_the_scene(&section.heading);
        let mut printed = String::new();
        for block in section.blocks.iter().filter(|block| block.language == "sh") {
            run = run.saturating_add(1);
            match desk.run(block) {
                Ok(output) => printed.push_str(&output),
                Err(why) => wrong.push(format!("docs/runbook.md:{}: {why}\n{}", block.line, block.text)),
            }
        }
        if let Some(reason) = section.reason()
            && reason != Reason::TokenRevoked
            && wrong.is_empty()
        {
            let details: Vec<String> = desk.details(reason);
            assert!(
                // What an outage comes from is not in a rejection's line.
                reason.is_outage()
                    || printed.contains(reason.as_str())
                    || details.iter().any(|detail| printed.contains(detail))
                    // A line was looked for by its reason, and `grep` fails where there is none.
                    || section.blocks.iter().any(|block| block.text.contains(&format!("\"reason\":\"{reason}\""))),
                "the commands under {} show nothing of it:\n{printed}",
                section.heading
            );
            let known: Vec<Regex> = section.details.iter().map(|detail| pattern(detail)).collect();
            for pattern in &known {
                assert!(
                    details.iter().any(|found| pattern.is_match(found)),
                    "{reason}: {pattern} is none of {details:?}"
                );
            }
            for found in &details {
                assert!(known.iter().any(|pattern| pattern.is_match(found)), "{reason}: no word of {found:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(run > 30, "{run} blocks only: is the page read rightly?");
    desk.check_metrics(&page);
    assert_eq!(desk.gate.trap(), None);
}

#[test]
fn each_reason_has_a_section_in_the_order_of_reporting() {
    let reasons: Vec<Reason> = page().iter().filter_map(Section::reason).collect();
    assert_eq!(reasons, Reason::ALL);
}

#[test]
fn each_link_leads_somewhere() {
    let (page, text) = (page(), read("docs/runbook.md"));
    let anchors: BTreeSet<String> = page.iter().map(Section::anchor).collect();
    let links = Regex::new(r"\]\(([^)]*)\)").expect("an expression");
    let mut checked = 0_usize;
    for link in links.captures_iter(&text).map(|found| found[1].to_owned()) {
        checked = checked.saturating_add(1);
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.contains(anchor), "no section for {link}"),
            None => assert!(root().join("docs").join(&link).exists(), "no file for {link}"),
        }
    }
    assert!(checked > 20, "{checked} links only: is the page read rightly?");
}

#[test]
fn each_alert_leads_to_a_section() {
    let anchors: BTreeSet<String> = page().iter().map(Section::anchor).collect();
    let rules: Value = serde_saphyr::from_str(&read("envoy/observability/rules.yaml")).expect("YAML");
    let rules =
        rules["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array().expect("rules"));
    let alerts: Vec<&Value> = rules.filter(|rule| rule["alert"].is_string()).collect();
    assert!(alerts.len() > 3, "{} alerts only: is the file read rightly?", alerts.len());
    let text = read("docs/runbook.md");
    for alert in alerts {
        let name = alert["alert"].as_str().expect("a name");
        let url = alert["annotations"]["runbook_url"].as_str().unwrap_or_else(|| panic!("{name} has no `runbook_url`"));
        let anchor = url.strip_prefix(concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/runbook.md#"));
        assert!(anchor.is_some_and(|anchor| anchors.contains(anchor)), "{name}: no section for {url}");
        assert!(text.contains(&format!("`{name}`")), "the runbook does not name {name}");
    }
}

/// A part of the page, under one heading.
struct Section {
    heading: String,
    blocks: Vec<Block>,
    /// What the gate says, as quoted at the beginning of the list's items; `…` stands for anything.
    details: Vec<String>,
}

/// A fenced block.
struct Block {
    line: usize,
    language: String,
    text: String,
    /// What it prints: the `text` block right behind it.
    prints: Option<String>,
}

impl Section {
    fn reason(&self) -> Option<Reason> {
        let name = self.heading.strip_prefix('`')?.strip_suffix('`')?;
        Reason::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// As GitHub makes it of a heading.
    fn anchor(&self) -> String {
        let kept = self.heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    }
}

impl Block {
    fn exit_status(&self) -> i32 {
        let told = self.text.lines().last().and_then(|line| line.split_once("# exits "));
        told.map_or(0, |(_, status)| status.trim().parse().expect("a status"))
    }
}

fn page() -> Vec<Section> {
    let text = read("docs/runbook.md");
    let item = Regex::new(r#"^- ((?:"[^"]+"(?:, )?)+): "#).expect("an expression");
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(heading) = line.strip_prefix('#') {
            let heading = heading.trim_start_matches('#').trim().to_owned();
            sections.push(Section { heading, blocks: Vec::new(), details: Vec::new() });
            continue;
        }
        let section = sections.last_mut().expect("the page begins with a heading");
        if let Some(found) = item.captures(line) {
            section.details.extend(found[1].trim_matches('"').split("\", \"").map(str::to_owned));
        }
        let indent = line.len() - line.trim_start().len();
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let body: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| line.trim_start() != "```")
                .map(|line| line.get(indent..).unwrap_or_default())
                .collect();
            let text = body.join("\n");
            match (language, section.blocks.last_mut()) {
                ("text", Some(before)) if before.language == "sh" => before.prints = Some(text),
                _ => section.blocks.push(Block { line: number, language: language.to_owned(), text, prints: None }),
            }
        }
    }
    sections
}

/// What an engineer has at hand, and an Envoy that has something to tell.
struct Desk {
    directory: TempDir,
    gate: Gate,
    idp: Issuer,
    partner: Issuer,
    keys: Keys,
    /// For each reason a token that is refused for it.
    refused: BTreeMap<Reason, String>,
}

struct Keys {
    old: Key,
    new: Key,
    light: Key,
    weak: Key,
}

impl Desk {
    fn new(page: &[Section]) -> Self {
        let keys = Keys {
            old: Key::new(Algorithm::ES256, "k1"),
            new: Key::new(Algorithm::ES256, "k2"),
            light: Key::new(Algorithm::EdDSA, "k-light"),
            weak: Key::weak_rsa("k-weak"),
        };
        let idp = Issuer::start(&[&keys.old, &keys.light, &keys.weak]);
        let partner = Issuer::start(&[&keys.new]);
        partner.behave(Behaviour::Hang);

        let written = page.iter().flat_map(|section| &section.blocks).find(|block| block.language == "json");
        let written = &written.expect("the page has a configuration").text;
        let mut configuration: Value = serde_json::from_str(written).expect("JSON");
        // What takes minutes on the page takes seconds here, and one signature is already a flood.
        configuration["providers"]["corp"]["remote_jwks"]["min_refetch_interval"] = "1s".into();
        configuration["providers"]["partner"]["remote_jwks"]["cache_duration"] = "2s".into();
        configuration["providers"]["partner"]["remote_jwks"]["http_uri"]["timeout"] = "10s".into();
        configuration["verifications_per_second"] = json!({"light": 1});

        let stats: Value = serde_saphyr::from_str(&read("envoy/stats_tags.yaml")).expect("YAML");
        let gate = Gate::plugin(&configuration)
            .cluster("idp", idp.addr())
            .cluster("partner", partner.addr())
            .stats_config(stats["stats_config"].clone())
            .routes(json!([
                { "match": { "prefix": "/misrouted" }, "route": { "cluster": "upstream" },
                  "metadata": { "filter_metadata": { "claimgate": { "requirement": "gone" } } } },
                { "match": { "prefix": "/" }, "route": { "cluster": "upstream" } },
            ]))
            .start()
            .expect("the gate starts");

        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("gate.json"), written).expect("a file");
        let mut desk = Self { directory, gate, idp, partner, keys, refused: BTreeMap::new() };
        desk.provoke_every_reason();
        desk
    }

    fn provoke_every_reason(&mut self) {
        let now = unix_time();
        let Keys { old, new, light, weak } = &self.keys;
        let good = |changes: Value| merged(claims(now), &changes);
        let signed = |changes: Value| sign(old, &good(changes));
        let header = |members: Value| merged(json!({"alg": "ES256", "typ": "at+jwt", "kid": "k1"}), &members);
        let unsigned = |header: Value| {
            let parts = [header, good(json!({}))].map(|part| encode_part(part.to_string().as_bytes()));
            format!("{}.{}.", parts[0], parts[1])
        };
        let secret = Key::from_secret(Algorithm::HS256, "k1", b"a secret of thirty-two octets, or so");
        let other = Key::new(Algorithm::ES384, "k-other");
        let rsa = Key::new(Algorithm::RS256, "k1");
        use Reason::*;
        let cases = [
            (TokenTooLarge, "/orders", signed(json!({"groups": "x".repeat(8192)}))),
            (TokenMalformed, "/orders", "an-opaque-token".to_owned()),
            (TokenMalformed, "/orders", "a.b.c.d.e".to_owned()),
            (TokenMalformed, "/orders", format!("{}=", signed(json!({})))),
            (TokenMalformed, "/orders", old.sign_bytes(b"[]", b"{}")),
            (TokenMalformed, "/orders", old.sign_bytes(b"{}", b"{}")),
            (TypeNotAllowed, "/orders", old.sign(&good(json!({})))),
            (TypeNotAllowed, "/orders", old.sign_with_header(&header(json!({"typ": null})), &good(json!({})))),
            (CritUnsupported, "/orders", old.sign_with_header(&header(json!({"crit": ["exp"]})), &good(json!({})))),
            (
                AlgorithmNotAllowed,
                "/orders",
                secret.sign_with_header(&header(json!({"alg": "HS256"})), &good(json!({}))),
            ),
            (AlgorithmNotAllowed, "/orders", unsigned(header(json!({"alg": "none"})))),
            (AlgorithmNotAllowed, "/orders", unsigned(header(json!({"alg": "ES257"})))),
            (IssuerMismatch, "/orders", signed(json!({"iss": "https://idp.staging.example.com/"}))),
            (IssuerMismatch, "/orders", signed(json!({"iss": null}))),
            (KeyNotFound, "/orders", sign(&old.clone().with_kid("k9"), &good(json!({})))),
            (
                KeyNotFound,
                "/orders",
                other.sign_with_header(&header(json!({"alg": "ES384", "kid": null})), &good(json!({}))),
            ),
            (KeyMismatch, "/orders", rsa.sign_with_header(&header(json!({"alg": "RS256"})), &good(json!({})))),
            (
                KeyMismatch,
                "/orders",
                weak.sign_with_header(&header(json!({"alg": "RS256", "kid": "k-weak"})), &good(json!({}))),
            ),
            (SignatureInvalid, "/orders", tampered(&signed(json!({})))),
            (ClaimMalformed, "/orders", signed(json!({"exp": "soon"}))),
            (ExpirationMissing, "/orders", signed(json!({"exp": null}))),
            (TokenExpired, "/orders", signed(json!({"exp": now - 97}))),
            (TokenNotYetValid, "/orders", signed(json!({"iat": now + 600}))),
            (TokenNotYetValid, "/orders", signed(json!({"nbf": now + 600}))),
            (LifetimeExceeded, "/orders", signed(json!({"iat": now - 7200}))),
            (LifetimeExceeded, "/orders", signed(json!({"iat": null}))),
            (AudienceMismatch, "/orders", signed(json!({"aud": "billing"}))),
            (AudienceMismatch, "/orders", signed(json!({"aud": null}))),
            (SubjectMismatch, "/orders", signed(json!({"sub": "service-7"}))),
            (SubjectMismatch, "/orders", signed(json!({"sub": null}))),
            (ScopeInsufficient, "/orders", signed(json!({"scope": "profile"}))),
            (ScopeInsufficient, "/orders", signed(json!({"scope": null}))),
            (ClaimMismatch, "/admin", signed(json!({"realm_access": {"roles": ["user"]}}))),
            (ClaimMismatch, "/admin", signed(json!({}))),
            (ClaimMismatch, "/misrouted", signed(json!({}))),
        ];
        let gate = &self.gate;
        let refused = |answer: Answer, reason: Reason| {
            assert_eq!(answer.reason().as_deref(), Some(reason.as_str()));
        };

        // Both keys serve, the new one from its first token on, and a shadow sees them too.
        let published = [old, light, weak, new];
        let ok =
            |path: &str, key: &Key| assert_eq!(gate.get(path).bearer(&sign(key, &good(json!({})))).send().status, 200);
        ok("/orders", old);
        self.idp.publish(&published);
        ok("/orders", new);
        ok("/beta", new);
        assert_eq!(gate.get("/beta").send().status, 200);
        assert_eq!(gate.get("/healthz").send().status, 200);

        refused(gate.get("/orders").send(), HeaderMissing);
        refused(gate.get("/orders").header("authorization", "Basic eDp5").send(), HeaderMissing);
        refused(gate.get("/orders").header("authorization", "Bearer").send(), HeaderMissing);
        let token = signed(json!({}));
        refused(gate.get("/orders").bearer(&token).bearer(&token).send(), TokenAmbiguous);
        refused(gate.get("/orders").bearer(&token).header("cookie", format!("session={token}")).send(), TokenAmbiguous);
        for (reason, path, token) in cases {
            refused(gate.get(path).bearer(&token).send(), reason);
            self.refused.entry(reason).or_insert(token);
        }

        let partner = sign(new, &good(json!({"iss": "https://partner.example.com/"})));
        // It hangs, and the request waits as long as one may.
        refused(gate.get("/partner").bearer(&partner).send(), JwksUnavailable);
        self.partner.behave(Behaviour::Refuse);
        eventually("the partner's keys cannot be fetched", || {
            refused(gate.get("/partner").bearer(&partner).send(), JwksUnavailable);
            self.details(JwksUnavailable).contains(&"the issuer's keys could not be fetched".to_owned()).then_some(())
        });
        let mut number = 0;
        eventually("the brake takes hold", || {
            number += 1;
            let token = sign(light, &good(json!({"jti": number.to_string()})));
            (gate.get("/orders").bearer(&token).send().reason().as_deref() == Some("jwks_unavailable")).then_some(())
        });
    }

    /// What an engineer finds when he comes to this section.
    fn set_the_scene(&self, heading: &str) {
        let now = unix_time();
        let Keys { old, new, light, weak } = &self.keys;
        let reason = Reason::ALL.into_iter().find(|reason| heading == format!("`{reason}`"));
        let token = match (reason.and_then(|reason| self.refused.get(&reason)), heading) {
            (Some(refused), _) => refused.clone(),
            (None, "The first minute") => self.refused[&Reason::AudienceMismatch].clone(),
            (None, "Emergency revocation of a key") => {
                self.idp.publish(&[light, weak, new]);
                sign(old, &claims(now))
            }
            (None, "An issuer outage") => {
                self.partner.behave(Behaviour::Serve);
                self.event("jwks_fetched", "partner");
                self.partner.behave(Behaviour::Status(500));
                self.event("jwks_stale", "partner");
                sign(new, &claims(now))
            }
            (None, _) => sign(new, &claims(now)),
        };
        let file = self.path("token.jwt");
        fs::write(&file, format!("{token}\n")).expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let fetched = self.command("curl -s https://idp.example.com/jwks.json > jwks.json").output();
        assert!(fetched.expect("bash runs").status.success());
    }

    fn event(&self, name: &str, provider: &str) {
        eventually(name, || {
            self.gate.events().into_iter().find(|event| event["event"] == name && event["provider"] == provider)
        });
    }

    /// Runs a block: what it prints, or what is wrong. What is to be seen may come a moment later.
    fn run(&self, block: &Block) -> Result<String, String> {
        let expected = block.prints.as_deref().map(pattern);
        let attempt = || {
            let log =
                self.gate.log() + &self.gate.access_log().iter().map(|line| format!("{line}\n")).collect::<String>();
            fs::write(self.path("envoy.log"), log).expect("a file");
            let output = self.command(&block.text).output().expect("bash runs");
            let (printed, told) = (text(&output.stdout), text(&output.stderr));
            if output.status.code() != Some(block.exit_status()) {
                return Err(format!("{}\n{printed}\n{told}", output.status));
            }
            if printed.trim().is_empty() {
                return Err(format!("nothing was printed\n{told}"));
            }
            match &expected {
                Some(expected) if !expected.is_match(printed.trim()) => Err(format!("another output:\n{printed}")),
                _ => Ok(printed),
            }
        };
        let mut last = attempt();
        for _ in 1..ATTEMPTS {
            if last.is_err() {
                thread::sleep(PAUSE);
                last = attempt();
            }
        }
        println!("==== docs/runbook.md:{}\n{}\n----\n{}", block.line, block.text, last.as_deref().unwrap_or("failed"));
        last
    }

    /// A shell in which the page's names mean what is here.
    fn command(&self, script: &str) -> Command {
        let script = script
            .replace("127.0.0.1:10000", &self.gate.addr().to_string())
            .replace("127.0.0.1:9901", &self.gate.admin_addr().to_string())
            .replace("https://idp.example.com/jwks.json", &self.idp.url());
        let claimgate = Path::new(env!("CARGO_BIN_EXE_claimgate")).parent().expect("a folder").to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(claimgate).chain(std::env::split_paths(&path));
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", &script]).current_dir(self.directory.path());
        command.env("PATH", std::env::join_paths(path).expect("folders")).env("no_proxy", "*").env("LC_ALL", "C");
        command
    }

    /// What the gate's log lines said of one reason.
    fn details(&self, reason: Reason) -> Vec<String> {
        let of_reason = |event: &Value| event["event"] == "rejected" && event["reason"] == reason.as_str();
        let events = self.gate.events().into_iter().filter(of_reason);
        events.map(|event| event["detail"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Every metric that the page names is shown by Envoy, with the labels that its queries use.
    fn check_metrics(&self, page: &[Section]) {
        let mut shown = BTreeMap::<String, BTreeSet<String>>::new();
        for line in self.gate.prometheus().lines().filter(|line| line.starts_with("claimgate_")) {
            let (name, rest) = line.split_once('{').expect("a metric");
            let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
            let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
            shown.entry(name.to_owned()).or_default().extend(labels);
        }
        let expression = |text| Regex::new(text).expect("an expression");
        for name in expression(r"claimgate_[a-z_]*[a-z]").find_iter(&read("docs/runbook.md")) {
            // A command may ask for all that begin so.
            assert!(shown.keys().any(|known| known.starts_with(name.as_str())), "Envoy shows no `{}`", name.as_str());
        }
        let selector = expression(r"(claimgate_[a-z_]+)(?:\{([^}]*)\})?");
        let (matcher, grouping) = (expression(r#"([a-z_]+)=~?""#), expression(r"(?:by|on) \(([^)]*)\)"));
        let mut queries = 0_usize;
        for query in page.iter().flat_map(|section| &section.blocks).filter(|block| block.language == "promql") {
            queries = queries.saturating_add(1);
            for found in selector.captures_iter(&query.text) {
                let labels = &shown[&found[1]];
                let used = matcher.captures_iter(found.get(2).map_or("", |labels| labels.as_str()));
                let used = used.map(|label| label[1].to_owned());
                let grouped = grouping.captures_iter(&query.text);
                let grouped = grouped.flat_map(|list| list[1].split(", ").map(str::to_owned).collect::<Vec<_>>());
                for label in used.chain(grouped) {
                    assert!(labels.contains(&label), "`{}`: `{}` has no label `{label}`", query.text, &found[1]);
                }
            }
        }
        assert!(queries > 5, "{queries} queries only: is the page read rightly?");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// What a good token of `corp` says.
fn claims(now: i64) -> Value {
    json!({"iss": "https://idp.example.com/", "aud": "orders", "sub": "user-alice", "scope": "orders:read",
        "iat": now - 30, "exp": now + 600})
}

fn sign(key: &Key, claims: &Value) -> String {
    let alg = if key.kid() == "k-light" { "EdDSA" } else { "ES256" };
    key.sign_with_header(&json!({"alg": alg, "typ": "at+jwt", "kid": key.kid()}), claims)
}

/// An object with some members changed, and those taken out that are null.
fn merged(mut object: Value, changes: &Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    object
}

/// What a text of the page means, where `…` stands for anything within a line.
fn pattern(text: &str) -> Regex {
    let parts: Vec<String> = text.trim().split('…').map(regex_lite::escape).collect();
    Regex::new(&format!("^{}$", parts.join("[^\n]*"))).expect("an expression")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How often a block is tried: a worker takes over what another one learnt within a fifth of a second, and gauges are
/// shown once a second.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(300);
