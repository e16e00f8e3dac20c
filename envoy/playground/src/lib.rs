//! An issuer and an upstream to try Claimgate with: for development, and for nothing else.
//!
//! Whoever reaches the issuer gets any token that he asks for.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ed25519_compact::{KeyPair, Seed};
use serde_json::{Value, json};

/// An issuer that signs with EdDSA (RFC 8037):
/// - `GET /jwks.json`: the public halves of its newest two keys, and the keys of the JWK Set `others`;
/// - `GET /token`: a token. `sub`, `aud`, `iss` and `scope` in the query say what it claims, `expires_in` for how many
///   seconds it is good: negative for a token that has expired;
/// - `POST /rotate`: makes a new key and signs with it from now on. The one before stays published, so that its tokens
///   stay good; older ones are withdrawn.
///
/// Keys are kept in `file`, so that a restart does not change them; without a file they are lost with the process.
///
/// # Errors
/// If `file` cannot be read or written, or if it or `others` is not what this program writes, or a JWK Set.
pub fn issuer(file: Option<PathBuf>, others: Option<&[u8]>) -> io::Result<Router> {
    let others = match others {
        None => Vec::new(),
        Some(bytes) => match serde_json::from_slice::<Value>(bytes)?["keys"].take() {
            Value::Array(keys) => keys,
            _ => return Err(io::Error::other("the other keys are not a JWK Set")),
        },
    };
    let issuer = Arc::new(Issuer { keys: Mutex::new(Keys::load(file)?), others });
    Ok(Router::new()
        .route("/jwks.json", get(jwks))
        .route("/token", get(token))
        .route("/rotate", post(rotate))
        .route("/healthy", get(|| async { StatusCode::OK }))
        .with_state(issuer))
}

/// An upstream that answers each request with what reached it. A header that did not arrive is `null`.
pub fn upstream() -> Router {
    Router::new().fallback(async |method: Method, uri: Uri, headers: HeaderMap| {
        let header = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        // The first six characters only: enough to see that a token arrived, too little to leak it.
        let authorization = header(AUTHORIZATION.as_str()).map(|value| value.chars().take(6).collect::<String>());
        let echo = json!({
            "authorization": authorization,
            "method": method.as_str(),
            "path": uri.to_string(),
            "x-user": header("x-user"),
        });
        line(&echo)
    })
}

/// Serves until the process ends.
///
/// # Errors
/// If the listener fails, or no runtime can be had.
pub fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        listener.set_nonblocking(true)?;
        axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
    })
}

struct Issuer {
    keys: Mutex<Keys>,
    /// JWKs that are published as they are.
    others: Vec<Value>,
}

/// The newest key is the first, and there is one at least.
struct Keys {
    file: Option<PathBuf>,
    newest: Key,
    before: Option<Key>,
}

struct Key {
    number: u64,
    pair: KeyPair,
}

async fn jwks(State(issuer): State<Arc<Issuer>>) -> Response {
    let keys: Vec<Value> = issuer.with_keys(|keys| keys.published().map(Key::public_jwk).collect());
    let keys: Vec<&Value> = keys.iter().chain(&issuer.others).collect();
    ([(CONTENT_TYPE, "application/jwk-set+json")], json!({ "keys": keys }).to_string()).into_response()
}

async fn token(State(issuer): State<Arc<Issuer>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let refuse = |why: String| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs().cast_signed());
    let mut claims =
        json!({ "iss": ISSUER, "sub": "alice", "aud": "orders", "iat": now, "exp": now + LIFETIME_SECONDS });
    for (name, value) in query {
        match (name.as_str(), value.parse::<i32>()) {
            ("iss" | "sub" | "aud" | "scope", _) => claims[name] = value.into(),
            ("expires_in", Ok(seconds)) => claims["exp"] = (now + i64::from(seconds)).into(),
            ("expires_in", Err(_)) => return refuse("`expires_in` is a number of seconds".to_owned()),
            _ => return refuse(format!("`{name}`: expected `iss`, `sub`, `aud`, `scope` or `expires_in`")),
        }
    }
    issuer.with_keys(|keys| keys.newest.sign(&claims)).into_response()
}

async fn rotate(State(issuer): State<Arc<Issuer>>) -> Response {
    issuer.with_keys(|keys| match keys.rotate() {
        Ok(()) => line(&json!({
            "signing": keys.newest.kid(),
            "published": keys.published().map(Key::kid).collect::<Vec<_>>(),
        })),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    })
}

impl Issuer {
    fn with_keys<T>(&self, use_keys: impl FnOnce(&mut Keys) -> T) -> T {
        use_keys(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Keys {
    fn load(file: Option<PathBuf>) -> io::Result<Self> {
        let kept = match &file {
            Some(file) if file.exists() => serde_json::from_slice(&fs::read(file)?)?,
            _ => Value::Null,
        };
        let mut kept = kept.as_array().into_iter().flatten().map(Key::from_json);
        if let Some(newest) = kept.next() {
            return Ok(Self { file, newest: newest?, before: kept.next().transpose()? });
        }
        let keys = Self { file, newest: Key::generate(1), before: None };
        keys.save()?;
        Ok(keys)
    }

    fn save(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let keys: Vec<Value> = self.published().map(Key::to_json).collect();
        // In one step: a crash leaves the old keys or the new.
        let scratch = file.with_extension("new");
        fs::write(&scratch, json!(keys).to_string())?;
        fs::rename(&scratch, file)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let newest = Key::generate(self.newest.number + 1);
        self.before = Some(std::mem::replace(&mut self.newest, newest));
        self.save()
    }

    fn published(&self) -> impl Iterator<Item = &Key> {
        [&self.newest].into_iter().chain(&self.before)
    }
}

impl Key {
    fn generate(number: u64) -> Self {
        Self { number, pair: KeyPair::generate() }
    }

    fn kid(&self) -> String {
        format!("key-{}", self.number)
    }

    fn public_jwk(&self) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(*self.pair.pk);
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid(), "x": x })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.kid() });
        let [header, payload] = [&header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let signing_input = format!("{header}.{payload}");
        let signature = BASE64_URL_SAFE_NO_PAD.encode(*self.pair.sk.sign(&signing_input, None));
        format!("{signing_input}.{signature}")
    }

    fn to_json(&self) -> Value {
        json!({ "number": self.number, "seed": BASE64_URL_SAFE_NO_PAD.encode(*self.pair.sk.seed()) })
    }

    fn from_json(kept: &Value) -> io::Result<Self> {
        let seed = kept["seed"].as_str().and_then(|seed| BASE64_URL_SAFE_NO_PAD.decode(seed).ok());
        let seed = seed.and_then(|seed| Seed::from_slice(&seed).ok());
        match (kept["number"].as_u64(), seed) {
            (Some(number), Some(seed)) => Ok(Self { number, pair: KeyPair::from_seed(seed) }),
            _ => Err(io::Error::other("the file of keys is damaged")),
        }
    }
}

/// JSON in one line: a terminal's prompt comes after it.
fn line(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

/// The `iss` that the configurations of this folder expect.
const ISSUER: &str = "https://idp.example.com/";
const LIFETIME_SECONDS: i64 = 3600;
