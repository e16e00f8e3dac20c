//! What issuer and upstream share: an HTTP server that can refuse connections and come back on the same port.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::Response;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

/// A request as a server of the test bed received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub method: String,
    /// Path and query, as on the wire.
    pub path: String,
    /// Names in lower case. Values of one name are in the order of the wire.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Received {
    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    async fn read(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        Received {
            method: parts.method.to_string(),
            path: parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string),
            headers: parts.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect(),
            body: to_bytes(body, BODY_LIMIT_BYTES).await.map(Into::into).unwrap_or_default(),
        }
    }
}

/// A server with one handler for every request, in a runtime of its own.
pub(crate) struct Server {
    address: SocketAddr,
    router: Router,
    state: State,
}

enum State {
    /// Dropping the runtime closes the listener and every connection.
    Serving(Runtime),
    /// Bound but not listening: connections are refused, and nobody else gets the port.
    Refusing(TcpSocket),
    /// Between the two, and only there.
    Stopped,
}

impl Server {
    pub fn start<F>(handler: impl Fn(Received) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send,
    {
        let router = Router::new().fallback(move |request: Request| {
            let handler = handler.clone();
            async move { handler(Received::read(request).await).await }
        });
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into());
        let address = socket.local_addr().expect("a bound socket has an address");
        let state = serve(socket, router.clone());
        Server { address, router, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and refuses new ones.
    pub fn refuse(&mut self) {
        if matches!(self.state, State::Serving(_)) {
            self.stop();
            self.state = State::Refusing(bind(self.address));
        }
    }

    /// Ends [`Server::refuse`].
    pub fn accept(&mut self) {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Refusing(socket) => self.state = serve(socket, self.router.clone()),
            other => self.state = other,
        }
    }

    fn stop(&mut self) {
        if let State::Serving(runtime) = std::mem::replace(&mut self.state, State::Stopped) {
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("cannot make a socket");
    socket.set_reuseaddr(true).expect("cannot set SO_REUSEADDR");
    socket.bind(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
    socket
}

fn serve(socket: TcpSocket, router: Router) -> State {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("testbed-server")
        .enable_all()
        .build()
        .expect("cannot start a runtime");
    let listener = {
        let _guard = runtime.enter();
        socket.listen(BACKLOG).expect("cannot listen")
    };
    runtime.spawn(async move { axum::serve(listener, router).await });
    State::Serving(runtime)
}

const BODY_LIMIT_BYTES: usize = 16 << 20;
const BACKLOG: u32 = 1024;
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
