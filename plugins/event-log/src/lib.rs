//! Every event, one line of JSON each.
//!
//! Takes the events of the plugin contract; gives one document, `log`, at every tick: the latest events
//! in the order of their admission. What found no room is counted in the first line, never left out in
//! silence. For looking at what happens, and for trials that expect exact events.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use whodunit_sdk::death::WaitStatus;
use whodunit_sdk::escape::escape;
use whodunit_sdk::{
    AttributeKey, Batch, Context, Event, Flags, Outcome, ProcessEvent, Reporter, Sender, Tick,
    directory, documents,
};

/// The output of the document.
const OUTPUT: &str = "log";

/// The plugin's table of the TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of lines that are kept; the oldest make room.
    max_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { max_bytes: 8 << 20 }
    }
}

/// The state of the plugin.
pub struct Log {
    max_bytes: usize,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Events whose lines made room for others.
    left_out: u64,
    /// Events that the daemon dropped before they came here.
    dropped: u64,
}

/// The first line.
#[derive(Serialize)]
struct Head {
    left_out: u64,
    dropped: u64,
}

/// The line of an event.
#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    /// In nanoseconds since the Unix epoch, as text: more digits than a JSON number holds safely.
    time: String,
    container: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    kind: &'static str,
    /// The number of the kind, for one that this plugin has no name for.
    kind_code: u16,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<u16>,
    path: &'a str,
    requested: &'a str,
    flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_system: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<u64>,
    #[serde(flatten)]
    of_process: Option<OfProcess>,
}

/// What is added to the line of an event of a process.
#[derive(Default, Serialize)]
struct OfProcess {
    /// Who did it: the parent, the sender, the one in whose allocation the memory ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    si_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disposition: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_ns: Option<u64>,
}

/// A process that did something to another one.
#[derive(Serialize)]
struct By {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

fn by(sender: Sender) -> By {
    let process = directory::process(sender.process);
    let container = sender.container.and_then(directory::container);
    By {
        pid: process.as_ref().map(|process| process.pid),
        process: process.map(|process| process.comm),
        container: container.map(|container| container.name),
    }
}

fn of_process(event: &Event<'_>) -> Option<OfProcess> {
    let by = event.actor().map(by);
    let nothing = OfProcess { by, ..OfProcess::default() };
    Some(match event.process_event()? {
        ProcessEvent::Forked { .. } | ProcessEvent::Executed { .. } => nothing,
        ProcessEvent::Exited { status: WaitStatus::Exited(code) } => {
            OfProcess { exit_code: Some(code), ..nothing }
        }
        ProcessEvent::Exited { status: WaitStatus::Killed { signal, .. } } => {
            OfProcess { signal: Some(signal), ..nothing }
        }
        ProcessEvent::Signalled { signal, si_code, result, disposition, .. } => OfProcess {
            signal: Some(signal),
            si_code: Some(si_code),
            result: Some(result.word()),
            disposition: Some(disposition.word()),
            ..nothing
        },
        ProcessEvent::Delivered { signal, si_code } => {
            OfProcess { signal: Some(signal), si_code: Some(si_code), ..nothing }
        }
        ProcessEvent::OomKilled { limit, usage, .. } => {
            OfProcess { limit_bytes: limit, usage_bytes: usage, ..nothing }
        }
        ProcessEvent::Throttled { window, throttled, .. } => {
            OfProcess { window_ns: Some(window), throttled_ns: Some(throttled), ..nothing }
        }
    })
}

/// The flags, by the names of the contract.
const FLAGS: [(Flags, &str); 11] = [
    (Flags::SETUP, "setup"),
    (Flags::UNRESOLVED, "unresolved"),
    (Flags::TRUNCATED, "truncated"),
    (Flags::WRITE, "write"),
    (Flags::DIRECTORY, "directory"),
    (Flags::DETACHED, "detached"),
    (Flags::INFERRED, "inferred"),
    (Flags::COMPAT, "compat"),
    (Flags::IO_URING, "io-uring"),
    (Flags::DESTINATION, "destination"),
    (Flags::BY_KERNEL, "by-kernel"),
];

/// An event as a line of JSON, its end included.
pub fn line(event: &Event<'_>) -> Vec<u8> {
    let (outcome, errno) = match event.outcome() {
        Outcome::Used => ("used", None),
        Outcome::Missing => ("missing", None),
        Outcome::Interrupted => ("interrupted", None),
        Outcome::Refused(errno) => ("refused", Some(errno)),
    };
    let process = directory::process(event.process());
    let known = directory::container(event.container());
    let line = Line {
        sequence: event.sequence(),
        time: event.time().to_string(),
        container: known.map_or_else(String::new, |known| known.name),
        pid: process.as_ref().map(|process| process.pid),
        process: process.map(|process| process.comm),
        kind: event.kind().name(),
        kind_code: event.kind().code(),
        outcome,
        errno,
        path: &escape(event.path()),
        requested: &escape(event.requested()),
        flags: FLAGS
            .iter()
            .filter(|(flag, _)| event.flags().contains(*flag))
            .map(|(_, name)| *name)
            .collect(),
        syscall: event.attribute(AttributeKey::Syscall),
        device: event.attribute(AttributeKey::Device),
        inode: event.attribute(AttributeKey::Inode).map(|inode| inode.to_string()),
        file_system: event.attribute(AttributeKey::FileSystem),
        mount: event.attribute(AttributeKey::Mount),
        tags: event.tags().collect(),
        of_process: of_process(event),
    };
    json(&line)
}

/// A value as a line. All that stands here has string keys and no numbers that JSON lacks.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(value).expect("a value of texts and numbers is possible as JSON");
    line.push(b'\n');
    line
}

impl Reporter for Log {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<Log, String> {
        Ok(Log {
            max_bytes: config.max_bytes,
            lines: VecDeque::new(),
            bytes: 0,
            left_out: 0,
            dropped: 0,
        })
    }

    fn on_batch(&mut self, batch: &Batch) {
        self.dropped += batch.dropped();
        for event in batch.events() {
            let line = line(&event);
            self.bytes += line.len();
            self.lines.push_back(line);
            while self.bytes > self.max_bytes
                && let Some(oldest) = self.lines.pop_front()
            {
                self.bytes -= oldest.len();
                self.left_out += 1;
            }
        }
    }

    fn on_tick(&mut self, _: &Tick) -> Result<(), String> {
        let mut document = json(&Head { left_out: self.left_out, dropped: self.dropped });
        document.reserve(self.bytes);
        self.lines.iter().for_each(|line| document.extend_from_slice(line));
        Ok(documents::emit(OUTPUT, &document)?)
    }
}

#[cfg(feature = "component")]
whodunit_sdk::export_reporter!(Log);

#[cfg(test)]
mod tests {
    use whodunit_sdk::testing::{BatchBuilder, Harness};

    use super::*;

    fn lines(harness: &Harness<Log>) -> Vec<serde_json::Value> {
        let document = harness.document(OUTPUT).unwrap();
        let lines = document.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_a_line_with_all_that_is_known() {
        let mut harness = Harness::<Log>::new().outputs(&[OUTPUT]).start().unwrap();
        let batch = BatchBuilder::new()
            .event(27, 1, b"/new\xff")
            .flags(Flags::DESTINATION.with(Flags::COMPAT))
            .attribute(AttributeKey::Syscall, 38)
            .attribute(AttributeKey::Tag, 7)
            .attribute(AttributeKey::Tag, 2)
            .open(1, "/secret")
            .failed(13)
            .dropped(3);
        harness.batch(batch.build());
        harness.interval().unwrap();
        let lines = lines(&harness);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], serde_json::json!({ "left_out": 0, "dropped": 3 }));
        assert_eq!(lines[1]["kind"], "rename");
        assert_eq!(lines[1]["path"], "/new\\xff");
        assert_eq!(lines[1]["flags"], serde_json::json!(["compat", "destination"]));
        assert_eq!(lines[1]["syscall"], 38);
        assert_eq!(lines[1]["tags"], serde_json::json!([7, 2]));
        assert_eq!((&lines[2]["outcome"], &lines[2]["errno"]), (&"refused".into(), &13.into()));
    }

    #[test]
    fn an_event_of_a_process_has_what_happened_and_who_did_it() {
        let mut harness = Harness::<Log>::new().outputs(&[OUTPUT]).start().unwrap();
        let batch = BatchBuilder::new()
            .event(51, 1, b"")
            .attribute(AttributeKey::Signal, 15)
            .attribute(AttributeKey::Result, 0)
            .attribute(AttributeKey::Disposition, 1)
            .attribute(AttributeKey::Actor, 7)
            .event(50, 1, b"")
            .attribute(AttributeKey::Status, 3 << 8);
        harness.batch(batch.build());
        harness.interval().unwrap();
        let lines = lines(&harness);
        assert_eq!(
            (&lines[1]["kind"], &lines[1]["signal"]),
            (&"signal-generated".into(), &15.into())
        );
        assert_eq!(
            (&lines[1]["result"], &lines[1]["disposition"]),
            (&"delivered".into(), &"handler".into())
        );
        assert!(lines[1]["by"].is_object());
        assert_eq!(
            (&lines[2]["kind"], &lines[2]["exit_code"]),
            (&"process-exited".into(), &3.into())
        );
    }

    #[test]
    fn the_oldest_lines_make_room_and_are_counted() {
        let config = r#"{ "max_bytes": 1000 }"#;
        let mut harness = Harness::<Log>::new().outputs(&[OUTPUT]).config(config).start().unwrap();
        let batch = (0..20).fold(BatchBuilder::new(), |batch, n| batch.open(1, format!("/{n}")));
        harness.batch(batch.build());
        harness.interval().unwrap();
        let lines = lines(&harness);
        let left_out = lines[0]["left_out"].as_u64().unwrap() as usize;
        assert_eq!(left_out + lines.len() - 1, 20);
        assert_eq!(lines.last().unwrap()["path"], "/19");
        assert!(left_out > 0);
    }
}
