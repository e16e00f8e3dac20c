//! What a request costs in a real Envoy with one worker: behind no filter, a plugin that does nothing, Envoy's own
//! `jwt_authn`, a plugin with `jwt-simple`, and claimgate.
//!
//! ```sh
//! cargo run --release --example bench              # about a quarter of an hour, on a machine that does nothing else
//! cargo run --release --example bench -- --quick   # whether it works: the numbers are no good
//! ```
//!
//! The cost is CPU time as the system accounts for it to Envoy's process, divided by the requests. Envoy answers by
//! itself, so that there is no upstream in it. All Envoys run at once and are loaded in turn, for several rounds, and
//! the least of the rounds counts: other work on the machine only adds. Prints the README's tables, and then each bar
//! with what was measured.

#![allow(clippy::print_stdout, reason = "the tables are what this program is for")]
#![allow(clippy::cast_precision_loss, reason = "nothing measured here is exact to 52 bits")]

mod load;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use claimgate_testbed::{Algorithm, Builder, Gate, Key, bench_plugin, envoy_binary, key_set, plugin, unix_time};
use clap::Parser;
use load::{Tokens, Wrk, cpu, memory};
use report::{Bar, number, or_dash, table, with_ratio};
use serde_json::{Value, json};

/// Measures what a request costs behind claimgate and behind others.
#[derive(Parser)]
struct Arguments {
    /// One short round of little: whether it works.
    #[arg(long)]
    quick: bool,
    /// Rounds, of which the least counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of load for each measurement in a round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// `alg` values to measure. The bars need the first three.
    #[arg(long, value_delimiter = ',', default_values = ["RS256", "ES256", "EdDSA", "HS256", "PS256", "ES384"])]
    algorithms: Vec<Algorithm>,
    /// Further headers of each request.
    #[arg(long, default_value_t = 8)]
    headers: usize,
    /// Distinct tokens for the growth of memory.
    #[arg(long, default_value_t = 100_000)]
    tokens: u64,
}

/// What requests pass through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filter {
    None,
    Nothing,
    Calls,
    Native,
    NativeCached,
    NoRequirement,
    Warm,
    CacheOff,
    Portable,
    JwtSimple,
}

/// One thing to measure: requests with these tokens to this path of this gate.
struct Cell<'a> {
    gate: &'a Gate,
    path: &'a str,
    tokens: Tokens,
}

/// What a request costs.
#[derive(Clone, Copy)]
struct Cost {
    /// µs of CPU.
    cpu: f64,
    per_second: f64,
    /// µs.
    p50: u64,
    /// µs.
    p99: u64,
}

impl Filter {
    const ALL: [Self; 10] = [
        Self::None,
        Self::Nothing,
        Self::Calls,
        Self::Native,
        Self::NativeCached,
        Self::NoRequirement,
        Self::Warm,
        Self::CacheOff,
        Self::Portable,
        Self::JwtSimple,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no filter",
            Self::Nothing => "a plugin that does nothing",
            Self::Calls => "a plugin that makes claimgate's calls to Envoy",
            Self::Native => "`jwt_authn`",
            Self::NativeCached => "`jwt_authn` with its cache",
            Self::NoRequirement => "claimgate, a path that needs no token",
            Self::Warm => "claimgate",
            Self::CacheOff => "claimgate, cache off",
            Self::Portable => "claimgate, cache off, `host_crypto` off",
            Self::JwtSimple => "a plugin with `jwt-simple`",
        }
    }

    fn builder(self, keys: &[&Key], algorithms: &[Algorithm]) -> Result<Builder, String> {
        let set = key_set(keys);
        let mut provider = provider(ISSUER, &set);
        let ours = |mut provider: Value| {
            provider["algorithms"] = algorithms.iter().map(|alg| format!("{alg:?}")).collect();
            provider
        };
        Ok(match self {
            Self::None => Gate::open(),
            Self::Nothing => Gate::module(&bench_plugin()?, ""),
            Self::Calls => Gate::module(&bench_plugin()?, "calls"),
            Self::JwtSimple => Gate::module(&bench_plugin()?, &set.to_string()),
            Self::Native => Gate::native(&configuration(&provider)),
            Self::NativeCached => {
                provider["jwt_cache_config"] = json!({ "jwt_cache_size": 1024 });
                Gate::native(&configuration(&provider))
            }
            Self::NoRequirement => {
                let mut configuration = configuration(&ours(provider));
                configuration["rules"] = json!([{ "match": { "prefix": "/" } }]);
                Gate::plugin(&configuration)
            }
            Self::Warm => Gate::plugin(&configuration(&ours(provider))),
            Self::CacheOff | Self::Portable => {
                let mut provider = ours(provider);
                provider["jwt_cache_config"] = json!({ "jwt_cache_size": 0 });
                let mut configuration = unbraked(configuration(&provider));
                if self == Self::Portable {
                    configuration["host_crypto"] = "off".into();
                }
                Gate::plugin(&configuration)
            }
        })
    }
}

impl Arguments {
    fn within_reason(self) -> Self {
        if !self.quick {
            return self;
        }
        Self { rounds: 1, seconds: 1, algorithms: vec![Algorithm::RS256], tokens: 1_000, ..self }
    }
}

fn main() -> ExitCode {
    match measure_all(&Arguments::parse().within_reason()) {
        Ok(bars) => {
            println!("## Bars\n");
            let rows: Vec<_> = bars.iter().map(Bar::row).collect();
            println!("{}", table(&["measure", "at most", "measured", ""], &rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn measure_all(arguments: &Arguments) -> Result<Vec<Bar>, String> {
    eprintln!("building the plugins and fetching Envoy and wrk (the first time, this takes a few minutes) ...");
    let plugin_bytes = std::fs::metadata(plugin()?).map_err(|error| error.to_string())?.len();
    bench_plugin()?;
    envoy_binary()?;
    let wrk = Wrk::find(arguments.headers)?;
    let Arguments { rounds, seconds, headers, .. } = arguments;
    println!("{}\n", machine());
    println!(
        "One worker, {headers} headers besides `Host` and `Authorization`, least of {rounds} rounds of {seconds} s.\n"
    );

    let mut bars = requests(arguments, &wrk)?;
    bars.extend(growth(arguments, &wrk)?);
    bars.extend(distinct_tokens(arguments, &wrk)?);
    bars.push(Bar {
        measure: "size of `claimgate.wasm`",
        measured: Some(plugin_bytes as f64),
        at_most: 1e6,
        unit: "bytes",
    });
    bars.push(start(arguments)?);
    Ok(bars)
}

/// Every filter with every algorithm.
fn requests(arguments: &Arguments, wrk: &Wrk) -> Result<Vec<Bar>, String> {
    let algorithms = &arguments.algorithms;
    let keys: Vec<Key> = algorithms.iter().map(|alg| Key::new(*alg, &format!("{alg:?}"))).collect();
    let borrowed: Vec<&Key> = keys.iter().collect();
    let mut gates = Vec::new();
    for filter in Filter::ALL {
        match filter.builder(&borrowed, algorithms)?.bare().concurrency(1).start() {
            Ok(gate) => gates.push((filter, gate)),
            Err(error) => {
                let why = error.log.lines().find(|line| line.contains("claimgate refuses")).unwrap_or(&error.log);
                eprintln!("{}: {why}", filter.name());
            }
        }
    }
    let mut named = Vec::new();
    let mut cells = Vec::new();
    for (alg, key) in algorithms.iter().zip(&keys) {
        let token = key.sign(&claims(ISSUER, 0));
        for (filter, gate) in &gates {
            let status = gate.get("/").bearer(&token).send().status;
            if status == 200 {
                named.push((*filter, *alg));
                cells.push(Cell {
                    gate,
                    path: "/",
                    tokens: wrk.tokens(&format!("{alg:?}"), std::slice::from_ref(&token)),
                });
            } else {
                eprintln!("{} answers {alg:?} with {status}", filter.name());
            }
        }
    }
    let costs = measure(arguments, wrk, &cells)?;
    let cost = |filter: Filter, alg: Algorithm| {
        let place = named.iter().position(|cell| *cell == (filter, alg))?;
        costs.get(place).copied()
    };
    let cpu = |filter, alg| cost(filter, alg).map(|cost| cost.cpu);

    let names: Vec<String> = algorithms.iter().map(|alg| format!("{alg:?}")).collect();
    let head = |first: &'static str, last: &[&'static str]| -> Vec<String> {
        [first]
            .into_iter()
            .chain(names.iter().map(String::as_str))
            .chain(last.iter().copied())
            .map(str::to_owned)
            .collect()
    };
    let rows = |cell: &dyn Fn(Filter, Algorithm) -> String| -> Vec<Vec<String>> {
        let row = |filter: Filter| {
            [filter.name().to_owned()].into_iter().chain(algorithms.iter().map(|alg| cell(filter, *alg))).collect()
        };
        Filter::ALL.map(row).to_vec()
    };
    let print = |title: &str, head: &[String], rows: &[Vec<String>]| {
        println!("## {title}\n");
        println!("{}", table(&head.iter().map(String::as_str).collect::<Vec<_>>(), rows));
    };

    let mut table =
        rows(&|filter, alg| or_dash(cpu(filter, alg).map(|cost| with_ratio(cost, cpu(Filter::Native, alg)))));
    for (filter, row) in Filter::ALL.iter().zip(&mut table) {
        let gate = gates.iter().find(|(other, _)| other == filter).map(|(_, gate)| gate);
        row.push(or_dash(gate.map(|gate| memory(gate.process()) >> 20)));
    }
    print("CPU µs of one request (× that of `jwt_authn`)", &head("filter", &["MiB"]), &table);
    let table = rows(&|filter, alg| {
        or_dash(cost(filter, alg).map(|cost| format!("{:.0} · {} · {}", cost.per_second, cost.p50, cost.p99)))
    });
    print("Requests per second · p50 µs · p99 µs", &head("filter", &[]), &table);

    // What the cache saves is the verification with what surrounds it: at least its own cost.
    let difference = |more, less, alg| Some(cpu(more, alg)? - cpu(less, alg)?);
    let portable = |alg| difference(Filter::Portable, Filter::Warm, alg);
    let host = |alg| difference(Filter::CacheOff, Filter::Warm, alg);
    let jwt_simple = |alg| difference(Filter::JwtSimple, Filter::Nothing, alg);
    type Time<'t> = (&'t str, &'t dyn Fn(Algorithm) -> Option<f64>);
    let lines: [Time<'_>; 3] =
        [("claimgate", &host), ("claimgate, `host_crypto` off", &portable), ("`jwt-simple`", &jwt_simple)];
    let table = lines.map(|(name, time)| {
        let cells = algorithms.iter().map(|alg| or_dash(time(*alg).map(number)));
        [name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
    });
    print("One verification in the plugin, µs of CPU", &head("", &[]), &table);

    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let added = |filter, alg| difference(filter, Filter::None, alg);
    let whole = |alg| ratio(cpu(Filter::CacheOff, alg), cpu(Filter::Native, alg));
    let (rs256, es256, eddsa) = (Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA);
    let bar = |measure, measured, at_most, unit| Bar { measure, measured, at_most, unit };
    Ok(vec![
        bar(
            "RS256 warm: added to no filter, of what `jwt_authn` adds",
            ratio(added(Filter::Warm, rs256), added(Filter::Native, rs256)),
            0.25,
            "",
        ),
        bar("RS256 cache off: whole request, of `jwt_authn`'s", whole(rs256), 1.0, ""),
        bar("ES256 cache off: whole request, of `jwt_authn`'s", whole(es256), 1.0, ""),
        bar("RS256 portable: one verification", portable(rs256), 150.0, "µs"),
        bar("RS256 portable: of `jwt-simple`'s", ratio(portable(rs256), jwt_simple(rs256)), 1.0 / 8.0, ""),
        bar("EdDSA portable: of `jwt-simple`'s", ratio(portable(eddsa), jwt_simple(eddsa)), 1.0 / 3.0, ""),
    ])
}

/// What more of something does to a request of a token that was seen before.
fn growth(arguments: &Arguments, wrk: &Wrk) -> Result<Vec<Bar>, String> {
    let (providers, rules, keys, bytes) = if arguments.quick { (2, 2, 2, 600) } else { (100, 200, 1_000, 6_000) };
    let alg = Algorithm::RS256;
    let key = Key::new(alg, "RS256");
    let set = key_set(&[&key]);
    let start = |configuration: &Value| {
        Gate::plugin(configuration).bare().concurrency(1).start().map_err(|error| error.to_string())
    };

    let one = start(&configuration(&provider(ISSUER, &set)))?;
    let issuer = |number: usize| format!("https://issuer-{number}.example.com/");
    let many: serde_json::Map<String, Value> =
        (0..providers).map(|number| (format!("provider-{number}"), provider(&issuer(number), &set))).collect();
    let many_providers = start(&json!({ "providers": many }))?;
    let rule = |number| json!({ "match": { "prefix": format!("/service-{number}/") }, "requires": { "provider_name": PROVIDER } });
    let mut many_rules = configuration(&provider(ISSUER, &set));
    many_rules["rules"] = (0..rules).map(rule).collect();
    let many_rules = start(&many_rules)?;
    let mut others: Vec<Key> = (1..keys).map(|number| Key::new(Algorithm::ES256, &format!("key-{number}"))).collect();
    others.push(key.clone());
    let many_keys = start(&configuration(&provider(ISSUER, &key_set(&others.iter().collect::<Vec<_>>()))))?;

    let last_path = format!("/service-{}/orders", rules - 1);
    let cells = [
        (&one, "/", key.sign(&claims(ISSUER, 0))),
        (&many_providers, "/", key.sign(&claims(&issuer(providers - 1), 0))),
        (&many_rules, last_path.as_str(), key.sign(&claims(ISSUER, 0))),
        (&many_keys, "/", key.sign(&claims(ISSUER, 0))),
        (&one, "/", key.sign(&claims(ISSUER, bytes))),
    ];
    let short = cells[0].2.len();
    let long = cells[4].2.len();
    let cells: Vec<Cell<'_>> = cells
        .into_iter()
        .enumerate()
        .map(|(number, (gate, path, token))| Cell {
            gate,
            path,
            tokens: wrk.tokens(&format!("growth-{number}"), &[token]),
        })
        .collect();
    let costs = measure(arguments, wrk, &cells)?;
    let base = costs[0].cpu;
    let rows = [
        format!("1 provider, 1 rule, 1 key, a token of {short} bytes"),
        format!("{providers} providers, no rules, a token of the last"),
        format!("{rules} rules, the last matches"),
        format!("{keys} keys, the last verifies"),
        format!("a token of {long} bytes, too long for the cache"),
    ];
    let rows: Vec<Vec<String>> =
        rows.into_iter().zip(&costs).map(|(what, cost)| vec![what, with_ratio(cost.cpu, Some(base))]).collect();
    println!("## Growth: CPU µs of one request, {alg:?}, seen before\n");
    println!("{}", table(&["", "CPU µs (× the first)"], &rows));
    let bar = |measure, cost: &Cost| Bar { measure, measured: Some(cost.cpu / base), at_most: 1.3, unit: "" };
    Ok(vec![bar("1 → 100 providers, warm", &costs[1]), bar("1 → 200 rules, warm", &costs[2])])
}

/// What a flood of tokens, each of which is good, leaves in memory.
fn distinct_tokens(arguments: &Arguments, wrk: &Wrk) -> Result<Option<Bar>, String> {
    let key = Key::new(Algorithm::EdDSA, "EdDSA");
    let gate = Gate::plugin(&unbraked(configuration(&provider(ISSUER, &key_set(&[&key])))));
    let gate = gate.bare().concurrency(1).start().map_err(|error| error.to_string())?;
    let mut claims = claims(ISSUER, 0);
    let tokens: Vec<String> = (0..arguments.tokens)
        .map(|number| {
            claims["jti"] = format!("token-{number}").into();
            key.sign(&claims)
        })
        .collect();
    let one = wrk.tokens("one", tokens.get(..1).unwrap_or_default());
    let all = wrk.tokens("all", &tokens);
    let run = |tokens, first| wrk.run(gate.addr(), "/", tokens, first, arguments.seconds);
    run(&one, 0)?;
    let before = memory(gate.process());
    let mut sent = 0;
    while sent < arguments.tokens {
        sent += run(&all, sent)?.requests;
    }
    let after = memory(gate.process());
    println!("## Memory of Envoy with one worker, MiB\n");
    let row = |tokens: u64, bytes: u64| vec![tokens.to_string(), (bytes >> 20).to_string()];
    println!("{}", table(&["distinct tokens", "MiB"], &[row(1, before), row(arguments.tokens, after)]));
    let grown = after.saturating_sub(before) as f64 / 1024.0 / 1024.0;
    Ok(Some(Bar {
        measure: "1 → 100,000 distinct tokens: memory",
        measured: Some(grown),
        at_most: CACHE_MIB,
        unit: "MiB",
    }))
}

/// How much longer Envoy takes to start with the plugin.
fn start(arguments: &Arguments) -> Result<Bar, String> {
    let key = Key::new(Algorithm::RS256, "RS256");
    let ours = configuration(&provider(ISSUER, &key_set(&[&key])));
    let least = |builder: &dyn Fn() -> Builder| -> Result<Duration, String> {
        let mut least = Duration::MAX;
        for _ in 0..arguments.rounds {
            let begun = Instant::now();
            let _gate = builder().bare().concurrency(1).start().map_err(|error| error.to_string())?;
            least = least.min(begun.elapsed());
        }
        Ok(least)
    };
    let without = least(&Gate::open)?;
    let with = least(&|| Gate::plugin(&ours))?;
    let more = with.saturating_sub(without).as_secs_f64() * 1000.0;
    Ok(Bar { measure: "load and configure: added to Envoy's start", measured: Some(more), at_most: 200.0, unit: "ms" })
}

/// Loads the cells in turn, round by round, after a first one that does not count.
fn measure(arguments: &Arguments, wrk: &Wrk, cells: &[Cell<'_>]) -> Result<Vec<Cost>, String> {
    let mut least: Vec<Option<Cost>> = vec![None; cells.len()];
    for round in 0..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        for (cell, least) in cells.iter().zip(&mut least) {
            let before = cpu(cell.gate.process());
            let seconds = if round == 0 { 1 } else { arguments.seconds };
            let load = wrk.run(cell.gate.addr(), cell.path, &cell.tokens, 0, seconds)?;
            let spent = cpu(cell.gate.process()).saturating_sub(before).as_secs_f64() * 1e6;
            let cost =
                Cost { cpu: spent / load.requests as f64, per_second: load.per_second(), p50: load.p50, p99: load.p99 };
            if round > 0 && least.is_none_or(|least| cost.cpu < least.cpu) {
                *least = Some(cost);
            }
        }
    }
    least.into_iter().collect::<Option<_>>().ok_or_else(|| "no round was measured".to_owned())
}

/// The part of a configuration that `jwt_authn` and claimgate share.
fn configuration(provider: &Value) -> Value {
    json!({
        "providers": { PROVIDER: provider },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": PROVIDER } }],
    })
}

fn provider(issuer: &str, set: &Value) -> Value {
    json!({ "issuer": issuer, "audiences": ["orders"], "local_jwks": { "inline_string": set.to_string() } })
}

/// Claims of usual kind and number, and of at least so many bytes.
fn claims(issuer: &str, bytes: usize) -> Value {
    let now = unix_time();
    let mut claims = json!({
        "iss": issuer, "aud": "orders", "sub": "user-4711", "iat": now, "exp": now + 24 * 60 * 60, "scope": "read",
    });
    if bytes > 0 {
        // Base64 makes four letters of three.
        claims["groups"] = (0..bytes * 3 / 4 / 12).map(|number| format!("group-{number:03}")).collect();
    }
    claims
}

/// The same without the brake, which is not what is measured.
fn unbraked(mut configuration: Value) -> Value {
    let most = u32::MAX;
    configuration["verifications_per_second"] = json!({ "light": most, "medium": most, "heavy": most });
    configuration
}

/// What it was measured on.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let envoy = claimgate_testbed::ENVOY_VERSION;
    format!("{cores} processors of {model}, Envoy {envoy}")
}

const ISSUER: &str = "https://idp.example.com/";
const PROVIDER: &str = "corp";
/// What a worker may remember of tokens.
const CACHE_MIB: f64 = (claimgate::limits::TOKEN_CACHE_BYTES >> 20) as f64;
