//! What a host calls: the callbacks of the proxy-wasm ABI 0.2.1 that the gate needs. Each one that is exported is one more
//! call for every request in Envoy, whether or not it does anything.
#![expect(unsafe_code, reason = "an export is a name without a crate before it")]

use super::{PLUGIN, Plugin};

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// What the ABI calls "continue".
const CONTINUE: u32 = 0;
/// What it calls "pause".
const PAUSE: u32 = 1;

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the host calls this once and first, as WASI's reactors ask.
    unsafe { __wasm_call_ctors() }
}

/// Memory that the host writes into, and that a call of `abi` then takes over as a `Vec<u8>` of this capacity.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Vec::with_capacity(size).leak().as_mut_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> u32 {
    true.into()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context_id: u32, parent: u32) {
    with_plugin(|plugin| plugin.announce(context_id, parent));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
    with_plugin(|plugin| plugin.root(root)).flatten().is_some_and(|root| root.configure()).into()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    if let Some(root) = with_plugin(|plugin| plugin.root(root)).flatten() {
        root.tick();
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context_id: u32, _lines: usize, _is_last: u32) -> u32 {
    let root = with_plugin(|plugin| plugin.take_announced(context_id)).flatten().unwrap_or_default();
    if root.handle_request(context_id) { CONTINUE } else { PAUSE }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    _context: u32,
    token: u32,
    _lines: usize,
    body_size: usize,
    _trailers: usize,
) {
    let roots = with_plugin(|plugin| plugin.roots.clone()).unwrap_or_default();
    let _known = roots.iter().any(|root| root.handle_response(token, body_size));
}

/// A request or a configuration is gone.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context_id: u32) {
    let _forgotten = with_plugin(|plugin| {
        plugin.announced.retain(|(announced, _)| *announced != context_id);
        plugin.roots.retain(|root| root.id != context_id);
        plugin.roots.iter().for_each(|root| root.forget(context_id));
    });
}

/// Lends the plugin out. Nothing if it is lent already: the host called back in the midst of a call.
fn with_plugin<T>(act: impl FnOnce(&mut Plugin) -> T) -> Option<T> {
    PLUGIN.with(|plugin| plugin.try_borrow_mut().ok().map(|mut plugin| act(&mut plugin)))
}

/// What WasmX calls without asking whether it is there: it would bring the worker down.
#[cfg(feature = "nginx")]
mod nginx {
    use super::CONTINUE;

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_request_body(_context: u32, _size: usize, _is_last: u32) -> u32 {
        CONTINUE
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_request_trailers(_context: u32, _lines: usize) -> u32 {
        CONTINUE
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_headers(_context: u32, _lines: usize, _is_last: u32) -> u32 {
        CONTINUE
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_body(_context: u32, _size: usize, _is_last: u32) -> u32 {
        CONTINUE
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_trailers(_context: u32, _lines: usize) -> u32 {
        CONTINUE
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_done(_context: u32) -> u32 {
        true.into()
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_log(_context: u32) {}
}
