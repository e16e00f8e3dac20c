//! Signing keys and tokens, honest and forged.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, crypto};
use p256::pkcs8::EncodePublicKey as _;
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPrivateKey as _};
use rsa::rand_core::{OsRng, RngCore};
use serde_json::{Value, json};

/// A private key with the `alg` and `kid` that it signs under.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    kid: String,
    private: EncodingKey,
}

impl Key {
    /// A random key. Within one process the same `algorithm` and `kid` give the same key: an RSA key costs too much
    /// to make one for every test.
    pub fn new(algorithm: Algorithm, kid: &str) -> Self {
        static MADE: LazyLock<Mutex<HashMap<(String, String), EncodingKey>>> = LazyLock::new(Mutex::default);
        let mut made = MADE.lock().expect("key generation does not panic");
        let private = made.entry((format!("{algorithm:?}"), kid.to_owned())).or_insert_with(|| generate(algorithm));
        Key { algorithm, kid: kid.to_owned(), private: private.clone() }
    }

    /// A random RSA key of 1024 bits: half of what RFC 7518 §3.3 asks for.
    ///
    /// # Panics
    /// If the machine has no random numbers.
    pub fn weak_rsa(kid: &str) -> Self {
        Key { algorithm: Algorithm::RS256, kid: kid.to_owned(), private: generate_rsa(RSA_BITS / 2) }
    }

    /// A symmetric key with the given secret, such as another key's public half.
    pub fn from_secret(algorithm: Algorithm, kid: &str, secret: &[u8]) -> Self {
        Key { algorithm, kid: kid.to_owned(), private: EncodingKey::from_secret(secret) }
    }

    /// The same private key under another `kid`.
    pub fn with_kid(self, kid: &str) -> Self {
        Key { kid: kid.to_owned(), ..self }
    }

    /// The same private key under another `alg` of its family.
    pub fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Key { algorithm, ..self }
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWK that an issuer publishes. For `HS*` that is the secret.
    pub fn public_jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a key made here is sound");
        let mut jwk = serde_json::to_value(jwk).expect("a JWK is JSON");
        jwk["kid"] = self.kid.clone().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The thumbprint of the public half (RFC 7638, SHA-256).
    pub fn thumbprint(&self) -> String {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a key made here is sound");
        jwk.thumbprint(ThumbprintHash::SHA256).expect("a key made here is sound")
    }

    /// The public half as PEM (`BEGIN PUBLIC KEY`): what an attacker who confuses `RS256` with `HS256` signs with.
    ///
    /// # Panics
    /// If this is not an RSA key.
    pub fn public_pem(&self) -> String {
        let private = rsa::RsaPrivateKey::from_pkcs1_der(self.private.as_bytes()).expect("only for RSA keys");
        private.to_public_key().to_public_key_pem(p256::pkcs8::LineEnding::LF).expect("a public key is PEM")
    }

    /// A token with the plain header of an honest issuer.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with_header(&json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid }), claims)
    }

    /// A correctly signed token with exactly this header, whatever it claims about the key.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        self.sign_bytes(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// A correctly signed token whose header and payload are any bytes.
    pub fn sign_bytes(&self, header: &[u8], payload: &[u8]) -> String {
        let message = format!("{}.{}", encode_part(header), encode_part(payload));
        let signature = self.sign_message(message.as_bytes());
        format!("{message}.{}", encode_part(&signature))
    }

    /// The signature over any message.
    pub fn sign_message(&self, message: &[u8]) -> Vec<u8> {
        let signature = crypto::sign(message, &self.private, self.algorithm).expect("the key fits its alg");
        BASE64_URL_SAFE_NO_PAD.decode(signature).expect("a signature is base64url")
    }

    /// Whether the library that signs would take this signature.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a key made here is sound");
        let public = DecodingKey::from_jwk(&jwk).expect("a key made here is sound");
        crypto::verify(&encode_part(signature), message, &public, self.algorithm).unwrap_or(false)
    }
}

/// A JWK Set (RFC 7517 §5) of the public halves.
pub fn key_set(keys: &[&Key]) -> Value {
    json!({ "keys": keys.iter().map(|key| key.public_jwk()).collect::<Vec<_>>() })
}

/// An unsecured token (RFC 7519 §6): `alg` is `none` and the signature is empty.
pub fn unsecured(claims: &Value) -> String {
    let header = json!({ "alg": "none", "typ": "JWT" });
    format!("{}.{}.", encode_part(header.to_string().as_bytes()), encode_part(claims.to_string().as_bytes()))
}

/// The token with `sub` exchanged and the signature left as it was.
///
/// # Panics
/// If `token` is not a compact JWS with a JSON object as payload.
pub fn tampered(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("not a compact JWS") };
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).expect("the payload is base64url");
    let mut claims: Value = serde_json::from_slice(&payload).expect("the payload is JSON");
    claims["sub"] = "mallory".into();
    format!("{header}.{}.{signature}", encode_part(claims.to_string().as_bytes()))
}

/// One part of a compact JWS: base64url without padding.
pub fn encode_part(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Now, in seconds since the epoch, as `exp`, `nbf` and `iat` count.
pub fn unix_time() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(elapsed.as_secs()).expect("the clock is before the year 292 billion")
}

fn generate(algorithm: Algorithm) -> EncodingKey {
    match (algorithm.family(), algorithm) {
        (AlgorithmFamily::Rsa, _) => generate_rsa(RSA_BITS),
        (AlgorithmFamily::Ec, Algorithm::ES384) => {
            let key = p384::SecretKey::random(&mut OsRng);
            EncodingKey::from_ec_der(key.to_pkcs8_der().expect("a key has a DER form").as_bytes())
        }
        (AlgorithmFamily::Ec, _) => {
            let key = p256::SecretKey::random(&mut OsRng);
            EncodingKey::from_ec_der(key.to_pkcs8_der().expect("a key has a DER form").as_bytes())
        }
        (AlgorithmFamily::Ed, _) => {
            let key = ed25519_dalek::SigningKey::generate(&mut OsRng);
            // Without the public half: `jsonwebtoken` tells the curve by the length of the short form.
            let key = ed25519_dalek::pkcs8::KeypairBytes { secret_key: key.to_bytes(), public_key: None };
            EncodingKey::from_ed_der(key.to_pkcs8_der().expect("a key has a DER form").as_bytes())
        }
        (AlgorithmFamily::Hmac, _) => {
            let mut secret = [0; HMAC_SECRET_BYTES];
            OsRng.fill_bytes(&mut secret);
            EncodingKey::from_secret(&secret)
        }
    }
}

fn generate_rsa(bits: usize) -> EncodingKey {
    let key = rsa::RsaPrivateKey::new(&mut OsRng, bits).expect("the size is allowed");
    EncodingKey::from_rsa_der(key.to_pkcs1_der().expect("a key has a DER form").as_bytes())
}

/// The smallest that RFC 7518 §3.3 allows.
const RSA_BITS: usize = 2048;
/// The output of SHA-512: RFC 7518 §3.2 asks for no more, and any `HS*` may use it.
const HMAC_SECRET_BYTES: usize = 64;
