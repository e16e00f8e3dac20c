//! What hosts have in common, and where they differ: the only place that knows.
//!
//! Only calls that both Envoy and NGINX (WasmX) answer are made without asking which of them it is. Calls whose
//! failure the SDK turns into a panic are made where they cannot fail.

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};

use super::{header_map, local_reply};
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
        match hostcalls::get_property(vec!["ngx", "nginx_version"]) {
            Ok(Some(_)) => Self::Nginx,
            Ok(None) | Err(_) => Self::Envoy,
        }
    }

    /// Carries out a decision to let the request of the effective context go on.
    pub fn forward(self, forwarded: &Forwarded) {
        for name in &forwarded.remove {
            // Both hosts answer `Ok` also for a header that is not there.
            let _removed = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
        }
        for (name, value) in &forwarded.set {
            let _set = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value));
        }
        match self {
            Self::Envoy => {
                for (key, value) in &forwarded.states {
                    let _set = hostcalls::set_property(vec![key], Some(value.as_bytes()));
                }
                self.tell_outcome(forwarded.outcome);
            }
            // The configuration routes to the upstream only if this says so: whatever else fails, fails closed.
            Self::Nginx => {
                let _told = hostcalls::set_property(vec!["ngx", "authz"], Some(b"1"));
            }
        }
    }

    /// Answers the request of the effective context.
    pub fn reply(self, reply: &LocalReply) {
        self.tell_outcome(reply.outcome);
        if !local_reply::send(reply) {
            log(&Line { level: Level::Warn, text: r#"{"event":"reply_refused_by_host"}"#.to_owned() });
        }
    }

    /// The request of the effective context.
    pub fn request(self) -> Request {
        let request = header_map::request_headers().and_then(Request::from_pairs);
        // A host that fails here has failed the request: the SDK traps.
        let again = || Request::new(hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default());
        request.unwrap_or_else(again).on_route(self.route_setting())
    }

    /// What the route's metadata says under the gate's name. NGINX has no such thing.
    fn route_setting(self) -> RouteSetting {
        const METADATA: &str = "xds\0route_metadata\0filter_metadata\0claimgate";
        // The metadata itself has no form that Envoy hands over: that it is there is all this tells.
        if self == Self::Nginx || header_map::lacks_property(METADATA.as_bytes()) {
            return RouteSetting::Unset;
        }
        let path = |name| METADATA.split('\0').chain([name]).collect();
        let field = |name| hostcalls::get_property(path(name)).ok().flatten();
        match (field("disabled").as_deref(), field("requirement")) {
            (Some([1]), _) => RouteSetting::Disabled,
            (_, Some(name)) => RouteSetting::Requirement(String::from_utf8_lossy(&name).into_owned()),
            (_, None) => RouteSetting::Unset,
        }
    }

    /// The peer's address.
    pub fn client(self) -> Option<String> {
        let address = match self {
            Self::Envoy => hostcalls::get_property(vec!["source", "address"]).ok()??,
            Self::Nginx => hostcalls::get_property(vec!["ngx", "remote_addr"]).ok()??,
        };
        String::from_utf8(address).ok()
    }

    /// Filter state that access logs and other filters read; NGINX has none and fails on unknown properties.
    fn tell_outcome(self, outcome: &str) {
        if self == Self::Envoy {
            let _told = hostcalls::set_property(vec!["claimgate_reason"], Some(outcome.as_bytes()));
        }
    }
}

/// The plugin's configuration.
pub fn configuration() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

/// The host's clock.
pub fn now() -> UnixTime {
    let since_epoch = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    UnixTime::since_epoch(since_epoch.unwrap_or_default())
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
    hostcalls::dispatch_http_call(&address.cluster, headers, None, Vec::new(), fetch.timeout).ok()
}

/// The answer to a callout; only while the host hands it over.
pub fn response(body_size: usize) -> Response {
    let mut headers = hostcalls::get_map_bytes(MapType::HttpCallResponseHeaders).unwrap_or_default();
    for (name, _) in &mut headers {
        name.make_ascii_lowercase();
    }
    let status =
        headers.iter().find(|(name, _)| name == ":status").and_then(|(_, status)| std::str::from_utf8(status).ok());
    match status.and_then(|status| status.parse().ok()) {
        None => Response::Failed,
        Some(status) => {
            let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, body_size);
            Response::Answered { status, headers, body: body.ok().flatten().unwrap_or_default() }
        }
    }
}

/// Asks for `on_tick` every `period`.
pub fn tick_every(period: Duration) {
    let _set = hostcalls::set_tick_period(period);
}

/// Makes another request the effective one. False if it is gone.
pub fn enter(context_id: u32) -> bool {
    hostcalls::set_effective_context(context_id).is_ok()
}

/// Lets the request of the effective context go on.
pub fn resume() {
    let _resumed = hostcalls::resume_http_request();
}

/// Writes a line to the host's log.
pub fn log(line: &Line) {
    let level = match line.level {
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
    };
    log::log!(level, "{}", line.text);
}
