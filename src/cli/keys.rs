//! Private keys, for development and tests: made, read and written as JWKs (RFC 7517), and signatures by them.
//! `claimgate keygen`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use jwt_simple::algorithms::{
    ECDSAP256KeyPairLike as _, ECDSAP256kKeyPairLike as _, ECDSAP384KeyPairLike as _, ES256KeyPair, ES256kKeyPair,
    ES384KeyPair, Ed25519KeyPair, EdDSAKeyPairLike as _, HS256Key, HS384Key, HS512Key, MACLike as _, MLDSA44KeyPair,
    MLDSA65KeyPair, MLDSA87KeyPair, MLDSAKeyPairLike as _, RS256KeyPair, RSAKeyPairLike as _,
};
use p256::ecdsa::signature::Signer as _;
use serde_json::{Map, Value, json};
use superboring::hash::MessageDigest;
use superboring::pkey::PKey;
use superboring::rsa::Padding;
use superboring::sign::Signer as RsaSigner;

use super::{Answer, Exit, Trouble, note};

/// Make a key pair, for development only
#[derive(Args)]
#[command(
    after_help = "Examples:\n  claimgate keygen --alg ES256 --kid dev-1 --key dev.key.json --jwks dev.jwks.json\n  \
                        claimgate keygen --alg RS256\n\nKeys of HS* are secrets: their JWK Set holds the secret, for whoever verifies."
)]
pub struct Arguments {
    /// What the key signs with
    #[arg(long, value_name = "ALG", ignore_case = true)]
    alg: Alg,
    /// The key's name
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    /// The file to write the private JWK to, for the owner's eyes only; without it, it is printed
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The file to write the JWK Set to that the issuer publishes
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<Answer, Trouble> {
    let key = PrivateKey::generate(arguments.alg, arguments.kid.clone())?;
    note("this key is for development only");
    let private = pretty(&key.private_jwk()?);
    if let Some(file) = &arguments.jwks {
        write(file, &pretty(&json!({"keys": [key.public_jwk()?]})), Readers::All)?;
    }
    let text = match &arguments.key {
        Some(file) => {
            write(file, &private, Readers::Owner)?;
            format!("wrote {}", file.display())
        }
        None => private,
    };
    Ok(Answer { text, exit: Exit::Well })
}

fn pretty(json: &Value) -> String {
    format!("{json:#}")
}

#[derive(PartialEq, Eq)]
enum Readers {
    All,
    Owner,
}

/// Writes a new file. One that is there stays as it is: it may be the only copy of a key.
fn write(file: &Path, text: &str, readers: Readers) -> Result<(), Trouble> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if readers == Readers::Owner {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let written = options.open(file).and_then(|mut file| writeln!(file, "{text}"));
    written.map_err(|error| format!("{}: {error}", file.display()))
}

/// What a key signs with: the names of RFC 7518, 8037, 8812 and 9964.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Alg {
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "RS384")]
    Rs384,
    #[value(name = "RS512")]
    Rs512,
    #[value(name = "PS256")]
    Ps256,
    #[value(name = "PS384")]
    Ps384,
    #[value(name = "PS512")]
    Ps512,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "ES384")]
    Es384,
    #[value(name = "ES512")]
    Es512,
    #[value(name = "ES256K")]
    Es256k,
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "Ed25519")]
    Ed25519,
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "HS384")]
    Hs384,
    #[value(name = "HS512")]
    Hs512,
    #[value(name = "ML-DSA-44")]
    MlDsa44,
    #[value(name = "ML-DSA-65")]
    MlDsa65,
    #[value(name = "ML-DSA-87")]
    MlDsa87,
}

impl Alg {
    fn name(self) -> String {
        super::name_of(self)
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Result<Self, Trouble> {
        <Self as ValueEnum>::from_str(name, false).map_err(|_| {
            let names: Vec<String> = Self::value_variants().iter().map(|alg| alg.name()).collect();
            format!("unknown algorithm `{name}`, {}", claimgate::raw::expected(name, names.iter().map(String::as_str)))
        })
    }

    /// What a key signs with that does not say so: the usual choice for its kind.
    fn usual(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
        match (text("kty"), text("crv")) {
            ("RSA", _) => Some(Self::Rs256),
            ("EC", "P-256") => Some(Self::Es256),
            ("EC", "P-384") => Some(Self::Es384),
            ("EC", "P-521") => Some(Self::Es512),
            ("EC", "secp256k1") => Some(Self::Es256k),
            ("OKP", "Ed25519") => Some(Self::EdDsa),
            ("oct", _) => Some(Self::Hs256),
            _ => None,
        }
    }
}

/// A key that signs, and the names of its algorithm and its own.
pub struct PrivateKey {
    alg: Alg,
    kid: Option<String>,
    pair: Pair,
}

enum Pair {
    // `jwt-simple` has one type for each algorithm of a key; what it holds serves them all.
    Rsa(Box<RS256KeyPair>),
    P256(Box<ES256KeyPair>),
    P384(Box<ES384KeyPair>),
    P521(Box<p521::ecdsa::SigningKey>),
    Secp256k1(Box<ES256kKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    MlDsa44(Box<MLDSA44KeyPair>),
    MlDsa65(Box<MLDSA65KeyPair>),
    MlDsa87(Box<MLDSA87KeyPair>),
    Oct(Vec<u8>),
}

/// Bits of an RSA key that is made: enough for a key that is for development only.
const RSA_BITS: usize = 2048;

/// Bytes of a coordinate of P-521.
const P521_BYTES: usize = 66;

impl PrivateKey {
    /// Makes a key.
    pub fn generate(alg: Alg, kid: Option<String>) -> Result<Self, Trouble> {
        let pair = match alg {
            Alg::Rs256 | Alg::Rs384 | Alg::Rs512 | Alg::Ps256 | Alg::Ps384 | Alg::Ps512 => {
                Pair::Rsa(Box::new(RS256KeyPair::generate(RSA_BITS).map_err(|error| format!("keygen: {error}"))?))
            }
            Alg::Es256 => Pair::P256(Box::new(ES256KeyPair::generate())),
            Alg::Es384 => Pair::P384(Box::new(ES384KeyPair::generate())),
            Alg::Es512 => {
                // The order of the curve is just below 2^521: nearly every number below that is a key.
                let mut secret: Vec<u8> = random(P521_BYTES);
                if let Some(first) = secret.first_mut() {
                    *first &= 1;
                }
                Pair::P521(Box::new(p521_key(&secret).ok_or("keygen: try again")?))
            }
            Alg::Es256k => Pair::Secp256k1(Box::new(ES256kKeyPair::generate())),
            Alg::EdDsa | Alg::Ed25519 => Pair::Ed25519(Box::new(Ed25519KeyPair::generate())),
            Alg::MlDsa44 => Pair::MlDsa44(Box::new(MLDSA44KeyPair::generate())),
            Alg::MlDsa65 => Pair::MlDsa65(Box::new(MLDSA65KeyPair::generate())),
            Alg::MlDsa87 => Pair::MlDsa87(Box::new(MLDSA87KeyPair::generate())),
            Alg::Hs256 => Pair::Oct(random(32)),
            Alg::Hs384 => Pair::Oct(random(48)),
            Alg::Hs512 => Pair::Oct(random(64)),
        };
        Ok(Self { alg, kid, pair })
    }

    /// Reads a private JWK, or a private key in PEM (PKCS #8, or PKCS #1 for RSA). What is given counts more than what
    /// the key says of itself. No error repeats a part of the key.
    pub fn read(document: &[u8], alg: Option<Alg>, kid: Option<String>) -> Result<Self, Trouble> {
        let text = std::str::from_utf8(document).map_err(|_| "neither a JWK nor PEM")?;
        if text.trim_start().starts_with("-----BEGIN") {
            return Self::from_pem(text, alg, kid);
        }
        let mut jwk: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| "neither a JSON object (a JWK) nor PEM")?;
        let own = match jwk.get("alg").and_then(Value::as_str) {
            Some(name) => Some(Alg::from_name(name)?),
            None => None,
        };
        let alg = alg.or(own).or_else(|| Alg::usual(&jwk)).ok_or("the key does not say its `alg`, use --alg")?;
        let kid = kid.or_else(|| jwk.get("kid").and_then(Value::as_str).map(str::to_owned));
        let octets = |name: &str| URL_SAFE_NO_PAD.decode(jwk.get(name).and_then(Value::as_str)?).ok();
        let pair = match alg {
            Alg::Hs256 | Alg::Hs384 | Alg::Hs512 => octets("k").map(Pair::Oct),
            Alg::Es512 => octets("d").and_then(|d| p521_key(&d)).map(|key| Pair::P521(Box::new(key))),
            _ => {
                // The reader accepts them only as its own type of key would have them.
                for name in ["use", "key_ops", "ext"] {
                    jwk.remove(name);
                }
                if !matches!(alg, Alg::MlDsa44 | Alg::MlDsa65 | Alg::MlDsa87) {
                    jwk.remove("alg");
                }
                let jwk = Value::Object(jwk).to_string();
                match alg {
                    Alg::Es256 => ES256KeyPair::from_jwk(&jwk).ok().map(|pair| Pair::P256(Box::new(pair))),
                    Alg::Es384 => ES384KeyPair::from_jwk(&jwk).ok().map(|pair| Pair::P384(Box::new(pair))),
                    Alg::Es256k => ES256kKeyPair::from_jwk(&jwk).ok().map(|pair| Pair::Secp256k1(Box::new(pair))),
                    Alg::EdDsa | Alg::Ed25519 => {
                        Ed25519KeyPair::from_jwk(&jwk).ok().map(|pair| Pair::Ed25519(Box::new(pair)))
                    }
                    Alg::MlDsa44 => MLDSA44KeyPair::from_jwk(&jwk).ok().map(|pair| Pair::MlDsa44(Box::new(pair))),
                    Alg::MlDsa65 => MLDSA65KeyPair::from_jwk(&jwk).ok().map(|pair| Pair::MlDsa65(Box::new(pair))),
                    Alg::MlDsa87 => MLDSA87KeyPair::from_jwk(&jwk).ok().map(|pair| Pair::MlDsa87(Box::new(pair))),
                    _ => RS256KeyPair::from_jwk(&jwk).ok().map(|pair| Pair::Rsa(Box::new(pair))),
                }
            }
        };
        let pair = pair.ok_or_else(|| format!("no private key that signs with {}", alg.name()))?;
        Ok(Self { alg, kid, pair })
    }

    fn from_pem(pem: &str, alg: Option<Alg>, kid: Option<String>) -> Result<Self, Trouble> {
        let tried = |alg: Alg| match alg {
            Alg::Rs256 | Alg::Rs384 | Alg::Rs512 | Alg::Ps256 | Alg::Ps384 | Alg::Ps512 => {
                RS256KeyPair::from_pem(pem).ok().map(|pair| Pair::Rsa(Box::new(pair)))
            }
            Alg::Es256 => ES256KeyPair::from_pem(pem).ok().map(|pair| Pair::P256(Box::new(pair))),
            Alg::Es384 => ES384KeyPair::from_pem(pem).ok().map(|pair| Pair::P384(Box::new(pair))),
            Alg::Es256k => ES256kKeyPair::from_pem(pem).ok().map(|pair| Pair::Secp256k1(Box::new(pair))),
            Alg::EdDsa | Alg::Ed25519 => Ed25519KeyPair::from_pem(pem).ok().map(|pair| Pair::Ed25519(Box::new(pair))),
            _ => None,
        };
        let usual = [Alg::Rs256, Alg::Es256, Alg::Es384, Alg::Es256k, Alg::EdDsa];
        let candidates = alg.map_or_else(|| usual.to_vec(), |alg| vec![alg]);
        let found = candidates.into_iter().find_map(|alg| tried(alg).map(|pair| Self { alg, kid: kid.clone(), pair }));
        found.ok_or_else(|| "no private key in PEM that signs with that algorithm".to_owned())
    }

    /// The private JWK.
    pub fn private_jwk(&self) -> Result<Value, Trouble> {
        let members = match &self.pair {
            Pair::Rsa(pair) => pair.to_jwk(),
            Pair::P256(pair) => pair.to_jwk(),
            Pair::P384(pair) => pair.to_jwk(),
            Pair::Secp256k1(pair) => pair.to_jwk(),
            Pair::Ed25519(pair) => pair.to_jwk(),
            Pair::MlDsa44(pair) => pair.to_jwk(),
            Pair::MlDsa65(pair) => pair.to_jwk(),
            Pair::MlDsa87(pair) => pair.to_jwk(),
            Pair::P521(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                let (x, y) = (point.x().ok_or("no point")?, point.y().ok_or("no point")?);
                let [d, x, y] = [key.to_bytes().as_slice(), x, y].map(|octets| URL_SAFE_NO_PAD.encode(octets));
                json!({"kty": "EC", "crv": "P-521", "x": x, "y": y, "d": d}).to_string()
            }
            Pair::Oct(k) => json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(k)}).to_string(),
        };
        let mut members: Map<String, Value> =
            serde_json::from_str(&members).map_err(|_| "the key cannot be written".to_owned())?;
        let own = [("kty", members.shift_remove("kty")), ("kid", self.kid.clone().map(Value::String))];
        let named = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let mut jwk: Map<String, Value> = named.collect();
        jwk.insert("alg".to_owned(), self.alg.name().into());
        jwk.insert("use".to_owned(), "sig".into());
        for name in ["alg", "use", "key_ops", "kid"] {
            members.shift_remove(name);
        }
        jwk.extend(members);
        Ok(Value::Object(jwk))
    }

    /// The JWK that the issuer publishes; of `HS*`, the secret.
    pub fn public_jwk(&self) -> Result<Value, Trouble> {
        let mut jwk = self.private_jwk()?;
        if let Some(members) = jwk.as_object_mut() {
            // RFC 7518 §6.2.2 and §6.3.2, RFC 9964.
            for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"] {
                members.shift_remove(private);
            }
        }
        Ok(jwk)
    }

    /// A compact JWS of this header and this payload (RFC 7515 §7.1). The header has `alg` and `kid` of the key, unless
    /// it says otherwise; null takes a member out.
    pub fn sign(&self, header: &Map<String, Value>, claims: &Map<String, Value>) -> Result<String, Trouble> {
        let mut members = Map::new();
        members.insert("alg".to_owned(), self.alg.name().into());
        members.extend(self.kid.clone().map(|kid| ("kid".to_owned(), kid.into())));
        override_with(&mut members, header);
        let input = signing_input(members, claims);
        let signature = self.signature(input.as_bytes()).ok_or("the key does not sign")?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, input: &[u8]) -> Option<Vec<u8>> {
        Some(match &self.pair {
            Pair::Rsa(pair) => {
                let hash = match self.alg {
                    Alg::Rs256 | Alg::Ps256 => MessageDigest::sha256(),
                    Alg::Rs384 | Alg::Ps384 => MessageDigest::sha384(),
                    _ => MessageDigest::sha512(),
                };
                let padding = match self.alg {
                    Alg::Rs256 | Alg::Rs384 | Alg::Rs512 => Padding::PKCS1,
                    _ => Padding::PKCS1_PSS,
                };
                let key = PKey::from_rsa(pair.key_pair().as_ref().clone()).ok()?;
                let mut signer = RsaSigner::new(hash, &key).ok()?;
                signer.set_rsa_padding(padding).ok()?;
                signer.update(input).ok()?;
                signer.sign_to_vec().ok()?
            }
            Pair::P256(pair) => {
                let signature: p256::ecdsa::Signature = pair.key_pair().as_ref().sign(input);
                signature.to_bytes().to_vec()
            }
            Pair::P384(pair) => {
                let signature: p384::ecdsa::Signature = pair.key_pair().as_ref().sign(input);
                signature.to_bytes().to_vec()
            }
            Pair::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign(input);
                signature.to_bytes().to_vec()
            }
            Pair::Secp256k1(pair) => {
                let signature: k256::ecdsa::Signature = pair.key_pair().as_ref().sign(input);
                signature.to_bytes().to_vec()
            }
            Pair::Ed25519(pair) => pair.key_pair().as_ref().sk.sign(input, None).to_vec(),
            Pair::MlDsa44(pair) => pair.key_pair().as_ref().sign(input).ok()?,
            Pair::MlDsa65(pair) => pair.key_pair().as_ref().sign(input).ok()?,
            Pair::MlDsa87(pair) => pair.key_pair().as_ref().sign(input).ok()?,
            Pair::Oct(k) => match self.alg {
                Alg::Hs256 => HS256Key::from_bytes(k).authentication_tag(input),
                Alg::Hs384 => HS384Key::from_bytes(k).authentication_tag(input),
                _ => HS512Key::from_bytes(k).authentication_tag(input),
            },
        })
    }
}

/// An unsecured token (RFC 7519 §6).
pub fn unsecured(header: &Map<String, Value>, claims: &Map<String, Value>) -> String {
    let mut members = Map::new();
    members.insert("alg".to_owned(), "none".into());
    override_with(&mut members, header);
    signing_input(members, claims) + "."
}

/// Takes members over; null takes one out.
pub fn override_with(members: &mut Map<String, Value>, others: &Map<String, Value>) {
    for (name, value) in others {
        if value.is_null() {
            members.shift_remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
}

fn signing_input(header: Map<String, Value>, claims: &Map<String, Value>) -> String {
    let encode =
        |members: &Map<String, Value>| URL_SAFE_NO_PAD.encode(serde_json::to_string(members).unwrap_or_default());
    format!("{}.{}", encode(&header), encode(claims))
}

fn p521_key(secret: &[u8]) -> Option<p521::ecdsa::SigningKey> {
    (secret.len() == P521_BYTES).then(|| p521::ecdsa::SigningKey::from_slice(secret).ok())?
}

fn random(bytes: usize) -> Vec<u8> {
    std::iter::repeat_with(jwt_simple::reexports::rand::random).take(bytes).collect()
}
