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
    /// Dropping it closes the listener and every connection; `None` while connections are refused.
    runtime: Option<Runtime>,
    /// Bound and never listening: nobody else gets the port while connections are refused.
    _port: TcpSocket,
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
        // Only after it has its port may the socket share it: a free port is then one that nobody holds.
        let port = TcpSocket::new_v4().expect("cannot make a socket");
        port.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("no free port");
        port.set_reuseaddr(true).expect("cannot set SO_REUSEADDR");
        let address = port.local_addr().expect("a bound socket has an address");
        let mut server = Server { address, router, runtime: None, _port: port };
        server.accept();
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and refuses new ones.
    pub fn refuse(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        }
    }

    /// Ends [`Server::refuse`].
    pub fn accept(&mut self) {
        if self.runtime.is_none() {
            self.runtime = Some(serve(self.address, self.router.clone()));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.refuse();
    }
}

fn serve(address: SocketAddr, router: Router) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("testbed-server")
        .enable_all()
        .build()
        .expect("cannot start a runtime");
    let listener = {
        let _guard = runtime.enter();
        let socket = TcpSocket::new_v4().expect("cannot make a socket");
        socket.set_reuseaddr(true).expect("cannot set SO_REUSEADDR");
        socket.bind(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
        socket.listen(BACKLOG).expect("cannot listen")
    };
    runtime.spawn(async move { axum::serve(listener, router).await });
    runtime
}

const BODY_LIMIT_BYTES: usize = 16 << 20;
const BACKLOG: u32 = 1024;
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
