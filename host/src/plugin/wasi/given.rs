//! The grant `wasi = "p2"`: what of the system interface answers with more than nothing.
//!
//! Clocks tell the time that the contract's `clock` tells, random numbers are random, what is written to standard
//! output and standard error are messages in the daemon's log, with their limits, and waiting for a
//! clock takes no time. There is nothing behind anything else: no file, no environment, no argument, no
//! network, and standard input is at its end. In a replay the numbers are the same every time.

use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::types::Type;
use wasmtime::component::{Resource, Val};

use super::super::bindings::whodunit::plugin::{clock, log};
use super::super::imports::Guest;
use super::{Nothing, emptiest};

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
}

/// The function of that interface, such as `wasi:random/random@0.2.6`, if it is one that answers.
pub(super) fn given(interface: &str, function: &str) -> Option<Given> {
    let interface = interface.split('@').next().unwrap_or_default();
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
        _ => return None,
    })
}

impl Given {
    /// The answer. `handles` are the numbers behind the resources that were handed over.
    pub(super) fn answer(
        self,
        store: &mut StoreContextMut<'_, Guest>,
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
            Given::Stream(number) => {
                let stream = Resource::<Nothing>::new_own(number);
                Val::Resource(stream.try_into_resource_any(store)?)
            }
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
            Given::Exit => return Err(wasmtime::Error::msg("it asked to end its process")),
        };
        Ok(Some(answer))
    }
}

fn ok(value: Option<Val>) -> Val {
    Val::Result(Ok(value.map(Box::new)))
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

fn datetime(since_epoch: Duration) -> Val {
    Val::Record(vec![
        ("seconds".to_owned(), Val::U64(since_epoch.as_secs())),
        ("nanoseconds".to_owned(), Val::U32(since_epoch.subsec_nanos())),
    ])
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

    #[test]
    fn functions_are_known_in_every_patch_of_the_interface() {
        assert_eq!(given("wasi:random/random@0.2.0", "get-random-u64"), Some(Given::RandomNumber));
        assert_eq!(given("wasi:cli/stderr@0.2.6", "get-stderr"), Some(Given::Stream(STDERR)));
        assert_eq!(given("wasi:cli/environment@0.2.6", "get-environment"), None);
        assert_eq!(given("whodunit:plugin/clock@0.1.0", "now"), None);
    }
}
