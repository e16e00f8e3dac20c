//! The files of `envoy/` in Envoys of this machine, asked what `README.md` and `envoy/README.md` tell a person to type:
//! what is documented is what is tested. The documents are read from top to bottom, as a person does it: a line
//! `GATE=<file> docker compose … up` starts the gate with another file. What needs a token minted on the spot, or a
//! Docker engine, is run by `tests/compose.rs`.

mod documents;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use claimgate_playground::{issuer, serve, upstream};
use claimgate_testbed::{envoy_binary, eventually, plugin};
use regex_lite::{Captures, Regex};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::http;

use documents::{Answer, read, steps};

#[test]
fn the_front_page_tells_the_truth() {
    assert_eq!(check("README.md"), ["envoy.yaml", "scopes.yaml"]);
}

#[test]
fn the_examples_page_tells_the_truth() {
    assert_eq!(check("envoy/README.md"), ["envoy.yaml", "jwt_authn.yaml", "scopes.yaml"]);
}

/// The example claims that the gate takes what `jwt_authn` takes.
#[test]
fn both_filters_of_the_example_have_the_same_configuration() {
    let file = yaml("envoy/jwt_authn.yaml");
    let filter = |listener: usize| {
        let chain = &file["static_resources"]["listeners"][listener]["filter_chains"][0]["filters"][0];
        chain["typed_config"]["http_filters"][0]["typed_config"].clone()
    };
    let mut native = filter(0);
    let members = native.as_object_mut().expect("the native filter's configuration");
    members.remove("@type").expect("the native filter's type");
    assert_eq!(members["providers"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(members["rules"].as_array().map(Vec::len), Some(5));
    assert_eq!(native, filter(1)["config"]["configuration"]["value"]);
}

/// Sends the requests of a document and compares each answer with what the document says. Returns the files of
/// `envoy/` that were asked.
fn check(document: &str) -> Vec<String> {
    let mut bench = Bench::start();
    let (mut wrong, mut asked) = (Vec::new(), 0_usize);
    for step in steps(&read(document)) {
        if step.command.contains("docker compose") && step.command.contains(" up") {
            let file = step.command.split("GATE=").nth(1).and_then(|rest| rest.split(' ').next());
            bench.use_gate(file.unwrap_or("envoy.yaml"));
            continue;
        }
        let Some(curl) = Curl::parse(&step.command) else { continue };
        asked = asked.saturating_add(step.expected.len());
        let answer = |port: Option<u16>| bench.ask(&curl, port.or(curl.port).expect("a port"));
        let answers: Vec<Answer> = step.expected.iter().map(|(port, _)| answer(*port)).collect();
        for ((_, expected), answer) in step.expected.iter().zip(&answers) {
            if let Some(why) = expected.differs(answer) {
                wrong.push(format!("{document}:{}: {}\n{why}\n{answer:#?}", step.line, step.command));
            }
        }
        // Where a request goes through two filters, it reaches the upstream in the same form.
        if let [one, other] = answers.as_slice()
            && one.status == 200
            && one.body != other.body
        {
            wrong.push(format!("{document}:{}: {}\n{one:#?}\n{other:#?}", step.line, step.command));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(asked >= 4, "{document} holds {asked} requests only: is it read rightly?");
    bench.gates.into_keys().collect()
}

/// A `curl` command.
#[derive(Debug, Default)]
struct Curl {
    method: String,
    /// Where `$PORT` stands for the port, the place of the port is left open.
    port: Option<u16>,
    /// Path and query.
    target: String,
    headers: Vec<(String, String)>,
}

impl Curl {
    /// Reads a request to the gate and the files named in it; `None` for any other command.
    fn parse(command: &str) -> Option<Self> {
        let words = words(command.strip_prefix("curl ")?)?;
        let mut words = words.into_iter();
        let mut curl = Self { method: "GET".to_owned(), ..Self::default() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "-i" | "-s" => {}
                "-X" => curl.method = words.next()?,
                "-H" => {
                    let header = words.next()?;
                    let (name, value) = header.split_once(": ").expect("a header");
                    curl.headers.push((name.to_owned(), value.to_owned()));
                }
                url => {
                    let (port, path) = url.strip_prefix("http://127.0.0.1:")?.split_once('/')?;
                    curl.port = (port != "$PORT").then(|| port.parse().expect("a port"));
                    curl.target = format!("/{path}");
                }
            }
        }
        (curl.port.is_none_or(|port| port == GATE)).then_some(curl)
    }
}

/// The words of a shell command: double quotes, `$(cat FILE)` and `$PORT`. `None` if it has more than that.
fn words(command: &str) -> Option<Vec<String>> {
    let cat = Regex::new(r"\$\(cat ([^)]*)\)").expect("an expression");
    let command = cat.replace_all(command, |found: &Captures<'_>| read(&found[1]).trim_end().to_owned());
    if command.replace("$PORT", "").contains(['$', '|', '\'']) {
        return None;
    }
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in command.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("a word").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    Some(words)
}

/// The issuer and the upstream of the examples, and gates as they are asked for.
struct Bench {
    /// The ports of this machine by the names that the files use.
    known: BTreeMap<&'static str, u16>,
    gates: BTreeMap<String, Envoy>,
    used: String,
}

impl Bench {
    fn start() -> Self {
        let issuer = issuer(None, Some(read("envoy/tokens/jwks.json").as_bytes())).expect("a JWK Set");
        let serve = |router| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            thread::spawn(move || serve(listener, router));
            port
        };
        let known = BTreeMap::from([("issuer", serve(issuer)), ("upstream", serve(upstream()))]);
        Self { known, gates: BTreeMap::new(), used: String::new() }
    }

    fn use_gate(&mut self, file: &str) {
        if !self.gates.contains_key(file) {
            self.gates.insert(file.to_owned(), Envoy::start(file, &self.known));
        }
        file.clone_into(&mut self.used);
    }

    fn ask(&self, curl: &Curl, port: u16) -> Answer {
        let gate = self.gates.get(&self.used).expect("a gate was started before it is asked");
        // `Host` as a person's would be.
        let mut request = http::Request::builder()
            .method(curl.method.as_str())
            .uri(format!("http://127.0.0.1:{}{}", gate.port(port), curl.target))
            .header("host", format!("127.0.0.1:{port}"));
        for (name, value) in &curl.headers {
            request = request.header(name, value);
        }
        send(request).unwrap_or_else(|error| panic!("{curl:?}: {error}\n{}", gate.log()))
    }
}

/// One Envoy with a file of `envoy/`.
struct Envoy {
    /// A shell that ends Envoy when its standard input does, so that none outlives the test.
    shell: Child,
    directory: TempDir,
    /// Where it listens in place of the ports that its file names.
    ports: BTreeMap<u16, u16>,
}

impl Envoy {
    /// Starts an Envoy and waits until it serves. The file's own names are resolved to `known` ports of this machine.
    fn start(file: &str, known: &BTreeMap<&str, u16>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let mut bootstrap = yaml(format!("envoy/{file}"));
        bootstrap["admin"] = json!({ "address": address(0) });
        let mut names = Vec::new();
        for listener in bootstrap["static_resources"]["listeners"].as_array().expect("listeners") {
            let port = listener["address"]["socket_address"]["port_value"].as_u64().expect("a port");
            names.push((listener["name"].as_str().expect("a name").to_owned(), u16::try_from(port).expect("a port")));
        }
        at_home(&mut bootstrap, known);
        fs::write(path("envoy.json"), bootstrap.to_string()).expect("the file is written");
        let log = File::create(path("log")).expect("a log");
        let shell = Command::new("sh")
            .args(["-c", "\"$@\" & read _; kill -KILL $!", "sh"])
            .arg(envoy_binary().expect("an Envoy"))
            .arg("--config-path")
            .arg(path("envoy.json"))
            .arg("--admin-address-path")
            .arg(path("admin"))
            .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        let mut envoy = Self { shell, directory, ports: BTreeMap::new() };
        let actual = eventually(&format!("{file} is served"), || {
            assert!(!envoy.log().contains("[critical]"), "{file} is refused:\n{}", envoy.log());
            envoy.listeners()
        });
        envoy.ports = names.into_iter().map(|(name, port)| (port, actual[&name])).collect();
        envoy
    }

    /// The ports of the listeners, once all is ready.
    fn listeners(&self) -> Option<BTreeMap<String, u16>> {
        let admin: SocketAddr = fs::read_to_string(self.directory.path().join("admin")).ok()?.trim().parse().ok()?;
        let get = |path: &str| send(http::Request::builder().uri(format!("http://{admin}{path}"))).ok();
        (get("/ready")?.status == 200).then_some(())?;
        let listeners: Value = serde_json::from_str(&get("/listeners?format=json")?.body).ok()?;
        let port = |listener: &Value| {
            let port = listener["local_address"]["socket_address"]["port_value"].as_u64()?;
            Some((listener["name"].as_str()?.to_owned(), u16::try_from(port).ok()?))
        };
        listeners["listener_statuses"].as_array()?.iter().map(port).collect()
    }

    fn port(&self, documented: u16) -> u16 {
        self.ports[&documented]
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The only changes to a file: addresses and ports of this machine, and the place of the plugin.
fn at_home(value: &mut Value, known: &BTreeMap<&str, u16>) {
    match value {
        Value::Object(members) => {
            if let Some(host) = members.get("socket_address").map(|a| a["address"].as_str().expect("an address")) {
                *value = address(match host {
                    "0.0.0.0" | "127.0.0.1" => 0,
                    name => known[name],
                });
                return;
            }
            for (name, member) in members.iter_mut() {
                match member.as_str() {
                    Some(PLUGIN) if name == "filename" => *member = json!(plugin().expect("the plugin is built")),
                    _ => at_home(member, known),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| at_home(item, known)),
        _ => {}
    }
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn send(request: http::request::Builder) -> Result<Answer, ureq::Error> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(AutoHeaderValue::None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .allow_non_standard_methods(true)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut answer = agent.run(request.body(())?)?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: answer.body_mut().read_to_string()?.trim_end().to_owned(),
    })
}

fn yaml(path: impl AsRef<Path>) -> Value {
    serde_saphyr::from_str(&read(path.as_ref())).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Where the gate's files have the plugin.
const PLUGIN: &str = "/etc/envoy/claimgate.wasm";
/// Where the files have the gate.
const GATE: u16 = 10000;
const PATIENCE: Duration = Duration::from_secs(30);
