//! The command line: a thin shell around the library. It opens no socket.

fn main() {}
