//! `envoy/README.md` on a Docker engine: every command of it, in its order, and every answer. Without an engine it says so
//! and runs nothing; with `CI=true` that is a failure.

mod documents;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use claimgate_testbed::{eventually, plugin};
use ureq::Agent;

use documents::{Answer, Expected, Step, read, steps};

#[test]
fn every_command_of_the_examples_page_does_what_it_says() {
    if let Err(why) =
        Shell::default().run("docker version --format {{.Server}} && docker compose version && curl --version")
    {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI=true, and there is no Docker engine:\n{why}");
        say(&format!("NOT RUN: {PAGE} on a Docker engine, because there is none:\n{why}"));
        return;
    }
    let mut bench = Bench::start();
    let (mut wrong, mut commands) = (Vec::new(), 0_usize);
    for step in steps(&read(PAGE)) {
        // A line that does not work makes no sense of those after it.
        let outcomes = bench
            .run(&step)
            .unwrap_or_else(|why| panic!("{PAGE}:{}: {}\n{why}\n{}", step.line, step.command, bench.shell.log()));
        commands = commands.saturating_add(1);
        for why in outcomes {
            // While there is a log.
            let log = bench.shell.log();
            wrong.push(format!("{PAGE}:{}: {}\n{why}\n{log}", step.line, step.command));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(bench.shell.left_behind(), "", "the last command of {PAGE} leaves something behind");
    assert!(commands >= 50, "{PAGE} holds {commands} commands only: is it read rightly?");
    let requests = bench.requests.expect("the keys were rotated and the issuer taken down under load");
    say(&format!("{PAGE}: {commands} commands; {requests} valid requests meanwhile, none refused"));
}

/// The project as Compose runs it. What of it still runs at the end, after a failure say, is stopped.
struct Bench {
    shell: Shell,
    had_image: bool,
    load: Option<Load>,
    /// How many valid requests were sent while the keys were rotated and the issuer was down.
    requests: Option<usize>,
}

impl Bench {
    fn start() -> Self {
        let shell = Shell { variables: BTreeMap::from([("COMPOSE_PROJECT_NAME".to_owned(), PROJECT.to_owned())]) };
        let had_image = shell.run(&format!("docker image inspect {IMAGE}")).is_ok();
        Self { shell, had_image, load: None, requests: None }
    }

    /// Runs a step; returns what is different from what the document says.
    fn run(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let command = step.command.as_str();
        if command == "cargo wasm" {
            return plugin().map(|_| Vec::new());
        }
        // The gate is about to be stopped or exchanged.
        if command.contains("docker compose")
            && (command.contains(" up ") || command.ends_with(" down"))
            && let Some(load) = self.load.take()
        {
            self.requests = Some(load.stop()?);
        }
        if let Some((name, _)) = command.split_once("=$(curl ") {
            let value = self.shell.run(&format!("{command}; printf %s \"${name}\""))?;
            self.shell.variables.insert(name.to_owned(), value.clone());
            self.load.get_or_insert_with(|| Load::start(value));
            return Ok(Vec::new());
        }
        if step.expected.is_empty() {
            return self.shell.run(command).map(|_| Vec::new());
        }
        let outcomes = step.expected.iter().map(|(port, expected)| {
            if let Some(port) = port {
                self.shell.variables.insert("PORT".to_owned(), port.to_string());
            }
            let answer = match expected {
                Expected::Printed(printed) if command.contains(":9090/") => eventually("Prometheus has it", || {
                    let text = self.shell.run(command).unwrap_or_default();
                    (documents::steady(&text) == documents::steady(printed)).then(|| printed_answer(text))
                }),
                Expected::Printed(_) => printed_answer(self.shell.run(command)?),
                _ => answer(&self.shell.run(&command.replacen("curl ", "curl -s -i ", 1))?),
            };
            Ok(expected.differs(&answer).map(|why| format!("{why}\n{answer:#?}")))
        });
        let outcomes: Result<Vec<Option<String>>, String> = outcomes.collect();
        outcomes.map(|outcomes| outcomes.into_iter().flatten().collect())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.load.take());
        let down = format!("docker compose -f {FILE} --profile observability down --volumes --remove-orphans");
        let mut outcome = self.shell.run(&down);
        if !self.had_image {
            outcome = outcome.and_then(|_| self.shell.run(&format!("docker image rm {IMAGE}")));
        }
        if let Err(why) = outcome {
            say(&why);
        }
    }
}

/// Runs commands in the root of the repository.
#[derive(Default)]
struct Shell {
    variables: BTreeMap<String, String>,
}

impl Shell {
    /// What a command prints, if it succeeds.
    fn run(&self, command: &str) -> Result<String, String> {
        let output = Command::new("bash")
            .args(["-c", command])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs(&self.variables)
            .output()
            .map_err(|error| format!("cannot run `bash`: {error}"))?;
        let Output { status, stdout, stderr } = &output;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if status.success() { Ok(text(stdout)) } else { Err(format!("{status}\n{}{}", text(stdout), text(stderr))) }
    }

    fn left_behind(&self) -> String {
        let label = format!("--filter label=com.docker.compose.project={PROJECT}");
        self.run(&format!("docker ps -aq {label}; docker network ls -q {label}; docker volume ls -q {label}"))
            .unwrap_or_else(|why| why)
    }

    fn log(&self) -> String {
        self.run(&format!("docker compose -f {FILE} logs --tail 40")).unwrap_or_else(|why| why)
    }
}

/// A client that sends one valid request after another: with the first token, and with a fresh one where the issuer
/// gives one.
struct Load {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<usize, String>>>,
}

impl Load {
    fn start(token: String) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = stopped.clone();
        let thread = thread::spawn(move || {
            let agent: Agent = Agent::config_builder()
                .http_status_as_error(false)
                .proxy(None)
                .max_idle_connections(0)
                .timeout_global(Some(PATIENCE))
                .build()
                .into();
            let (mut fresh, mut requests) = (token.clone(), 0_usize);
            while !seen.load(Ordering::Relaxed) {
                let minted = agent.get(ISSUER).call().and_then(|mut answer| answer.body_mut().read_to_string());
                fresh = minted.unwrap_or(fresh);
                for token in [&token, &fresh] {
                    let request = agent.get(GATE).header("authorization", format!("Bearer {token}"));
                    let mut answer = request.call().map_err(|error| format!("request {requests}: {error}"))?;
                    if answer.status() != 200 {
                        let body = answer.body_mut().read_to_string().unwrap_or_default();
                        return Err(format!("request {requests}, with a valid token: {}\n{body}", answer.status()));
                    }
                    requests = requests.saturating_add(1);
                }
            }
            Ok(requests)
        });
        Self { stopped, thread: Some(thread) }
    }

    fn stop(mut self) -> Result<usize, String> {
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().unwrap_or_else(|_| Err("the client panicked".to_owned()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn printed_answer(body: String) -> Answer {
    Answer { status: 0, headers: BTreeMap::new(), body }
}

/// Reads what `curl -i` prints.
fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.unwrap_or_default(),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

/// To the terminal, also when the test succeeds: the test runner keeps only what `eprintln!` prints.
fn say(text: &str) {
    let _lost = writeln!(io::stderr(), "{text}");
}

const PAGE: &str = "envoy/README.md";
const FILE: &str = "envoy/docker-compose.yaml";
const PROJECT: &str = "claimgate-test";
const IMAGE: &str = "claimgate-playground";
const GATE: &str = "http://127.0.0.1:10000/orders";
const ISSUER: &str = "http://127.0.0.1:10002/token";
const PATIENCE: Duration = Duration::from_secs(10);
