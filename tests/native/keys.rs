//! Keys and their signatures: every algorithm by an example that someone else made, and which keys may verify what.
//!
//! The PEM files under `pem/` were made with OpenSSL 3.0: `openssl genrsa`, `ecparam -genkey`, `genpkey` and `req -x509`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claimgate::{Algorithm, KeySet};
use claimgate_testbed::{Algorithm as Alg, Key, key_set};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A set with one key.
fn set(jwk: &Value) -> KeySet {
    KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), 1).expect("a set of one key")
}

fn with(jwk: &Value, members: Value) -> Value {
    let mut jwk = jwk.clone();
    for (name, value) in members.as_object().expect("an object") {
        jwk[name] = value.clone();
    }
    jwk
}

/// The signature is good, and neither of another message nor with any one bit of a byte changed.
#[track_caller]
fn verifies(alg: Algorithm, jwk: &Value, compact: &str) {
    let set = set(jwk);
    let [key] = set.keys() else { panic!("{:?}", set.skipped()) };
    let (message, signature) = compact.rsplit_once('.').expect("a compact JWS");
    let mut signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let verify = |signature: &[u8]| key.verify(alg, message.as_bytes(), signature);
    assert!(verify(&signature));
    assert!(!key.verify(alg, format!("{message}.").as_bytes(), &signature));
    assert!(!verify(&[signature.as_slice(), &[0]].concat()));
    assert!(!verify(&signature[1..]));
    assert!(!verify(&[]));
    for place in 0..signature.len() {
        let bit = 1 << (place % 8);
        signature[place] ^= bit;
        assert!(!verify(&signature), "with another bit in byte {place}");
        signature[place] ^= bit;
    }
    for other in Algorithm::ALL.into_iter().filter(|other| *other != alg) {
        assert!(!key.verify(other, message.as_bytes(), &signature), "as {other:?}");
    }
}

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn rfc7515_rsa() -> Value {
    json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS\
        2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUs\
        LA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2e\
        thFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"})
}

fn rfc7515_p256() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
}

fn rfc8037_ed25519() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

#[test]
fn rfc7515_a1_hs256() {
    let jwk = json!({"kty": "oct", "alg": "HS256",
        "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"});
    let compact =
        format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    verifies(Algorithm::Hs256, &jwk, &compact);
}

#[test]
fn rfc7515_a2_rs256() {
    let compact = format!(
        "eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt\
         _O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_\
         eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
         p0igcN_IoypGlUPQGe77Rw"
    );
    verifies(Algorithm::Rs256, &rfc7515_rsa(), &compact);
}

#[test]
fn rfc7515_a3_es256() {
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    verifies(Algorithm::Es256, &rfc7515_p256(), &format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.{signature}"));
}

#[test]
fn rfc7515_a4_es512() {
    let jwk = json!({"kty": "EC", "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"});
    verifies(
        Algorithm::Es512,
        &jwk,
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG\
         8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
    );
}

#[test]
fn rfc7520_4_2_ps384() {
    let jwk = json!({"kty": "RSA", "e": "AQAB", "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd\
        7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6\
        M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__k\
        RhuaxwUkRz5iaiQkqgc5gHdrNP5zw"});
    verifies(
        Algorithm::Ps384,
        &jwk,
        "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywg\
         Z29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5v\
         IGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN\
         6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrY\
         RXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOc\
         bH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
    );
}

#[test]
fn rfc8037_a4_eddsa() {
    let compact = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4k\
                   i4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    for alg in [json!({}), json!({"alg": "EdDSA"}), json!({"alg": "Ed25519"})] {
        verifies(Algorithm::EdDsa, &with(&rfc8037_ed25519(), alg), compact);
    }
    assert_eq!(Algorithm::from_name("Ed25519"), Some(Algorithm::EdDsa), "RFC 9864's name");
    assert_eq!(Algorithm::from_name("ED25519"), None);
}

const INDEPENDENT: [(Algorithm, Alg); 12] = [
    (Algorithm::Rs256, Alg::RS256),
    (Algorithm::Rs384, Alg::RS384),
    (Algorithm::Rs512, Alg::RS512),
    (Algorithm::Ps256, Alg::PS256),
    (Algorithm::Ps384, Alg::PS384),
    (Algorithm::Ps512, Alg::PS512),
    (Algorithm::Es256, Alg::ES256),
    (Algorithm::Es384, Alg::ES384),
    (Algorithm::EdDsa, Alg::EdDSA),
    (Algorithm::Hs256, Alg::HS256),
    (Algorithm::Hs384, Alg::HS384),
    (Algorithm::Hs512, Alg::HS512),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Another library signs; it and the gate take the same signatures.
    #[test]
    fn an_independent_library_agrees(
        (alg, theirs) in proptest::sample::select(INDEPENDENT.to_vec()),
        message in proptest::collection::vec(any::<u8>(), 0..300),
        place in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let private = Key::new(theirs, "k");
        let set = KeySet::parse(key_set(&[&private]).to_string().as_bytes(), 1).expect("a set");
        let [key] = set.keys() else { panic!("{:?}", set.skipped()) };
        let mut signature = private.sign_message(&message);
        prop_assert!(key.verify(alg, &message, &signature));
        let place = place.index(signature.len());
        signature[place] ^= 1 << bit;
        prop_assert!(!key.verify(alg, &message, &signature));
        prop_assert!(!private.verifies(&message, &signature));
        signature[place] ^= 1 << bit;
        prop_assert!(private.verifies(&message, &signature));
    }
}

#[track_caller]
fn skipped(jwk: &Value, why: &str) {
    let set = set(jwk);
    let found: Vec<&str> = set.skipped().iter().map(|note| &*note.why).collect();
    assert_eq!(found, [why]);
}

#[test]
fn what_a_key_may_not_be() {
    let (rsa, p256, ed25519) = (rfc7515_rsa(), rfc7515_p256(), rfc8037_ed25519());
    let number = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    skipped(&with(&rsa, json!({"alg": "ES256"})), "`alg` is `ES256`, which does not fit a key of RSA");
    skipped(&with(&rsa, json!({"alg": "RSA-OAEP"})), "`alg` is `RSA-OAEP`, which verifies no token here");
    skipped(&with(&p256, json!({"alg": "ES256K"})), "`alg` is `ES256K`, which does not fit a key of P-256");
    skipped(&with(&p256, json!({"crv": "secp256k1"})), "the point is not on the curve secp256k1");
    skipped(&with(&p256, json!({"x": number(&[0; 32]), "y": number(&[0; 32])})), "the point is not on the curve P-256");
    skipped(
        &with(&p256, json!({"crv": "P-192"})),
        "`crv` is `P-192`, one of `P-256`, `P-384`, `P-521`, `secp256k1` was expected",
    );
    let e = |octets: &[u8]| with(&rsa, json!({"e": number(octets)}));
    for bad in [&[1][..], &[2], &[1, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 1]] {
        skipped(&e(bad), "the RSA exponent is not an odd number from 3 to 64 bits");
    }
    for good in [&[3][..], &[0x11], &[0xff; 8]] {
        assert_eq!(set(&e(good)).keys().len(), 1, "{good:?}");
    }
    skipped(&e(&[]), "`e` is empty or has leading zeros (RFC 7518 §2)");
    skipped(&with(&rsa, json!({"n": number(&[0xfe; 256])})), "the RSA modulus is even");
    for (bytes, bits) in [(255, 2040), (1025, 8200)] {
        let why = format!("the RSA modulus has {bits} bits, 2048 to 8192 were expected");
        skipped(&with(&rsa, json!({"n": number(&vec![0xff; bytes])})), &why);
    }
    // One point has several forms, and some points make every signature good.
    let x = |octets: [u8; 32]| with(&ed25519, json!({"x": number(&octets)}));
    let mut neutral = [0; 32];
    neutral[0] = 1;
    skipped(&x(neutral), "`x` is a point of small order");
    let mut beyond = [0xff; 32];
    (beyond[0], beyond[31]) = (0xee, 0x7f);
    skipped(&x(beyond), "`x` is not the canonical form of its point (RFC 8032 §5.1.3)");
    let mut off = [0; 32];
    off[0] = 2;
    skipped(&x(off), "`x` is not a point of the curve Ed25519");
    skipped(&json!({"kty": "AKP", "pub": ""}), "`alg` is missing, an `AKP` key needs it (RFC 9964)");
    skipped(
        &json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": number(&[7; 1311])}),
        "`pub` has 1311 bytes, which is no key of ML-DSA-44",
    );
    skipped(&json!({"kty": "AKP", "alg": "ES256", "pub": ""}), "`pub` has 0 bytes, which is no key of ES256");
    assert_eq!(set(&json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": number(&[7; 1312])})).keys().len(), 1);
}

#[test]
fn what_a_key_is_for() {
    let p256 = rfc7515_p256();
    for good in [
        json!({"use": "sig"}),
        json!({"key_ops": ["verify"]}),
        json!({"key_ops": ["sign", "verify"], "use": "sig"}),
        json!({"key_ops": ["verify", "deriveKey"]}),
    ] {
        assert_eq!(set(&with(&p256, good.clone())).keys().len(), 1, "{good}");
    }
    skipped(&with(&p256, json!({"use": "enc"})), "`use` is `enc`, `sig` was expected");
    skipped(&with(&p256, json!({"key_ops": []})), "`key_ops` does not hold `verify`");
    skipped(&with(&p256, json!({"key_ops": "verify"})), "`key_ops` is not an array of strings");
    skipped(&with(&p256, json!({"key_ops": ["verify", 1]})), "`key_ops` is not an array of strings");
    skipped(
        &with(&p256, json!({"key_ops": ["verify", "verify"]})),
        "`key_ops` names an operation twice (RFC 7517 §4.3)",
    );
    skipped(
        &with(&p256, json!({"use": "sig", "key_ops": ["verify", "encrypt"]})),
        "`use` is `sig` and `key_ops` holds `encrypt`: they contradict each other",
    );
}

#[test]
fn private_keys_that_were_published_are_warned_of() {
    #[track_caller]
    fn warned(jwk: &Value, members: Value, name: &str) {
        let set = set(&with(jwk, members));
        let why = format!("its private half stands beside it (`{name}`): who reads the set can sign");
        let found: Vec<(usize, Option<&str>, &str)> =
            set.warnings().iter().map(|note| (note.index, note.kid.as_deref(), &*note.why)).collect();
        assert_eq!(found, [(0, Some("k"), why.as_str())]);
    }
    let kid = |jwk: Value| with(&jwk, json!({"kid": "k"}));
    warned(&kid(rfc7515_rsa()), json!({"qi": "c2VjcmV0"}), "qi");
    warned(&kid(rfc7515_p256()), json!({"d": "c2VjcmV0"}), "d");
    warned(&kid(rfc7515_p256()), json!({"d": 1, "use": "enc"}), "d");
    warned(&kid(json!({"kty": "AKP", "alg": "ML-DSA-44"})), json!({"priv": "c2VjcmV0"}), "priv");
    // The key itself goes on serving.
    assert_eq!(set(&with(&rfc7515_p256(), json!({"d": "c2VjcmV0"}))).keys().len(), 1);
    let secret = set(&json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 32])}));
    assert!(secret.warnings().is_empty(), "a secret in the configuration is in its place");
    assert_eq!(secret.secrets().count(), 1);
}

fn pem(text: &str) -> Result<KeySet, String> {
    KeySet::from_pem(&[text.to_owned()]).map_err(|(index, why)| format!("{index}: {why}"))
}

/// The DER in a PEM file.
fn der(text: &str) -> Vec<u8> {
    let lines: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(lines).expect("base64")
}

/// The key verifies `alg` alone, and what it gives a host is what OpenSSL wrote.
#[track_caller]
fn is_key_of(algs: &[Algorithm], text: &str, spki: Option<&str>) {
    let set = pem(text).unwrap_or_else(|why| panic!("{why}"));
    let [key] = set.keys() else { panic!("one key") };
    assert_eq!(key.kid(), None);
    assert_eq!(Algorithm::ALL.into_iter().filter(|alg| key.fits(*alg)).collect::<Vec<_>>(), algs);
    assert_eq!(key.spki_der().map(<[u8]>::to_vec), spki.map(der));
}

#[test]
fn public_keys_in_pem() {
    use Algorithm::{EdDsa, Es256, Es256k, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let rsa = [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512];
    for text in [RSA, include_str!("pem/rsa_pkcs1.pem"), include_str!("pem/rsa_certificate.pem")] {
        is_key_of(&rsa, text, Some(RSA));
    }
    for text in [P256, include_str!("pem/p256_certificate.pem"), &P256.replace('\n', "\r\n"), P256.trim()] {
        is_key_of(&[Es256], text, Some(P256));
    }
    for (alg, text) in [
        (Es384, include_str!("pem/p384.pem")),
        (Es512, include_str!("pem/p521.pem")),
        (Es256k, include_str!("pem/secp256k1.pem")),
    ] {
        is_key_of(&[alg], text, Some(text));
    }
    is_key_of(&[EdDsa], include_str!("pem/ed25519.pem"), None);
    assert_eq!(KeySet::from_pem(&[RSA.to_owned(), P256.to_owned()]).map(|set| set.keys().len()), Ok(2));
}

#[track_caller]
fn no_pem(text: &str, why: &str) {
    assert_eq!(pem(text).map(|_| ()), Err(format!("0: {why}")));
}

#[test]
fn what_is_no_public_key_in_pem() {
    let not_pem = "not one block of PEM (RFC 7468), such as `-----BEGIN PUBLIC KEY-----` and so on";
    no_pem("", not_pem);
    no_pem("c2VjcmV0", not_pem);
    no_pem(&P256.replace("END PUBLIC", "END OTHER"), not_pem);
    no_pem(&[P256, RSA].concat(), not_pem);
    no_pem(&P256.replace("MF", "M*"), not_pem);
    for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        let text = P256.replace("PUBLIC KEY", label);
        no_pem(&text, "a private key, which does not belong here: a public key was expected");
        // Nor beside a public one.
        no_pem(&[P256, &text].concat(), "a private key, which does not belong here: a public key was expected");
    }
    let relabelled = |label| P256.replace("PUBLIC KEY", label);
    no_pem(&relabelled("X509 CRL"), "the PEM is no `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`");
    no_pem(&relabelled("RSA PUBLIC KEY"), "what the PEM holds is not a key in DER");
    no_pem(&relabelled("CERTIFICATE"), "what the PEM holds is not a key in DER");
    no_pem(include_str!("pem/x25519.pem"), "a key of a kind that is not supported");
    no_pem(include_str!("pem/p256_compressed.pem"), "the key is not an uncompressed point of P-256");
    no_pem(include_str!("pem/rsa_1024.pem"), "the RSA modulus has 1024 bits, 2048 to 8192 were expected");
    // Any byte less or more is not DER.
    let encoded = |der: &[u8]| format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", wrapped(der));
    let der = der(P256);
    assert!(pem(&encoded(&der)).is_ok());
    no_pem(&encoded(&der[..der.len() - 1]), "what the PEM holds is not a key in DER");
    no_pem(&encoded(&[der.as_slice(), &[0]].concat()), "what the PEM holds is not a key in DER");
    let mut off_curve = der;
    *off_curve.last_mut().expect("the last byte") ^= 1;
    no_pem(&encoded(&off_curve), "the point is not on the curve P-256");
}

/// Base64 in lines of 64 characters.
fn wrapped(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect::<Vec<_>>().join("\n")
}

#[test]
fn ecdsa_signatures_for_a_host() {
    let set = set(&rfc7515_p256());
    let der = |r: &[u8], s: &[u8]| set.keys()[0].ecdsa_sig_value(&[r, s].concat());
    let one: [u8; 32] = std::array::from_fn(|place| u8::from(place == 31));
    assert_eq!(der(&one, &one), Some(b"\x30\x06\x02\x01\x01\x02\x01\x01".to_vec()));
    let high = der(&[0x80; 32], &one).expect("a signature");
    assert_eq!(high[..6], *b"\x30\x26\x02\x21\x00\x80", "a leading zero keeps it positive");
    assert_eq!(der(&[0; 32], &one), None);
    assert_eq!(der(&one, &[0; 32]), None);
    assert_eq!(der(&one, &one[1..]), None);
    assert_eq!(der(&one, &[0; 33]), None);
    let p521 = pem(include_str!("pem/p521.pem")).expect("a key");
    let long = p521.keys()[0].ecdsa_sig_value(&[0x7f; 132]).expect("a signature");
    assert_eq!(long[..5], *b"\x30\x81\x88\x02\x42");
    assert_eq!(pem(RSA).expect("a key").keys()[0].ecdsa_sig_value(&[1; 64]), None);
}

const RSA: &str = include_str!("pem/rsa.pem");
const P256: &str = include_str!("pem/p256.pem");
