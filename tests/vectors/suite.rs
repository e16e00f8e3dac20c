//! A suite: its cases counted, held against what their source says, and against the reviewed exceptions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The outcome of a case that is accepted. Any other is a refusal: `refuse`, or the reason.
pub const ACCEPT: &str = "accept";
/// The outcome of a case that is refused, where no reason is compared.
pub const REFUSE: &str = "refuse";

/// A suite while its cases run.
pub struct Suite {
    name: String,
    exceptions: BTreeMap<String, Exception>,
    seen: BTreeSet<String>,
    accepted: usize,
    refused: usize,
    skipped: BTreeMap<&'static str, usize>,
    excepted: BTreeMap<String, usize>,
    notes: Vec<String>,
    failures: Vec<String>,
}

/// What becomes of some cases, against the word of their source.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    cases: Vec<String>,
    outcome: String,
    why: String,
}

impl Suite {
    /// A suite with the exceptions of the file of this name; `of` tells which of them are its own.
    pub fn new(name: &str, file: &str, of: impl Fn(&str) -> bool) -> Self {
        let mut exceptions = BTreeMap::new();
        for exception in read::<Vec<Exception>>(&format!("exceptions/{file}.json")) {
            for case in exception.cases.iter().filter(|case| of(case)) {
                let twice = exceptions.insert(case.clone(), exception.clone()).is_some();
                assert!(!twice, "{file}: `{case}` is listed twice");
            }
        }
        Self {
            name: name.to_owned(),
            exceptions,
            seen: BTreeSet::new(),
            accepted: 0,
            refused: 0,
            skipped: BTreeMap::new(),
            excepted: BTreeMap::new(),
            notes: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// One case: what its source expects, and what came out.
    pub fn case(&mut self, id: &str, expected: &str, outcome: &str) {
        if !self.seen.insert(id.to_owned()) {
            self.failures.push(format!("{id}: there are two cases of this name"));
        }
        *(if outcome == ACCEPT { &mut self.accepted } else { &mut self.refused }) += 1;
        match self.exceptions.get(id) {
            None if outcome == expected => {}
            None => self.failures.push(format!("{id}: {outcome}, {expected} was expected")),
            Some(_) if outcome == expected => {
                self.failures.push(format!("{id}: {outcome}, as expected: its exception is stale"));
            }
            Some(exception) if outcome == exception.outcome => {
                *self
                    .excepted
                    .entry(format!("{} for {expected}: {}", exception.outcome, exception.why))
                    .or_default() += 1;
            }
            Some(exception) => {
                self.failures.push(format!("{id}: {outcome}, its exception says {}", exception.outcome));
            }
        }
    }

    /// Whether the exceptions say that a case ends like this.
    pub fn is_excepted(&self, id: &str, outcome: &str) -> bool {
        self.exceptions.get(id).is_some_and(|exception| exception.outcome == outcome)
    }

    /// One case that is not run, and why.
    pub fn skip(&mut self, id: &str, why: &'static str) {
        self.seen.insert(id.to_owned());
        *self.skipped.entry(why).or_default() += 1;
    }

    /// What must not be, whatever the exceptions say.
    pub fn fail(&mut self, failure: impl Into<String>) {
        self.failures.push(failure.into());
    }

    /// A further line to print.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints what was counted.
    pub fn finish(mut self) -> Result<(), Failed> {
        let stale = self.exceptions.keys().filter(|case| !self.seen.contains(*case));
        self.failures.extend(stale.map(|case| format!("{case}: an exception for a case that is not there")));
        let run = self.accepted + self.refused;
        let skipped: usize = self.skipped.values().sum();
        if run == 0 {
            self.failures.push("no case was run".to_owned());
        }
        let mut lines = format!(
            "vectors: {:<22} {run:>5} run, {:>4} accepted, {:>4} refused, {skipped:>3} skipped\n",
            self.name, self.accepted, self.refused
        );
        for (why, count) in &self.skipped {
            let _ = writeln!(lines, "           {count:>4} skipped: {why}");
        }
        for (why, count) in &self.excepted {
            let _ = writeln!(lines, "           {count:>4} reviewed: {why}");
        }
        for note in &self.notes {
            let _ = writeln!(lines, "           {note}");
        }
        // In one piece: suites run beside each other.
        print!("{lines}");
        if self.failures.is_empty() { Ok(()) } else { Err(self.failures.join("\n").into()) }
    }
}

/// A file of JSON beside this one.
pub fn read<T: DeserializeOwned>(file: &str) -> T {
    let path = folder().join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}
