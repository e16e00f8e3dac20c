//! The gate on files: a configuration, and key sets in place of what it would fetch.

use std::path::Path;

use claimgate::{
    Config, Decision, Event, Explanation, IssuerId, KeySet, KeyStore, Portable, Request, Response, Source, State,
    UnixTime, explain,
};

use super::Trouble;

/// Most times that a decision asks for keys: once for the set, once for a `kid`, once after a bad signature.
const REFETCHES: usize = 3;

/// A key set in place of those that the configuration holds or fetches.
pub struct Given {
    /// The provider's name.
    pub provider: String,
    /// The JWK Set; nothing: it cannot be had.
    pub document: Option<Vec<u8>>,
}

/// The gate, ready to decide.
pub struct Gate {
    config: Config,
    state: State,
    fetched: Vec<(IssuerId, String, Vec<u8>)>,
}

impl Gate {
    /// Sets the gate up.
    pub fn new(config: Config, mut sources: Vec<Source>, given: Vec<Given>, now: UnixTime) -> Result<Self, Trouble> {
        // A key set in a file needs no metadata to be found.
        for source in &mut sources {
            if let Source::Remote(remote) = source {
                remote.discovery = None;
            }
        }
        let mut fetched = Vec::new();
        for Given { provider: name, document } in given {
            let Some(provider) = config.providers.iter().find(|provider| provider.name == name) else {
                let known = claimgate::raw::expected(&name, config.providers.iter().map(|p| p.name.as_str()));
                return Err(format!("the configuration has no provider `{name}`, {known}"));
            };
            match (sources.get_mut(provider.keys.0), document) {
                (Some(Source::Remote(_)), Some(document)) => fetched.push((provider.keys, name, document)),
                (Some(Source::Inline(inline)), document) => {
                    let set = document.map(|document| KeySet::parse(&document, claimgate::limits::JWKS_KEYS));
                    *inline = match set {
                        Some(Ok(set)) if set.keys().is_empty() => {
                            return Err(format!("the key set given for `{name}`: no usable key in the set"));
                        }
                        Some(Ok(set)) => set,
                        Some(Err(error)) => return Err(format!("the key set given for `{name}`: {error}")),
                        None => {
                            return Err(format!(
                                "the keys of `{name}` stand in the configuration: they are always there"
                            ));
                        }
                    };
                }
                (Some(Source::Remote(_)) | None, _) => {}
            }
        }
        let state = State::new(KeyStore::new(sources, 0, now), &config, now);
        let mut gate = Self { config, state, fetched };
        gate.fetch_all(now)?;
        Ok(gate)
    }

    /// What the gate decides, and why.
    pub fn explain(&mut self, request: &Request, now: UnixTime) -> Result<Explanation, Trouble> {
        let mut explanation = explain(request, &self.config, &self.state, &Portable, now);
        // The gate would ask the issuer again for a key that it does not know: the file answers the same.
        for _ in 0..REFETCHES {
            let Decision::Await(need) = &explanation.decision else { break };
            self.state.keys.want(need.keys, &need.want, now);
            self.fetch_all(now)?;
            explanation = explain(request, &self.config, &self.state, &Portable, now);
        }
        Ok(explanation)
    }

    /// Answers what the store asks for; a provider without a document has no keys.
    fn fetch_all(&mut self, now: UnixTime) -> Result<(), Trouble> {
        let keys = &mut self.state.keys;
        while let Some(fetch) = keys.poll_fetch(now) {
            let given = self.fetched.iter().find(|(issuer, ..)| *issuer == fetch.issuer);
            let response = match given {
                Some((_, _, body)) => Response::Answered { status: 200, headers: Vec::new(), body: body.clone() },
                None => Response::Failed,
            };
            let events = keys.handle_response(fetch.id, response, now);
            if let (Some((_, name, _)), Some(Event::Failed { why, .. })) = (given, events.first()) {
                return Err(format!("the key set given for `{name}`: {why}"));
            }
        }
        Ok(())
    }
}

/// Reads a configuration as the gate does.
pub fn parse(document: &[u8]) -> Result<(Config, Vec<Source>), Trouble> {
    Config::parse(document).map_err(|error| {
        let is_json = document.trim_ascii_start().first().is_none_or(|first| *first == b'{');
        if error.path.is_empty() && !is_json {
            return format!(
                "{error}\nIf this is a YAML file of Envoy's or Istio's: the gate reads JSON, what that file gives the \
                 plugin as its configuration."
            );
        }
        error.to_string()
    })
}

/// Reads a configuration file as the gate does.
pub fn load(path: &Path) -> Result<(Config, Vec<Source>), Trouble> {
    parse(&super::read(path)?).map_err(|trouble| format!("{}: {trouble}", path.display()))
}
