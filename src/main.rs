//! The command line: a thin shell around the library. It opens no socket, and prints no token.

#[cfg(target_family = "wasm")]
fn main() {}

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(not(target_family = "wasm"))]
mod cli {
    use std::io::{Read as _, Write as _};
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    use claimgate::{
        Config, Decision, Event, Explanation, IssuerId, KeyStore, Portable, Reason, Request, Response, SignatureStage,
        Source, State, UnixTime, explain,
    };
    use clap::{Args, Parser, Subcommand};
    use serde_json::json;

    /// Allowed, or all well.
    const ALLOWED: u8 = 0;
    /// Rejected, or something found.
    const REJECTED: u8 = 1;
    /// Could not tell.
    const UNKNOWN: u8 = 2;

    /// A JWT gate for Envoy, Istio and NGINX: the same decisions, on the command line.
    #[derive(Parser)]
    #[command(version, after_help = "Exit status: 0 allowed, 1 rejected, 2 could not tell.")]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        /// Say what the gate would decide on a request, and why
        Explain(Explain),
    }

    #[derive(Args)]
    struct Explain {
        /// The plugin's configuration, a JSON file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The JWK Set of a provider that fetches it
        #[arg(long, value_name = "PROVIDER=FILE")]
        jwks: Vec<String>,
        /// A file that holds the token; - for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "header")]
        token_file: Option<PathBuf>,
        /// A header line of the request, such as 'Authorization: Bearer …'
        #[arg(long, value_name = "NAME: VALUE")]
        header: Vec<String>,
        /// The request's method
        #[arg(long, value_name = "METHOD", default_value = "GET")]
        method: String,
        /// The request's path
        #[arg(long, value_name = "PATH", default_value = "/")]
        path: String,
        /// The moment to decide at, in seconds since 1970 or as 2026-01-02T03:04:05Z; now, if absent
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    }

    /// Most times that a decision asks for keys: once for the set, once for a `kid`, once after a bad signature.
    const REFETCHES: usize = 3;

    /// What stopped the command, for people.
    type Trouble = String;

    pub(super) fn main() -> ExitCode {
        let Command::Explain(arguments) = Cli::parse().command;
        let mut out = std::io::stdout().lock();
        let result = run(&arguments).and_then(|(text, code)| match writeln!(out, "{text}") {
            Ok(()) => Ok(code),
            Err(error) => Err(format!("cannot write: {error}")),
        });
        ExitCode::from(result.unwrap_or_else(|trouble| {
            let _nobody_listens = writeln!(std::io::stderr(), "claimgate: {trouble}");
            UNKNOWN
        }))
    }

    fn run(arguments: &Explain) -> Result<(String, u8), Trouble> {
        let now = match &arguments.at {
            Some(text) => moment(text)?,
            None => now()?,
        };
        let (config, sources) = Config::parse(&read(&arguments.config)?)
            .map_err(|error| format!("{}: {error}", arguments.config.display()))?;
        let (sources, given) = key_sets(&config, sources, &arguments.jwks)?;
        let mut state = State::new(KeyStore::new(sources, 0, now), &config, now);
        fetch_all(&mut state.keys, &given, now)?;
        let request = request(arguments)?;
        let mut explanation = explain(&request, &config, &state, &Portable, now);
        // The gate would ask the issuer again for a key that it does not know: the file answers the same.
        for _ in 0..REFETCHES {
            let Decision::Await(need) = &explanation.decision else { break };
            state.keys.want(need.keys, &need.want, now);
            fetch_all(&mut state.keys, &given, now)?;
            explanation = explain(&request, &config, &state, &Portable, now);
        }
        let text = if arguments.json { as_json(&explanation) } else { as_text(&explanation) };
        let code = match &explanation.decision {
            Decision::Allow(_) => ALLOWED,
            Decision::Reject(rejection) if rejection.reason().is_outage() => UNKNOWN,
            Decision::Reject(_) => REJECTED,
            Decision::Await(_) => UNKNOWN,
        };
        Ok((text, code))
    }

    /// A key set that stands in for what a provider fetches.
    struct Given {
        issuer: IssuerId,
        provider: String,
        body: Vec<u8>,
    }

    /// The sources of keys, and what was given in place of those that are fetched. A key set in a file needs no
    /// metadata to be found.
    fn key_sets(
        config: &Config,
        mut sources: Vec<Source>,
        files: &[String],
    ) -> Result<(Vec<Source>, Vec<Given>), Trouble> {
        let mut given = Vec::new();
        for source in &mut sources {
            if let Source::Remote(remote) = source {
                remote.discovery = None;
            }
        }
        for file in files {
            let (name, path) =
                file.split_once('=').ok_or_else(|| format!("--jwks {file}: PROVIDER=FILE was expected"))?;
            let provider = config
                .providers
                .iter()
                .find(|provider| provider.name == name)
                .ok_or_else(|| format!("--jwks {file}: the configuration has no provider `{name}`"))?;
            if let Some(Source::Inline(_)) = sources.get(provider.keys.0) {
                return Err(format!("--jwks {file}: the keys of `{name}` stand in the configuration"));
            }
            given.push(Given { issuer: provider.keys, provider: name.to_owned(), body: read(Path::new(path))? });
        }
        Ok((sources, given))
    }

    /// Answers what the store asks for from the files; a provider without a file has no keys.
    fn fetch_all(store: &mut KeyStore, given: &[Given], now: UnixTime) -> Result<(), Trouble> {
        while let Some(fetch) = store.poll_fetch(now) {
            let file = given.iter().find(|given| given.issuer == fetch.issuer);
            let response = match file {
                Some(given) => Response::Answered { status: 200, headers: Vec::new(), body: given.body.clone() },
                None => Response::Failed,
            };
            let events = store.handle_response(fetch.id, response, now);
            if let (Some(given), Some(Event::Failed { why, .. })) = (file, events.first()) {
                return Err(format!("the key set given for `{}`: {why}", given.provider));
            }
        }
        Ok(())
    }

    fn request(arguments: &Explain) -> Result<Request, Trouble> {
        let mut headers = vec![
            (":method".to_owned(), arguments.method.clone().into_bytes()),
            (":path".to_owned(), arguments.path.clone().into_bytes()),
        ];
        if let Some(file) = &arguments.token_file {
            let token = read(file)?;
            headers.push(("authorization".to_owned(), [b"Bearer ", token.trim_ascii()].concat()));
        }
        for header in &arguments.header {
            let (name, value) =
                header.split_once(':').ok_or_else(|| "--header: 'Name: value' was expected".to_owned())?;
            headers.push((name.trim().to_owned(), value.trim().as_bytes().to_vec()));
        }
        Ok(Request::new(headers))
    }

    fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            return match std::io::stdin().read_to_end(&mut bytes) {
                Ok(_) => Ok(bytes),
                Err(error) => Err(format!("standard input: {error}")),
            };
        }
        std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn now() -> Result<UnixTime, Trouble> {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(elapsed) => Ok(UnixTime::since_epoch(elapsed)),
            Err(_) => Err("this machine's clock is before 1970, use --at".to_owned()),
        }
    }

    fn moment(text: &str) -> Result<UnixTime, Trouble> {
        let seconds = match text.parse::<u64>() {
            Ok(seconds) => Some(seconds),
            Err(_) => text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok()),
        };
        seconds.map(UnixTime::from_secs).ok_or_else(|| {
            format!("--at {text}: seconds since 1970 or a time such as 2026-01-02T03:04:05Z was expected")
        })
    }

    fn results(decision: &Decision) -> Vec<&'static str> {
        match decision {
            Decision::Allow(_) => vec!["ok"],
            Decision::Await(_) => vec!["await"],
            Decision::Reject(rejection) => rejection.reasons().into_iter().map(Reason::as_str).collect(),
        }
    }

    const fn signature(stage: SignatureStage) -> &'static str {
        match stage {
            SignatureStage::NotChecked => "not checked",
            SignatureStage::Pass => "pass",
            SignatureStage::Fail => "fail",
        }
    }

    fn as_text(explanation: &Explanation) -> String {
        let report = &explanation.report;
        let time = |time: Option<UnixTime>| {
            time.map(|time| {
                match i64::try_from(time.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()) {
                    Some(date) => date.to_string(),
                    None => time.as_secs().to_string(),
                }
            })
        };
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
        let mut lines = vec![match &explanation.decision {
            Decision::Allow(_) => "allowed".to_owned(),
            Decision::Await(_) => "undecided: keys are awaited".to_owned(),
            Decision::Reject(rejection) => {
                format!("rejected with {}: {}", rejection.reason().status(), rejection.reason().title())
            }
        }];
        let mut line = |name: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("{name:<12} = {value}")));
        };
        line("provider", report.provider.clone());
        line("alg", report.alg.clone());
        line("kid", report.kid.clone());
        line("keys", list(&report.keys));
        line("iat", time(report.iat));
        line("nbf", time(report.nbf));
        line("exp", time(report.exp));
        line("iss_token", report.iss_token.clone());
        line("iss_expected", list(&report.iss_expected));
        line("aud_token", list(&report.aud_token));
        line("aud_expected", list(&report.aud_expected));
        line("signature", Some(signature(report.signature).to_owned()));
        if let Decision::Reject(rejection) = &explanation.decision {
            for violation in &rejection.violations {
                line("found", Some(format!("{}: {}", violation.reason, violation.detail)));
            }
        }
        line("result", Some(results(&explanation.decision).join(", ")));
        lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
    }

    /// What a token says may hold anything; on a terminal it shall do nothing.
    fn printable(line: &str) -> String {
        line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
    }

    fn as_json(explanation: &Explanation) -> String {
        let report = &explanation.report;
        let violations = match &explanation.decision {
            Decision::Reject(rejection) => rejection
                .violations
                .iter()
                .map(|v| json!({"reason": v.reason.as_str(), "detail": v.detail}))
                .collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        let seconds = |time: Option<UnixTime>| time.map(UnixTime::as_secs);
        json!({
            "decision": match &explanation.decision {
                Decision::Allow(_) => "allow",
                Decision::Reject(_) => "reject",
                Decision::Await(_) => "await",
            },
            "result": results(&explanation.decision),
            "violations": violations,
            "provider": report.provider,
            "alg": report.alg,
            "kid": report.kid,
            "typ": report.typ,
            "keys": report.keys,
            "iat": seconds(report.iat),
            "nbf": seconds(report.nbf),
            "exp": seconds(report.exp),
            "jti": report.jti,
            "token_sha256": report.token_sha256,
            "iss_token": report.iss_token,
            "iss_expected": report.iss_expected,
            "aud_token": report.aud_token,
            "aud_expected": report.aud_expected,
            "signature": signature(report.signature),
        })
        .to_string()
    }
}
