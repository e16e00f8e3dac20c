//! The issuer: an HTTP server with a key set that can be exchanged, and that fails on demand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::keys::{Key, key_set};
use crate::server::{Received, Server};

/// How the issuer answers a fetch of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// With status 200 and the key set.
    #[default]
    Serve,
    /// Not at all, until another behaviour is set: it then answers those who wait, too.
    Hang,
    /// With a body whose second half is held back until another behaviour is set.
    SlowBody,
    /// With this status and no body.
    Status(u16),
    /// With status 200 and these bytes: garbage, a set without a usable key, more than anyone should read.
    Body(Vec<u8>),
    /// By refusing connections, and closing those there are.
    Refuse,
}

/// Serves a JWK Set at one path, its metadata if told to, and 404 elsewhere.
pub struct Issuer {
    server: Mutex<Server>,
    address: SocketAddr,
    path: String,
    plan: watch::Sender<Plan>,
    received: Arc<Mutex<Vec<Received>>>,
    metadata_received: Arc<Mutex<Vec<Received>>>,
}

#[derive(Clone, Default)]
struct Plan {
    behaviour: Behaviour,
    document: Bytes,
    /// Absent: there is none.
    metadata: Option<Bytes>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Issuer {
    /// Serves the public halves of `keys` at `/jwks.json`.
    pub fn start(keys: &[&Key]) -> Self {
        Self::start_at("/jwks.json", keys)
    }

    pub fn start_at(path: &str, keys: &[&Key]) -> Self {
        let (plan, seen_plan) = watch::channel(Plan { document: document(keys), ..Plan::default() });
        let (received, metadata_received) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (log, metadata_log, own_path) = (received.clone(), metadata_received.clone(), path.to_owned());
        let server = Server::start(move |request: Received| {
            let resource = match request.path.as_str() {
                path if path == own_path => Some((Resource::KeySet, &log)),
                METADATA_PATH if seen_plan.borrow().metadata.is_some() => Some((Resource::Metadata, &metadata_log)),
                _ => None,
            };
            let resource = resource.map(|(resource, log)| {
                log.lock().expect("no handler panics").push(request);
                resource
            });
            let plan = seen_plan.clone();
            async move {
                match resource {
                    Some(resource) => answer(plan, resource).await,
                    None => empty(StatusCode::NOT_FOUND),
                }
            }
        });
        let (address, server, path) = (server.address(), Mutex::new(server), path.to_owned());
        Issuer { server, address, path, plan, received, metadata_received }
    }

    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of the key set.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.path)
    }

    /// Exchanges the key set.
    pub fn publish(&self, keys: &[&Key]) {
        self.plan.send_modify(|plan| plan.document = document(keys));
    }

    /// Exchanges the key set for any document.
    pub fn publish_document(&self, document: &Value) {
        self.plan.send_modify(|plan| plan.document = document.to_string().into());
    }

    /// Serves metadata (OpenID Connect Discovery 1.0 §4) that name this `issuer` and the address of the key set, and
    /// behaves with them as with the key set. Returns their address.
    pub fn publish_metadata(&self, issuer: &str) -> String {
        let metadata = json!({ "issuer": issuer, "jwks_uri": self.url() });
        self.plan.send_modify(|plan| plan.metadata = Some(metadata.to_string().into()));
        format!("http://{}{METADATA_PATH}", self.address)
    }

    /// Sends these headers with every answer, such as `Cache-Control` or `ETag`.
    pub fn send_headers(&self, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::try_from(*name).expect("a header name");
            (name, HeaderValue::try_from(*value).expect("a header value"))
        });
        let headers = headers.collect();
        self.plan.send_modify(|plan| plan.headers = headers);
    }

    /// Answers fetches this way from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut server = self.server.lock().expect("no server panics");
        if behaviour == Behaviour::Refuse {
            server.refuse()
        } else {
            server.accept()
        }
        self.plan.send_modify(|plan| plan.behaviour = behaviour);
    }

    /// How often the key set was asked for. Refused connections do not count.
    pub fn fetches(&self) -> usize {
        self.received.lock().expect("no handler panics").len()
    }

    /// How often the metadata were asked for.
    pub fn metadata_fetches(&self) -> usize {
        self.metadata_received.lock().expect("no handler panics").len()
    }

    /// Every request for the key set, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no handler panics").clone()
    }
}

#[derive(Clone, Copy)]
enum Resource {
    KeySet,
    Metadata,
}

fn document(keys: &[&Key]) -> Bytes {
    key_set(keys).to_string().into()
}

async fn answer(mut plan: watch::Receiver<Plan>, resource: Resource) -> Response {
    // An error means that the issuer is being dropped, and then nobody reads the answer.
    let Ok(current) = plan.wait_for(|plan| plan.behaviour != Behaviour::Hang).await.map(|plan| plan.clone()) else {
        return empty(StatusCode::SERVICE_UNAVAILABLE);
    };
    let document = match resource {
        Resource::KeySet => current.document,
        Resource::Metadata => current.metadata.unwrap_or_default(),
    };
    let mut response = match current.behaviour {
        Behaviour::Status(code) => empty(StatusCode::from_u16(code).expect("a status code")),
        Behaviour::Body(bytes) => Response::new(Body::from(bytes)),
        Behaviour::SlowBody => Response::new(slow(document, plan)),
        Behaviour::Serve | Behaviour::Hang | Behaviour::Refuse => Response::new(Body::from(document)),
    };
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/jwk-set+json"));
    response.headers_mut().extend(current.headers);
    response
}

fn slow(document: Bytes, mut plan: watch::Receiver<Plan>) -> Body {
    let (first, second) = (document.slice(..document.len() / 2), document.slice(document.len() / 2..));
    let rest =
        stream::once(async move { plan.wait_for(|plan| plan.behaviour != Behaviour::SlowBody).await.map(|_| second) });
    Body::from_stream(stream::iter([Ok(first)]).chain(rest))
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

const METADATA_PATH: &str = "/.well-known/openid-configuration";
