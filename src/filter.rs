//! The adapter to proxy-wasm hosts: it moves bytes in, applies effects, parks and wakes. It looks at no token.

mod abi;
mod exports;
mod foreign;
mod host;
mod metrics;
mod sharing;

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::rc::Rc;
use std::time::Duration;

use crate::config::{Config, ErrorFormat, HostCrypto, Mode};
use crate::decide::{Decision, Need, Report, State, judge};
use crate::keystore::{Event, Fetch, IssuerId, KeyStore, Response, Source, Want, notes};
use crate::observe::{
    Line, LogGate, cost_counters, event_counter, event_line, gauges, omitted_line, rejection_line, status,
};
use crate::parking::{Parked, Parking};
use crate::reply::{Effects, LocalReply, json_reply, reject, reply};
use crate::request::Request;
use crate::signature::{Crypto, Portable};
use crate::time::UnixTime;
use foreign::Foreign;
use host::Host;
use metrics::Metrics;
use sharing::Sharing;

/// How often the key store is looked after. Hosts allow one period in a plugin's life, Envoy more.
const TICK: Duration = Duration::from_millis(200);

/// How often the gauges are brought up to date.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// The period while a request waits in Envoy, so that the fetch it waits for starts at once.
const TICK_WHILE_PARKED: Duration = Duration::from_millis(10);

thread_local! {
    static PLUGIN: RefCell<Plugin> = RefCell::default();
}

/// What one virtual machine holds. A host runs several configurations in one, if their plugins are the same.
#[derive(Default)]
struct Plugin {
    roots: Vec<Root>,
    /// Requests that were announced and have not come yet, with the root that each is of.
    announced: Vec<(u32, u32)>,
}

/// Everything one worker remembers for one configuration. It is empty until that was accepted, and nothing passes until
/// then.
#[derive(Clone, Default)]
struct Root {
    id: u32,
    gate: Rc<RefCell<Option<Gate>>>,
}

struct Gate {
    config: Config,
    state: State,
    parking: Parking<u32>,
    log_gate: LogGate,
    host: Option<Host>,
    /// The host's signature verification, if it has one that was found right.
    foreign: Option<Foreign>,
    metrics: Metrics,
    gauges_due: UnixTime,
    callouts: Vec<Callout>,
    sharing: Sharing,
}

/// A fetch under way.
struct Callout {
    /// The host's name for it.
    token: u32,
    fetch: Fetch,
    /// The request that made it for itself, and what that waits for: on NGINX.
    waiting: Option<(u32, Need)>,
}

/// The answer to a callout.
struct Answered {
    events: Vec<Event>,
    /// The request that made it for itself.
    waiting: Option<(u32, Need)>,
}

/// What is to be done to one request, once nothing is borrowed any more.
struct Verdict {
    host: Host,
    effects: Effects,
    lines: Vec<Line>,
}

/// What was done to one request.
enum Done {
    Passes,
    Answered,
    Waits(Host, Need),
}

impl Verdict {
    /// Carries the verdict out on the request of the effective context.
    fn carry_out(self) -> Done {
        self.lines.iter().for_each(host::log);
        match self.effects {
            Effects::Forward(forwarded) => {
                self.host.forward(&forwarded);
                Done::Passes
            }
            Effects::Reply(reply) => {
                self.host.reply(&reply);
                Done::Answered
            }
            Effects::Park(need) => Done::Waits(self.host, need),
        }
    }
}

impl Gate {
    fn new(config: Config, sources: Vec<Source>, now: UnixTime) -> Self {
        let state = State::new(KeyStore::new(sources, random(), now), &config, now);
        Self {
            config,
            state,
            parking: Parking::default(),
            log_gate: LogGate::default(),
            host: None,
            foreign: None,
            metrics: Metrics::default(),
            gauges_due: now,
            callouts: Vec::new(),
            sharing: Sharing::new(random()),
        }
    }

    /// The host, found out with the first request: NGINX can be told from Envoy only inside one, and a call to a function
    /// that it has not would bring it down.
    fn host(&mut self) -> Host {
        if let Some(host) = self.host {
            return host;
        }
        let host = Host::detect();
        self.host = Some(host);
        if host == Host::Envoy && self.config.host_crypto == HostCrypto::Auto {
            self.foreign = Foreign::probe();
        }
        host
    }

    /// Decides on a request of the effective context.
    fn decide(&mut self, request: &Request, now: UnixTime) -> Verdict {
        let host = self.host();
        let crypto: &dyn Crypto = self.foreign.as_ref().map_or(&Portable, |foreign| foreign);
        let judgement = judge(request, &self.config, &mut self.state, crypto, now);
        self.metrics.count(&self.config, &judgement.decision);
        let lines = match &judgement.decision {
            Decision::Reject(rejection) => match self.log_gate.admit(rejection.reason(), now) {
                Some(suppressed) => {
                    let report = judgement.report(&self.state, now);
                    let client = host.client();
                    vec![rejection_line(request, &self.config, rejection, &report, client.as_deref(), suppressed, now)]
                }
                None => Vec::new(),
            },
            Decision::Allow(allow) => {
                let line = |(header, why): &(String, &str)| omitted_line(request, &self.config, header, why);
                allow.omitted.iter().map(line).collect()
            }
            Decision::Await(_) => Vec::new(),
        };
        Verdict { host, effects: reply(request, &self.config, judgement.decision), lines }
    }

    /// The gate's own answer, if this request asks for it.
    fn status(&self, request: &Request, now: UnixTime) -> Option<LocalReply> {
        let path = self.config.status_path.as_ref()?;
        (request.path() == path.as_bytes()).then(|| json_reply(status(&self.config, &self.state.keys, now)))
    }

    /// Ends the waiting of a request that cannot wait for keys, or not any longer.
    fn give_up(&mut self, request: &Request, need: Need, detail: &'static str, now: UnixTime) -> Verdict {
        let host = self.host();
        let rejection = need.into_rejection(detail);
        let lines = match self.log_gate.admit(rejection.reason(), now) {
            Some(suppressed) => {
                let (report, client) = (Report::default(), host.client());
                vec![rejection_line(request, &self.config, &rejection, &report, client.as_deref(), suppressed, now)]
            }
            None => Vec::new(),
        };
        let decision = Decision::Reject(rejection);
        self.metrics.count(&self.config, &decision);
        Verdict { host, effects: reply(request, &self.config, decision), lines }
    }

    /// Takes the answer to a callout. Nothing if it is not ours.
    fn handle_response(&mut self, token: u32, body_size: usize, now: UnixTime) -> Option<Answered> {
        let place = self.callouts.iter().position(|callout| callout.token == token)?;
        let Callout { fetch, waiting, .. } = self.callouts.swap_remove(place);
        let events = self.state.keys.handle_response(fetch.id, host::response(body_size), now);
        // Nothing has happened yet where the metadata came: this worker goes on to the key set and keeps its lease.
        if !events.is_empty() {
            self.sharing.publish(&self.state.keys, fetch.issuer);
        }
        self.count_fetch(&events);
        self.write(&events);
        Some(Answered { events, waiting })
    }

    /// Ends what took too long and takes over what other workers learnt: what happened, and whose waiting has ended.
    fn catch_up(&mut self, now: UnixTime) -> (Vec<Event>, Vec<IssuerId>) {
        let mut events = Vec::new();
        let mut ended = Vec::new();
        for issuer in self.state.keys.remote_issuers() {
            ended.extend(self.follow(issuer, &mut events, now));
        }
        let ended_here = self.state.keys.handle_timeout(now);
        self.count_fetch(&ended_here);
        for issuer in ended_here.iter().filter_map(Event::ends_waiting_for) {
            self.sharing.publish(&self.state.keys, issuer);
        }
        events.extend(ended_here);
        (events, ended)
    }

    /// Takes over what other workers learnt of an issuer. That one if waiting for it may have ended: a fetch that began
    /// and failed elsewhere since the last time is neither an event here nor seen under way.
    fn follow(&mut self, issuer: IssuerId, events: &mut Vec<Event>, now: UnixTime) -> Option<IssuerId> {
        events.extend(self.sharing.sync(&mut self.state.keys, issuer, now)?);
        (!self.state.keys.is_fetching(issuer)).then_some(issuer)
    }

    /// Starts the fetches that are due and that no other worker makes: what happened, and whose waiting has ended.
    fn fetch(&mut self, now: UnixTime) -> (Vec<Event>, Vec<IssuerId>) {
        let mut events = Vec::new();
        let mut ended = Vec::new();
        // NGINX leaks a connection for each root callout beside another: there they go one by one. Which host it is may
        // not be known yet, so the first fetches go one by one everywhere.
        while self.host == Some(Host::Envoy) || self.callouts.is_empty() {
            let Some(fetch) = self.state.keys.poll_fetch(now) else { break };
            if self.sharing.lease(&self.state.keys, &fetch) {
                events.extend(self.dispatch(fetch, None, now));
            } else {
                self.state.keys.handle_busy(fetch.id);
                ended.extend(self.follow(fetch.issuer, &mut events, now));
                if !self.state.keys.is_fetching(fetch.issuer) {
                    break;
                }
            }
        }
        (events, ended)
    }

    /// Sends a fetch out from the active context. A host that cannot send it has answered: failed.
    fn dispatch(&mut self, fetch: Fetch, waiting: Option<(u32, Need)>, now: UnixTime) -> Vec<Event> {
        match host::dispatch(&fetch) {
            Some(token) => {
                self.callouts.push(Callout { token, fetch, waiting });
                Vec::new()
            }
            None => {
                let events = self.state.keys.handle_response(fetch.id, Response::Failed, now);
                self.sharing.publish(&self.state.keys, fetch.issuer);
                self.count_fetch(&events);
                events
            }
        }
    }

    fn write(&self, events: &[Event]) {
        for event in events {
            host::log(&event_line(&self.config, event));
        }
    }

    /// Shows how the key sets stand, and what was done and not done for speed.
    fn measure(&mut self, now: UnixTime) {
        if self.gauges_due <= now {
            self.gauges_due = now.after(GAUGES_EVERY);
            self.metrics.show(gauges(&self.config, &self.state.keys, now));
        }
        let failures = self.foreign.as_ref().map_or(0, Foreign::take_failures);
        for (name, count) in cost_counters(&self.config, self.state.take_tally(), self.state.take_braked(), failures) {
            self.metrics.add(&name, count);
        }
    }

    /// Counts what came of a fetch that this worker made. The others take it over and do not count it again.
    fn count_fetch(&mut self, events: &[Event]) {
        for name in events.iter().filter_map(|event| event_counter(&self.config, event)) {
            self.metrics.add(&name, 1);
        }
    }
}

impl Root {
    /// Decides again on the requests that waited for these issuers.
    fn wake(&self, issuers: &[IssuerId], now: UnixTime) {
        let ready = self.with_gate(|gate| -> Vec<_> {
            issuers.iter().flat_map(|issuer| gate.parking.take_ready(*issuer)).collect()
        });
        for parked in ready.unwrap_or_default() {
            self.settle(parked, now, |gate, request| gate.decide(request, now));
        }
    }

    /// Judges a request that was parked, from the root context.
    fn settle(&self, parked: Parked<u32>, now: UnixTime, judge: impl FnOnce(&mut Gate, &Request) -> Verdict) {
        if !host::enter(parked.request) {
            return;
        }
        let Some(request) = Host::Envoy.request() else { return fail_closed(Host::Envoy, NO_HEADERS) };
        let Some(verdict) = self.with_gate(|gate| judge(gate, &request)) else { return };
        match verdict.carry_out() {
            Done::Passes => host::resume(),
            Done::Answered => {}
            // Another set is still to come.
            Done::Waits(_, need) => {
                let refused = self.with_gate(|gate| {
                    gate.state.keys.want(need.keys, &need.want, now);
                    let parks = gate.parking.park(parked.waiting_for(need.keys));
                    (!parks).then(|| gate.give_up(&request, need, TOO_MANY, now))
                });
                let _answered = refused.flatten().map(Verdict::carry_out);
            }
        }
    }

    /// Lends the gate out for one action. Nothing if there is none, or if the host called back in the midst of one: the
    /// caller fails closed.
    fn with_gate<T>(&self, act: impl FnOnce(&mut Gate) -> T) -> Option<T> {
        self.gate.try_borrow_mut().ok()?.as_mut().map(act)
    }

    /// Takes the configuration that the host holds out. False if it is refused.
    fn configure(&self) -> bool {
        let now = host::now();
        match Config::parse(&host::configuration()) {
            Ok((config, sources)) => {
                let events: Vec<Event> = config
                    .providers
                    .iter()
                    .zip(&sources)
                    .flat_map(|(provider, source)| match source {
                        Source::Inline(set) => notes(provider.keys, set),
                        Source::Remote(_) => Vec::new(),
                    })
                    .collect();
                let mut gate = Gate::new(config, sources, now);
                // What another worker, or the configuration before this one, knows already need not be fetched again.
                let _known = gate.sharing.join(&mut gate.state.keys, now);
                gate.write(&events);
                self.gate.replace(Some(gate));
                host::tick_every(TICK);
                true
            }
            Err(error) => {
                abi::log(abi::Level::Error, &format!("claimgate refuses its configuration: {error}"));
                false
            }
        }
    }

    fn tick(&self) {
        let now = host::now();
        let ended = self.with_gate(|gate| {
            let (mut events, mut ended) = gate.catch_up(now);
            let (fetched, overtaken) = gate.fetch(now);
            events.extend(fetched);
            ended.extend(overtaken);
            gate.write(&events);
            gate.measure(now);
            ended.extend(events.iter().filter_map(Event::ends_waiting_for));
            ended
        });
        self.wake(&ended.unwrap_or_default(), now);
        let overdue = self.with_gate(|gate| {
            let overdue = gate.parking.take_overdue(now);
            if gate.host == Some(Host::Envoy) && gate.parking.is_empty() {
                host::tick_every(TICK);
            }
            overdue
        });
        for parked in overdue.unwrap_or_default() {
            self.settle(parked, now, |gate, request| {
                let verdict = gate.decide(request, now);
                match verdict.effects {
                    Effects::Park(need) => gate.give_up(request, need, TOO_LONG, now),
                    _ => verdict,
                }
            });
        }
    }

    /// Decides on a request whose headers have come. Whether it goes on now.
    fn handle_request(&self, context_id: u32) -> bool {
        let now = host::now();
        let Some(host) = self.with_gate(Gate::host) else {
            fail_closed(Host::detect(), NO_GATE);
            return false;
        };
        let Some(request) = host.request() else {
            fail_closed(host, NO_HEADERS);
            return false;
        };
        let Some(verdict) = self.with_gate(|gate| match gate.status(&request, now) {
            Some(status) => Verdict { host, effects: Effects::Reply(status), lines: Vec::new() },
            None => gate.decide(&request, now),
        }) else {
            fail_closed(host, NO_GATE);
            return false;
        };
        match verdict.carry_out() {
            Done::Passes => true,
            Done::Answered => false,
            Done::Waits(host, need) => {
                if let Some(refused) = self.wait(&request, context_id, host, need, now) {
                    let _answered = refused.carry_out();
                }
                false
            }
        }
    }

    /// Parks a request, or says how it is answered instead.
    fn wait(&self, request: &Request, context_id: u32, host: Host, need: Need, now: UnixTime) -> Option<Verdict> {
        let refused = self.with_gate(|gate| {
            gate.state.keys.want(need.keys, &need.want, now);
            match host {
                Host::Envoy => {
                    if gate.parking.park(Parked::new(context_id, need.keys, now)) {
                        host::tick_every(TICK_WHILE_PARKED);
                        return None;
                    }
                    Some(gate.give_up(request, need, TOO_MANY, now))
                }
                // No other context can wake this request: it makes the fetch itself, or does not wait.
                Host::Nginx => {
                    if let Some(fetch) = gate.state.keys.poll_fetch(now) {
                        let events = gate.dispatch(fetch, Some((context_id, need.clone())), now);
                        gate.write(&events);
                        if events.is_empty() {
                            return None;
                        }
                    }
                    Some(gate.give_up(request, need, NOT_HERE, now))
                }
            }
        });
        refused.flatten()
    }

    /// Takes the answer to a callout. False if it is not one of this root's.
    fn handle_response(&self, token: u32, body_size: usize) -> bool {
        let now = host::now();
        let answered = self.with_gate(|gate| gate.handle_response(token, body_size, now)).flatten();
        let Some(Answered { events, waiting }) = answered else { return false };
        match waiting {
            None => {
                let ended: Vec<IssuerId> = events.iter().filter_map(Event::ends_waiting_for).collect();
                self.wake(&ended, now);
            }
            Some((context_id, need)) => self.answer(context_id, need, now),
        }
        true
    }

    /// Decides again on the request whose own fetch has ended: on NGINX.
    fn answer(&self, context_id: u32, need: Need, now: UnixTime) {
        if !host::enter(context_id) {
            return;
        }
        let Some(request) = Host::Nginx.request() else { return fail_closed(Host::Nginx, NO_HEADERS) };
        let verdict = self.with_gate(|gate| {
            let verdict = gate.decide(&request, now);
            match &verdict.effects {
                Effects::Park(_) => gate.give_up(&request, need, NOT_HERE, now),
                _ => verdict,
            }
        });
        match verdict.map(Verdict::carry_out) {
            Some(Done::Passes) => host::resume(),
            Some(Done::Answered | Done::Waits(..)) => {}
            None => fail_closed(Host::Nginx, NO_GATE),
        }
    }

    /// Forgets a request that is gone.
    fn forget(&self, context_id: u32) {
        let _forgotten = self.with_gate(|gate| {
            gate.parking.remove(&context_id);
            // A callout of its own ends with it.
            gate.callouts.retain(|callout| callout.waiting.as_ref().is_none_or(|(waiting, _)| *waiting != context_id));
        });
    }
}

impl Plugin {
    /// A new root if it has no parent, else a request of the parent's.
    fn announce(&mut self, context_id: u32, parent: u32) {
        const NOBODY: u32 = 0;
        match parent {
            NOBODY => self.roots.push(Root { id: context_id, gate: Rc::default() }),
            root => self.announced.push((context_id, root)),
        }
    }

    fn root(&self, id: u32) -> Option<Root> {
        self.roots.iter().find(|root| root.id == id).cloned()
    }

    /// The root of a request that has come.
    fn take_announced(&mut self, context_id: u32) -> Option<Root> {
        let place = self.announced.iter().rposition(|(announced, _)| *announced == context_id)?;
        let (_, root) = self.announced.swap_remove(place);
        self.root(root)
    }
}

/// Answers a request that cannot be judged: nothing passes.
fn fail_closed(host: Host, why: &'static str) {
    let need = Need { keys: IssuerId(0), want: Want::Set, mode: Mode::Enforce };
    let rejection = need.into_rejection(why);
    let request = host.request().unwrap_or_default();
    host.reply(&reject(&request, ErrorFormat::NoBody, None, &rejection));
}

/// A number that differs from worker to worker.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

const NO_GATE: &str = "the gate has no configuration";
const NO_HEADERS: &str = "the gate was not handed the request's headers";
const TOO_MANY: &str = "the issuer's keys are being fetched and too many requests wait for them";
const TOO_LONG: &str = "the issuer's keys did not arrive in time";
const NOT_HERE: &str = "the issuer's keys are being fetched";
