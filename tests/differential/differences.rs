//! The differences that are meant: the list of `tests/differences.json`, and for each how to recognise it and a request
//! that shows it.

use std::collections::BTreeMap;

use claimgate_testbed::{Algorithm, Key, key_set, unix_time};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::case::{Case, Forwarded, Outcome, Place, Request, Token, percent_decoded};
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
    evidence: Evidence,
    pub example: fn(&World) -> Example,
}

impl Kind {
    /// Whether the list does not account for what is seen, or not by this.
    pub fn fails_to_explain(&self, list: &[(Difference, &Kind)], seen: &Seen) -> Option<String> {
        if let Evidence::Unseen = self.evidence {
            return (!seen.native.agrees_with(seen.ours)).then(|| "there is more than is listed".to_owned());
        }
        let found = explain(list, seen);
        (!found.contains(&self.id)).then(|| format!("explained by {found:?}"))
    }
}

enum Evidence {
    /// The outcomes differ in this way.
    Outcome(fn(&Seen) -> bool),
    /// Both requests were sent on. They are the same once this is taken out of both.
    Forwarded(fn(&Case, &mut Forwarded)),
    /// Either.
    Both(fn(&Seen) -> bool, fn(&Case, &mut Forwarded)),
    /// Nothing that is compared.
    Unseen,
}

/// Which entries of the list account for the difference between two outcomes. None: it is not listed.
pub fn explain<'l>(list: &'l [(Difference, &Kind)], seen: &Seen) -> Vec<&'l str> {
    let by_outcome =
        |kind: &Kind| matches!(kind.evidence, Evidence::Outcome(is_so) | Evidence::Both(is_so, _) if is_so(seen));
    let found: Vec<_> = list.iter().filter(|(_, kind)| by_outcome(kind)).map(|(entry, _)| &*entry.id).collect();
    if !found.is_empty() {
        return found;
    }
    let (Some(native), Some(ours)) = (&seen.native.forwarded, &seen.ours.forwarded) else { return found };
    let same_without = |ids: &[&str]| {
        let strip = |mut forwarded: Forwarded| {
            for kind in KINDS.iter().filter(|kind| ids.contains(&kind.id)) {
                if let Evidence::Forwarded(take_out) | Evidence::Both(_, take_out) = kind.evidence {
                    take_out(&seen.case, &mut forwarded);
                }
            }
            forwarded
        };
        strip(native.clone()) == strip(ours.clone())
    };
    let mut needed: Vec<&str> = list.iter().map(|(entry, _)| &*entry.id).collect();
    if !same_without(&needed) {
        return Vec::new();
    }
    for (entry, _) in list {
        let fewer: Vec<&str> = needed.iter().copied().filter(|id| *id != entry.id).collect();
        if same_without(&fewer) {
            needed = fewer;
        }
    }
    needed
}

/// Everything there is to tell one difference from another.
pub struct Seen<'a> {
    pub case: Case<'a>,
    pub native: &'a Outcome,
    pub ours: &'a Outcome,
}

impl Seen<'_> {
    /// `jwt_authn` accepts a token that the plugin rejects for one of these reasons. Where the rule lets pass without a
    /// good token, the plugin sends the request on as one without a token.
    fn stricter(&self, reasons: &[&str]) -> bool {
        let optional = ["allow_missing_or_failed", "extract_only_without_validation", "requires_any"];
        let missing = reasons.contains(&"header_missing") && self.case.has_requirement("allow_missing");
        let passes_without = missing || optional.iter().any(|kind| self.case.has_requirement(kind));
        passes_without && self.only_native_accepts()
            || self.native.passed() && !self.ours.passed() && reasons.contains(&self.ours.reason())
    }

    /// How many things a filter has done with tokens: headers that come from them, and tokens that did not go on. Not
    /// those in cookies: `jwt_authn` leaves them there.
    fn uses(&self, outcome: &Outcome) -> usize {
        let Some(forwarded) = &outcome.forwarded else { return 0 };
        let managed = self.case.managed();
        let set = forwarded.headers.iter().filter(|(name, _)| managed.contains(name) && name != STATUS_HEADER).count();
        let path = percent_decoded(&forwarded.path);
        let goes_on =
            |value: &str| path.contains(value) || forwarded.headers.iter().any(|(_, own)| own.0.contains(value));
        let gone = |(place, value): &&(Place, String)| !matches!(place, Place::Cookie(_)) && !goes_on(value.trim());
        set + self.case.request.credentials().iter().filter(gone).count()
    }

    /// Whether a filter says that it has met a bad token, where a rule only extracts.
    fn complains(&self, outcome: &Outcome) -> bool {
        outcome.forwarded_values(STATUS_HEADER) == ["false"]
    }

    /// Both filters let pass, and only `jwt_authn` has accepted a token.
    fn only_native_accepts(&self) -> bool {
        let quietly = self.complains(self.ours) && !self.complains(self.native);
        let both = self.native.passed() && self.ours.passed() && self.uses(self.ours) == 0;
        both && (self.uses(self.native) > 0 || quietly)
    }

    /// Both filters let pass, and the plugin has accepted more tokens.
    fn ours_accepts_more(&self) -> bool {
        let quietly = self.complains(self.native) && !self.complains(self.ours);
        self.native.passed() && self.ours.passed() && (self.uses(self.ours) > self.uses(self.native) || quietly)
    }

    /// A token of which this is true.
    fn token(&self, is_such: impl Fn(&Token) -> bool) -> bool {
        self.case.request.tokens().iter().any(is_such)
    }

    /// A provider of which this is true.
    fn provider(&self, is_such: impl Fn(&Value) -> bool) -> bool {
        self.case.providers().any(|(_, provider)| is_such(provider))
    }

    /// A header or the path of which this is true.
    fn text(&self, is_such: impl Fn(&str) -> bool) -> bool {
        self.case.request.texts().any(|text| is_such(&text))
    }
}

const KINDS: &[Kind] = &[
    Kind {
        id: "no_rules",
        evidence: Evidence::Outcome(|seen| {
            seen.case.configuration["rules"].is_null() && seen.native.passed() && !seen.ours.passed()
        }),
        example: |world| {
            let mut configuration = plain(world);
            configuration.as_object_mut().expect("an object").remove("rules");
            Example { configuration, request: Request::get("/") }
        },
    },
    Kind {
        id: "ed25519_first",
        evidence: Evidence::Outcome(|seen| {
            let tried = |jwk: &Value| jwk["crv"] == "Ed25519" && (jwk["kid"].is_null() || jwk["alg"].is_null());
            let other = |token: &Token| token.header["alg"] != "EdDSA";
            seen.provider(|provider| jwks(provider).iter().any(tried))
                && seen.token(other)
                && seen.ours.passed()
                && (seen.native.reason() == "Jwt_ED25519_signature_is_wrong_length" || seen.ours_accepts_more())
        }),
        example: |world| {
            let mut ed = world.key("ed").public_jwk();
            let members = ed.as_object_mut().expect("a JWK is an object");
            members.remove("kid");
            members.remove("alg");
            with_keys(world, &json!({ "keys": [ed, world.key("rsa").public_jwk()] }), world.key("rsa"))
        },
    },
    Kind {
        id: "expiration_required",
        evidence: Evidence::Outcome(|seen| {
            seen.token(|token| token.claims["exp"].is_null())
                && seen.provider(|provider| provider["require_expiration"].is_null())
                && seen.stricter(&["expiration_missing"])
        }),
        example: |world| with_claim(world, "exp", Value::Null),
    },
    Kind {
        id: "expiration_zero",
        evidence: Evidence::Outcome(|seen| {
            let zero = |token: &Token| token.claims["exp"].as_f64().is_some_and(|exp| exp < 1.0);
            seen.token(zero) && seen.stricter(&["token_expired"])
        }),
        example: |world| with_claim(world, "exp", json!(0)),
    },
    Kind {
        id: "clock_skew_zero",
        evidence: Evidence::Outcome(|seen| {
            let now = unix_time();
            let near = |time: &Value| time.as_i64().is_some_and(|time| (now - 62..=now + 62).contains(&time));
            seen.provider(|provider| provider["clock_skew_seconds"] == 0)
                && seen.token(|token| ["exp", "nbf"].iter().any(|name| near(&token.claims[name])))
                && seen.stricter(&["token_expired", "token_not_yet_valid"])
        }),
        example: |world| {
            let mut example = with_claim(world, "exp", (unix_time() - 30).into());
            example.configuration["providers"]["corp"]["clock_skew_seconds"] = 0.into();
            example
        },
    },
    Kind {
        id: "audience_bytes",
        evidence: Evidence::Outcome(|seen| {
            let bare = |text: &str| {
                let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
                text.strip_suffix('/').unwrap_or(text).to_owned()
            };
            let mut configured = Vec::new();
            members(seen.case.configuration, "audiences", &mut configured);
            let configured: Vec<&str> = configured.into_iter().flat_map(strings).collect();
            let alike = |aud: &str| configured.iter().any(|known| *known != aud && bare(known) == bare(aud));
            seen.token(|token| strings(&token.claims["aud"]).into_iter().any(alike))
                && seen.stricter(&["audience_mismatch"])
        }),
        example: |world| with_claim(world, "aud", "https://orders/".into()),
    },
    Kind {
        id: "audience_status",
        evidence: Evidence::Outcome(|seen| seen.native.status == 403 && seen.ours.status == 401),
        example: |world| with_claim(world, "aud", "billing".into()),
    },
    Kind {
        id: "outage",
        evidence: Evidence::Outcome(|seen| {
            seen.native.reason() == "Jwks_remote_fetch_is_failed" && seen.ours.reason() == "jwks_unavailable"
        }),
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
        evidence: Evidence::Outcome(|seen| {
            seen.provider(|provider| jwks(provider).iter().any(|jwk| jwk["use"] == "enc"))
                && seen.stricter(&["key_mismatch", "key_not_found"])
        }),
        example: |world| {
            let mut jwk = world.key("ec").public_jwk();
            jwk["use"] = "enc".into();
            with_keys(world, &json!({ "keys": [jwk, world.key("rsa").public_jwk()] }), world.key("ec"))
        },
    },
    Kind {
        id: "weak_keys",
        evidence: Evidence::Outcome(|seen| {
            // 171 characters are 128 octets, and that is 1024 bits.
            let weak = |token: &Token| token.compact.rsplit('.').next().is_some_and(|part| part.len() == 171);
            seen.token(weak) && seen.stricter(&["key_mismatch", "key_not_found"])
        }),
        example: |world| {
            let weak = Key::weak_rsa("weak");
            with_keys(world, &key_set(&[&weak, world.key("ec")]), &weak)
        },
    },
    Kind {
        id: "hmac_unlisted",
        evidence: Evidence::Outcome(|seen| {
            seen.provider(|provider| jwks(provider).iter().any(|jwk| jwk["kty"] == "oct"))
                && seen.token(|token| token.header["alg"].as_str().is_some_and(|alg| alg.starts_with("HS")))
                && seen.stricter(&["algorithm_not_allowed"])
        }),
        example: |world| {
            let secret = Key::new(Algorithm::HS256, "secret");
            with_keys(world, &key_set(&[&secret]), &secret)
        },
    },
    Kind {
        id: "crit",
        evidence: Evidence::Outcome(|seen| {
            seen.token(|token| !token.header["crit"].is_null()) && seen.stricter(&["crit_unsupported"])
        }),
        example: |world| {
            let header = json!({ "alg": "ES256", "kid": "ec", "crit": ["exp"] });
            with_token(world, &world.key("ec").sign_with_header(&header, &honest(world)))
        },
    },
    Kind {
        id: "nested",
        evidence: Evidence::Outcome(|seen| {
            let is_nested = |cty: &str| cty.eq_ignore_ascii_case("jwt") || cty.eq_ignore_ascii_case("application/jwt");
            seen.token(|token| token.header["cty"].as_str().is_some_and(is_nested))
                && seen.stricter(&["token_malformed"])
        }),
        example: |world| {
            let header = json!({ "alg": "ES256", "kid": "ec", "cty": "JWT" });
            with_token(world, &world.key("ec").sign_with_header(&header, &honest(world)))
        },
    },
    Kind {
        id: "strict_encoding",
        evidence: Evidence::Outcome(|seen| {
            let padded = |token: &Token| seen.text(|text| text.contains(&format!("{}=", token.compact)));
            let dotted = |token: &Token| token.compact.split('.').count() != 3;
            seen.token(|token| padded(token) || dotted(token)) && seen.stricter(&["token_malformed"])
        }),
        example: |world| with_token(world, &format!("{}.", world.key("ec").sign(&honest(world)))),
    },
    Kind {
        id: "scheme_case",
        evidence: Evidence::Outcome(|seen| {
            let another_case = |value: &str| {
                let scheme = value.get(..7).unwrap_or_default();
                scheme != "Bearer " && scheme.eq_ignore_ascii_case("bearer ")
            };
            seen.case.request.values("authorization").any(another_case)
                && (seen.native.reason() == "Jwt_is_missing" || seen.native.passed())
        }),
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            let request = Request::get("/").header("authorization", format!("bearer {token}"));
            Example { configuration: plain(world), request }
        },
    },
    Kind {
        id: "scheme_position",
        evidence: Evidence::Outcome(|seen| {
            let within = |value: &str| {
                ["Bearer ", "JWT ", "Token "].iter().any(|prefix| value.find(prefix).is_some_and(|place| place > 0))
            };
            let ours = seen.ours.reason();
            // What is no token for the plugin may be a bad one for `jwt_authn`, or a second one.
            let several = seen.case.request.credentials().len() > 1;
            let other = seen.ours.passed() && (!seen.native.passed() || several || seen.ours_accepts_more());
            // A comma before the prefix makes it a second value.
            seen.text(within) && (other || ours == "token_ambiguous" || seen.stricter(&["header_missing"]))
        }),
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            let request = Request::get("/").header("authorization", format!("NotBearer {token}"));
            Example { configuration: plain(world), request }
        },
    },
    Kind {
        id: "one_token",
        evidence: Evidence::Outcome(|seen| {
            // A comma joins two lines.
            let joined = seen.case.request.headers.iter().any(|(name, value)| name != "cookie" && value.contains(','));
            let several = seen.case.request.credentials().len() > 1 || joined;
            let rejected = seen.ours.reason() == "token_ambiguous" && seen.native.status != 400;
            // Among several requirements, another one's reason may tell more.
            let otherwise = seen.native.passed() && !seen.ours.passed() && seen.case.has_requirement("requires_any");
            several
                && (rejected
                    || otherwise
                    || seen.only_native_accepts()
                    || seen.uses(seen.native) > 0 && seen.ours.passed())
        }),
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            let request = Request::get(format!("/?access_token={token}")).bearer(&token);
            Example { configuration: plain(world), request }
        },
    },
    Kind {
        id: "token_used_twice",
        evidence: Evidence::Outcome(|seen| {
            // With another token or another requirement, it may be that one's reason.
            let several = seen.case.request.credentials().len() > 1 || seen.case.has_requirement("requires_any");
            let other = several && !seen.native.passed();
            let missed = (seen.native.reason() == "Jwt_is_missing" || other) && seen.ours.passed();
            // What the first of two providers used up, the second does not mind: `jwt_authn` passes, too.
            let unminded = seen.uses(seen.native) > 0 && !seen.ours.passed() && seen.ours.reason() != "token_ambiguous";
            seen.case.has_requirement("requires_all")
                && !seen.case.request.tokens().is_empty()
                && (missed || unminded || seen.ours_accepts_more())
        }),
        example: |world| {
            let mut example = with_claim(world, "sub", "alice".into());
            let corp = json!({ "provider_name": "corp" });
            let orders = json!({ "provider_and_audiences": { "provider_name": "corp", "audiences": ["orders"] } });
            let both = json!({ "requires_all": { "requirements": [corp, orders] } });
            example.configuration["rules"][0]["requires"] = both;
            example
        },
    },
    Kind {
        id: "half_satisfied",
        evidence: Evidence::Outcome(|seen| {
            seen.case.has_requirement("requires_all")
                && seen.case.has_requirement("requires_any")
                && seen.only_native_accepts()
        }),
        example: |world| {
            let mut example = with_claim(world, "sub", "alice".into());
            let keys = json!({ "inline_string": key_set(&[world.key("rsa")]).to_string() });
            example.configuration["providers"]["other"] = json!({ "from_cookies": ["session"], "local_jwks": keys });
            let name = |name: &str| json!({ "provider_name": name });
            let both = json!({ "requires_all": { "requirements": [name("corp"), name("other")] } });
            let either = json!({ "requires_any": { "requirements": [both, { "allow_missing": {} }] } });
            example.configuration["rules"][0]["requires"] = either;
            example
        },
    },
    Kind {
        id: "empty_place",
        evidence: Evidence::Outcome(|seen| {
            let bare = |value: &str| matches!(value.trim(), "" | "\"\"" | "JWT" | "Bearer" | "Token");
            seen.case.request.credentials().iter().any(|(_, value)| bare(value))
                && (seen.native.reason().starts_with("Jwt_is_not_in_the_form") && seen.ours.passed()
                    // Of several parameters of one name, `jwt_authn` takes the first, empty or not.
                    || seen.ours_accepts_more())
        }),
        example: |world| {
            let request = Request::get("/?access_token=").bearer(&world.key("ec").sign(&honest(world)));
            Example { configuration: plain(world), request }
        },
    },
    Kind {
        id: "place_of_another",
        evidence: Evidence::Outcome(|seen| {
            let optional = ["allow_missing", "allow_missing_or_failed", "extract_only_without_validation"];
            let elsewhere = |token: &Token| {
                let mut issuers =
                    seen.case.providers().filter(|(_, provider)| provider["issuer"] == token.claims["iss"]);
                issuers.any(|(_, provider)| !looks_at(provider, token))
            };
            seen.token(elsewhere)
                && seen.provider(|provider| provider["issuer"].is_null())
                && optional.iter().any(|kind| seen.case.has_requirement(kind))
        }),
        example: |world| {
            let mut example = with_claim(world, "sub", "alice".into());
            let keys = json!({ "inline_string": key_set(&[world.key("rsa")]).to_string() });
            let anyone = json!({ "from_cookies": ["session"], "local_jwks": keys });
            example.configuration["providers"]["anyone"] = anyone;
            example.configuration["rules"][0]["requires"] = json!({ "allow_missing": {} });
            let token = world.key("ec").sign(&honest(world));
            Example { request: Request::get("/").header("cookie", format!("session={token}")), ..example }
        },
    },
    Kind {
        id: "prefix_or_none",
        evidence: Evidence::Outcome(|seen| {
            let mut headers: Vec<(String, &str)> = Vec::new();
            for (_, provider) in seen.case.providers() {
                for header in provider["from_headers"].as_array().into_iter().flatten() {
                    let text = |name: &str| header[name].as_str().unwrap_or_default();
                    headers.push((text("name").to_lowercase(), text("value_prefix")));
                }
            }
            let twice = |(name, prefix): &(String, &str)| {
                prefix.is_empty() && headers.iter().any(|(other, prefix)| other == name && !prefix.is_empty())
            };
            headers
                .iter()
                .filter(|header| twice(header))
                .any(|(name, _)| seen.case.request.values(name).next().is_some())
                && (seen.native.reason().starts_with("Jwt_header_is_an_invalid") || seen.ours_accepts_more())
        }),
        example: |world| {
            let mut example = with_claim(world, "sub", "alice".into());
            let header = json!([{ "name": "x-jwt", "value_prefix": "JWT " }, { "name": "x-jwt" }]);
            example.configuration["providers"]["corp"]["from_headers"] = header;
            let token = world.key("ec").sign(&honest(world));
            Example { request: Request::get("/").header("x-jwt", format!("JWT {token}")), ..example }
        },
    },
    Kind {
        id: "issued_in_the_future",
        evidence: Evidence::Outcome(|seen| {
            let future = |token: &Token| token.claims["iat"].as_i64().is_some_and(|time| time > unix_time());
            seen.token(future) && seen.stricter(&["token_not_yet_valid"])
        }),
        example: |world| with_claim(world, "iat", (unix_time() + 3600).into()),
    },
    Kind {
        id: "token_size",
        evidence: Evidence::Outcome(|seen| {
            seen.token(|token| token.compact.len() > 8192) && seen.stricter(&["token_too_large"])
        }),
        example: |world| with_claim(world, "padding", "x".repeat(8192).into()),
    },
    Kind {
        id: "cookie_removed",
        evidence: Evidence::Forwarded(|case, forwarded| {
            let names: Vec<&str> =
                case.providers().flat_map(|(_, provider)| strings(&provider["from_cookies"])).collect();
            let kept = |value: &str| {
                let pairs = value.split(';').map(str::trim);
                let kept = pairs.filter(|pair| !names.contains(&pair.split('=').next().unwrap_or_default()));
                kept.collect::<Vec<_>>().join("; ")
            };
            for (_, value) in forwarded.headers.iter_mut().filter(|(name, _)| name == "cookie") {
                value.0 = kept(&value.0);
            }
            forwarded.headers.retain(|(name, value)| name != "cookie" || !value.0.is_empty());
        }),
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
        evidence: Evidence::Both(
            // Once decoded, `%20` is a space, and the upstream is asked for what is no URL.
            |seen| {
                seen.native.status == 400 && seen.native.details.is_empty() && seen.case.request.path.contains("%20")
            },
            |_, forwarded| {
                let Some((path, query)) = forwarded.path.split_once('?') else { return };
                let decoded = percent_decoded(query);
                let mut pairs: Vec<&str> = decoded.split('&').map(|pair| pair.trim_end_matches('=')).collect();
                pairs.sort_unstable();
                forwarded.path = format!("{path}?{}", pairs.join("&"));
            },
        ),
        example: |world| {
            let token = world.key("ec").sign(&honest(world));
            let request = Request::get(format!("/?z=a%26b&access_token={token}&a=c+d&flag"));
            Example { configuration: plain(world), request }
        },
    },
    Kind {
        id: "numbers",
        evidence: Evidence::Forwarded(|case, forwarded| {
            let managed = case.managed();
            for (_, value) in forwarded.headers.iter_mut().filter(|(name, _)| managed.contains(name)) {
                if let Ok(number) = value.0.parse::<f64>() {
                    value.0 = number.to_string();
                }
            }
        }),
        example: |world| with_claim(world, "claim", json!(9_007_199_254_740_993_i64)),
    },
    Kind {
        id: "header_twice",
        evidence: Evidence::Forwarded(|case, forwarded| {
            let managed = case.managed();
            let headers = std::mem::take(&mut forwarded.headers);
            for (name, value) in headers {
                if forwarded.headers.last().is_some_and(|(last, _)| *last == name && managed.contains(&name)) {
                    forwarded.headers.pop();
                }
                forwarded.headers.push((name, value));
            }
        }),
        example: |world| {
            let mut example = with_claim(world, "claim", "x".into());
            example.configuration["providers"]["corp"]["claim_to_headers"][1]["header_name"] = "x-sub".into();
            example
        },
    },
    Kind {
        id: "status_header",
        evidence: Evidence::Forwarded(|case, forwarded| {
            if case.has_requirement("extract_only_without_validation") {
                let brought: Vec<&str> = case.request.values(STATUS_HEADER).collect();
                let is_own = |value: &str| !brought.contains(&value);
                forwarded.headers.retain(|(name, value)| name != STATUS_HEADER || is_own(&value.0));
            }
        }),
        example: |world| {
            let mut configuration = plain(world);
            let extract_only = json!({ "extract_only_without_validation": {} });
            let rule = json!({ "match": { "prefix": "/extract" }, "requires": extract_only });
            configuration["rules"] = json!([rule]);
            Example { configuration, request: Request::get("/other").header(STATUS_HEADER, "true") }
        },
    },
    Kind {
        id: "look_alikes",
        evidence: Evidence::Forwarded(|case, forwarded| {
            let managed = case.managed();
            let alike = |name: &str| name.contains('_') && managed.contains(&name.replace('_', "-"));
            forwarded.headers.retain(|(name, _)| !alike(name));
        }),
        example: |world| {
            let mut example = with_claim(world, "sub", "alice".into());
            example.request = example.request.header("x_sub", "mallory");
            example
        },
    },
    Kind {
        id: "control_characters",
        evidence: Evidence::Outcome(|seen| seen.native.details.contains("invalid_header_value") && seen.ours.passed()),
        example: |world| with_claim(world, "claim", "a\r\nx-admin: 1".into()),
    },
    Kind {
        id: "realm",
        evidence: Evidence::Unseen,
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

/// The keys in a provider's configuration.
fn jwks(provider: &Value) -> Vec<Value> {
    let set = provider["local_jwks"]["inline_string"].as_str().unwrap_or("{}");
    let set: Value = serde_json::from_str(set).expect("a key set is JSON");
    set["keys"].as_array().cloned().unwrap_or_default()
}

/// Whether a provider looks for its tokens where this one stands.
fn looks_at(provider: &Value, token: &Token) -> bool {
    let names = |field: &str| strings(&provider[field]);
    let headers = provider["from_headers"].as_array().into_iter().flatten().map(|header| {
        let text = |name: &str| header[name].as_str().unwrap_or_default();
        (text("name").to_lowercase(), text("value_prefix"))
    });
    let mut headers: Vec<(String, &str)> = headers.collect();
    let (mut params, cookies) = (names("from_params"), names("from_cookies"));
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        headers.push(("authorization".to_owned(), "Bearer "));
        params.push("access_token");
    }
    match &token.place {
        Place::Header(name) => headers.iter().any(|(own, prefix)| own == name && token.text.starts_with(prefix)),
        Place::Param(name) => params.contains(&name.as_str()),
        Place::Cookie(name) => cookies.contains(&name.as_str()),
    }
}

/// The values of every member of this name, wherever it stands.
fn members<'v>(value: &'v Value, name: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(all) => {
            for (own, value) in all {
                if own == name {
                    found.push(value);
                }
                members(value, name, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| members(value, name, found)),
        _ => {}
    }
}

/// A string, or the strings of a list.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        _ => value.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    }
}

const STATUS_HEADER: &str = "x-jwt-signature-verified";
const LIST: &str = include_str!("../differences.json");
