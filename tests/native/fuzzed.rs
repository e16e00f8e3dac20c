//! What `driver` holds, over the inputs that a fuzzer chose for the paths they take (`tests/fuzz`): one in hexadecimal on
//! each line.

use crate::driver;

#[track_caller]
fn check(corpus: &str, drive: impl Fn(&[u8])) {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
    let inputs: Vec<Vec<u8>> = corpus
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.as_bytes().chunks(2).map(byte).collect())
        .collect();
    assert!(inputs.len() > 50, "{} inputs", inputs.len());
    for input in inputs {
        drive(&input);
    }
}

#[test]
fn tokens() {
    check(include_str!("corpus/token.txt"), |bytes| {
        driver::token(bytes, 61);
    });
}

#[test]
fn key_sets() {
    check(include_str!("corpus/jwks.txt"), driver::jwks);
}

#[test]
fn configurations() {
    check(include_str!("corpus/config.txt"), driver::config);
}

#[test]
fn requests() {
    check(include_str!("corpus/request.txt"), |bytes| {
        driver::request(bytes);
    });
}

/// The corpora are of use only if the gate opens for some of them.
#[test]
fn the_drivers_reach_an_open_gate() {
    let opens = |drive: fn(&[u8]) -> bool, inputs: &[&[u8]]| inputs.iter().filter(|input| drive(input)).count();
    assert_eq!(
        opens(
            |bytes| driver::token(bytes, 1),
            &[
                b"\x01{\"alg\":\"HS256\",\"typ\":\"JWT\"}\n{\"iss\":\"https://a/\",\"aud\":\"orders\",\"scope\":\"read\",\"exp\":1900000000,\"iat\":1799999999}",
                b"\x01{\"alg\":\"HS256\",\"typ\":\"JWT\"}\n{}",
                b"\x00a.b.c",
            ],
        ),
        1
    );
    assert_eq!(opens(driver::request, &[b"\0authorization:Bearer \x01", b"\x02cookie:s=\x01", b"\0a:b"]), 1);
}
