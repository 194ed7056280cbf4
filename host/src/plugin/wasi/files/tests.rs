use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// The flags of `open-at` and its like, as they are handed over.
const FOLLOWED: &[&str] = &["symlink-follow"];
const NONE: &[&str] = &[];

/// An instance that was given one folder, beside which there is what it must not see.
struct Place {
    place: tempfile::TempDir,
    handles: Handles,
    folder: u32,
}

impl Place {
    /// In `given`: a file, a folder with another, and links within and out of it. Beside it: `secret`.
    fn new() -> Place {
        let place = tempfile::tempdir().unwrap();
        let given = place.path().join("given");
        fs::create_dir_all(given.join("more")).unwrap();
        fs::write(place.path().join("secret"), "not yours").unwrap();
        fs::write(given.join("rules"), "drop *.pyc").unwrap();
        fs::write(given.join("more/rules"), "keep").unwrap();
        symlink(given.join("rules"), given.join("absolute")).unwrap();
        for (link, target) in [
            ("inside", "more/rules"),
            ("back", "more/../rules"),
            ("up", "../secret"),
            ("root", "/"),
            ("around", "around"),
            ("magic", "/proc/self/cwd"),
        ] {
            symlink(target, given.join(link)).unwrap();
        }
        let mut handles = Handles::default();
        let file = File::open(&given).unwrap();
        let folder = handles.put(Handle::File(Arc::new(file))).unwrap();
        Place { place, handles, folder }
    }

    fn given(&self) -> PathBuf {
        self.place.path().join("given")
    }

    /// What a function gives back that was handed these, beside the folder.
    fn call(&mut self, call: Call, parameters: &[Val]) -> Result<Answer, Code> {
        self.call_of(self.folder, call, parameters)
    }

    fn call_of(&mut self, number: u32, call: Call, more: &[Val]) -> Result<Answer, Code> {
        // The handle itself stands first and is known by its number.
        let parameters: Vec<Val> = [Val::U32(0)].into_iter().chain(more.iter().cloned()).collect();
        call.of_file(&mut self.handles, number, &parameters)
    }

    fn value(&mut self, call: Call, parameters: &[Val]) -> Result<Val, Code> {
        self.call(call, parameters).map(value)
    }

    /// Opens a path to read it. A handle, or why not.
    fn open(&mut self, path: &str, path_flags: &[&str]) -> Result<u32, Code> {
        self.open_with(path, path_flags, NONE, &["read"])
    }

    fn open_with(
        &mut self,
        path: &str,
        path_flags: &[&str],
        open_flags: &[&str],
        flags: &[&str],
    ) -> Result<u32, Code> {
        let parameters = [
            flag_set(path_flags),
            Val::String(path.to_owned()),
            flag_set(open_flags),
            flag_set(flags),
        ];
        let Answer::Handle(handle) = self.call(Call::OpenAt, &parameters)? else {
            panic!("no handle")
        };
        self.handles.put(handle).ok_or("insufficient-memory")
    }

    /// What is read at a path.
    fn content(&mut self, path: &str) -> Result<String, Code> {
        let number = self.open(path, FOLLOWED)?;
        let answer = self.call_of(number, Call::Read, &[Val::U64(100), Val::U64(0)]);
        self.handles.close(number);
        let Val::Tuple(read) = value(answer?) else { panic!("no tuple") };
        let Val::List(bytes) = &read[0] else { panic!("no list") };
        let byte = |it: &Val| if let Val::U8(byte) = it { *byte } else { panic!("no byte") };
        Ok(String::from_utf8(bytes.iter().map(byte).collect()).unwrap())
    }
}

fn value(answer: Answer) -> Val {
    match answer {
        Answer::Value(value) => value,
        Answer::Nothing | Answer::Handle(_) => panic!("no value"),
    }
}

fn flag_set(flags: &[&str]) -> Val {
    Val::Flags(flags.iter().map(ToString::to_string).collect())
}

fn at(path: &str, path_flags: &[&str]) -> [Val; 2] {
    [flag_set(path_flags), Val::String(path.to_owned())]
}

fn field(record: &Val, name: &str) -> Val {
    let Val::Record(fields) = record else { panic!("no record") };
    fields.iter().find(|(field, _)| field == name).unwrap().1.clone()
}

#[test]
fn what_is_below_the_folder_is_read_also_by_links_within_it() {
    let mut place = Place::new();
    for (path, content) in [
        ("rules", "drop *.pyc"),
        ("./rules", "drop *.pyc"),
        ("more/rules", "keep"),
        ("more/../rules", "drop *.pyc"),
        ("inside", "keep"),
        ("back", "drop *.pyc"),
    ] {
        assert_eq!(place.content(path).as_deref(), Ok(content), "{path}");
    }
}

#[test]
fn no_path_and_no_link_leads_out_of_the_folder() {
    let mut place = Place::new();
    let absolute = place.place.path().join("secret").display().to_string();
    let own = place.given().join("rules").display().to_string();
    for path in [
        "../secret",
        "more/../../secret",
        "..",
        "up",
        "root/etc/passwd",
        "absolute",
        "magic/Cargo.toml",
        &absolute,
        // Also where it would lead back in.
        &own,
        "../given/rules",
    ] {
        assert_eq!(place.open(path, FOLLOWED), Err("not-permitted"), "{path}");
        for call in [Call::StatAt, Call::HashAt] {
            let answer = place.value(call, &at(path, FOLLOWED));
            assert_eq!(answer, Err("not-permitted"), "{call:?} {path}");
        }
    }
    // A folder below it is no way out of it either, nor a way back up into it.
    let more = place.open("more", NONE).unwrap();
    let parameters =
        [&at("../rules", FOLLOWED)[..], &[flag_set(NONE), flag_set(&["read"])]].concat();
    let answer = place.call_of(more, Call::OpenAt, &parameters);
    assert_eq!(answer.err(), Some("not-permitted"));
}

#[test]
fn a_path_that_leads_nowhere_is_an_error_of_its_own() {
    let mut place = Place::new();
    for (path, code) in [
        ("missing", "no-entry"),
        ("", "no-entry"),
        ("rules/more", "not-directory"),
        ("around", "loop"),
        ("a\0b", "invalid"),
        ("x".repeat(300).as_str(), "name-too-long"),
    ] {
        assert_eq!(place.open(path, FOLLOWED), Err(code), "{path}");
    }
    assert_eq!(place.open("inside", NONE), Err("loop"));
    let is_folder = place.open_with("rules", NONE, &["directory"], &["read"]);
    assert_eq!(is_folder, Err("not-directory"));
    assert_eq!(place.call_of(99, Call::Stat, &[]).err(), Some("bad-descriptor"));
    assert_eq!(place.call(Call::StatAt, &[]).err(), Some("invalid"));
}

#[test]
fn whatever_would_change_something_is_refused_and_changes_nothing() {
    let mut place = Place::new();
    let refused: [(&[&str], &[&str]); 5] = [
        (&["create"], &["read"]),
        (&["create", "exclusive"], &["read"]),
        (&["truncate"], &["read"]),
        (NONE, &["write"]),
        (NONE, &["read", "mutate-directory"]),
    ];
    for (open_flags, flags) in refused {
        let opened = place.open_with("rules", FOLLOWED, open_flags, flags);
        assert_eq!(opened, Err("read-only"), "{open_flags:?} {flags:?}");
    }
    for method in [
        "write",
        "write-via-stream",
        "append-via-stream",
        "set-size",
        "set-times",
        "set-times-at",
        "create-directory-at",
        "link-at",
        "remove-directory-at",
        "rename-at",
        "symlink-at",
        "unlink-file-at",
    ] {
        let function = format!("[method]descriptor.{method}");
        let call = call("wasi:filesystem/types", &function).unwrap();
        let answer = place.value(call, &[Val::String("rules".to_owned())]);
        assert_eq!(answer, Err("read-only"), "{method}");
    }
    assert_eq!(fs::read_to_string(place.given().join("rules")).unwrap(), "drop *.pyc");
}

#[test]
fn a_file_is_read_in_pieces_up_to_its_end_and_by_at_most_64_kib() {
    let mut place = Place::new();
    fs::write(place.given().join("large"), vec![7; READ_BYTES as usize + 1]).unwrap();
    let large = place.open("large", NONE).unwrap();
    let mut read = |at: u64, length: u64| {
        let answer = place.call_of(large, Call::Read, &[Val::U64(length), Val::U64(at)]);
        let Val::Tuple(read) = value(answer.unwrap()) else { panic!("no tuple") };
        let (Val::List(bytes), Val::Bool(is_end)) = (&read[0], &read[1]) else {
            panic!("{read:?}")
        };
        (bytes.len() as u64, *is_end)
    };
    assert_eq!(read(0, u64::MAX), (READ_BYTES, false));
    assert_eq!(read(READ_BYTES, 10), (1, false));
    assert_eq!(read(READ_BYTES + 1, 10), (0, true));
    assert_eq!(read(0, 0), (0, false));
    let answer = place.call_of(large, Call::Read, &[Val::U64(1), Val::U64(u64::MAX)]);
    assert_eq!(answer.err(), Some("invalid"));
    let folder = place.folder;
    let answer = place.call_of(folder, Call::Read, &[Val::U64(1), Val::U64(0)]);
    assert_eq!(answer.err(), Some("is-directory"));
}

#[test]
fn a_stream_goes_on_from_where_it_was() {
    let mut place = Place::new();
    let rules = place.open("rules", NONE).unwrap();
    let answer = place.call_of(rules, Call::ReadViaStream, &[Val::U64(5)]).unwrap();
    let Answer::Handle(stream) = answer else { panic!("no handle") };
    let stream = place.handles.put(stream).unwrap();
    // It outlives the handle that it was made from.
    place.handles.close(rules);
    let mut next = |length| place.handles.next_bytes(stream, length).unwrap().unwrap();
    assert_eq!([next(3), next(0), next(100), next(1)], [&b"*.p"[..], b"", b"yc", b""]);
    assert!(place.handles.next_bytes(place.folder, 1).is_none());
}

#[test]
fn a_folder_tells_its_names_and_their_types() {
    let mut place = Place::new();
    let Ok(Answer::Handle(names)) = place.call(Call::ReadDirectory, &[]) else {
        panic!("no handle")
    };
    let names = place.handles.put(names).unwrap();
    let mut found = Vec::new();
    while let Val::Option(Some(entry)) = value(place.call_of(names, Call::NextName, &[]).unwrap()) {
        let (Val::Enum(kind), Val::String(name)) = (field(&entry, "type"), field(&entry, "name"))
        else {
            panic!("{entry:?}")
        };
        found.push(format!("{name} {kind}"));
    }
    found.sort();
    let links = ["absolute", "around", "back", "inside", "magic"];
    let mut expected: Vec<String> = links.iter().map(|it| format!("{it} symbolic-link")).collect();
    expected
        .extend(["more directory", "root symbolic-link", "rules regular-file"].map(str::to_owned));
    expected.push("up symbolic-link".to_owned());
    assert_eq!(found, expected);
    let rules = place.open("rules", NONE).unwrap();
    let answer = place.call_of(rules, Call::ReadDirectory, &[]);
    assert_eq!(answer.err(), Some("not-directory"));
}

#[test]
fn what_is_told_of_a_file_is_what_the_system_tells() {
    let mut place = Place::new();
    let told = place.value(Call::StatAt, &at("rules", NONE)).unwrap();
    assert_eq!(field(&told, "type"), Val::Enum("regular-file".to_owned()));
    assert_eq!(field(&told, "size"), Val::U64(10));
    assert_eq!(field(&told, "link-count"), Val::U64(1));
    let modified = fs::metadata(place.given().join("rules")).unwrap().mtime().unsigned_abs();
    let Val::Option(Some(time)) = field(&told, "data-modification-timestamp") else {
        panic!("{told:?}")
    };
    assert_eq!(field(&time, "seconds"), Val::U64(modified));
    let link = place.value(Call::StatAt, &at("inside", NONE)).unwrap();
    assert_eq!(field(&link, "type"), Val::Enum("symbolic-link".to_owned()));
    assert_eq!(place.value(Call::Type, &[]), Ok(Val::Enum("directory".to_owned())));
    assert_eq!(place.value(Call::Flags, &[]), Ok(flag_set(&["read"])));

    let mut target = |path: &str| place.value(Call::ReadLinkAt, &[Val::String(path.to_owned())]);
    assert_eq!(target("inside"), Ok(Val::String("more/rules".to_owned())));
    assert_eq!(target("absolute"), Err("not-permitted"));
    assert_eq!(target("rules"), Err("invalid"));
}

#[test]
fn a_hash_is_that_of_one_file_until_it_changes() {
    let mut place = Place::new();
    let mut hash = |path: &str| place.value(Call::HashAt, &at(path, FOLLOWED)).unwrap();
    let (rules, inside, more) = (hash("rules"), hash("inside"), hash("more/rules"));
    assert_ne!(rules, more);
    assert_eq!(inside, more);
    assert_eq!(hash("rules"), rules);
    fs::write(place.given().join("rules"), "drop *").unwrap();
    let changed = place.value(Call::HashAt, &at("rules", FOLLOWED)).unwrap();
    assert_ne!(changed, rules);

    let (one, two) = (place.open("inside", FOLLOWED).unwrap(), place.open("more/rules", NONE));
    assert!(is_same(&place.handles, one, two.unwrap()));
    assert!(!is_same(&place.handles, one, place.folder));
    assert!(!is_same(&place.handles, 0, 0));
}

#[test]
fn neither_a_pipe_nor_a_device_is_opened() {
    let mut place = Place::new();
    let path = place.given().join("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::RWXU, 0).unwrap();
    assert_eq!(place.open("pipe", FOLLOWED), Err("not-permitted"));
    let device = place.handles.put(Handle::File(Arc::new(File::open("/dev").unwrap()))).unwrap();
    place.folder = device;
    assert_eq!(place.open("null", FOLLOWED), Err("not-permitted"));
}

#[test]
fn an_instance_holds_so_many_files_and_gets_further_ones_when_it_lets_go() {
    let mut place = Place::new();
    let held: Vec<u32> = std::iter::from_fn(|| place.open("rules", NONE).ok()).collect();
    assert_eq!(held.len(), MAX_OPEN - 1);
    assert_eq!(place.open("rules", NONE), Err("insufficient-memory"));
    place.handles.close(held[7]);
    assert_eq!(place.open("rules", NONE), Ok(held[7]));
}
