//! The drills, one test each: `cargo run --example drills` shows them as a table. What they do to the gate, and their
//! bars, are in the test bed.

use claimgate_testbed::drills::{self, Drill, HEADING, Run};

#[track_caller]
fn check(run: Run) {
    let drills = run();
    let table: Vec<String> = drills.iter().map(Drill::to_string).collect();
    let table = format!("{HEADING}\n{}", table.join("\n"));
    println!("{table}");
    assert!(drills.iter().all(|drill| drill.passed), "a bar was missed:\n{table}");
}

#[test]
fn cold_stampede() {
    check(drills::cold_stampede);
}

#[test]
fn rotation_signed_at_once() {
    check(drills::rotation_signed_at_once);
}

#[test]
fn outage() {
    check(drills::outage);
}

#[test]
fn flood_of_unknown_kids() {
    check(drills::flood_of_unknown_kids);
}

#[test]
fn withdrawn_key() {
    check(drills::withdrawn_key);
}

#[test]
fn down_from_the_start() {
    check(drills::down_from_the_start);
}

#[test]
fn rotation_with_overlap() {
    check(drills::rotation_with_overlap);
}

#[test]
fn rotation_without_a_kid() {
    check(drills::rotation_without_a_kid);
}

#[test]
fn clock_skew() {
    check(drills::clock_skew);
}

#[test]
fn stripped_header() {
    check(drills::stripped_header);
}

#[test]
fn reload_under_load() {
    check(drills::reload_under_load);
}

#[test]
fn discovery() {
    check(drills::discovery);
}

#[test]
fn status_page() {
    check(drills::status_page);
}
