//! The application behind the gate: it answers every request with a description of that request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::server::{Received, Server};

/// Echoes each request as JSON, and remembers it.
pub struct Upstream {
    server: Server,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    pub fn start() -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = received.clone();
        let server = Server::start(move |request| {
            let answer = echo(&request);
            log.lock().expect("no handler panics").push(request);
            async move { answer }
        });
        Upstream { server, received }
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.address()
    }

    /// Everything received until now, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no handler panics").clone()
    }

    /// Everything received since the last call, in order of arrival.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.received.lock().expect("no handler panics"))
    }
}

/// Marks an answer as the upstream's own, so that a client never takes a body of the gate for an echo.
pub(crate) const ECHO_HEADER: &str = "x-testbed-echo";

fn echo(request: &Received) -> Response {
    let headers: Vec<Value> =
        request.headers.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
    let mut body = json!({ "method": request.method, "path": request.path, "headers": headers });
    match std::str::from_utf8(&request.body) {
        Ok(text) => body["body"] = text.into(),
        Err(_) => body["body_base64"] = BASE64_STANDARD.encode(&request.body).into(),
    }
    Response::builder()
        .header("content-type", "application/json")
        .header(ECHO_HEADER, "1")
        .body(Body::from(body.to_string()))
        .expect("the headers are constant")
}
