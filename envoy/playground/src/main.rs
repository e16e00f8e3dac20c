//! `claimgate-playground issuer [FILE] | upstream | healthy`: the servers of `docker-compose.yaml`, one in a container.
//! FILE is a JWK Set whose keys are published, too.

use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;

use claimgate_playground::{issuer, serve, upstream};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["issuer"] => run_issuer(None),
        ["issuer", file] => run_issuer(Some(file)),
        ["upstream"] => listener().and_then(|listener| serve(listener, upstream())),
        ["healthy"] => healthy(),
        _ => {
            eprintln!("usage: claimgate-playground issuer [FILE] | upstream | healthy");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_issuer(file: Option<&str>) -> io::Result<()> {
    let others = file.map(fs::read).transpose()?;
    // In the container's own layer: the keys outlive `stop` and `start`, and go with `down`.
    let issuer = issuer(Some("keys.json".into()), others.as_deref())?;
    serve(listener()?, issuer)
}

fn listener() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))
}

/// For health checks: the image holds no other program.
fn healthy() -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.write_all(b"GET /healthy HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(()) } else { Err(io::Error::other(format!("not healthy: {status}"))) }
}

const PORT: u16 = 8080;
