//! `claimgate mint`: makes a token, for development.

use std::path::{Path, PathBuf};

use claimgate::UnixTime;
use clap::Args;
use serde_json::{Map, Value};

use super::keys::{Alg, PrivateKey, override_with};
use super::{Answer, Exit, Trouble, moment, note, now, read, relative};

/// Print a signed token, for development only
///
/// It begins now and ends in five minutes, unless its claims say otherwise.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  claimgate mint --key dev.key.json --claim iss=https://idp.example.com/ --claim aud=orders --claim sub=alice\n  \
                        claimgate mint --key dev.key.json --claims claims.yaml --claim exp=now-61s\n  \
                        claimgate mint --key dev.key.json --header typ=at+jwt --claim exp=null > token.jwt"
)]
pub struct Arguments {
    /// The private key: a JWK, or PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What the key signs with, if it does not say so, or something else
    #[arg(long, value_name = "ALG", ignore_case = true)]
    alg: Option<Alg>,
    /// The key's name, if it does not say so, or another
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    /// A file of claims, JSON or YAML; - for standard input
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// One more claim, as JSON or else as a string; null takes one out. Times may be now+5m, now-61s and the like
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<String>,
    /// One more member of the header, likewise
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// The moment to make it at: seconds since 1970, or 2026-01-02T03:04:05Z; now, if absent
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<Answer, Trouble> {
    let now = now()?;
    let at = arguments.at.as_ref().map_or(Ok(now), |text| moment(text, now).map_err(|why| format!("--at {why}")))?;
    let key = PrivateKey::read(&read(&arguments.key)?, arguments.alg, arguments.kid.clone())
        .map_err(|why| format!("{}: {why}", arguments.key.display()))?;
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), "now".into());
    claims.insert("exp".to_owned(), "now+5m".into());
    if let Some(file) = &arguments.claims {
        override_with(&mut claims, &members(file)?);
    }
    override_with(&mut claims, &named("--claim", &arguments.claim)?);
    let header = named("--header", &arguments.header)?;
    note("this token is for development only");
    Ok(Answer { text: key.sign(&header, &dated(claims, at)?)?, exit: Exit::Well })
}

fn members(file: &Path) -> Result<Map<String, Value>, Trouble> {
    let document = read(file)?;
    serde_saphyr::from_slice(&document).map_err(|error| format!("{}: {error}", file.display()))
}

fn named(option: &str, given: &[String]) -> Result<Map<String, Value>, Trouble> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => {
            Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
        }
        None => Err(format!("{option} {text}: NAME=VALUE was expected")),
    };
    given.iter().map(pair).collect()
}

/// The claims that are moments.
const TIMES: [&str; 4] = ["exp", "nbf", "iat", "auth_time"];

/// The claims with the times that were typed as `now+5m` and the like.
pub fn dated(mut claims: Map<String, Value>, now: UnixTime) -> Result<Map<String, Value>, Trouble> {
    for name in TIMES {
        if let Some(Value::String(text)) = claims.get(name)
            && text.starts_with("now")
        {
            let seconds =
                relative(text, now).ok_or_else(|| format!("`{name}`: `{text}`, now+5m and the like was expected"))?;
            claims.insert(name.to_owned(), seconds.into());
        }
    }
    Ok(claims)
}
