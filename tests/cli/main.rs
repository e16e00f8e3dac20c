//! The command line, as it is typed: what it prints, and its exit status.

mod check;
mod contract;
mod desk;
mod explain;
mod keys;
mod pages;
mod schema;
