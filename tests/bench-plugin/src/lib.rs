//! What the benchmark compares with, in one plugin. Without a configuration it does nothing at all. With `calls` it makes
//! the calls to its host that claimgate makes for a token that it knows, and does nothing with what they give. With a JWK
//! Set as its configuration it verifies each request's token with `jwt-simple`, as a plugin does that is written in an
//! afternoon, and answers 401 where that fails.
#![cfg(target_family = "wasm")]

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt_simple::prelude::*;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MapType, MetricType};
use serde_json::Value;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Root::default()) });
}}

#[derive(Default)]
struct Root {
    keys: Rc<Vec<Key>>,
    /// For `calls`: the counters to increase.
    counters: Vec<u32>,
}

#[allow(clippy::large_enum_variant, reason = "few are made, and none is moved")]
enum Key {
    Rs256(RS256PublicKey),
    Es256(ES256PublicKey),
    EdDsa(Ed25519PublicKey),
    Hs256(HS256Key),
}

impl Key {
    /// Nothing for a key of another kind.
    fn read(jwk: &Value) -> Option<Self> {
        let octets = |member: &str| URL_SAFE_NO_PAD.decode(jwk[member].as_str()?).ok();
        match jwk["alg"].as_str()? {
            "RS256" => RS256PublicKey::from_components(&octets("n")?, &octets("e")?).ok().map(Key::Rs256),
            "ES256" => {
                let point = [vec![4], octets("x")?, octets("y")?].concat();
                ES256PublicKey::from_bytes(&point).ok().map(Key::Es256)
            }
            "EdDSA" => Ed25519PublicKey::from_bytes(&octets("x")?).ok().map(Key::EdDsa),
            "HS256" => Some(Key::Hs256(HS256Key::from_bytes(&octets("k")?))),
            _ => None,
        }
    }

    fn verifies(&self, alg: &str, token: &str) -> bool {
        match (self, alg) {
            (Key::Rs256(key), "RS256") => key.verify_token::<NoCustomClaims>(token, None).is_ok(),
            (Key::Es256(key), "ES256") => key.verify_token::<NoCustomClaims>(token, None).is_ok(),
            (Key::EdDsa(key), "EdDSA") => key.verify_token::<NoCustomClaims>(token, None).is_ok(),
            (Key::Hs256(key), "HS256") => key.verify_token::<NoCustomClaims>(token, None).is_ok(),
            _ => false,
        }
    }
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Some(configuration) = self.get_plugin_configuration().filter(|text| !text.is_empty()) else { return true };
        if configuration == b"calls" {
            let counter = |name| hostcalls::define_metric(MetricType::Counter, name).ok();
            self.counters = ["bench_allowed", "bench_verified"].into_iter().filter_map(counter).collect();
            return true;
        }
        let Ok(set) = serde_json::from_slice::<Value>(&configuration) else { return false };
        self.keys = Rc::new(set["keys"].as_array().into_iter().flatten().filter_map(Key::read).collect());
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(match (self.keys.is_empty(), self.counters.as_slice()) {
            (false, _) => Box::new(JwtSimple { keys: Rc::clone(&self.keys) }),
            (true, [allowed, verified]) => Box::new(Calls { counters: [*allowed, *verified] }),
            (true, _) => Box::new(Nothing),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Nothing;

impl Context for Nothing {}

impl HttpContext for Nothing {}

struct Calls {
    counters: [u32; 2],
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
}

/// The request's headers in one piece, as claimgate takes them: the SDK takes two more for each line.
fn headers() -> Vec<u8> {
    let (mut data, mut size) = (std::ptr::null_mut::<u8>(), 0_usize);
    // SAFETY: both pointers are those of variables that live beyond the call. The host has taken the memory from the
    // allocator that the SDK exports: a `Vec<u8>` of this capacity, which nobody else holds.
    unsafe {
        let status = proxy_get_header_map_pairs(MapType::HttpRequestHeaders as u32, &raw mut data, &raw mut size);
        if status == 0 && !data.is_null() { Vec::from_raw_parts(data, size, size) } else { Vec::new() }
    }
}

impl Context for Calls {}

impl HttpContext for Calls {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let _now = hostcalls::get_current_time();
        let _headers = std::hint::black_box(headers());
        let _setting = hostcalls::get_property(vec!["xds", "route_metadata", "filter_metadata", "claimgate"]);
        for counter in self.counters {
            let _counted = hostcalls::increment_metric(counter, 1);
        }
        let _removed = hostcalls::remove_map_value(MapType::HttpRequestHeaders, "authorization");
        let _told = hostcalls::set_property(vec!["bench_reason"], Some(b"ok"));
        Action::Continue
    }
}

struct JwtSimple {
    keys: Rc<Vec<Key>>,
}

impl JwtSimple {
    fn allows(&self) -> Option<()> {
        let authorization = self.get_http_request_header("authorization")?;
        let token = authorization.strip_prefix("Bearer ")?;
        let metadata = Token::decode_metadata(token).ok()?;
        self.keys.iter().any(|key| key.verifies(metadata.algorithm(), token)).then_some(())
    }
}

impl Context for JwtSimple {}

impl HttpContext for JwtSimple {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if self.allows().is_some() {
            return Action::Continue;
        }
        self.send_http_response(401, Vec::new(), None);
        Action::Pause
    }
}
