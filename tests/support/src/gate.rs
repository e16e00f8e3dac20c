//! The gate: an Envoy that runs the plugin (or another filter, to compare) in front of an upstream.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Client, DETAILS_HEADER, Request};
use crate::clock;
use crate::envoy::Envoy;
use crate::plugin::plugin;
use crate::upstream::Upstream;
use crate::wait::{DEADLINE, PAUSE};

/// A running gate: one Envoy with one listener or more. Envoy and upstream stop when it is dropped.
pub struct Gate {
    envoy: Mutex<Envoy>,
    admin: Client,
    /// One for each listener, in the order in which they were given. Never empty.
    clients: Vec<Client>,
    upstream: Upstream,
    /// What the listeners are made of: they can be made again.
    listeners: Mutex<Vec<Listener>>,
}

/// A gate under construction.
pub struct Builder {
    listeners: Vec<Listener>,
    concurrency: usize,
    clusters: Vec<(String, SocketAddr)>,
    stats_config: Value,
    reloadable: bool,
    clock: Option<u64>,
}

struct Listener {
    filter: Filter,
    carrier: Carrier,
    /// Filters between the gate and the router.
    behind: Vec<Value>,
    /// Absent: everything to the upstream.
    routes: Option<Value>,
    /// Further members of an access log line: name and format.
    log_fields: Vec<(String, String)>,
    /// Whether nothing but the filter is to cost anything.
    bare: bool,
}

/// The message that carries the plugin's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// `google.protobuf.StringValue`
    #[default]
    StringValue,
    /// `google.protobuf.Struct`: Envoy turns it into JSON.
    Struct,
}

/// Why there is no gate: Envoy's own words where it refused to start, and otherwise ours.
pub struct StartError {
    pub log: String,
}

enum Filter {
    None,
    /// The text of the plugin's configuration.
    Plugin(String),
    /// Another plugin and its configuration.
    Module(PathBuf, String),
    /// The configuration of `envoy.filters.http.jwt_authn`.
    Native(Value),
}

impl Gate {
    /// A gate with this configuration of the plugin.
    pub fn plugin(configuration: &Value) -> Builder {
        Builder::new(Filter::Plugin(configuration.to_string()))
    }

    /// A gate whose configuration is this text, which need not be JSON.
    pub fn plugin_text(configuration: &str) -> Builder {
        Builder::new(Filter::Plugin(configuration.to_owned()))
    }

    /// Another plugin in place of ours: a WebAssembly file and the text of its configuration.
    pub fn module(file: &Path, configuration: &str) -> Builder {
        Builder::new(Filter::Module(file.to_owned(), configuration.to_owned()))
    }

    /// Envoy's own `jwt_authn` with this configuration, in place of the plugin: the two can be compared.
    pub fn native(configuration: &Value) -> Builder {
        Builder::new(Filter::Native(configuration.clone()))
    }

    /// No filter: what Envoy and upstream do by themselves.
    pub fn open() -> Builder {
        Builder::new(Filter::None)
    }

    pub fn addr(&self) -> SocketAddr {
        self.client().address()
    }

    /// Where Envoy's own page of metrics is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The client of one listener: 0 is the gate's own, the next are those [beside](Builder::beside) it.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn listener(&self, number: usize) -> &Client {
        &self.clients[number]
    }

    /// Gives the plugin of the first listener another configuration, as a control plane does: Envoy goes on serving and
    /// takes it over some time later.
    ///
    /// # Panics
    /// If this is not a [reloadable](Builder::reloadable) gate with the plugin.
    pub fn reload(&self, configuration: &Value) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(matches!(listeners[0].filter, Filter::Plugin(_)), "there is no plugin to configure");
        listeners[0].filter = Filter::Plugin(configuration.to_string());
        let envoy = self.envoy();
        let file = envoy.directory().join(LISTENERS);
        assert!(file.exists(), "the gate is not reloadable");
        let listeners = bootstraps(&listeners, envoy.directory()).expect("the plugin was built before");
        write_listeners(&file, &listeners);
    }

    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The number of Envoy's process.
    pub fn process(&self) -> u32 {
        self.envoy().process()
    }

    pub fn get(&self, path: &str) -> Request<'_> {
        self.client().get(path)
    }

    pub fn request(&self, method: &str, path: &str) -> Request<'_> {
        self.client().request(method, path)
    }

    /// See [`Client::raw`].
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        self.client().raw(bytes)
    }

    /// Calls `request` with each of `0..count`, from as many threads with a kept-alive connection each, and returns
    /// the results in the order of the numbers.
    ///
    /// # Panics
    /// If `request` does.
    pub fn in_parallel<T: Send>(
        &self,
        threads: usize,
        count: usize,
        request: impl Fn(&Client, usize) -> T + Sync,
    ) -> Vec<T> {
        let next = AtomicUsize::new(0);
        let work = || {
            let client = Client::keeping_alive(self.addr());
            let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < count));
            numbers.map(|number| (number, request(&client, number))).collect::<Vec<_>>()
        };
        let mut results = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join =
                |worker: thread::ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            workers.into_iter().flat_map(join).collect::<Vec<(usize, T)>>()
        });
        results.sort_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Everything that Envoy has printed, the plugin's lines among it.
    pub fn log(&self) -> String {
        self.envoy().log()
    }

    /// The JSON objects that the plugin has logged.
    pub fn events(&self) -> Vec<Value> {
        let log = self.log();
        let objects = log.lines().filter(|line| line.contains("[wasm]")).filter_map(|line| {
            let start = line.find('{')?;
            serde_json::from_str(&line[start..]).ok()
        });
        objects.filter(Value::is_object).collect()
    }

    /// The access log: one object per request with `status`, `details`, `reason` (filter state), `method`, `path` and
    /// `request_id`; what is empty is `null`. Waits until every request that Envoy has begun has its line.
    pub fn access_log(&self) -> Vec<Value> {
        let begun = self.stat("http.gate.downstream_rq_total").unwrap_or_default();
        let path = self.envoy().directory().join(ACCESS_LOG);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if lines.len() as u64 >= begun || Instant::now() > deadline {
                return lines;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Every counter and gauge, one `name: value` a line.
    pub fn stats(&self) -> String {
        self.admin.get("/stats").send().text()
    }

    /// One counter or gauge.
    pub fn stat(&self, name: &str) -> Option<u64> {
        let stats = self.stats();
        let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        value.parse().ok()
    }

    /// The metrics as Prometheus scrapes them.
    pub fn prometheus(&self) -> String {
        self.admin.get("/stats/prometheus").send().text()
    }

    /// What shows that the plugin's virtual machine has trapped or failed, or that Envoy itself has ended. Only the log
    /// tells: a trap changes none of Envoy's `wasm.` counters.
    pub fn trap(&self) -> Option<String> {
        let mut envoy = self.envoy();
        if let Some(status) = envoy.exit_status() {
            return Some(format!("envoy has ended: {status}\n{}", envoy.log()));
        }
        let log = envoy.log();
        log.lines().find(|line| TRAPS.iter().any(|trap| line.contains(trap))).map(str::to_owned)
    }

    fn client(&self) -> &Client {
        &self.clients[0]
    }

    fn envoy(&self) -> MutexGuard<'_, Envoy> {
        self.envoy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Builder {
    fn new(filter: Filter) -> Self {
        let listener = Listener {
            filter,
            carrier: Carrier::default(),
            behind: Vec::new(),
            routes: None,
            log_fields: Vec::new(),
            bare: false,
        };
        Builder {
            listeners: vec![listener],
            concurrency: 2,
            clusters: Vec::new(),
            stats_config: json!({}),
            reloadable: false,
            clock: None,
        }
    }

    /// Envoy's `stats_config`, for labels of metrics.
    pub fn stats_config(self, stats_config: Value) -> Self {
        Builder { stats_config, ..self }
    }

    /// How Envoy is given the plugin's configuration.
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        for listener in &mut self.listeners {
            listener.carrier = carrier;
        }
        self
    }

    /// Puts a filter behind the gate.
    pub fn behind(mut self, filter: Value) -> Self {
        for listener in &mut self.listeners {
            listener.behind.push(filter.clone());
        }
        self
    }

    /// The routes of Envoy's only virtual host; by default everything goes to the cluster `upstream`.
    pub fn routes(mut self, routes: Value) -> Self {
        for listener in &mut self.listeners {
            listener.routes = Some(routes.clone());
        }
        self
    }

    /// For measurements: Envoy answers what the filter lets pass by itself, and writes no access log.
    pub fn bare(mut self) -> Self {
        for listener in &mut self.listeners {
            listener.bare = true;
        }
        self.routes(json!([{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }]))
    }

    /// A further member of each line of the access log.
    pub fn log_field(mut self, name: &str, format: &str) -> Self {
        for listener in &mut self.listeners {
            listener.log_fields.push((name.to_owned(), format.to_owned()));
        }
        self
    }

    /// Gives the same Envoy another listener with a filter of its own, in front of the same upstream: see
    /// [`Gate::listener`].
    pub fn beside(mut self, other: Builder) -> Self {
        self.listeners.extend(other.listeners);
        self.clusters.extend(other.clusters);
        self
    }

    /// Envoy's worker threads: 2 unless told.
    pub fn concurrency(self, concurrency: usize) -> Self {
        Builder { concurrency, ..self }
    }

    /// Adds a cluster, such as the issuer's.
    pub fn cluster(mut self, name: &str, address: SocketAddr) -> Self {
        self.clusters.push((name.to_owned(), address));
        self
    }

    /// Lets Envoy read its listeners from a file that it watches: see [`Gate::reload`].
    pub fn reloadable(self) -> Self {
        Builder { reloadable: true, ..self }
    }

    /// Stops the wall clock that Envoy and the plugin see at this moment, in seconds since the epoch. A program that does
    /// not load its C library like others goes on with the clock of the machine.
    pub fn clock_stopped_at(self, seconds: u64) -> Self {
        Builder { clock: Some(seconds), ..self }
    }

    /// Starts Envoy and an upstream, and waits until requests are served.
    ///
    /// # Errors
    /// If Envoy refuses the configuration, its log. If Envoy or the plugin cannot be had, the reason.
    pub fn start(self) -> Result<Gate, StartError> {
        // Built before Envoy has a directory: it may take minutes.
        bootstraps(&self.listeners, Path::new(""))?;
        let upstream = Upstream::start();
        let bootstrap = |directory: &Path| self.bootstrap(upstream.addr(), directory);
        let clock = self.clock.map(clock::stopped_at).transpose()?;
        let mut envoy = Envoy::start(bootstrap, self.concurrency, clock.as_deref())?;
        let (admin, clients) = wait_until_ready(&mut envoy, self.listeners.len())?;
        Ok(Gate { envoy: Mutex::new(envoy), admin, clients, upstream, listeners: Mutex::new(self.listeners) })
    }

    fn bootstrap(&self, upstream: SocketAddr, directory: &Path) -> Value {
        let listeners = bootstraps(&self.listeners, directory).expect("they could be made before");
        let mut clusters = vec![cluster("upstream", upstream)];
        clusters.extend(self.clusters.iter().map(|(name, address)| cluster(name, *address)));
        let mut bootstrap = json!({
            "admin": { "address": socket_address(FREE_PORT) },
            "stats_config": self.stats_config,
            "static_resources": { "clusters": clusters },
        });
        if self.reloadable {
            let file = directory.join(LISTENERS);
            write_listeners(&file, &listeners);
            // Whoever is told its configuration needs a name.
            bootstrap["node"] = json!({ "id": "testbed", "cluster": "testbed" });
            bootstrap["dynamic_resources"] = json!({ "lds_config": { "path_config_source": { "path": file } } });
        } else {
            bootstrap["static_resources"]["listeners"] = listeners.into();
        }
        bootstrap
    }
}

impl Listener {
    fn bootstrap(&self, number: usize, filter: Option<Value>, access_log: &Path) -> Value {
        let mut filters: Vec<Value> = filter.into_iter().collect();
        filters.extend(self.behind.iter().cloned());
        let everything = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }]);
        let routes = self.routes.as_ref().unwrap_or(&everything);
        let mut log_line = json!({
            "status": "%RESPONSE_CODE%",
            "details": "%RESPONSE_CODE_DETAILS%",
            "reason": "%FILTER_STATE(wasm.claimgate_reason:PLAIN)%",
            "method": "%REQ(:METHOD)%",
            "path": "%REQ(:PATH)%",
            "request_id": "%REQ(X-REQUEST-ID)%",
        });
        for (name, format) in &self.log_fields {
            log_line[name] = format.as_str().into();
        }
        filters.push(json!({
            "name": "router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }));
        let mut listener = json!({
            "name": listener_name(number),
            "address": socket_address(FREE_PORT),
            "filter_chains": [{ "filters": [{
                "name": "hcm",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "gate",
                    // Above 90 KB, so that hostile headers reach the filter.
                    "max_request_headers_kb": 192,
                    "common_http_protocol_options": { "max_headers_count": 4096 },
                    // How long Envoy keeps a connection open that it wants to close: a second by default.
                    "delayed_close_timeout": "0.02s",
                    "access_log": [{
                        "name": "file",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                            "path": access_log,
                            "log_format": { "json_format": log_line },
                        },
                    }],
                    // Only an answer of a filter's own has a reason to tell.
                    "local_reply_config": { "mappers": [{
                        "filter": { "status_code_filter": { "comparison": {
                            "op": "GE",
                            "value": { "default_value": 0, "runtime_key": "testbed.any_status" },
                        } } },
                        "headers_to_add": [{
                            "header": { "key": DETAILS_HEADER, "value": "%RESPONSE_CODE_DETAILS%" },
                        }],
                    }] },
                    "route_config": { "virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": routes,
                    }] },
                    "http_filters": filters,
                },
            }] }],
        });
        if self.bare {
            let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
            manager["access_log"].take();
            manager["local_reply_config"].take();
        }
        listener
    }

    fn http_filter(&self) -> Result<Option<Value>, String> {
        Ok(match &self.filter {
            Filter::None => None,
            Filter::Native(configuration) => {
                let mut configuration = configuration.clone();
                configuration["@type"] =
                    "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication".into();
                Some(json!({ "name": "jwt_authn", "typed_config": configuration }))
            }
            Filter::Plugin(configuration) => Some(self.wasm(&plugin()?, configuration)?),
            Filter::Module(file, configuration) => Some(self.wasm(file, configuration)?),
        })
    }

    fn wasm(&self, file: &Path, configuration: &str) -> Result<Value, String> {
        Ok(json!({
            "name": "claimgate",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": "claimgate",
                    "vm_config": { "runtime": "envoy.wasm.runtime.v8", "code": { "local": { "filename": file } } },
                    "configuration": self.carrier.wrap(configuration)?,
                },
            },
        }))
    }
}

impl Carrier {
    fn wrap(self, configuration: &str) -> Result<Value, String> {
        Ok(match self {
            Carrier::StringValue => {
                json!({ "@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration })
            }
            Carrier::Struct => {
                let value: Value = serde_json::from_str(configuration).map_err(|e| format!("not JSON: {e}"))?;
                json!({ "@type": "type.googleapis.com/google.protobuf.Struct", "value": value })
            }
        })
    }
}

impl fmt::Debug for StartError {
    /// As it is: a test that unwraps this should show Envoy's lines as lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gate did not start:\n{}", self.log)
    }
}

impl std::error::Error for StartError {}

impl From<String> for StartError {
    fn from(log: String) -> Self {
        StartError { log }
    }
}

fn bootstraps(listeners: &[Listener], directory: &Path) -> Result<Vec<Value>, String> {
    let access_log = directory.join(ACCESS_LOG);
    let listeners = listeners.iter().enumerate();
    listeners.map(|(number, listener)| Ok(listener.bootstrap(number, listener.http_filter()?, &access_log))).collect()
}

/// In one step, so that Envoy reads the old file or the new one.
fn write_listeners(file: &Path, listeners: &[Value]) {
    let resources = listeners.iter().map(|listener| {
        let mut listener = listener.clone();
        listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        listener
    });
    let scratch = file.with_extension("new");
    fs::write(&scratch, json!({ "resources": resources.collect::<Vec<_>>() }).to_string()).expect("can write");
    fs::rename(&scratch, file).expect("can rename");
}

/// Envoy picks its ports itself and tells them, so that no port is chosen twice.
fn wait_until_ready(envoy: &mut Envoy, listeners: usize) -> Result<(Client, Vec<Client>), String> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if let Some(status) = envoy.exit_status() {
            return Err(format!("envoy has ended: {status}\n{}", envoy.log()));
        }
        if let Some(admin) = envoy.admin_address().map(Client::new)
            && let Some(addresses) = listener_addresses(&admin, listeners)
        {
            return Ok((admin, addresses.into_iter().map(Client::new).collect()));
        }
        thread::sleep(PAUSE);
    }
    Err(format!("envoy is not ready after {DEADLINE:?}\n{}", envoy.log()))
}

/// Where Envoy serves requests, by the listeners' numbers; `None` while it does not, or no longer.
fn listener_addresses(admin: &Client, listeners: usize) -> Option<Vec<SocketAddr>> {
    if admin.get("/ready").try_send().ok()?.status != 200 {
        return None;
    }
    let known = admin.get("/listeners?format=json").try_send().ok()?.json();
    let known = known["listener_statuses"].as_array()?;
    let address = |number| {
        let listener = known.iter().find(|listener| listener["name"] == listener_name(number))?;
        let address = &listener["local_address"]["socket_address"];
        format!("{}:{}", address["address"].as_str()?, address["port_value"]).parse().ok()
    };
    (0..listeners).map(address).collect()
}

fn listener_name(number: usize) -> String {
    format!("gate-{number}")
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket_address(address) } }] }],
        },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

const FREE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ACCESS_LOG: &str = "access.log";
const LISTENERS: &str = "listeners.json";
/// What Envoy prints when WebAssembly code traps: `proxy-wasm-cpp-host` (`src/v8/v8.cc`, `src/wasm.cc`), and Rust's own
/// panic message.
const TRAPS: &[&str] = &["Function: proxy_on_", "Uncaught RuntimeError", "Wasm VM failed", "panicked at"];
