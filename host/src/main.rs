//! `whodunit`: see `whodunit help`.

fn main() {}
