//! What README files tell a person to type, and what they say comes of it: read here, run by the tests that use this.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use regex_lite::Regex;
use serde_json::Value;

/// What a document tells a person to do.
#[derive(Debug)]
pub struct Step {
    /// Where, in the document.
    pub line: usize,
    /// A shell command.
    pub command: String,
    /// What comes of it; for each of several values of `$PORT` where the command has it.
    pub expected: Vec<(Option<u16>, Expected)>,
}

/// What a document says of an answer.
#[derive(Debug)]
pub enum Expected {
    /// All that is printed.
    Printed(String),
    /// All that `curl -i` prints. Headers that come with every answer may be left out.
    PrintedWithHeaders(String),
    /// The status and one thing more: the gate's reason, the text of `jwt_authn`, or a line of the upstream's echo.
    Summary(u16, Option<String>),
}

/// What an HTTP server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// The steps of a document: the lines of `sh` blocks, the lines of `console` blocks that begin with `$ `, and the rows
/// of tables that begin with a `curl` command.
pub fn steps(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = document.lines().enumerate().map(|(i, line)| (i.saturating_add(1), line)).peekable();
    let mut fence = None;
    while let Some((number, line)) = lines.next() {
        let mut step = |command: &str, expected| {
            steps.push(Step { line: number, command: command.trim().to_owned(), expected });
        };
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_none() { Some(language) } else { None };
        } else if let (Some("console"), Some(command)) = (fence, line.strip_prefix("$ ")) {
            let mut printed = Vec::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("```") && !line.starts_with("$ ")) {
                printed.push(line);
            }
            let printed = printed.join("\n");
            let with_headers = command.starts_with("curl ") && command.contains(" -i ");
            let expected =
                if with_headers { Expected::PrintedWithHeaders(printed) } else { Expected::Printed(printed) };
            step(command, vec![(None, expected)]);
        } else if fence == Some("sh") && !line.trim().is_empty() {
            match line.split_once(" # ") {
                Some((command, comment)) if command.starts_with("curl ") => {
                    step(command, vec![(None, Expected::summary(comment))]);
                }
                Some((command, _)) => step(command, Vec::new()),
                None => step(line, Vec::new()),
            }
        } else if let (None, Some(row)) = (fence, line.strip_prefix("| `curl ")) {
            let (command, cells) = row.split_once("` | ").expect("a cell with an answer");
            let cells: Vec<&str> = cells.trim_end_matches('|').split(" | ").collect();
            let ports: Vec<Option<u16>> =
                if command.contains("$PORT") { TWO_PORTS.map(Some).to_vec() } else { vec![None] };
            assert_eq!(ports.len(), cells.len(), "line {number}: an answer for each port");
            let expected = cells.iter().map(|cell| Expected::summary(cell));
            step(&format!("curl {command}"), ports.into_iter().zip(expected).collect());
        }
    }
    steps
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

    /// What was expected, if the answer is another.
    pub fn differs(&self, answer: &Answer) -> Option<String> {
        match self {
            Self::Printed(printed) => (steady(printed) != steady(&answer.body)).then(|| format!("expected {printed}")),
            Self::PrintedWithHeaders(printed) => {
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

/// Text with a sign in place of what is another at each reading: times, addresses, and names made at random.
pub fn steady(text: &str) -> String {
    let changing = [
        ("[0-9]+ s ago", "T s ago"),
        (r#"("[a-z_]*_seconds":)-?[0-9.]+"#, "${1}0"),
        (r#"("(?:client|request_id|token_sha256|key_set)":)"[^"]*""#, r#"${1}"""#),
        (r#"("value":\[)[0-9.]+"#, "${1}0"),
    ];
    changing.iter().fold(text.trim().to_owned(), |text, (expression, sign)| {
        Regex::new(expression).expect("an expression").replace_all(&text, *sign).into_owned()
    })
}

/// A file of the repository.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where `jwt_authn.yaml` has Envoy's own filter, and where the gate: in the order of the table's columns.
const TWO_PORTS: [u16; 2] = [10001, 10000];
