//! The files of `envoy/` in real Envoys, asked what `README.md` and `envoy/README.md` tell a person to type: what is
//! documented is what is tested. The documents are read from top to bottom, as a person does it: a line
//! `GATE=<file> docker compose … up` starts the gate with another file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use claimgate_testbed::{envoy_binary, eventually, plugin};
use regex_lite::{Captures, Regex};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::http;

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

/// Sends every request of a document and compares each answer with what the document says. Returns the files of
/// `envoy/` that were asked.
fn check(document: &str) -> Vec<String> {
    let mut bench = Bench::start();
    let (mut wrong, mut asked) = (Vec::new(), 0_usize);
    for step in steps(&read(document)) {
        match step {
            Step::Use(file) => bench.use_gate(&file),
            Step::Ask(line, curl, expected) => {
                asked = asked.saturating_add(expected.len());
                let answers: Vec<Answer> = expected.iter().map(|(port, _)| bench.ask(&curl, *port)).collect();
                for ((_, expected), answer) in expected.iter().zip(&answers) {
                    if let Some(why) = expected.differs(answer) {
                        wrong.push(format!("{document}:{line}: {curl:?}\n{why}\n{answer:#?}"));
                    }
                }
                // Where a request goes through two filters, it reaches the upstream in the same form.
                if let [one, other] = answers.as_slice()
                    && one.status == 200
                    && one.body != other.body
                {
                    wrong.push(format!("{document}:{line}: {curl:?}\n{one:#?}\n{other:#?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(asked >= 4, "{document} holds {asked} requests only: is it read rightly?");
    bench.gates.into_keys().collect()
}

/// What a document tells a person to do.
enum Step {
    /// To run the gate with this file.
    Use(String),
    /// To send a request, in this line, to these ports, with these answers.
    Ask(usize, Curl, Vec<(u16, Expected)>),
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
    /// `-i`: the answer's status and headers are shown.
    with_headers: bool,
}

/// What a document says of an answer.
#[derive(Debug)]
enum Expected {
    /// All that `curl` prints. Headers that come with every answer may be left out.
    Printed(String, bool),
    /// The status and one thing more: the gate's reason, the text of `jwt_authn`, or a line of the upstream's echo.
    Summary(u16, Option<String>),
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = document.lines().enumerate().map(|(i, line)| (i.saturating_add(1), line)).peekable();
    let mut fenced = false;
    while let Some((number, line)) = lines.next() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced && line.contains("docker compose") && line.contains(" up") {
            let file = line.split("GATE=").nth(1).and_then(|rest| rest.split(' ').next());
            steps.push(Step::Use(file.unwrap_or("envoy.yaml").to_owned()));
        } else if let (true, Some(command)) = (fenced, line.strip_prefix("$ curl ")) {
            let curl = Curl::parse(command);
            let mut printed = Vec::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("```") && !line.starts_with("$ ")) {
                printed.push(line);
            }
            let expected = Expected::Printed(printed.join("\n"), curl.with_headers);
            let port = curl.port.expect("a port");
            steps.push(Step::Ask(number, curl, vec![(port, expected)]));
        } else if let (true, Some(command)) = (fenced, line.strip_prefix("curl ")) {
            let (command, comment) = command.rsplit_once(" # ").expect("a comment that says what comes of it");
            let curl = Curl::parse(command);
            let port = curl.port.expect("a port");
            steps.push(Step::Ask(number, curl, vec![(port, Expected::summary(comment))]));
        } else if let (false, Some(row)) = (fenced, line.strip_prefix("| `curl ")) {
            let (command, cells) = row.split_once("` | ").expect("a cell with an answer");
            let cells: Vec<&str> = cells.trim_end_matches('|').split(" | ").collect();
            let curl = Curl::parse(command);
            let ports = curl.port.map_or_else(|| TWO_PORTS.to_vec(), |port| vec![port]);
            assert_eq!(ports.len(), cells.len(), "line {number}: an answer for each port");
            let expected = cells.iter().map(|cell| Expected::summary(cell));
            steps.push(Step::Ask(number, curl, ports.into_iter().zip(expected).collect()));
        }
    }
    steps
}

impl Curl {
    /// Reads what stands behind `curl`, and the files named in it.
    fn parse(command: &str) -> Self {
        let mut curl = Self { method: "GET".to_owned(), ..Self::default() };
        let mut words = words(command).into_iter();
        while let Some(word) = words.next() {
            let mut argument = || words.next().expect("an option's argument");
            match word.as_str() {
                "-i" => curl.with_headers = true,
                "-X" => curl.method = argument(),
                "-H" => {
                    let header = argument();
                    let (name, value) = header.split_once(": ").expect("a header");
                    curl.headers.push((name.to_owned(), value.to_owned()));
                }
                url => {
                    let rest =
                        url.strip_prefix("http://127.0.0.1:").unwrap_or_else(|| panic!("`{url}`: what is that?"));
                    let (port, path) = rest.split_once('/').expect("a path");
                    curl.port = (port != "$PORT").then(|| port.parse().expect("a port"));
                    curl.target = format!("/{path}");
                }
            }
        }
        curl
    }
}

/// The words of a shell command: double quotes, and `$(cat FILE)`.
fn words(command: &str) -> Vec<String> {
    let cat = Regex::new(r"\$\(cat ([^)]*)\)").expect("an expression");
    let command = cat.replace_all(command, |found: &Captures<'_>| read(&found[1]).trim_end().to_owned());
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in command.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("a word").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

impl Expected {
    /// `401`, or `401, header_missing`, or `401: what is no part of the answer`.
    fn summary(text: &str) -> Self {
        let text = text.trim().replace('`', "");
        let text =
            text.split_once(": ").filter(|(status, _)| status.len() == 3).map_or(text.as_str(), |(status, _)| status);
        let (status, rest) = text.split_once(", ").map_or((text, None), |(status, rest)| (status, Some(rest)));
        Self::Summary(status.parse().expect("a status"), rest.map(str::to_owned))
    }

    fn differs(&self, answer: &Answer) -> Option<String> {
        match self {
            Self::Printed(printed, false) => {
                (steady(printed) != steady(&answer.body)).then(|| format!("expected {printed}"))
            }
            Self::Printed(printed, true) => {
                let (head, body) = printed.split_once("\n\n").expect("headers and a body");
                let mut lines = head.lines();
                let status = lines.next().and_then(|line| line.split(' ').nth(1));
                let header = |line: &str| {
                    let (name, value) = line.split_once(": ").expect("a header");
                    answer.headers.get(name).is_some_and(|found| steady(found) == steady(value))
                };
                let absent: Vec<&str> = lines.filter(|line| !header(line)).collect();
                let same = status == Some(answer.status.to_string().as_str())
                    && absent.is_empty()
                    && steady(body) == steady(&answer.body);
                (!same).then(|| format!("expected {printed}\nnot found: {absent:?}"))
            }
            Self::Summary(status, more) => {
                let body = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
                let same = match more.as_deref().map(|more| (more, more.split_once(": "))) {
                    None => true,
                    Some((_, Some((name, value)))) => {
                        body.get(name) == Some(&if value == "null" { Value::Null } else { value.into() })
                    }
                    Some((text, None)) => body["reason"] == text || answer.body == text,
                };
                (answer.status != *status || !same).then(|| format!("expected {status} {more:?}"))
            }
        }
    }
}

/// The time since a token expired is another at each reading.
fn steady(text: &str) -> String {
    let elapsed = Regex::new("[0-9]+ s ago").expect("an expression");
    elapsed.replace_all(text.trim(), "some time ago").into_owned()
}

/// The issuer and the upstream of the examples, and gates as they are asked for.
struct Bench {
    issuer: Envoy,
    upstream: Envoy,
    gates: BTreeMap<String, Envoy>,
    used: String,
}

impl Bench {
    fn start() -> Self {
        let nobody = BTreeMap::new();
        let (issuer, upstream) = (Envoy::start("issuer.yaml", &nobody), Envoy::start("upstream.yaml", &nobody));
        Self { issuer, upstream, gates: BTreeMap::new(), used: String::new() }
    }

    fn use_gate(&mut self, file: &str) {
        let known = BTreeMap::from([("issuer", self.issuer.port(8080)), ("upstream", self.upstream.port(8080))]);
        if !self.gates.contains_key(file) {
            self.gates.insert(file.to_owned(), Envoy::start(file, &known));
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

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: impl AsRef<Path>) -> Value {
    serde_saphyr::from_str(&read(path.as_ref())).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Where the gate's files have the plugin.
const PLUGIN: &str = "/etc/envoy/claimgate.wasm";
/// Where `jwt_authn.yaml` has Envoy's own filter, and where the gate: in the order of the table's columns.
const TWO_PORTS: [u16; 2] = [10001, 10000];
const PATIENCE: Duration = Duration::from_secs(30);
