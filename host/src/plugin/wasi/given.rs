//! What of the system interface answers with more than nothing, where the TOML grants it.
//!
//! Clocks tell the time that the contract's `clock` tells, random numbers are random, what is written to standard
//! output and standard error are messages in the daemon's log, with their limits, and of the environment and of files
//! there is what is named. In a replay the numbers are the same every time. Whatever is granted, waiting takes no time, ending the
//! process is a trap, and there is nothing behind anything else: no argument, no network, and standard input is at its
//! end.

use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::Val;
use wasmtime::component::types::Type;

use super::super::bindings::whodunit::plugin::{clock, log};
use super::super::imports::Guest;
use super::capability::{Capability, System};
use super::files::{self, Call};
use super::{datetime, emptiest, ok, resource};
use crate::config::Grants;

/// Random bytes that are given in one call at most.
const MAX_RANDOM_BYTES: u64 = 64 << 10;
/// Bytes that may be written to a stream in one call.
const WRITE_BYTES: u64 = 4 << 10;

/// What stands behind the handle of a stream: the number of a resource that is given out.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// A function that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    RandomBytes,
    RandomNumber,
    RandomPair,
    WallTime,
    Time,
    /// How exact a clock is.
    WallResolution,
    Resolution,
    /// A stream of that number.
    Stream(u32),
    CheckWrite,
    Write,
    Flush,
    IsReady,
    Poll,
    Exit,
    Environment,
    /// Of a file, a folder, or a stream of one.
    File(Call),
}

/// The function of that interface, such as `wasi:random/random@0.2.6`, if it is one that answers with these grants.
/// Streams answer whatever is granted: they go by what is behind their handles.
pub(super) fn given(interface: &str, function: &str, grants: &Grants) -> Option<Given> {
    if Capability::of(interface).is_some_and(|capability| !capability.is_granted(grants)) {
        return None;
    }
    let interface = interface.split('@').next().unwrap_or_default();
    if let Some(call) = files::call(interface, function) {
        return Some(Given::File(call));
    }
    Some(match (interface.strip_prefix("wasi:")?, function) {
        ("random/random", "get-random-bytes")
        | ("random/insecure", "get-insecure-random-bytes") => Given::RandomBytes,
        ("random/random", "get-random-u64") | ("random/insecure", "get-insecure-random-u64") => {
            Given::RandomNumber
        }
        ("random/insecure-seed", "insecure-seed" | "get-insecure-seed") => Given::RandomPair,
        ("clocks/wall-clock", "now") => Given::WallTime,
        ("clocks/wall-clock", "resolution") => Given::WallResolution,
        ("clocks/monotonic-clock", "now") => Given::Time,
        ("clocks/monotonic-clock", "resolution") => Given::Resolution,
        ("cli/stdout", "get-stdout") => Given::Stream(STDOUT),
        ("cli/stderr", "get-stderr") => Given::Stream(STDERR),
        ("io/streams", "[method]output-stream.check-write") => Given::CheckWrite,
        (
            "io/streams",
            "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
        ) => Given::Write,
        ("io/streams", "[method]output-stream.flush" | "[method]output-stream.blocking-flush") => {
            Given::Flush
        }
        ("io/poll", "[method]pollable.ready") => Given::IsReady,
        ("io/poll", "poll") => Given::Poll,
        ("cli/exit", "exit" | "exit-with-code") => Given::Exit,
        ("cli/environment", "get-environment") => Given::Environment,
        _ => return None,
    })
}

impl Given {
    /// The answer. `handles` are the numbers behind the resources that were handed over.
    pub(super) fn answer(
        self,
        store: &mut StoreContextMut<'_, Guest>,
        system: &System,
        parameters: &[Val],
        handles: &[u32],
        of: Option<&Type>,
    ) -> wasmtime::Result<Option<Val>> {
        let guest = store.data_mut();
        let stream = handles.first().copied().filter(|it| [STDOUT, STDERR].contains(it));
        let answer = match self {
            Given::RandomBytes => random_bytes(guest, parameters)?,
            Given::RandomNumber => Val::U64(guest.random()?),
            Given::RandomPair => {
                Val::Tuple(vec![Val::U64(guest.random()?), Val::U64(guest.random()?)])
            }
            Given::WallTime => datetime(Duration::from_nanos(clock::Host::now(guest))),
            Given::WallResolution => datetime(Duration::from_nanos(1)),
            Given::Time => Val::U64(clock::Host::monotonic(guest)),
            Given::Resolution => Val::U64(1),
            Given::Stream(number) => resource(store, number)?,
            Given::CheckWrite if stream.is_some() => ok(Some(Val::U64(WRITE_BYTES))),
            Given::Write if stream.is_some() => {
                write(guest, stream == Some(STDERR), parameters);
                ok(None)
            }
            Given::Flush if stream.is_some() => ok(None),
            // Of no stream that is open.
            Given::CheckWrite | Given::Write | Given::Flush => {
                return of.map(|of| emptiest(store, of)).transpose();
            }
            Given::IsReady => Val::Bool(true),
            Given::Poll => Val::List((0..handles.len() as u32).map(Val::U32).collect()),
            Given::Environment => environment(&system.grants.environment),
            Given::File(call) => {
                let answer = call.answer(store, &system.folders, parameters, handles)?;
                return match (answer, of) {
                    (None, Some(of)) => emptiest(store, of).map(Some),
                    (answer, _) => Ok(answer),
                };
            }
            Given::Exit => return Err(wasmtime::Error::msg("it asked to end its process")),
        };
        Ok(Some(answer))
    }
}

fn random_bytes(guest: &mut Guest, parameters: &[Val]) -> wasmtime::Result<Val> {
    let Some(Val::U64(length @ 0..=MAX_RANDOM_BYTES)) = parameters.first() else {
        let most = format!("it asked for more than {MAX_RANDOM_BYTES} random bytes at once");
        return Err(wasmtime::Error::msg(most));
    };
    let mut bytes = Vec::with_capacity(*length as usize);
    while (bytes.len() as u64) < *length {
        bytes.extend(guest.random()?.to_le_bytes().map(Val::U8));
    }
    bytes.truncate(*length as usize);
    Ok(Val::List(bytes))
}

/// Those variables with their values, as far as they are set. What is not UTF-8 in one is replaced.
fn environment(names: &[String]) -> Val {
    let variable = |name: &String| {
        let value = std::env::var_os(name)?.to_string_lossy().into_owned();
        Some(Val::Tuple(vec![Val::String(name.clone()), Val::String(value)]))
    };
    Val::List(names.iter().filter_map(variable).collect())
}

/// Makes a message of what is written.
fn write(guest: &mut Guest, is_error: bool, parameters: &[Val]) {
    let Some(Val::List(bytes)) = parameters.get(1) else {
        return;
    };
    let byte = |value: &Val| if let Val::U8(byte) = value { Some(*byte) } else { None };
    let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end_matches('\n');
    if !text.is_empty() {
        let level = if is_error { log::Level::Warn } else { log::Level::Info };
        log::Host::write(guest, level, text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Grants {
        Grants {
            clocks: true,
            random: true,
            output: true,
            environment: vec!["PATH".to_owned()],
            folders: [("/rules".to_owned(), "/etc".into())].into(),
        }
    }

    #[test]
    fn functions_are_known_in_every_patch_of_the_interface() {
        let check = |interface: &str, function: &str, expected: Option<Given>| {
            assert_eq!(given(interface, function, &all()), expected, "{interface} {function}");
        };
        check("wasi:random/random@0.2.0", "get-random-u64", Some(Given::RandomNumber));
        check("wasi:cli/stderr@0.2.6", "get-stderr", Some(Given::Stream(STDERR)));
        check("wasi:cli/environment@0.2.6", "get-environment", Some(Given::Environment));
        check("wasi:cli/environment@0.2.6", "get-arguments", None);
        let open = "[method]descriptor.open-at";
        check("wasi:filesystem/types@0.2.3", open, Some(Given::File(Call::OpenAt)));
        check("wasi:sockets/tcp@0.2.0", "[method]tcp-socket.start-bind", None);
        check("whodunit:plugin/clock@0.1.0", "now", None);
    }

    #[test]
    fn a_function_answers_where_its_own_capability_is_granted_and_no_other() {
        let check = |interface: &str, function: &str, withdraw: fn(&mut Grants)| {
            let mut grants = all();
            withdraw(&mut grants);
            assert_eq!(given(interface, function, &grants), None, "{interface} {function}");
            let withdrawn = grants;
            let is_there = |capability: fn(&mut Grants)| {
                let mut grants = all();
                capability(&mut grants);
                grants == withdrawn || given(interface, function, &grants).is_some()
            };
            let each: [fn(&mut Grants); 5] = [
                |it| it.clocks = false,
                |it| it.random = false,
                |it| it.output = false,
                |it| it.environment.clear(),
                |it| it.folders.clear(),
            ];
            assert!(each.into_iter().all(is_there), "{interface} {function}");
        };
        check("wasi:clocks/wall-clock@0.2.0", "now", |it| it.clocks = false);
        check("wasi:clocks/monotonic-clock@0.2.0", "now", |it| it.clocks = false);
        check("wasi:random/insecure-seed@0.2.0", "insecure-seed", |it| it.random = false);
        check("wasi:cli/stdout@0.2.0", "get-stdout", |it| it.output = false);
        check("wasi:cli/environment@0.2.0", "get-environment", |it| it.environment.clear());
        check("wasi:filesystem/preopens@0.2.0", "get-directories", |it| it.folders.clear());
    }

    #[test]
    fn waiting_and_ending_answer_without_any_grant() {
        let check = |interface: &str, function: &str, expected: Given| {
            assert_eq!(given(interface, function, &Grants::default()), Some(expected));
        };
        check("wasi:io/poll@0.2.0", "poll", Given::Poll);
        check("wasi:io/poll@0.2.0", "[method]pollable.ready", Given::IsReady);
        check("wasi:cli/exit@0.2.0", "exit", Given::Exit);
    }

    #[test]
    fn the_environment_is_what_is_named_and_set() {
        let names = ["PATH", "WHODUNIT_IS_NOT_SET"].map(String::from);
        let path = std::env::var("PATH").unwrap();
        let expected = vec![Val::Tuple(vec![Val::String("PATH".to_owned()), Val::String(path)])];
        assert_eq!(environment(&names), Val::List(expected));
    }
}
