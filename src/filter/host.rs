//! What hosts have in common, and where they differ: the only place that knows.
//!
//! Only calls that both Envoy and NGINX (WasmX) answer are made without asking which of them it is.

use std::time::Duration;

use super::abi::{self, Buffer, Headers};
use crate::keystore::{Fetch, Response};
use crate::observe::{Level, Line};
use crate::reply::{Forwarded, LocalReply};
use crate::request::{Request, RouteSetting};
use crate::time::UnixTime;

/// The host's software. It can be told only inside a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Wakes parked requests from the root context, keeps filter state.
    Envoy,
    /// Does neither. It forwards a request whose handler fails, and so needs to be told of each one that may pass.
    Nginx,
}

impl Host {
    /// Finds out which it is. Only inside a request: outside, NGINX fails on some properties.
    pub fn detect() -> Self {
        match abi::property("ngx\0nginx_version") {
            Some(_) => Self::Nginx,
            None => Self::Envoy,
        }
    }

    /// Carries out a decision to let the request of the effective context go on.
    pub fn forward(self, forwarded: &Forwarded) {
        for name in &forwarded.remove {
            // Both hosts answer `Ok` also for a header that is not there.
            abi::remove_header(name);
        }
        for (name, value) in &forwarded.set {
            abi::set_header(name, value);
        }
        match self {
            Self::Envoy => {
                for (key, value) in &forwarded.states {
                    abi::set_property(key, value.as_bytes());
                }
                self.tell_outcome(forwarded.outcome);
            }
            // The configuration routes to the upstream only if this says so: whatever else fails, fails closed.
            Self::Nginx => abi::set_property("ngx\0authz", b"1"),
        }
    }

    /// Answers the request of the effective context.
    pub fn reply(self, reply: &LocalReply) {
        self.tell_outcome(reply.outcome);
        let headers: Vec<(&str, &str)> = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !abi::local_response(reply.status, &reply.details, &headers, reply.body.as_bytes(), reply.grpc_status) {
            log(&Line { level: Level::Warn, text: r#"{"event":"reply_refused_by_host"}"#.to_owned() });
        }
    }

    /// The request of the effective context. Nothing if the host does not hand its headers over.
    pub fn request(self) -> Option<Request> {
        let request = abi::header_pairs(Headers::Request).and_then(Request::from_pairs)?;
        Some(request.on_route(self.route_setting()))
    }

    /// What the route's metadata says under the gate's name. NGINX has no such thing.
    fn route_setting(self) -> RouteSetting {
        const METADATA: &str = "xds\0route_metadata\0filter_metadata\0claimgate";
        // The metadata itself has no form that Envoy hands over: that it is there is all this tells.
        if self == Self::Nginx || abi::lacks_property(METADATA) {
            return RouteSetting::Unset;
        }
        let field = |name: &str| abi::property(&[METADATA, name].join("\0"));
        match (field("disabled").as_deref(), field("requirement")) {
            (Some([1]), _) => RouteSetting::Disabled,
            (_, Some(name)) => RouteSetting::Requirement(String::from_utf8_lossy(&name).into_owned()),
            (_, None) => RouteSetting::Unset,
        }
    }

    /// The peer's address.
    pub fn client(self) -> Option<String> {
        let address = match self {
            Self::Envoy => abi::property("source\0address")?,
            Self::Nginx => abi::property("ngx\0remote_addr")?,
        };
        String::from_utf8(address).ok()
    }

    /// Filter state that access logs and other filters read; NGINX has none and fails on unknown properties.
    fn tell_outcome(self, outcome: &str) {
        if self == Self::Envoy {
            abi::set_property("claimgate_reason", outcome.as_bytes());
        }
    }
}

/// The plugin's configuration.
pub fn configuration() -> Vec<u8> {
    abi::buffer(Buffer::Configuration, usize::MAX).unwrap_or_default()
}

/// The host's clock.
pub fn now() -> UnixTime {
    UnixTime::since_epoch(Duration::from_nanos(abi::now().unwrap_or_default()))
}

/// Sends the request for a key set. The answer goes to the context that is active. Nothing if the host cannot, for
/// example because it does not know the cluster.
pub fn dispatch(fetch: &Fetch) -> Option<u32> {
    let address = &fetch.address;
    let mut headers = vec![
        (":method", "GET"),
        (":scheme", address.scheme.as_str()),
        (":authority", address.authority.as_str()),
        (":path", address.path.as_str()),
        ("accept", "application/jwk-set+json, application/json"),
        ("user-agent", concat!("claimgate/", env!("CARGO_PKG_VERSION"))),
    ];
    headers.extend(fetch.headers.iter().map(|(name, value)| (*name, value.as_str())));
    let timeout = u32::try_from(fetch.timeout.as_millis()).unwrap_or(u32::MAX);
    abi::http_call(&address.cluster, &headers, timeout)
}

/// The answer to a callout; only while the host hands it over.
pub fn response(body_size: usize) -> Response {
    // Header lines are written as those of a request are.
    let lines = abi::header_pairs(Headers::CallResponse).and_then(Request::from_pairs).unwrap_or_default();
    let status = lines.value(":status").and_then(|status| std::str::from_utf8(status).ok());
    match status.and_then(|status| status.parse().ok()) {
        None => Response::Failed,
        Some(status) => {
            let headers = lines.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            let body = abi::buffer(Buffer::CallResponseBody, body_size).unwrap_or_default();
            Response::Answered { status, headers, body }
        }
    }
}

/// Asks for `on_tick` every `period`.
pub fn tick_every(period: Duration) {
    abi::tick_every(u32::try_from(period.as_millis()).unwrap_or(u32::MAX));
}

/// Makes another request the effective one. False if it is gone.
pub fn enter(context_id: u32) -> bool {
    abi::enter(context_id)
}

/// Lets the request of the effective context go on.
pub fn resume() {
    abi::resume_request();
}

/// Writes a line to the host's log.
pub fn log(line: &Line) {
    let level = match line.level {
        Level::Info => abi::Level::Info,
        Level::Warn => abi::Level::Warn,
    };
    abi::log(level, &line.text);
}
