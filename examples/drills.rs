//! Drills: what hurts users most, done on purpose to claimgate in a real Envoy with two workers, in one command:
//!
//! ```sh
//! cargo run --example drills             # all of them, in about a minute
//! cargo run --example drills -- outage   # those with this in their name
//! ```
//!
//! Prints for each drill the valid requests sent and lost, and the fetches it caused. Exits with 1 if a bar is missed.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use claimgate_testbed::drills::{ALL, Drill, HEADING};
use claimgate_testbed::{envoy_binary, plugin};

fn main() -> ExitCode {
    let wanted = match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [] => String::new(),
        [name] if !name.starts_with('-') => name.clone(),
        _ => {
            eprintln!("usage: drills [NAME]");
            return ExitCode::from(2);
        }
    };
    eprintln!("building the plugin and fetching Envoy (the first time, this takes a few minutes) ...");
    if let Err(error) = plugin().and_then(|_| envoy_binary()) {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    println!("{HEADING}");
    let drills = run(&wanted);
    println!();
    let missed: Vec<&Drill> = drills.iter().filter(|drill| !drill.passed).collect();
    missed.iter().for_each(|drill| println!("{}: the bar is: {}", drill.name, drill.bar));
    match (drills.len(), missed.len()) {
        (0, _) => {
            eprintln!("no drill has `{wanted}` in its name");
            ExitCode::from(2)
        }
        (all, 0) => {
            println!("All {all} drills are within their bars.");
            ExitCode::SUCCESS
        }
        (all, missed) => {
            println!("{missed} of {all} drills are NOT within their bars.");
            ExitCode::FAILURE
        }
    }
}

/// Several at a time: most of them wait for most of theirs.
fn run(wanted: &str) -> Vec<Drill> {
    let waiting = Mutex::new(ALL.iter().filter(|(name, _)| name.contains(wanted)));
    let next = || waiting.lock().expect("no drill panics here").next();
    let work = || {
        let mut done = Vec::new();
        while let Some((_, run)) = next() {
            let drills = run();
            drills.iter().for_each(|drill| println!("{drill}"));
            done.extend(drills);
        }
        done
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the bed is sound")).collect()
    })
}

const AT_ONCE: usize = 3;
