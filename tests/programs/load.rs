//! The work that benchmarks measure, in one process without start-up worth mentioning.
//!
//! `load opens TIMES FOLDER FILES` opens and closes `FOLDER/00000`, `FOLDER/00001`, ... in turn, as many
//! times as it is told. `load calls TIMES` asks for its parent's process id. Each prints the nanoseconds
//! that one turn took.

use std::ffi::CString;
use std::process::ExitCode;
use std::time::Instant;

use rustix::fs::{CWD, Mode, OFlags, openat};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["opens", times, folder, files] => number(times)
            .zip(number(files))
            .ok_or_else(usage)
            .and_then(|(times, files)| opens(times, folder, files)),
        ["calls", times] => number(times).ok_or_else(usage).map(calls),
        _ => Err(usage()),
    };
    match done {
        Ok(nanoseconds) => {
            println!("{nanoseconds:.1}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("load: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    "usage: load opens TIMES FOLDER FILES | load calls TIMES".to_owned()
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| *number > 0)
}

fn opens(times: usize, folder: &str, files: usize) -> Result<f64, String> {
    let paths: Vec<CString> = (0..files)
        .map(|file| CString::new(format!("{folder}/{file:05}")).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let start = Instant::now();
    for path in paths.iter().cycle().take(times) {
        openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("cannot open {path:?}: {error}"))?;
    }
    Ok(start.elapsed().as_nanos() as f64 / times as f64)
}

fn calls(times: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        std::hint::black_box(rustix::process::getppid());
    }
    start.elapsed().as_nanos() as f64 / times as f64
}
