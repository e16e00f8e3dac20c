//! The caller in front of the gate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::http;
use ureq::http::header::{AUTHORIZATION, HOST};

use crate::upstream::ECHO_HEADER;
use crate::wait::DEADLINE;

/// Sends requests to one address. A status is an answer, never an error, and redirects are not followed.
pub struct Client {
    agent: Agent,
    address: SocketAddr,
}

/// A request under construction: nothing is sent before [`Request::send`].
#[must_use = "nothing is sent before `send`"]
pub struct Request<'c> {
    client: &'c Client,
    builder: http::request::Builder,
    body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// What the upstream received; `None` if the answer is not the upstream's, or has no body.
    pub echo: Option<Echo>,
}

/// A request as the upstream received it, after the gate has changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case; bytes that are not UTF-8 are replaced (the upstream's own record has them).
    pub headers: Vec<(String, String)>,
    /// `None` if it is not UTF-8.
    pub body: Option<String>,
}

impl Client {
    /// A client that opens a connection for every request, so that all of Envoy's workers get some.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::with_idle_connections(address, 0)
    }

    /// A client that keeps its connection, and so stays with one worker: for load.
    pub(crate) fn keeping_alive(address: SocketAddr) -> Self {
        Self::with_idle_connections(address, 1)
    }

    fn with_idle_connections(address: SocketAddr, idle_connections: usize) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(AutoHeaderValue::None)
            .accept(AutoHeaderValue::None)
            .accept_encoding(AutoHeaderValue::None)
            .allow_non_standard_methods(true)
            .output_buffer_size(HEADERS_LIMIT_BYTES)
            .max_response_header_size(HEADERS_LIMIT_BYTES)
            .max_idle_connections(idle_connections)
            .max_idle_connections_per_host(idle_connections)
            .timeout_global(Some(DEADLINE))
            .build();
        Client { agent: config.new_agent(), address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn get(&self, path: &str) -> Request<'_> {
        self.request("GET", path)
    }

    pub fn request(&self, method: &str, path: &str) -> Request<'_> {
        let builder = http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        Request { client: self, builder, body: Vec::new() }
    }

    /// Writes `bytes` on a connection and reads until the other side closes: for what no HTTP client would send. Ask
    /// for `Connection: close`.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).expect("the gate listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("the limit is not zero");
        let mut answer = Vec::new();
        // Envoy may answer and close before it has read everything. What it said until then is the answer.
        let _ = stream.write_all(bytes);
        let _ = stream.read_to_end(&mut answer);
        answer
    }
}

impl Request<'_> {
    /// Adds `Authorization: Bearer <token>`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Adds a header. The value may be any bytes that HTTP carries, also such that are not UTF-8.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.builder = self.builder.header(name, value.as_ref());
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// # Panics
    /// If there is no HTTP answer at all, or the request is none (a header value with a line break, say).
    #[track_caller]
    pub fn send(self) -> Answer {
        self.try_send().unwrap_or_else(|error| panic!("no answer from the gate: {error}"))
    }

    /// [`Request::send`] for an address where perhaps nobody answers.
    pub(crate) fn try_send(self) -> Result<Answer, ureq::Error> {
        let Request { client, builder, body } = self;
        let request = builder.body(body)?;
        // `ureq` insists that these are text, and hostile ones are not.
        if [AUTHORIZATION, HOST].iter().any(|name| request.headers().get(name).is_some_and(|v| v.to_str().is_err())) {
            return Ok(Answer::parse(&client.raw(&in_octets(&request))));
        }
        let response =
            if request.body().is_empty() { client.agent.run(request.map(drop))? } else { client.agent.run(request)? };
        Answer::read(response)
    }
}

/// The request as it goes over a connection of its own.
fn in_octets(request: &http::Request<Vec<u8>>) -> Vec<u8> {
    let (uri, body) = (request.uri(), request.body());
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut octets = format!("{} {target} HTTP/1.1\r\nconnection: close\r\n", request.method()).into_bytes();
    if !request.headers().contains_key(HOST) {
        octets.extend(format!("host: {}\r\n", uri.authority().map_or("", |host| host.as_str())).bytes());
    }
    for (name, value) in request.headers() {
        octets.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    octets.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
    octets.extend(body);
    octets
}

impl Answer {
    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What `%RESPONSE_CODE_DETAILS%` says of an answer that a filter gave itself; `None` for one of the upstream.
    pub fn details(&self) -> Option<&str> {
        self.header(DETAILS_HEADER)
    }

    /// The gate's reason, from a body of type `application/problem+json`.
    pub fn reason(&self) -> Option<String> {
        let problem = self.header("content-type")?.starts_with("application/problem+json");
        problem.then(|| self.json()["reason"].as_str().map(str::to_owned))?
    }

    /// Reads an answer that ends with its connection.
    ///
    /// # Panics
    /// If it is none, or if it comes in chunks: the gate's own answers do not.
    #[track_caller]
    pub fn parse(octets: &[u8]) -> Self {
        let end = octets.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP answer");
        let head = String::from_utf8_lossy(&octets[..end]);
        let (status_line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
        let fields = fields.split("\r\n").filter_map(|line| line.split_once(": "));
        let headers: Vec<_> = fields.map(|(name, value)| (name.to_lowercase(), value.as_bytes().to_vec())).collect();
        assert!(headers.iter().all(|(name, _)| name != "transfer-encoding"), "an answer in chunks: {head}");
        let body = octets[end + 4..].to_vec();
        let echo = headers.iter().any(|(name, _)| name == ECHO_HEADER).then(|| Echo::parse(&body));
        Answer { status, headers, body, echo }
    }

    fn read(response: http::Response<ureq::Body>) -> Result<Self, ureq::Error> {
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(BODY_LIMIT_BYTES).read_to_vec().expect("the answer is complete");
        // The answer to `HEAD` has no body.
        let echo = (parts.headers.contains_key(ECHO_HEADER) && !body.is_empty()).then(|| Echo::parse(&body));
        let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        Ok(Answer { status: parts.status.as_u16(), headers, body, echo })
    }
}

impl Echo {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).first().copied()
    }

    /// Every value of a header: more than one is a line each.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    fn parse(body: &[u8]) -> Self {
        let echo: Value = serde_json::from_slice(body).expect("the upstream sends JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let headers = echo["headers"].as_array().into_iter().flatten();
        Echo {
            method: text(&echo["method"]),
            path: text(&echo["path"]),
            headers: headers.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
            body: echo["body"].as_str().map(str::to_owned),
        }
    }
}

/// Envoy adds it to its own and its filters' answers, and to no other.
pub(crate) const DETAILS_HEADER: &str = "x-testbed-details";
/// Above what Envoy is told to accept, so that the limit that is met is Envoy's.
const HEADERS_LIMIT_BYTES: usize = 1 << 20;
const BODY_LIMIT_BYTES: u64 = 64 << 20;
