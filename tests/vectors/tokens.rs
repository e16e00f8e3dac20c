//! Tokens of other projects, most of which are no JWTs: any octets that are signed. They are verified as what they are;
//! the gate must refuse them all the same, because they hold no claims set.

use std::rc::Rc;

use claimgate::{
    Algorithm, Brake, Decision, KeySet, Portable, Rates, Request, UnixTime, UnverifiedJws, VerifiedJws, VerifyingKey,
};
use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::suite::{ACCEPT, REFUSE, Suite, read};

#[derive(Deserialize)]
struct Case {
    id: String,
    token: String,
    jwks: Value,
    expected: String,
}

/// Verifies the tokens of one file.
pub fn verify(file: &str) -> Result<(), Failed> {
    #[derive(Deserialize)]
    struct Cases {
        cases: Vec<Case>,
    }
    let cases = read::<Cases>(&format!("data/{file}.json")).cases;
    verify_all(Suite::new(file, file, |_| true), cases.iter().map(|c| (&*c.id, &*c.token, &c.jwks, &*c.expected)))
}

/// Verifies tokens: their names, the key set of each, and what their source expects.
pub fn verify_all<'c>(
    mut suite: Suite,
    cases: impl Iterator<Item = (&'c str, &'c str, &'c Value, &'c str)>,
) -> Result<(), Failed> {
    let (mut no_claims_set, mut accepted) = (0, 0);
    for (id, token, jwks, expected) in cases {
        let jws = Jws::of(token, jwks);
        let outcome = if jws.verifies { ACCEPT } else { REFUSE };
        suite.case(id, if expected == ACCEPT { ACCEPT } else { REFUSE }, outcome);
        no_claims_set += usize::from(jws.verifies && jws.claims_set.is_none());
        match as_a_token(token, jwks, jws.claims_set.as_ref()) {
            Ok(true) if jws.verifies && jws.claims_set.is_some() => accepted += 1,
            Ok(true) => suite.fail(format!("{id}: accepted as a token, and its signature is not")),
            Ok(false) => {}
            Err(error) => suite.fail(format!("{id}: {error}")),
        }
    }
    suite.note(format!(
        "of those accepted here, a request with the token: {accepted} pass, {no_claims_set} are refused because the \
         payload is no claims set"
    ));
    suite.finish()
}

/// A token, verified without regard to what its payload says.
struct Jws {
    verifies: bool,
    claims_set: Option<Value>,
}

impl Jws {
    fn of(token: &str, jwks: &Value) -> Self {
        let Ok(set) = KeySet::parse(jwks.to_string().as_bytes(), 64) else {
            return Self { verifies: false, claims_set: None };
        };
        match UnverifiedJws::parse(token.as_bytes()) {
            Ok(jws) => {
                let claims_set = Some(Value::Object(jws.payload().clone()));
                let jws = Rc::new(jws);
                let now = UnixTime::from_secs(0);
                let mut brake = Brake::new(Rates { light: 1000, medium: 1000, heavy: 1000 }, now);
                let mut verifies = |alg, keys: &[&VerifyingKey]| {
                    VerifiedJws::verify(&jws, alg, keys, &Portable, &mut brake, now).is_ok_and(|jws| jws.is_some())
                };
                Self { verifies: allowed(&jws, &set).is_some_and(|(alg, keys)| verifies(alg, &keys)), claims_set }
            }
            // All of it is well-formed, and the payload is something else than a claims set. Header and signature are
            // read as those of a token with an empty one, and held against what was really signed.
            Err(violation) if violation.detail == NO_CLAIMS_SET => {
                let parts: Vec<&str> = token.split('.').collect();
                let stand_in = format!("{}.e30.{}", parts[0], parts[2]);
                let Ok(jws) = UnverifiedJws::parse(stand_in.into_bytes()) else {
                    return Self { verifies: false, claims_set: None };
                };
                let signing_input = format!("{}.{}", parts[0], parts[1]);
                let verifies = allowed(&jws, &set).is_some_and(|(alg, keys)| {
                    keys.iter().any(|key| key.verify(alg, signing_input.as_bytes(), jws.signature()))
                });
                Self { verifies, claims_set: None }
            }
            Err(_) => Self { verifies: false, claims_set: None },
        }
    }
}

/// The keys that may verify a token, if its header is one that is understood.
fn allowed<'k>(jws: &UnverifiedJws<'_>, set: &'k KeySet) -> Option<(Algorithm, Vec<&'k VerifyingKey>)> {
    if jws.header().needs_extension {
        return None;
    }
    let alg = Algorithm::from_name(&jws.header().alg)?;
    Some((alg, set.candidates(jws.header().kid.as_deref(), alg).ok()?))
}

/// Whether the gate lets a request with this token pass, at the time for which it was made.
fn as_a_token(token: &str, jwks: &Value, claims_set: Option<&Value>) -> Result<bool, String> {
    let time = |name: &str| claims_set.and_then(|claims| claims[name].as_u64());
    let now = time("iat").or(time("nbf")).unwrap_or(1);
    let algorithms: Vec<&str> = Algorithm::ALL.iter().map(|alg| alg.name()).collect();
    let settings = json!({"algorithms": algorithms, "require_expiration": false, "max_token_bytes": 65536});
    let request = Request::new([(":path", "/"), ("authorization", &format!("Bearer {token}"))]);
    Ok(matches!(Gate::new(&settings, jwks, now).decide(&request)?, (Decision::Allow(_), _)))
}

const NO_CLAIMS_SET: &str = "the payload is not a strict JSON object";
