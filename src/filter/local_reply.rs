//! The one host call that the SDK does not offer whole: a local reply with its details, which is what
//! `%RESPONSE_CODE_DETAILS%` shows.
#![expect(
    unsafe_code,
    reason = "the SDK's `send_http_response` passes no details, and an import cannot be called safely"
)]

use crate::reply::LocalReply;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_send_local_response(
        status_code: u32,
        details_data: *const u8,
        details_size: usize,
        body_data: *const u8,
        body_size: usize,
        headers_data: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

/// What the ABI calls "no gRPC status".
const NO_GRPC_STATUS: i32 = -1;

/// Answers the request of the effective context. False if the host refused to.
#[must_use]
pub fn send(reply: &LocalReply) -> bool {
    let headers = pairs(&reply.headers);
    // SAFETY: every pointer is that of a slice which lives beyond the call, with its own length; the host copies.
    let status = unsafe {
        proxy_send_local_response(
            reply.status.into(),
            reply.details.as_ptr(),
            reply.details.len(),
            reply.body.as_ptr(),
            reply.body.len(),
            headers.as_ptr(),
            headers.len(),
            reply.grpc_status.map_or(NO_GRPC_STATUS, i32::from),
        )
    };
    status == 0
}

/// Header pairs as the ABI lays them out: their number, the sizes, then each name and value with a zero behind it.
fn pairs(headers: &[(&str, String)]) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::new();
    out.extend_from_slice(&size(headers.len()));
    for (name, value) in headers {
        out.extend_from_slice(&size(name.len()));
        out.extend_from_slice(&size(value.len()));
    }
    for (name, value) in headers {
        for text in [*name, value.as_str()] {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
    }
    out
}
