//! A container's program that opens files a given number of times and nothing else.
//!
//! It is linked statically, so no loader opens anything for it. What the standard library's start-up
//! opens by itself lies under `/proc`.

use std::fs::File;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((times, files)) = arguments.split_first() else {
        eprintln!("usage: witness TIMES FILE...");
        return ExitCode::from(2);
    };
    let Ok(times) = times.parse::<usize>() else {
        eprintln!("witness: {times:?} is no number of times");
        return ExitCode::from(2);
    };
    for file in files.iter().cycle().take(times) {
        if let Err(error) = File::open(file) {
            eprintln!("witness: cannot open {file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
