//! What the parser tells of itself: help with examples that run, completion, pages of the manual.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::desk::{Desk, text};

const COMMANDS: [&str; 8] = ["explain", "check", "test", "schema", "keygen", "mint", "completion", "man"];

/// A desk with the files that the examples name.
fn furnished() -> Desk {
    let desk = Desk::new();
    desk.put(
        "gate.json",
        r#"{"providers": {"corp": {"issuer": "https://idp.example.com/", "audiences": ["orders"],
            "remote_jwks": {"http_uri": {"uri": "https://idp.example.com/jwks.json", "cluster": "idp"}}}}}"#,
    );
    desk.put("claims.yaml", "iss: https://idp.example.com/\naud: orders\n");
    desk.put("contract.yaml", "configuration: gate.json\ncases: [{name: expiry, expect: {reason: header_missing}}]\n");
    desk
}

#[test]
fn each_example_of_the_help_runs() {
    let desk = furnished();
    let mut ran = 0;
    // Keys first: other examples use them.
    for command in ["keygen", "mint", "explain", "check", "test", "schema", "completion", "man"] {
        let help = desk.answer(&[command, "--help"], 0);
        let examples = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
        let examples: Vec<&str> = examples.take_while(|line| line.starts_with("  claimgate ")).collect();
        assert!(!examples.is_empty(), "{help}");
        for example in examples {
            let example =
                example.replace("/etc/bash_completion.d/", "").replace("jwks.json --token", "dev.jwks.json --token");
            let script = example.replacen("claimgate", "\"$CLAIMGATE\"", 1);
            let output = Command::new("sh")
                .args(["-c", &script])
                .current_dir(desk.path(""))
                .env("CLAIMGATE", env!("CARGO_BIN_EXE_claimgate"))
                .output()
                .expect("a shell");
            let answer = (text(&output.stdout), text(&output.stderr));
            assert!(matches!(output.status.code(), Some(0 | 1)), "{example}: {answer:?}");
            ran += 1;
        }
    }
    assert!(ran >= 15, "{ran} examples ran");
}

#[test]
fn each_command_has_help_a_page_and_is_completed() {
    let desk = Desk::new();
    let (help, page) = (desk.answer(&["--help"], 0), desk.answer(&["man"], 0));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = desk.answer(&["completion", shell], 0);
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
    for command in COMMANDS {
        assert!(help.contains(&format!("  {command} ")), "{command}: {help}");
        assert!(page.contains(&format!("claimgate\\-{command}(1)")), "{command}: {page}");
        let page = desk.answer(&["man", command], 0);
        assert!(page.contains(".SH SYNOPSIS") && page.contains(&format!("claimgate\\-{command}")), "{page}");
    }
    assert_eq!(desk.trouble(&["man", "women"]), "claimgate: man: there is no command `women`\n");
}

/// Where bash is, it takes the script and completes by it.
#[test]
fn bash_takes_its_script() {
    let desk = Desk::new();
    let script = desk.answer(&["completion", "bash"], 0)
        + "\nCOMP_WORDS=(claimgate expl) COMP_CWORD=1; _claimgate claimgate expl claimgate; echo \"${COMPREPLY[@]}\"\n";
    let bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut bash) = bash else {
        println!("no bash here");
        return;
    };
    bash.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("bash reads");
    assert_eq!(text(&bash.wait_with_output().expect("bash ends").stdout), "explain\n");
}

#[test]
fn colour_is_for_terminals() {
    let desk = furnished();
    let answer = |name: &str, value: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_claimgate"))
            .args(["check", "gate.json"])
            .current_dir(desk.path(""))
            .env_remove("NO_COLOR")
            .env(name, value)
            .output()
            .expect("the binary runs");
        text(&output.stdout)
    };
    assert_eq!(answer("TERM", "xterm"), "gate.json: no warnings\n");
    assert_eq!(answer("CLICOLOR_FORCE", "1"), "gate.json: \u{1b}[32mno warnings\u{1b}[0m\n");
}
