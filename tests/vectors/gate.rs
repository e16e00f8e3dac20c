//! A gate without a host, whose one provider has fetched its keys.

use claimgate::{Config, Decision, KeyStore, Portable, Report, Request, Response, State, UnixTime, decide, explain};
use serde_json::{Value, json};

pub struct Gate {
    config: Config,
    state: State,
    document: Vec<u8>,
    now: UnixTime,
}

impl Gate {
    /// A gate with these settings for its provider, that gets this key set whenever it asks.
    pub fn new(settings: &Value, key_set: &Value, now: u64) -> Self {
        let mut provider = settings.clone();
        provider["remote_jwks"] = json!({"http_uri": {"uri": "https://idp.example.com/jwks.json", "cluster": "idp"}});
        let configuration = json!({"providers": {"corp": provider}}).to_string();
        let (config, sources) = Config::parse(configuration.as_bytes()).expect("the configuration of a vector");
        let now = UnixTime::from_secs(now);
        let state = State { keys: KeyStore::new(sources, 1, now) };
        Self { config, state, document: key_set.to_string().into_bytes(), now }
    }

    /// Decides, fetching whatever is asked for. Whether the explanation says the same is held at each step.
    pub fn decide(&mut self, request: &Request) -> Result<(Decision, Report), String> {
        for _ in 0..MOST_FETCHES {
            let explanation = explain(request, &self.config, &self.state, &Portable, self.now);
            let decision = decide(request, &self.config, &mut self.state, &Portable, self.now);
            if explanation.decision != decision {
                return Err(format!("explained as {:?}, decided as {decision:?}", explanation.decision));
            }
            let Decision::Await(need) = decision else { return Ok((decision, explanation.report)) };
            self.state.keys.want(need.keys, &need.want, self.now);
            while let Some(fetch) = self.state.keys.poll_fetch(self.now) {
                let response = Response::Answered { status: 200, headers: Vec::new(), body: self.document.clone() };
                self.state.keys.handle_response(fetch.id, response, self.now);
            }
        }
        Err("the decision waits for ever".to_owned())
    }
}

/// The set, an unknown `kid`, a signature that fails: none of them twice.
const MOST_FETCHES: usize = 4;
