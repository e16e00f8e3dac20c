//! The differences that are meant: the list of `tests/differences.json`, and for each what to look for and an example.

use serde::Deserialize;
use serde_json::Value;

use crate::case::{Case, Outcome, Request};
use crate::generate::World;

/// An entry of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub id: String,
    /// Why it is so, in one line.
    #[expect(dead_code, reason = "for the reader")]
    reason: String,
    readme: Row,
    pub example: Expected,
}

/// The cells of its row in the README.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    what: String,
    native: String,
    ours: String,
}

/// What comes of its example.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub native: Expectation,
    pub ours: Expectation,
}

/// What is to be true of an outcome; what is left out is not looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    status: u16,
    reason: Option<String>,
}

pub struct Example {
    pub configuration: Value,
    pub request: Request,
}

pub fn list() -> Vec<Difference> {
    serde_json::from_str(include_str!("../differences.json")).expect("tests/differences.json holds the list")
}

impl Difference {
    pub fn readme_row(&self) -> String {
        let Row { what, native, ours } = &self.readme;
        format!("| {what} | {native} | {ours} |")
    }

    pub fn explains(&self, _case: &Case, _native: &Outcome, _ours: &Outcome) -> bool {
        false
    }
}

impl Expectation {
    pub fn check(&self, outcome: &Outcome) -> Option<String> {
        (self.status != outcome.status).then(|| format!("{self:?} was expected"))
    }
}

pub fn example(_id: &str, _world: &World) -> Example {
    todo!()
}
