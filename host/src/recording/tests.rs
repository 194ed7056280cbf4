//! What is written is read again, and bytes that nobody wrote harm nobody.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::format::{BLOCK_HEADER_BYTES, ENTRY_HEADER_BYTES, HEADER_BYTES};
use super::*;
use crate::death::record::{self, DeadProcess, DeathRecord, Losses, Subject, WaitStatus};
use crate::directory::{Container, Directory, Process};
use crate::event::{
    Attribute, AttributeKey, Batch, CgroupId, ContainerId, ContainerTotals, Counter, Event, Flags,
    Kind, ProcessId, Standpoint, Tick, TickCause, UnixNanos,
};
use crate::plugin::{Probe, Surroundings};

fn start() -> Start {
    Start {
        time: UnixNanos(1_000),
        booted: UnixNanos(10),
        surroundings: Surroundings {
            pod_name: Some("pod".to_owned()),
            namespace: None,
            node_name: "node".to_owned(),
            boot_id: "boot".to_owned(),
            scope: "pod".to_owned(),
            daemon_version: "0.1.0".to_owned(),
            started: UnixNanos(1_000),
        },
        probes: vec![Probe { name: "open".to_owned(), live: true, reason: String::new() }],
    }
}

fn container() -> Container {
    Container {
        id: ContainerId(1),
        name: "web".to_owned(),
        name_source: "id",
        runtime_id: "0123".to_owned(),
        runtime: "containerd",
        cgroup: CgroupId(4711),
        cgroup_path: b"/kubepods/web\xff".to_vec(),
        attributes: vec![("pod-uid".to_owned(), "1".to_owned())],
        watched_since: UnixNanos(1_001),
        from_birth: true,
        ended: None,
    }
}

fn process() -> Process {
    Process {
        id: ProcessId(7),
        pid: 70,
        started_ns: 99,
        comm: b"cat".to_vec(),
        container: ContainerId(1),
    }
}

fn death() -> DeathRecord {
    DeathRecord {
        schema: record::SCHEMA,
        time_ns: 3_000,
        subject: Subject::Container,
        container: record::Container { id: 1, name: "web".to_owned(), ..Default::default() },
        process: DeadProcess { pid: 7, is_container_init: true, ..DeadProcess::default() },
        status: WaitStatus::Exited { code: 3 },
        evidence: Vec::new(),
        decided_by: None,
        unseen: Vec::new(),
        losses: Losses::default(),
    }
}

fn batch(paths: &[&str]) -> Batch {
    let mut batch = Batch::default();
    for (index, path) in paths.iter().enumerate() {
        let path = batch.push_text(path.as_bytes());
        batch.attributes.push(Attribute { key: AttributeKey::Inode, value: 5 + index as u64 });
        batch.events.push(Event {
            sequence: index as u64 + 1,
            time: UnixNanos(2_000 + index as u64),
            container: ContainerId(1),
            process: Some(ProcessId(7)),
            kind: Kind::Open,
            flags: Flags::WRITE,
            outcome: -2,
            path,
            requested: path,
            attributes_first: index as u32,
            attributes_count: 1,
            standpoint: Standpoint::default(),
        });
    }
    batch
}

fn tick(cause: TickCause) -> Tick {
    let counter = |name, value| Counter { name, value };
    Tick {
        time: UnixNanos(3_000),
        cause,
        containers: vec![ContainerTotals {
            container: ContainerId(1),
            watched_since: UnixNanos(1_001),
            from_birth: true,
            first_exec_seen: false,
            last_event: Some(UnixNanos(2_001)),
            ended: None,
            counters: vec![counter("received", 3), counter("lost.ring-full", 1)],
        }],
        counters: vec![counter("lost.unattributed", 2)],
    }
}

fn entries() -> Vec<Entry> {
    vec![
        Entry::Container(container()),
        Entry::Process(process()),
        Entry::Batch { batch: batch(&["/etc/passwd", "/etc/hosts"]), dropped: 4 },
        Entry::Tick(tick(TickCause::Interval)),
        Entry::Death(Box::new(death())),
        Entry::Batch { batch: batch(&["/later"]), dropped: 0 },
        Entry::Tick(tick(TickCause::Stop)),
    ]
}

/// A recording of `entries()`, each in a block of its own, and where each block begins.
fn recording() -> (Vec<u8>, Vec<usize>) {
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    let mut blocks = vec![HEADER_BYTES];
    for entry in entries() {
        blocks.push(writer.bytes_so_far() as usize);
        match entry {
            Entry::Container(container) => writer.container(&container).unwrap(),
            Entry::Process(process) => writer.process(&process).unwrap(),
            Entry::Batch { batch, dropped } => writer.batch(&batch, dropped).unwrap(),
            Entry::Tick(tick) => writer.tick(&tick).unwrap(),
            Entry::Death(record) => writer.death(&record).unwrap(),
        }
        writer.flush().unwrap();
    }
    blocks.push(writer.bytes_so_far() as usize);
    let (bytes, summary) = writer.end(UnixNanos(4_000), 5).unwrap();
    let expected = Summary {
        containers: 1,
        processes: 1,
        events: 3,
        ticks: 2,
        deaths: 1,
        dropped: 9,
        bytes: bytes.len() as u64,
    };
    assert_eq!(summary, expected);
    (bytes, blocks)
}

/// Everything that can be read, and how it ended.
fn read(bytes: &[u8]) -> (Vec<Entry>, Result<Option<Ending>, String>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Err(error.to_string())),
    };
    let mut entries = Vec::new();
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, Ok(reader.ending())),
            Err(error) => return (entries, Err(error.to_string())),
        }
    }
}

/// A block of these bytes as they are.
fn block(unpacked: &[u8]) -> Vec<u8> {
    let stored = zstd::bulk::compress(unpacked, 1).unwrap();
    let mut block = Vec::new();
    block.extend((stored.len() as u32).to_le_bytes());
    block.extend((unpacked.len() as u32).to_le_bytes());
    block.extend(crc32fast::hash(&stored).to_le_bytes());
    block.extend(stored);
    block
}

#[test]
fn what_was_written_is_read_again() {
    let (bytes, _) = recording();
    assert_eq!(Reader::new(&bytes[..]).unwrap().start(), &start());
    let ending = Ending::Whole { time: UnixNanos(4_000), dropped: 5 };
    assert_eq!(read(&bytes), (entries(), Ok(Some(ending))));
}

#[test]
fn a_death_of_another_schema_is_counted_and_not_read() {
    let row = serde_json::to_string(&death()).unwrap();
    let newer = row.replacen('{', r#"{"something_new":1,"#, 1);
    let mut value = postcard::to_allocvec(&newer).unwrap();
    let mut entry = vec![7];
    entry.extend((value.len() as u32).to_le_bytes());
    entry.append(&mut value);
    let (whole, blocks) = recording();
    let bytes = [&whole[..blocks[1]], &block(&entry)].concat();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!(reader.unknown(), 1);
}

#[test]
fn a_recording_that_is_cut_anywhere_gives_every_block_before_the_cut() {
    let (bytes, blocks) = recording();
    for length in 0..bytes.len() {
        let whole_blocks = blocks.iter().filter(|begin| **begin <= length).count();
        let (read, ending) = read(&bytes[..length]);
        if length < blocks[1] {
            assert_eq!(ending, Err(ReadError::NotARecording.to_string()), "{length}");
            continue;
        }
        // The first block is the start, and the one at hand is not whole.
        assert_eq!(read, entries()[..whole_blocks - 2], "{length}");
        let bytes = (length - blocks[whole_blocks - 1]) as u64;
        assert_eq!(ending, Ok(Some(Ending::CutOff { bytes })), "{length}");
    }
}

#[test]
fn a_recording_with_a_changed_byte_is_never_read_as_something_else() {
    let (bytes, _) = recording();
    let (whole, _) = read(&bytes);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        let (entries, ending) = read(&changed);
        assert!(whole.starts_with(&entries), "byte {at}");
        assert!(!matches!(ending, Ok(Some(Ending::Whole { .. }))), "byte {at}");
    }
}

#[test]
fn bytes_of_no_recorder_are_refused_in_one_sentence() {
    let refused = |bytes: &[u8], words: &str| {
        let sentence = read(bytes).1.unwrap_err();
        assert!(sentence.contains(words), "{sentence}");
    };
    refused(b"", "no recording");
    refused(b"WHODUNIT", "no recording");
    refused(b"{\"containers\": []}", "no recording");
    refused(b"WHODUNIT\x02\0", "version 2, and this daemon reads version 1");
    let (bytes, blocks) = recording();
    let with_block = |block: &[u8]| [&bytes[..blocks[1]], block].concat();
    refused(&with_block(&[0xff; 64]), "larger than any");
    let mut claims_more = block(b"\x04\x01\0\0\0\0");
    claims_more[4] += 1;
    refused(&with_block(&claims_more), "another length");
    refused(&with_block(&block(&[4, 0])), "without its length");
    refused(&with_block(&block(&[4, 9, 0, 0, 0, 1])), "longer than its block");
    let mut not_zstd = vec![4, 0, 0, 0, 9, 0, 0, 0];
    not_zstd.extend(crc32fast::hash(b"none").to_le_bytes());
    not_zstd.extend(b"none");
    refused(&with_block(&not_zstd), "cannot be unpacked");
    // A batch of four billion events in five bytes.
    refused(&with_block(&block(&[4, 6, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f])), "damaged");
}

#[test]
fn spans_and_attributes_outside_their_batch_are_refused() {
    let refused = |change: fn(&mut Batch), words: &str| {
        let mut batch = batch(&["/a", "/b"]);
        change(&mut batch);
        let mut writer = Writer::new(Vec::new(), &start()).unwrap();
        writer.batch(&batch, 0).unwrap();
        let (bytes, _) = writer.end(UnixNanos(1), 0).unwrap();
        let sentence = read(&bytes).1.unwrap_err();
        assert!(sentence.contains(words), "{sentence}");
    };
    refused(|batch| batch.events[1].path.length = 9, "a path that is not in its batch");
    refused(|batch| batch.events[0].requested.offset = u32::MAX, "a path that is not");
    refused(|batch| batch.events[1].attributes_count = 9, "an attribute that is not");
    refused(|batch| batch.events[1].attributes_first = u32::MAX, "an attribute that is not");
    refused(|batch| batch.events[0].attributes_count = 2, "an attribute of two events");
}

#[test]
fn an_entry_of_a_kind_that_nobody_knows_is_skipped_and_counted() {
    let (bytes, blocks) = recording();
    let mut stranger = vec![200];
    stranger.extend(3_u32.to_le_bytes());
    stranger.extend([1, 2, 3]);
    assert_eq!(stranger.len(), ENTRY_HEADER_BYTES + 3);
    let mixed = [&bytes[..blocks[2]], &block(&stranger), &bytes[blocks[2]..]].concat();
    let mut reader = Reader::new(&mixed[..]).unwrap();
    let mut read = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        read.push(entry);
    }
    assert_eq!((read, reader.unknown()), (entries(), 1));
}

#[test]
fn every_kind_and_attribute_of_the_contract_can_be_read_again() {
    let wit = include_str!("../../../wit/types.wit");
    let codes = |header: &str| -> Vec<u16> {
        let table = wit.lines().skip_while(|line| !line.contains(header)).skip(2);
        let cells = table.map_while(|line| line.trim().strip_prefix("/// | "));
        cells.map(|row| row.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    let (kinds, keys) = (codes("/// | kind | name |"), codes("/// | key | name |"));
    assert!(kinds.len() >= 4 && keys.len() >= 4, "{kinds:?} {keys:?}");
    let unknown = |code: &u16| Kind::from_code(*code).is_none();
    assert_eq!(kinds.into_iter().filter(unknown).collect::<Vec<_>>(), [0_u16; 0]);
    let unknown = |code: &u16| AttributeKey::from_code(*code).is_none();
    assert_eq!(keys.into_iter().filter(unknown).collect::<Vec<_>>(), [0_u16; 0]);
}

#[test]
fn a_recording_is_small() {
    let names: Vec<String> = (0..512)
        .map(|number| format!("/usr/lib/python3/site-packages/module_{number}.py"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    for _ in 0..20 {
        writer.batch(&batch(&names), 0).unwrap();
    }
    let (bytes, summary) = writer.end(UnixNanos(1), 0).unwrap();
    assert_eq!(summary.events, 20 * 512);
    let per_event = bytes.len() / (20 * 512);
    assert!(per_event < 20, "{per_event} bytes an event");
    assert!(bytes.len() > BLOCK_HEADER_BYTES);
}

#[test]
fn the_recorder_names_everything_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.recording");
    let directory = Arc::new(Directory::new(NonZeroUsize::new(8).unwrap()));
    directory.put_container(container());
    directory.put_process(process());
    let (failed, _heard) = tokio::sync::oneshot::channel();
    let (recorder, tap) = Recorder::start(&path, &start(), Arc::clone(&directory), failed).unwrap();
    tap.batch(&Arc::new(batch(&["/etc/passwd"])));
    tap.tick(&Arc::new(tick(TickCause::Stop)));
    drop(tap);
    assert_eq!(recorder.finish().unwrap().events, 1);
    let (read, ending) = read(&std::fs::read(&path).unwrap());
    let expected = [
        Entry::Container(container()),
        Entry::Process(process()),
        Entry::Batch { batch: batch(&["/etc/passwd"]), dropped: 0 },
        Entry::Tick(tick(TickCause::Stop)),
    ];
    assert_eq!(read, expected);
    assert_eq!(ending, Ok(Some(Ending::Whole { time: UnixNanos(3_000), dropped: 0 })));
}

#[test]
fn a_recorder_that_cannot_write_says_so_and_capture_goes_on() {
    let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
    let full = std::path::Path::new("/dev/full");
    let (failed, _heard) = tokio::sync::oneshot::channel();
    let error = Recorder::start(full, &start(), directory, failed).err().expect("it is full");
    assert!(
        error.to_string().starts_with("the recording /dev/full cannot be written: "),
        "{error}"
    );
}
