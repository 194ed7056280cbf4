use std::fs;
use std::path::Path;

use super::slot::WAITING_LINES_BYTES;
use super::*;
use crate::post::tests::{Deed, Server};

fn sinks(path: &Path) -> (Sinks, SinkId) {
    let sink = SinkId::new("p", "report");
    let output = config::Output::File(path.to_owned());
    (Sinks::start([(sink.clone(), output)].into_iter()).unwrap(), sink)
}

fn wait_for(sinks: &Sinks, condition: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = sinks.status().remove(0);
        if condition(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "the condition never held: {status:?}");
        thread::yield_now();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn stop_writes_the_newest_document_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let (sinks, sink) = sinks(&path);
    for number in 0..100 {
        sinks.put(sink.clone(), format!("document {number}").into_bytes());
    }
    let status = sinks.stop().remove(0);
    assert_eq!(fs::read(&path).unwrap(), b"document 99");
    assert_eq!(names(folder.path()), ["report.json"]);
    assert!(status.writes >= 1 && status.last_bytes == 11 && status.last_error.is_none());
}

#[test]
fn what_was_put_is_read_back_before_and_after_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    fs::write(&path, "from the run before").unwrap();
    let (sinks, sink) = sinks(&path);
    assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"from the run before");
    assert_eq!(sinks.read(sink.clone(), 10), None, "larger than asked for");
    sinks.put(sink.clone(), b"new".to_vec());
    assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"new");
    wait_for(&sinks, |status| status.writes == 1);
    assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"new");
    assert_eq!(sinks.read(SinkId::new("p", "other"), 100), None);
    sinks.stop();
}

#[test]
fn a_vanished_folder_is_survived_and_the_document_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("report.json");
    let (sinks, sink) = sinks(&path);
    fs::remove_dir(&inner).unwrap();
    sinks.put(sink.clone(), b"first".to_vec());
    let status = wait_for(&sinks, |status| status.failures > 0);
    assert!(status.last_error.unwrap().contains("was not written"));
    assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"first", "it is kept");
    fs::create_dir(&inner).unwrap();
    // A newer document is tried at once; the old one alone would be, some seconds later.
    sinks.put(sink.clone(), b"second".to_vec());
    let status = wait_for(&sinks, |status| status.writes == 1);
    assert_eq!(status.last_error, None);
    assert_eq!(fs::read(&path).unwrap(), b"second");
    sinks.stop();
}

#[test]
fn a_kept_document_is_written_when_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let (sinks, sink) = sinks(&inner.join("report.json"));
    fs::remove_dir(&inner).unwrap();
    sinks.put(sink.clone(), b"only".to_vec());
    wait_for(&sinks, |status| status.failures > 0);
    fs::create_dir(&inner).unwrap();
    assert_eq!(sinks.stop().remove(0).writes, 1);
    assert_eq!(fs::read(inner.join("report.json")).unwrap(), b"only");
}

#[test]
fn a_full_disk_leaves_the_old_document_and_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let Ok(_mount) = SmallDisk::mount(folder.path()) else {
        eprintln!("skipped: this test mounts a tmpfs, which needs root");
        return;
    };
    let path = folder.path().join("report.json");
    fs::write(&path, "old").unwrap();
    let (sinks, sink) = sinks(&path);
    sinks.put(sink.clone(), vec![b'x'; 1 << 20]);
    let status = wait_for(&sinks, |status| status.failures > 0);
    assert!(status.last_error.unwrap().contains("No space left"));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["report.json"]);
    sinks.put(sink, b"fits".to_vec());
    wait_for(&sinks, |status| status.writes == 1);
    assert_eq!(fs::read(&path).unwrap(), b"fits");
    sinks.stop();
}

struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(path: &Path) -> io::Result<SmallDisk<'_>> {
        let flags = rustix::mount::MountFlags::NOSUID;
        rustix::mount::mount("whodunit-test", path, "tmpfs", flags, c"size=64k")?;
        Ok(SmallDisk(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.0, flags).expect("what was mounted can be unmounted");
    }
}

#[test]
fn stale_temporary_files_of_ours_are_removed_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let others = [
        ".other.json.whodunit-1-1.tmp",
        ".report.json.whodunit-1-x.tmp",
        ".report.json.whodunit-1.tmp",
        "report.json.tmp",
    ];
    for name in others.iter().chain(&[".report.json.whodunit-4711-3.tmp"]) {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let (sinks, _) = sinks(&folder.path().join("report.json"));
    assert_eq!(names(folder.path()), others);
    sinks.stop();
}

#[test]
fn an_output_that_cannot_be_written_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let check = |path: &Path, sentence: &str| {
        let output = config::Output::File(path.to_owned());
        let outputs = [(SinkId::new("p", "report"), output)];
        let error = Sinks::start(outputs.into_iter()).err().expect("it is refused").to_string();
        assert!(error.contains(sentence), "{error}");
        assert!(error.contains("`p.report`"), "{error}");
    };
    check(&folder.path().join("none/report.json"), "does not exist");
    check(&file.join("report.json"), "is not a folder");
    check(folder.path(), "is a folder");
    check(Path::new("/proc/self/report.json"), "no file can be written");
    assert_eq!(names(folder.path()), ["file"]);
}

fn lines(path: &Path) -> (Sinks, SinkId) {
    let sink = SinkId::new("p", "events");
    let outputs = [(sink.clone(), config::Output::Lines(path.to_owned()))];
    (Sinks::start(outputs.into_iter()).unwrap(), sink)
}

#[test]
fn lines_come_one_after_the_other_and_none_replaces_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    fs::write(&path, "before\n").unwrap();
    let (sinks, sink) = lines(&path);
    for number in 0..1000 {
        // With and without its end.
        let end = if number % 2 == 0 { "\n" } else { "" };
        sinks.put(sink.clone(), format!("{number}{end}").into_bytes());
    }
    assert_eq!(sinks.read(sink, 100), None);
    let status = sinks.stop().remove(0);
    assert_eq!((status.dropped.len(), status.failures), (0, 0));
    let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("before\n{expected}"));
}

#[test]
fn lines_that_find_no_room_are_counted_and_those_that_wait_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = GrowingFile::open(&folder.path().join("a")).unwrap();
    let target = Arc::new(Target::Lines(Mutex::new(file)));
    let output = config::Output::Lines(folder.path().join("a"));
    let mut slot = Slot::new(SinkId::new("p", "events"), output, target);
    slot.take(Arc::new(b"first\n".to_vec()));
    slot.writing = slot.waiting.take();
    slot.take(Arc::new(b"second\n".to_vec()));
    slot.settle(Err(io::Error::other("the disk is full")), false);
    slot.take(Arc::new(vec![b'x'; WAITING_LINES_BYTES]));
    slot.take(Arc::new(b"third".to_vec()));
    assert_eq!(slot.waiting.as_deref().map(Vec::as_slice), Some(&b"first\nsecond\nthird\n"[..]));
    assert_eq!((slot.status.dropped["queue-full"], slot.status.failures), (1, 1));
    assert!(slot.retry_at.is_some());
}

fn http(address: std::net::SocketAddr) -> config::Output {
    let url = config::Url::read(&format!("http://{address}/")).unwrap();
    config::Output::Http(Box::new(config::HttpOutput::new(url)))
}

#[test]
fn a_server_gets_every_document_and_a_file_beside_one_that_hangs_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, hanging) = (folder.path().join("report.json"), Server::doing(&[Deed::Hang]));
    let server = Server::doing(&[Deed::Answer(200, "", "")]);
    let [file, good, bad] = ["file", "good", "bad"].map(|name| SinkId::new("p", name));
    let outputs = [
        (file.clone(), config::Output::File(path.clone())),
        (good.clone(), http(server.address)),
        (bad.clone(), http(hanging.address)),
    ];
    let sinks = Sinks::start(outputs.into_iter()).unwrap();
    for number in 0..10 {
        for sink in [&bad, &good, &file] {
            sinks.put(sink.clone(), format!("{number}").into_bytes());
        }
    }
    for number in 0..10 {
        assert_eq!(server.next().body, format!("{number}").into_bytes());
    }
    assert_eq!(sinks.read(good.clone(), 100).unwrap(), b"9", "the newest, for the next instance");
    assert_eq!(sinks.read(good, 0), None);
    let status = sinks.stop();
    assert_eq!(fs::read(&path).unwrap(), b"9");
    let dropped: Vec<_> = status.iter().map(|it| (it.writes, it.dropped.clone())).collect();
    // In the order of their names.
    assert_eq!(dropped[0], (0, BTreeMap::from([("stopped", 10)])));
    assert_eq!(dropped[2], (10, BTreeMap::new()));
}

#[test]
fn an_output_that_goes_elsewhere_now_still_sends_what_waited() {
    let (before, after) = (Deed::Answer(503, "", ""), Deed::Answer(200, "", ""));
    let server = Server::doing(&[before, after.clone()]);
    let other = Server::doing(&[after]);
    let sink = SinkId::new("p", "logs");
    let sinks = Sinks::start([(sink.clone(), http(server.address))].into_iter()).unwrap();
    sinks.put(sink.clone(), b"one".to_vec());
    wait_for(&sinks, |status| status.failures == 1);
    sinks.outlet().change([(sink.clone(), http(other.address))].into_iter()).unwrap();
    sinks.put(sink, b"two".to_vec());
    assert_eq!([server.next().body, server.next().body], [b"one", b"one"]);
    assert_eq!(other.next().body, b"two");
    sinks.stop();
}

#[test]
fn two_outputs_do_not_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let other = folder.path().join(".").join("report.json");
    let outputs = [
        (SinkId::new("a", "report"), config::Output::File(path)),
        (SinkId::new("b", "report"), config::Output::File(other)),
    ];
    let error = Sinks::start(outputs.into_iter()).err().expect("it is refused");
    assert!(matches!(error, SinkError::SamePath { .. }), "{error}");
}
