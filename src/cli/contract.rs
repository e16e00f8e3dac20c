//! `claimgate test`: cases that say which requests a configuration lets pass, and why not the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use claimgate::{Decision, Explanation, Reason, Request, RouteSetting, UnixTime};
use clap::Args;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::gate::{self, Gate, Given};
use super::keys::{Alg, PrivateKey, override_with, unsecured};
use super::mint::dated;
use super::{Answer, BAD, Exit, Format, GOOD, Trouble, beside, moment, paint, printable, read};

/// Run cases against a configuration: which requests pass, and why not the others
///
/// Cases stand in a YAML or JSON file beside the configuration. Keys are made for the run, so that every claim and every
/// moment can be tried without a secret.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  claimgate test contract.yaml\n  claimgate test --only expiry --format json contract.yaml\n  \
                        claimgate schema --contract"
)]
pub struct Arguments {
    /// The cases, a YAML or JSON file
    file: PathBuf,
    /// Run only the cases whose name holds this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Cases for one configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// The configuration: the name of a JSON file beside this one, or the object itself.
    configuration: ConfigurationAt,
    /// The moment of all cases: seconds since 1970, or RFC 3339.
    #[serde(default = "moment_of_cases")]
    at: String,
    /// Keys that sign, by a name of your choice.
    #[serde(default)]
    keys: BTreeMap<String, Key>,
    /// By provider: what its issuer publishes. A provider that is not named has no keys but those in the configuration.
    #[serde(default)]
    key_sets: BTreeMap<String, Option<KeySetOf>>,
    /// Tokens by a name of your choice, for cases and for other tokens to start from.
    #[serde(default)]
    tokens: BTreeMap<String, Token>,
    /// What is asked, and what is expected.
    cases: Vec<Case>,
}

/// Where a configuration stands.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ConfigurationAt {
    /// In this file.
    File(String),
    /// Here.
    Here(Map<String, Value>),
}

/// A key that signs: made for the run from `alg`, or read from `file`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Key {
    /// What it signs with.
    alg: Option<String>,
    /// A private JWK, or a private key in PEM; beside this file.
    file: Option<String>,
    /// Its `kid`. Default: its name here, or what the file says.
    kid: Option<String>,
}

/// What an issuer publishes.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum KeySetOf {
    /// The public halves of these keys.
    Keys(Vec<String>),
    /// The JWK Set in a file beside this one.
    File(KeySetFile),
}

/// The JWK Set in a file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeySetFile {
    /// Its name, beside this file.
    file: String,
}

/// A token. Members of `like` stand unless they are named here; null takes one out.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Token {
    /// The token that this one starts from.
    like: Option<String>,
    /// The key that signs. None at all: the token is unsecured.
    key: Option<String>,
    /// The header, beside the key's `alg` and `kid`.
    header: Map<String, Value>,
    /// The claims. `exp`, `nbf`, `iat` and `auth_time` may be `now`, `now+5m`, `now-61s` and the like.
    claims: Map<String, Value>,
}

/// A token by its name, or as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum TokenOf {
    /// One of `tokens`.
    Name(String),
    /// This one.
    Here(Token),
}

/// One request, and what shall become of it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What it shows.
    name: String,
    /// The moment of this case; `now+10m` and the like count from that of all cases.
    at: Option<String>,
    /// What issuers publish in this case, in place of `key_sets` of all cases; null: the keys cannot be had.
    #[serde(default)]
    key_sets: BTreeMap<String, Option<KeySetOf>>,
    /// The token. It takes the place of `{token}` in the request's path and headers; where that is nowhere, it is the
    /// bearer token of `Authorization`.
    token: Option<TokenOf>,
    /// The request. Default: `GET /`.
    #[serde(default)]
    request: RequestOf,
    /// What is expected.
    expect: Expected,
}

/// A request.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RequestOf {
    /// The method.
    method: String,
    /// Path and query.
    path: String,
    /// Headers; several lines of one are a list.
    headers: BTreeMap<String, Lines>,
    /// What the metadata of Envoy's route says.
    route: Option<Route>,
}

impl Default for RequestOf {
    fn default() -> Self {
        Self { method: "GET".to_owned(), path: "/".to_owned(), headers: BTreeMap::new(), route: None }
    }
}

/// One line of a header, or several.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Lines {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// What the metadata of Envoy's route says.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Route {
    /// This requirement of `requirement_map` counts.
    Requirement(String),
    /// The gate is off, if true.
    Disabled(bool),
}

/// What is expected; what is not named may be anything.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Expected {
    /// Whether the request passes.
    outcome: Option<Outcome>,
    /// The reason; `ok` when it passes.
    reason: Option<String>,
    /// Every rule that the token violates, in the order of reasons.
    reasons: Option<Vec<String>>,
    /// The status of a refusal.
    status: Option<u16>,
    /// Headers that the gate adds; null: it does not add this one.
    headers: BTreeMap<String, Option<String>>,
    /// Headers that the gate removes.
    removed: Vec<String>,
    /// Filter state that the gate sets; null: it does not set this one.
    filter_state: BTreeMap<String, Option<String>>,
}

/// Whether a request passes.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It does.
    Allow,
    /// It does not.
    Reject,
}

/// When the cases take place, unless they say: a moment that is always the same.
fn moment_of_cases() -> String {
    "2027-01-15T08:00:00Z".to_owned()
}

/// Longest chain of tokens that start from each other.
const LIKES: usize = 16;

pub fn run(arguments: &Arguments) -> Result<Answer, Trouble> {
    let file = &arguments.file;
    let at = |trouble: Trouble| format!("{}: {trouble}", file.display());
    let contract: Contract = serde_saphyr::from_slice(&read(file)?).map_err(|error| at(error.to_string()))?;
    let bench = Bench::new(file, &contract).map_err(at)?;
    let wanted = |case: &&Case| arguments.only.as_ref().is_none_or(|text| case.name.contains(text));
    let mut results = Vec::new();
    for case in contract.cases.iter().filter(wanted) {
        let result = bench.run(case).map_err(|trouble| at(format!("case `{}`: {trouble}", case.name)))?;
        results.push((case, result));
    }
    if results.is_empty() {
        return Err(at("no case to run".to_owned()));
    }
    let exit = if results.iter().all(|(_, result)| result.differences.is_empty()) { Exit::Well } else { Exit::Found };
    let text = match arguments.format {
        Format::Text => as_text(&results),
        Format::Json => as_json(&results),
    };
    Ok(Answer { text, exit })
}

/// What became of one case.
struct Outcomes {
    differences: Vec<Difference>,
    /// Why the gate refused.
    why: Vec<String>,
}

/// One thing that is not as expected.
struct Difference {
    what: String,
    expected: String,
    found: String,
}

/// What all cases share.
struct Bench<'c> {
    contract: &'c Contract,
    folder: &'c Path,
    configuration: Vec<u8>,
    keys: BTreeMap<&'c str, PrivateKey>,
    now: UnixTime,
}

impl<'c> Bench<'c> {
    fn new(file: &'c Path, contract: &'c Contract) -> Result<Self, Trouble> {
        let configuration = match &contract.configuration {
            ConfigurationAt::File(name) => {
                let path = beside(file, name);
                let document = read(&path)?;
                gate::parse(&document).map_err(|trouble| format!("{}: {trouble}", path.display()))?;
                document
            }
            ConfigurationAt::Here(members) => {
                let document = Value::Object(members.clone()).to_string().into_bytes();
                gate::parse(&document).map_err(|trouble| format!("configuration: {trouble}"))?;
                document
            }
        };
        let mut keys = BTreeMap::new();
        for (name, key) in &contract.keys {
            let made = key.make(file, name).map_err(|trouble| format!("keys.{name}: {trouble}"))?;
            keys.insert(name.as_str(), made);
        }
        let now = moment(&contract.at, super::now()?).map_err(|trouble| format!("at: {trouble}"))?;
        Ok(Self { contract, folder: file, configuration, keys, now })
    }

    fn run(&self, case: &Case) -> Result<Outcomes, Trouble> {
        case.expect.check()?;
        let now = case.at.as_ref().map_or(Ok(self.now), |text| moment(text, self.now))?;
        let sets = self.contract.key_sets.iter().filter(|(name, _)| !case.key_sets.contains_key(*name));
        let given = sets.chain(&case.key_sets).map(|(provider, set)| {
            let document = set.as_ref().map(|set| self.key_set(set)).transpose()?;
            Ok(Given { provider: provider.clone(), document })
        });
        let given = given.collect::<Result<Vec<Given>, Trouble>>()?;
        let (config, sources) = gate::parse(&self.configuration)?;
        let mut gate = Gate::new(config, sources, given, now)?;
        let token = case.token.as_ref().map(|token| self.token(token, now)).transpose()?;
        let explanation = gate.explain(&case.request.make(token.as_deref()), now)?;
        Ok(Outcomes { differences: case.expect.compare(&explanation), why: why(&explanation.decision) })
    }

    fn key(&self, name: &str) -> Result<&PrivateKey, Trouble> {
        let known = || claimgate::raw::expected(name, self.keys.keys().copied());
        self.keys.get(name).ok_or_else(|| format!("there is no key `{name}`, {}", known()))
    }

    fn key_set(&self, set: &KeySetOf) -> Result<Vec<u8>, Trouble> {
        match set {
            KeySetOf::File(KeySetFile { file }) => read(&beside(self.folder, file)),
            KeySetOf::Keys(names) => {
                let keys = names.iter().map(|name| self.key(name)?.public_jwk()).collect::<Result<Vec<_>, _>>()?;
                Ok(json!({"keys": keys}).to_string().into_bytes())
            }
        }
    }

    fn token(&self, token: &TokenOf, now: UnixTime) -> Result<String, Trouble> {
        let named = |name: &str| {
            let known = || claimgate::raw::expected(name, self.contract.tokens.keys().map(String::as_str));
            self.contract.tokens.get(name).ok_or_else(|| format!("there is no token `{name}`, {}", known()))
        };
        let mut chain = vec![match token {
            TokenOf::Name(name) => named(name)?,
            TokenOf::Here(token) => token,
        }];
        while let Some(name) = chain.last().and_then(|token| token.like.as_ref()) {
            if chain.len() > LIKES {
                return Err(format!("token `{name}`: more than {LIKES} tokens start from each other"));
            }
            chain.push(named(name)?);
        }
        let (mut key, mut header, mut claims) = (None, Map::new(), Map::new());
        // A member that is taken out must stay out: null is kept until the header and the claims are whole.
        for token in chain.into_iter().rev() {
            key = token.key.as_deref().or(key);
            header.extend(token.header.clone());
            claims.extend(token.claims.clone());
        }
        let mut whole = Map::new();
        override_with(&mut whole, &dated(claims, now)?);
        match key {
            Some(name) => self.key(name)?.sign(&header, &whole),
            None => Ok(unsecured(&header, &whole)),
        }
    }
}

impl Key {
    fn make(&self, contract: &Path, name: &str) -> Result<PrivateKey, Trouble> {
        let alg = self.alg.as_deref().map(Alg::from_name).transpose()?;
        match (&self.file, alg) {
            (Some(file), alg) => {
                let path = beside(contract, file);
                let key = PrivateKey::read(&read(&path)?, alg, self.kid.clone());
                key.map_err(|trouble| format!("{}: {trouble}", path.display()))
            }
            (None, Some(alg)) => PrivateKey::generate(alg, Some(self.kid.clone().unwrap_or_else(|| name.to_owned()))),
            (None, None) => Err("neither `alg` nor `file`".to_owned()),
        }
    }
}

impl RequestOf {
    fn make(&self, token: Option<&str>) -> Request {
        const PLACE: &str = "{token}";
        let mut placed = false;
        let mut fill = |text: &str| match token {
            Some(token) if text.contains(PLACE) => {
                placed = true;
                text.replace(PLACE, token)
            }
            _ => text.to_owned(),
        };
        let mut lines = vec![(":method".to_owned(), self.method.clone()), (":path".to_owned(), fill(&self.path))];
        for (name, values) in &self.headers {
            match values {
                Lines::One(value) => lines.push((name.clone(), fill(value))),
                Lines::Several(values) => lines.extend(values.iter().map(|value| (name.clone(), fill(value)))),
            }
        }
        if let (Some(token), false) = (token, placed) {
            lines.push(("authorization".to_owned(), format!("Bearer {token}")));
        }
        Request::new(lines).on_route(match &self.route {
            None | Some(Route::Disabled(false)) => RouteSetting::Unset,
            Some(Route::Disabled(true)) => RouteSetting::Disabled,
            Some(Route::Requirement(name)) => RouteSetting::Requirement(name.clone()),
        })
    }
}

const OK: &str = "ok";

impl Expected {
    /// Whether it can come true at all.
    fn check(&self) -> Result<(), Trouble> {
        for reason in self.reason.iter().chain(self.reasons.iter().flatten()) {
            let known = || Reason::ALL.iter().map(|reason| reason.as_str()).chain([OK]);
            if !known().any(|known| known == reason) {
                return Err(format!("unknown reason `{reason}`, {}", claimgate::raw::expected(reason, known())));
            }
        }
        match (self.outcome, self.reason.as_deref()) {
            (None, None) => Err("`expect` has neither `outcome` nor `reason`".to_owned()),
            (Some(Outcome::Reject), Some(OK)) => Err("`ok` is no reason to reject".to_owned()),
            (Some(Outcome::Allow), Some(reason)) if reason != OK => Err(format!("`{reason}` is no reason to allow")),
            _ => Ok(()),
        }
    }

    fn compare(&self, explanation: &Explanation) -> Vec<Difference> {
        let decision = &explanation.decision;
        let mut differences = Vec::new();
        let mut compare = |what: String, expected: String, found: String| {
            if expected != found {
                differences.push(Difference { what, expected, found });
            }
        };
        let outcome = |outcome| match outcome {
            Outcome::Allow => "allow".to_owned(),
            Outcome::Reject => "reject".to_owned(),
        };
        let found = if matches!(decision, Decision::Allow(_)) { Outcome::Allow } else { Outcome::Reject };
        if let Some(expected) = self.outcome {
            compare("outcome".into(), outcome(expected), outcome(found));
        }
        let reasons = reasons(decision);
        if let Some(expected) = &self.reason {
            compare("reason".into(), expected.clone(), reasons.first().copied().unwrap_or(OK).to_owned());
        }
        if let Some(expected) = &self.reasons {
            compare("reasons".into(), expected.join(", "), reasons.join(", "));
        }
        if let Some(expected) = self.status {
            let found = match decision {
                Decision::Reject(rejection) => rejection.reason().status().to_string(),
                _ => "none".to_owned(),
            };
            compare("status".into(), expected.to_string(), found);
        }
        let (set, states, removed) = match decision {
            Decision::Allow(allow) => (allow.set.as_slice(), allow.states.as_slice(), allow.remove.as_slice()),
            _ => Default::default(),
        };
        let none = || "none".to_owned();
        for (name, expected) in &self.headers {
            let value = set.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            let found = value.map_or_else(none, |value| String::from_utf8_lossy(value).into_owned());
            compare(format!("headers.{name}"), expected.clone().unwrap_or_else(none), found);
        }
        for (key, expected) in &self.filter_state {
            let found = states.iter().find(|(other, _)| other == key).map_or_else(none, |(_, value)| value.clone());
            compare(format!("filter_state.{key}"), expected.clone().unwrap_or_else(none), found);
        }
        for name in &self.removed {
            let found = removed.iter().any(|other| other.eq_ignore_ascii_case(name));
            compare(format!("removed.{name}"), "true".to_owned(), found.to_string());
        }
        differences
    }
}

fn reasons(decision: &Decision) -> Vec<&'static str> {
    match decision {
        Decision::Reject(rejection) => rejection.reasons().into_iter().map(Reason::as_str).collect(),
        Decision::Await(_) => vec![Reason::JwksUnavailable.as_str()],
        Decision::Allow(_) => vec![OK],
    }
}

fn why(decision: &Decision) -> Vec<String> {
    match decision {
        Decision::Reject(rejection) => {
            rejection.violations.iter().map(|violation| format!("{}: {}", violation.reason, violation.detail)).collect()
        }
        _ => Vec::new(),
    }
}

fn as_text(results: &[(&Case, Outcomes)]) -> String {
    let mut lines = Vec::new();
    for (case, result) in results {
        let name = printable(&case.name);
        if result.differences.is_empty() {
            lines.push(format!("{}    {name}", paint(GOOD, "ok")));
            continue;
        }
        lines.push(format!("{}  {name}", paint(BAD, "FAIL")));
        for Difference { what, expected, found } in &result.differences {
            lines.push(paint(BAD, printable(&format!("      - {what}: {expected}"))));
            lines.push(paint(GOOD, printable(&format!("      + {what}: {found}"))));
        }
        lines.extend(result.why.iter().map(|why| printable(&format!("      {why}"))));
    }
    let differ = results.iter().filter(|(_, result)| !result.differences.is_empty()).count();
    lines.push(match differ {
        0 => format!("{} cases, all as expected", results.len()),
        1 => format!("{} cases, 1 is not as expected (- expected, + found)", results.len()),
        several => format!("{} cases, {several} are not as expected (- expected, + found)", results.len()),
    });
    lines.join("\n")
}

fn as_json(results: &[(&Case, Outcomes)]) -> String {
    let difference = |d: &Difference| json!({"what": d.what, "expected": d.expected, "found": d.found});
    let cases = results.iter().map(|(case, result)| {
        let differences: Vec<Value> = result.differences.iter().map(difference).collect();
        json!({"name": case.name, "as_expected": differences.is_empty(), "differences": differences, "why": result.why})
    });
    json!({"cases": cases.collect::<Vec<Value>>()}).to_string()
}
