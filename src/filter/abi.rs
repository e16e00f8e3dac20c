//! The calls of the proxy-wasm ABI 0.2.1 that the gate makes. No SDK stands between: its dispatcher exports twenty
//! callbacks that the gate has no use for, and of which a host calls some for every request; its own calls take two
//! allocations for each header line, and panic on answers that they do not know.
//!
//! A host answers each call with a status. What is not "ok" is nothing, or false: the caller fails closed.
#![expect(unsafe_code, reason = "an import cannot be called safely")]

use std::ptr::{null, null_mut};

/// What the host calls "ok".
const OK: u32 = 0;
/// What it calls "not found".
const NOT_FOUND: u32 = 1;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, most: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, value_size: usize, version: u32)
    -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
    fn proxy_http_call(
        upstream: *const u8,
        upstream_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        call: *mut u32,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}

/// Header lines that a host keeps.
#[derive(Clone, Copy)]
pub enum Headers {
    /// Those of the request of the effective context.
    Request = 0,
    /// Those of the answer to a callout.
    CallResponse = 6,
}

/// Octets that a host keeps.
#[derive(Clone, Copy)]
pub enum Buffer {
    /// The body of the answer to a callout.
    CallResponseBody = 4,
    /// The plugin's configuration.
    Configuration = 7,
}

/// How bad a line of the log is.
#[derive(Clone, Copy)]
pub enum Level {
    /// `info`.
    Info = 2,
    /// `warn`.
    Warn = 3,
    /// `error`.
    Error = 4,
}

/// What a metric is.
#[derive(Clone, Copy)]
pub enum Metric {
    /// It only grows.
    Counter = 0,
    /// It is set.
    Gauge = 1,
}

/// Asks the host for octets: the status, and what was handed over.
fn ask(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> (u32, Option<Vec<u8>>) {
    let (mut data, mut size) = (null_mut::<u8>(), 0_usize);
    let status = call(&raw mut data, &raw mut size);
    // SAFETY: what the host hands over it has taken from `proxy_on_memory_allocate`: a `Vec<u8>` of this capacity, which
    // nobody else holds, and it has written all of it.
    let octets = (!data.is_null()).then(|| unsafe { Vec::from_raw_parts(data, size, size) });
    (status, octets)
}

/// The octets, if the host says "ok".
fn get(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (status, octets) = ask(call);
    octets.filter(|_| status == OK)
}

// SAFETY of every call below: each pointer is that of a slice, with its own length, or of a variable; all of them live
// beyond the call, and the host keeps none.

/// Writes a line to the host's log.
pub fn log(level: Level, text: &str) {
    // SAFETY: see above.
    let _written = unsafe { proxy_log(level as u32, text.as_ptr(), text.len()) };
}

/// The host's clock: nanoseconds since the epoch.
pub fn now() -> Option<u64> {
    let mut time = 0;
    // SAFETY: see above.
    let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut time) };
    (status == OK).then_some(time)
}

/// Asks for a tick every `period` milliseconds.
pub fn tick_every(period: u32) {
    // SAFETY: it takes a number.
    let _set = unsafe { proxy_set_tick_period_milliseconds(period) };
}

/// Makes another context the effective one. False if it is gone.
pub fn enter(context: u32) -> bool {
    // SAFETY: it takes a number.
    unsafe { proxy_set_effective_context(context) == OK }
}

/// At most so many octets of a buffer.
pub fn buffer(buffer: Buffer, most: usize) -> Option<Vec<u8>> {
    // SAFETY: see above.
    get(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, most, data, size) })
}

/// Header lines, as `Request::from_pairs` reads them.
pub fn header_pairs(map: Headers) -> Option<Vec<u8>> {
    // SAFETY: see above.
    get(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Sets a header of the request.
pub fn set_header(name: &str, value: &[u8]) {
    let map = Headers::Request as u32;
    // SAFETY: see above.
    let _set = unsafe { proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Removes a header of the request, if it is there.
pub fn remove_header(name: &str) {
    // SAFETY: see above.
    let _removed = unsafe { proxy_remove_header_map_value(Headers::Request as u32, name.as_ptr(), name.len()) };
}

/// The property at a path whose parts stand one behind another with a zero between two.
pub fn property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: see above.
    get(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Whether the host says that it has no such property.
pub fn lacks_property(path: &str) -> bool {
    // SAFETY: see above.
    let (status, _) = ask(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) });
    status == NOT_FOUND
}

/// Sets a property: filter state, or a variable of NGINX.
pub fn set_property(path: &str, value: &[u8]) {
    // SAFETY: see above.
    let _set = unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
}

/// What the host takes for "whatever version" of a record. No record has it.
const ANY_VERSION: u32 = 0;

/// A record of the memory that all workers share, with its version.
pub fn shared_data(key: &str) -> Option<(Vec<u8>, u32)> {
    let mut version = ANY_VERSION;
    // SAFETY: see above.
    let value =
        get(|data, size| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version) });
    Some((value?, version)).filter(|_| version != ANY_VERSION)
}

/// Writes a record if it still has this version, or whatever version it has. False if it was not written.
#[must_use]
pub fn set_shared_data(key: &str, value: &[u8], version: Option<u32>) -> bool {
    let version = version.unwrap_or(ANY_VERSION);
    // SAFETY: see above.
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) == OK }
}

/// The host's number for a metric.
pub fn define_metric(kind: Metric, name: &str) -> Option<u32> {
    let mut metric = 0;
    // SAFETY: see above.
    let status = unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut metric) };
    (status == OK).then_some(metric)
}

/// Increases a counter.
pub fn increment_metric(metric: u32, by: i64) {
    // SAFETY: it takes numbers.
    let _counted = unsafe { proxy_increment_metric(metric, by) };
}

/// Sets a gauge.
pub fn record_metric(metric: u32, value: u64) {
    // SAFETY: it takes numbers.
    let _shown = unsafe { proxy_record_metric(metric, value) };
}

/// Sends a request without a body, which ends after so many milliseconds: the host's number for it. Nothing if the host
/// cannot, for example because it does not know the cluster.
pub fn http_call(upstream: &str, headers: &[(&str, &str)], timeout: u32) -> Option<u32> {
    let (headers, trailers) = (pairs(headers), pairs(&[]));
    let mut call = 0;
    // SAFETY: see above.
    let status = unsafe {
        proxy_http_call(
            upstream.as_ptr(),
            upstream.len(),
            headers.as_ptr(),
            headers.len(),
            null(),
            0,
            trailers.as_ptr(),
            trailers.len(),
            timeout,
            &raw mut call,
        )
    };
    (status == OK).then_some(call)
}

/// Answers the request of the effective context. False if the host refused to.
#[must_use]
pub fn local_response(
    status: u16,
    details: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    grpc_status: Option<u8>,
) -> bool {
    /// What the ABI calls "no gRPC status".
    const NONE: i32 = -1;
    let headers = pairs(headers);
    // SAFETY: see above.
    let status = unsafe {
        proxy_send_local_response(
            status.into(),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status.map_or(NONE, i32::from),
        )
    };
    status == OK
}

/// Lets the request of the effective context go on.
pub fn resume_request() {
    const REQUEST: u32 = 0;
    // SAFETY: it takes a number.
    let _resumed = unsafe { proxy_continue_stream(REQUEST) };
}

/// Calls a function that only some hosts have. NGINX goes down with it.
pub fn call_foreign_function(name: &str, arguments: &[u8]) -> Option<Vec<u8>> {
    get(|data, size| {
        // SAFETY: see above.
        unsafe {
            proxy_call_foreign_function(name.as_ptr(), name.len(), arguments.as_ptr(), arguments.len(), data, size)
        }
    })
}

/// Header lines as the ABI lays them out: their number, the sizes, then each name and value with a zero behind it.
fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::new();
    out.extend_from_slice(&size(headers.len()));
    for (name, value) in headers {
        out.extend_from_slice(&size(name.len()));
        out.extend_from_slice(&size(value.len()));
    }
    for (name, value) in headers {
        for text in [name, value] {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
    }
    out
}
