//! The differences that are meant: the list of `tests/differences.json`, and for each how to recognise it and a request
//! that shows it.

use std::collections::BTreeMap;

use claimgate_testbed::{Algorithm, Key, key_set};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::case::{Case, Forwarded, Outcome, Request, Token};
use crate::generate::World;

/// An entry of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub id: String,
    /// Why it is so, in one line.
    #[expect(dead_code, reason = "for the reader of the file")]
    reason: String,
    readme: Row,
    pub example: Expected,
}

/// The cells of its row in the README's table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    what: String,
    native: String,
    ours: String,
}

/// What comes of its example.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub native: Expectation,
    pub ours: Expectation,
}

/// What is to be true of an outcome; what is left out is not looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    status: u16,
    reason: Option<String>,
    challenge: Option<String>,
    /// Path and query at the upstream.
    path: Option<String>,
    /// Headers at the upstream, with the values that they have there.
    #[serde(default)]
    headers: BTreeMap<String, Vec<String>>,
}

pub struct Example {
    pub configuration: Value,
    pub request: Request,
}

/// The list, with what cannot be written in a file.
pub fn list() -> Vec<(Difference, &'static Kind)> {
    let list: Vec<Difference> = serde_json::from_str(LIST).expect("tests/differences.json holds the list");
    assert_eq!(list.len(), KINDS.len(), "tests/differences.json and `KINDS` go together");
    let kind = |id: &str| KINDS.iter().find(|kind| kind.id == id).unwrap_or_else(|| panic!("`{id}` is not in `KINDS`"));
    list.into_iter().map(|entry| (kind(&entry.id), entry)).map(|(kind, entry)| (entry, kind)).collect()
}

impl Difference {
    pub fn readme_row(&self) -> String {
        let Row { what, native, ours } = &self.readme;
        format!("| {what} | {native} | {ours} |")
    }
}

impl Expectation {
    /// What is not as expected.
    pub fn check(&self, outcome: &Outcome) -> Option<String> {
        let path = outcome.forwarded.as_ref().map(|forwarded| &forwarded.path);
        let same = self.status == outcome.status
            && self.reason.as_deref().is_none_or(|reason| reason == outcome.reason())
            && self.challenge.as_ref().is_none_or(|challenge| *challenge == outcome.challenge)
            && self.path.as_ref().is_none_or(|expected| Some(expected) == path)
            && self.headers.iter().all(|(name, values)| *values == outcome.forwarded_values(name));
        (!same).then(|| format!("found {:?} {:?}, expected {self:?}", outcome.status, outcome.challenge))
    }
}

/// How to recognise a difference, and a request that shows it.
pub struct Kind {
    id: &'static str,
    pub explains: fn(&Seen) -> bool,
    pub example: fn(&World) -> Example,
}

/// Everything there is to tell one difference from another.
pub struct Seen<'a> {
    pub case: Case<'a>,
    pub native: &'a Outcome,
    pub ours: &'a Outcome,
}

impl Seen<'_> {
    /// `jwt_authn` accepts a token that the plugin rejects for one of these reasons; where the rule lets pass without a
    /// good token, the plugin sends the request on as one without a token.
    fn stricter(&self, reasons: &[&str]) -> bool {
        if !self.native.passed() {
            return false;
        }
        let optional = ["allow_missing_or_failed", "extract_only_without_validation", "requires_any"];
        if self.ours.passed() {
            return optional.iter().any(|kind| self.case.has_requirement(kind)) && self.unannotated();
        }
        reasons.contains(&self.ours.reason())
    }

    /// Nothing of a token is in what the plugin sent on.
    fn unannotated(&self) -> bool {
        let managed = self.case.managed();
        let claims = |(name, _): &&(String, _)| managed.contains(name) && !name.ends_with("-signature-verified");
        self.ours.forwarded.as_ref().is_some_and(|forwarded| forwarded.headers.iter().find(claims).is_none())
    }

    /// A token of which this is true.
    fn token(&self, is_such: impl Fn(&Token) -> bool) -> bool {
        self.case.request.tokens().iter().any(is_such)
    }

    /// A provider of which this is true.
    fn provider(&self, is_such: impl Fn(&Value) -> bool) -> bool {
        self.case.providers().any(|(_, provider)| is_such(provider))
    }

    /// Both filters let pass, and what they sent on is the same but for this.
    fn same_but_for(&self, ignoring: impl Fn(&Forwarded) -> Forwarded) -> bool {
        match (&self.native.forwarded, &self.ours.forwarded) {
            (Some(native), Some(ours)) => native != ours && ignoring(native) == ignoring(ours),
            _ => false,
        }
    }

    /// A value in which a token is looked for.
    fn credential(&self, is_such: impl Fn(&str) -> bool) -> bool {
        self.case.request.headers.iter().any(|(_, value)| is_such(value))
    }

    fn exp(token: &Token) -> Option<f64> {
        token.claims["exp"].as_f64()
    }
}

const KINDS: &[Kind] = &[
    Kind {
        id: "no_rules",
        explains: |seen| seen.case.configuration["rules"].is_null() && seen.native.passed() && !seen.ours.passed(),
        example: |world| {
            let mut configuration = plain(world);
            configuration.as_object_mut().expect("an object").remove("rules");
            Example { configuration, request: Request::get("/") }
        },
    },
    Kind {
        id: "expiration_required",
        explains: |seen| {
            seen.token(|token| token.claims["exp"].is_null())
                && seen.provider(|provider| provider["require_expiration"].is_null())
                && seen.stricter(&["expiration_missing"])
        },
        example: |world| with_claim(world, "exp", Value::Null),
    },
    Kind {
        id: "expiration_zero",
        explains: |seen| {
            seen.token(|token| Seen::exp(token).is_some_and(|exp| exp < 1.0)) && seen.stricter(&["token_expired"])
        },
        example: |world| with_claim(world, "exp", json!(0)),
    },
    Kind {
        id: "clock_skew_zero",
        explains: |seen| {
            seen.provider(|provider| provider["clock_skew_seconds"] == 0)
                && seen.stricter(&["token_expired", "token_not_yet_valid"])
        },
        example: |world| {
            let mut example = with_claim(world, "exp", (world.now() - 30).into());
            example.configuration["providers"]["corp"]["clock_skew_seconds"] = 0.into();
            example
        },
    },
    Kind {
        id: "audience_bytes",
        explains: |seen| {
            let bare = |text: &str| {
                let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
                text.strip_suffix('/').unwrap_or(text).to_owned()
            };
            let decorated = |text: &str| bare(text) != text;
            seen.token(|token| strings(&token.claims["aud"]).iter().any(|aud| decorated(aud)))
                || seen.case.configuration.to_string().contains("https://api.example.com")
                    && seen.stricter(&["audience_mismatch"])
        },
        example: |world| with_claim(world, "aud", "https://orders/".into()),
    },
    Kind {
        id: "audience_status",
        explains: |seen| seen.native.status == 403 && seen.ours.status == 401,
        example: |world| with_claim(world, "aud", "billing".into()),
    },
    Kind {
        id: "outage",
        explains: |seen| seen.native.reason() == "Jwks_remote_fetch_is_failed" && seen.ours.status == 503,
        example: |world| {
            let mut example = with_claim(world, "sub", "alice".into());
            let uri = json!({ "uri": "http://idp.example.com/jwks.json", "cluster": "nobody", "timeout": "1s" });
            let provider = &mut example.configuration["providers"]["corp"];
            provider["remote_jwks"] = json!({ "http_uri": uri });
            provider.as_object_mut().expect("an object").remove("local_jwks");
            example
        },
    },
    Kind {
        id: "key_use",
        explains: |seen| {
            seen.case.configuration.to_string().contains("\\\"use\\\":\\\"enc\\\"")
                && seen.stricter(&["key_mismatch", "key_not_found"])
        },
        example: |world| {
            let mut jwk = world.key("ec").public_jwk();
            jwk["use"] = "enc".into();
            with_keys(world, &json!({ "keys": [jwk, world.key("rsa").public_jwk()] }), world.key("ec"))
        },
    },
    Kind {
        id: "weak_keys",
        explains: |seen| {
            // 1024 bits are 128 octets.
            seen.token(|token| token.compact.rsplit('.').next().is_some_and(|signature| signature.len() == 171))
                && seen.stricter(&["key_mismatch", "key_not_found"])
        },
        example: |world| {
            let weak = Key::weak_rsa("weak");
            with_keys(world, &key_set(&[&weak, world.key("ec")]), &weak)
        },
    },
    Kind {
        id: "hmac_unlisted",
        explains: |seen| {
            seen.token(|token| token.header["alg"].as_str().is_some_and(|alg| alg.starts_with("HS")))
                && seen.stricter(&["algorithm_not_allowed"])
        },
        example: |world| {
            let secret = Key::new(Algorithm::HS256, "secret");
            with_keys(world, &key_set(&[&secret]), &secret)
        },
    },
    Kind {
        id: "crit",
        explains: |seen| seen.token(|token| !token.header["crit"].is_null()) && seen.stricter(&["crit_unsupported"]),
        example: |world| {
            let header = json!({ "alg": "ES256", "kid": "ec", "crit": ["exp"] });
            with_token(world, &world.key("ec").sign_with_header(&header, &honest(world)))
        },
    },
    Kind {
        id: "strict_encoding",
        explains: |seen| seen.stricter(&["token_malformed"]),
        example: |world| with_token(world, &format!("{}.", world.key("ec").sign(&honest(world)))),
    },
    Kind {
        id: "scheme_case",
        explains: |seen| {
            seen.credential(|value| {
                let scheme = value.get(..7).unwrap_or_default();
                scheme != "Bearer " && scheme.eq_ignore_ascii_case("bearer ")
            })
        },
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            Example {
                configuration: plain(world),
                request: Request::get("/").header("authorization", format!("bearer {token}")),
            }
        },
    },
    Kind {
        id: "scheme_position",
        explains: |seen| {
            let prefixes = ["Bearer ", "JWT ", "Token "];
            seen.credential(|value| prefixes.iter().any(|p| value.find(p).is_some_and(|position| position > 0)))
                && !seen.ours.passed()
        },
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            Example {
                configuration: plain(world),
                request: Request::get("/").header("authorization", format!("NotBearer {token}")),
            }
        },
    },
    Kind {
        id: "one_token",
        explains: |seen| seen.ours.status == 400 && seen.ours.reason() == "token_ambiguous",
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            let request = Request::get(format!("/?access_token={token}")).bearer(&token);
            Example { configuration: plain(world), request }
        },
    },
    Kind {
        id: "cookie_removed",
        explains: |seen| {
            seen.case.request.values("cookie").next().is_some()
                && seen.same_but_for(|forwarded| forwarded.without(&["cookie".to_owned()].into()))
        },
        example: |world| {
            let mut configuration = plain(world);
            configuration["providers"]["corp"]["from_cookies"] = json!(["session"]);
            let token = world.key("ec").sign(&honest(world));
            let request = Request::get("/").header("cookie", format!("theme=dark; session={token}; lang=en"));
            Example { configuration, request }
        },
    },
    Kind {
        id: "query_untouched",
        explains: |seen| seen.same_but_for(|forwarded| Forwarded { path: String::new(), ..forwarded.clone() }),
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            let request = Request::get(format!("/?z=a%26b&access_token={token}&a=c+d&flag"));
            Example { configuration: plain(world), request }
        },
    },
    Kind {
        id: "issued_in_the_future",
        explains: |seen| seen.token(|token| !token.claims["iat"].is_null()) && seen.stricter(&["token_not_yet_valid"]),
        example: |world| with_claim(world, "iat", (world.now() + 3600).into()),
    },
    Kind {
        id: "token_size",
        explains: |seen| seen.token(|token| token.compact.len() > 8192) && seen.stricter(&["token_too_large"]),
        example: |world| with_claim(world, "padding", "x".repeat(8192).into()),
    },
    Kind {
        id: "realm",
        explains: |seen| seen.native.status == seen.ours.status && seen.native.challenge.contains("access_token="),
        example: |world| Example { configuration: plain(world), request: Request::get("/orders?access_token=SECRET") },
    },
];

fn honest(world: &World) -> Value {
    world.claims(&plain(world)["providers"]["corp"])
}

/// One provider, whose token every request needs.
fn plain(world: &World) -> Value {
    json!({
        "providers": { "corp": {
            "issuer": "https://idp.example.com/",
            "audiences": ["orders"],
            "local_jwks": { "inline_string": key_set(&[world.key("ec")]).to_string() },
            "claim_to_headers": [
                { "header_name": "x-sub", "claim_name": "sub" },
                { "header_name": "x-claim", "claim_name": "claim" },
            ],
        } },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "corp" } }],
    })
}

/// A token that is honest but for one claim; `null` leaves it out.
fn with_claim(world: &World, name: &str, value: Value) -> Example {
    let mut claims = honest(world);
    if value.is_null() {
        claims.as_object_mut().expect("claims are an object").remove(name);
    } else {
        claims[name] = value;
    }
    with_token(world, &world.key("ec").sign(&claims))
}

fn with_token(world: &World, token: &str) -> Example {
    Example { configuration: plain(world), request: Request::get("/").bearer(token) }
}

fn with_keys(world: &World, set: &Value, signer: &Key) -> Example {
    let mut configuration = plain(world);
    configuration["providers"]["corp"]["local_jwks"]["inline_string"] = set.to_string().into();
    Example { configuration, request: Request::get("/").bearer(&signer.sign(&honest(world))) }
}

/// A string, or the strings of a list.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        _ => value.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    }
}

const LIST: &str = include_str!("../differences.json");
