//! What is typed, and what comes of it: text on standard output, and an exit status. Each command has a module.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use claimgate::UnixTime;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

mod check;
mod contract;
mod explain;
mod gate;
mod keys;
mod mint;
mod schema;

const EXIT_STATUS: &str = "Exit status: 0 allowed, or all well; 1 rejected, or something found; 2 could not tell (bad arguments, a file that \
     cannot be read, a bad configuration).";

/// A JWT gate for Envoy, Istio and NGINX: the same decisions, on the command line
#[derive(Parser)]
#[command(name = "claimgate", version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Explain(explain::Arguments),
    Check(check::Arguments),
    Test(contract::Arguments),
    Schema(schema::Arguments),
    Keygen(keys::Arguments),
    Mint(mint::Arguments),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  claimgate completion bash > /etc/bash_completion.d/claimgate")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual, in roff
    #[command(after_help = "Example:\n  claimgate man explain > claimgate-explain.1")]
    Man {
        /// The command; none: the page of them all
        command: Option<String>,
    },
}

/// How a value is typed.
fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// What a command has to say, and whether it found something.
struct Answer {
    text: String,
    exit: Exit,
}

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Allowed, or all well.
    Well = 0,
    /// Rejected, or something found.
    Found = 1,
    /// Could not tell.
    Unknown = 2,
}

/// What stopped a command, for people.
type Trouble = String;

/// How an answer is written.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For machines
    Json,
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let answer = match Cli::parse().command {
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Test(arguments) => contract::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Keygen(arguments) => keys::run(&arguments),
        Command::Mint(arguments) => mint::run(&arguments),
        Command::Completion { shell } => Ok(completion(shell)),
        Command::Man { command } => manual(command.as_deref()),
    };
    // Colours go to terminals alone, and not there where `NO_COLOR` is set.
    let written = answer.and_then(|Answer { text, exit }| {
        let text = text.trim_end_matches('\n');
        writeln!(anstream::stdout().lock(), "{text}").map(|()| exit).map_err(|error| format!("cannot write: {error}"))
    });
    let exit = written.unwrap_or_else(|trouble| {
        note(&trouble);
        Exit::Unknown
    });
    ExitCode::from(exit as u8)
}

fn completion(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "claimgate", &mut script);
    Answer { text: String::from_utf8_lossy(&script).into_owned(), exit: Exit::Well }
}

fn manual(command: Option<&str>) -> Result<Answer, Trouble> {
    let mut all = Cli::command();
    all.build();
    let page = match command {
        None => all,
        Some(name) => match all.find_subcommand(name) {
            Some(found) => found.clone(),
            None => return Err(format!("man: there is no command `{name}`")),
        },
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).map_err(|error| format!("cannot write: {error}"))?;
    Ok(Answer { text: String::from_utf8_lossy(&roff).into_owned(), exit: Exit::Well })
}

/// Says something beside the answer.
fn note(text: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "claimgate: {}", printable(text));
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        return match std::io::stdin().read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(format!("standard input: {error}")),
        };
    }
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A file named in another one: relative names start at that one's folder.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(name)
}

fn now() -> Result<UnixTime, Trouble> {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(elapsed) => Ok(UnixTime::since_epoch(elapsed)),
        Err(_) => Err("this machine's clock is before 1970, use --at".to_owned()),
    }
}

/// A moment as it may be typed: `now` and what is added to it or taken from it, seconds since 1970, or RFC 3339.
fn moment(text: &str, now: UnixTime) -> Result<UnixTime, Trouble> {
    let seconds = match (relative(text, now), text.parse::<u64>()) {
        (Some(seconds), _) => u64::try_from(seconds).ok(),
        (None, Ok(seconds)) => Some(seconds),
        (None, Err(_)) => text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok()),
    };
    seconds.map(UnixTime::from_secs).ok_or_else(|| {
        format!("`{text}`: seconds since 1970, a time such as 2026-01-02T03:04:05Z or now+5m was expected")
    })
}

/// Seconds since 1970 of `now`, `now+5m`, `now-61s` and the like; nothing for any other text.
fn relative(text: &str, now: UnixTime) -> Option<i64> {
    let rest = text.strip_prefix("now")?;
    let now = i64::try_from(now.as_secs()).ok()?;
    if rest.is_empty() {
        return Some(now);
    }
    let unit = match rest.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let digits = rest.get(1..rest.len() - 1).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let seconds = digits.parse::<i64>().ok()?.checked_mul(unit)?;
    match rest.chars().next()? {
        '+' => now.checked_add(seconds),
        '-' => now.checked_sub(seconds),
        _ => None,
    }
}

fn date(time: UnixTime) -> String {
    match i64::try_from(time.as_secs()).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok()) {
        Some(date) => date.to_string(),
        None => time.as_secs().to_string(),
    }
}

/// What comes from a token or a file may hold anything; on a terminal it shall do nothing.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();

fn paint(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}
