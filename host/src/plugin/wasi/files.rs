//! Files of the system interface: what a plugin may read below the folders that the TOML gives it.
//!
//! Owns what stands behind the handles of an instance. The kernel resolves each path below the folder that it starts
//! from: what leads out of there, by `..`, by a link or from the root, is not permitted, and whatever would change something is
//! refused as on a file system that is read-only. Nothing but files and folders is opened, so that no call waits for a
//! device or a pipe, and none hands over more than [`READ_BYTES`].

use std::collections::BTreeMap;
use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use wasmtime::StoreContextMut;
use wasmtime::component::Val;

use super::super::imports::Guest;
use super::capability::Folder;
use super::{datetime, ok, resource};

/// Bytes that are read in one call at most.
const READ_BYTES: u64 = 64 << 10;

/// Files, folders and streams that an instance holds at once.
const MAX_OPEN: usize = 128;

/// How often a path is looked up again when something on it is renamed meanwhile.
const LOOKUPS: usize = 8;

/// The first number of a handle; those below stand for the standard streams, and 0 for nothing.
const FIRST: u32 = 16;

/// Why something failed, by its name in `wasi:filesystem/types`.
type Code = &'static str;

/// What stands behind the handles of one instance.
#[derive(Default)]
pub(in crate::plugin) struct Handles(BTreeMap<u32, Handle>);

enum Handle {
    /// A file or a folder.
    File(Arc<File>),
    /// The bytes of a file from there on.
    Bytes(Arc<File>, u64),
    /// What is left of the names in a folder.
    Names(Dir),
    /// Why a stream failed.
    Failure(Code),
}

impl Handles {
    /// Forgets what is behind that number.
    pub(super) fn close(&mut self, number: u32) {
        self.0.remove(&number);
    }

    /// The number of what is handed out. None where the instance holds as much as it may.
    fn put(&mut self, handle: Handle) -> Option<u32> {
        let is_free = |number: &u32| !self.0.contains_key(number);
        let number = (FIRST..).find(is_free).filter(|_| self.0.len() < MAX_OPEN)?;
        self.0.insert(number, handle);
        Some(number)
    }

    /// The next bytes of a file that is read as a stream; none at its end. None where that number is no such
    /// stream.
    fn next_bytes(&mut self, number: u32, length: u64) -> Option<Result<Vec<u8>, Code>> {
        let Some(Handle::Bytes(file, at)) = self.0.get_mut(&number) else { return None };
        let bytes = bytes_at(file, *at, length);
        *at += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Some(bytes)
    }

    fn file(&self, number: u32) -> Result<&Arc<File>, Code> {
        match self.0.get(&number) {
            Some(Handle::File(file)) => Ok(file),
            _ => Err("bad-descriptor"),
        }
    }
}

/// A function of `wasi:filesystem`, or of a stream that it hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// The folders that are given.
    Folders,
    OpenAt,
    Read,
    ReadViaStream,
    ReadDirectory,
    NextName,
    Stat,
    StatAt,
    Hash,
    HashAt,
    ReadLinkAt,
    Type,
    Flags,
    IsSame,
    /// Done before it was asked for.
    Done,
    /// What would change something.
    Change,
    ReadStream,
    SkipStream,
    WhyStreamFailed,
}

/// The function of that interface, without its version, if it is about files.
pub(super) fn call(interface: &str, function: &str) -> Option<Call> {
    let method = function.strip_prefix("[method]").unwrap_or(function);
    Some(match (interface, method) {
        ("wasi:filesystem/preopens", "get-directories") => Call::Folders,
        ("wasi:filesystem/types", "filesystem-error-code") => Call::WhyStreamFailed,
        ("wasi:filesystem/types", "directory-entry-stream.read-directory-entry") => Call::NextName,
        ("wasi:filesystem/types", method) => match method.strip_prefix("descriptor.")? {
            "open-at" => Call::OpenAt,
            "read" => Call::Read,
            "read-via-stream" => Call::ReadViaStream,
            "read-directory" => Call::ReadDirectory,
            "stat" => Call::Stat,
            "stat-at" => Call::StatAt,
            "metadata-hash" => Call::Hash,
            "metadata-hash-at" => Call::HashAt,
            "readlink-at" => Call::ReadLinkAt,
            "get-type" => Call::Type,
            "get-flags" => Call::Flags,
            "is-same-object" => Call::IsSame,
            "advise" | "sync" | "sync-data" => Call::Done,
            _ => Call::Change,
        },
        ("wasi:io/streams", "input-stream.read" | "input-stream.blocking-read") => Call::ReadStream,
        ("wasi:io/streams", "input-stream.skip" | "input-stream.blocking-skip") => Call::SkipStream,
        _ => return None,
    })
}

/// What a function gives back.
enum Answer {
    Nothing,
    Value(Val),
    Handle(Handle),
}

impl Call {
    /// The answer. None where the function has nothing to say about what it was handed.
    pub(super) fn answer(
        self,
        store: &mut StoreContextMut<'_, Guest>,
        folders: &[Folder],
        parameters: &[Val],
        numbers: &[u32],
    ) -> wasmtime::Result<Option<Val>> {
        let handles = &mut store.data_mut().handles;
        let number = numbers.first().copied().unwrap_or_default();
        match self {
            Call::Folders => return preopens(store, folders).map(Some),
            Call::IsSame => {
                let other = numbers.get(1).copied().unwrap_or_default();
                return Ok(Some(Val::Bool(is_same(handles, number, other))));
            }
            Call::ReadStream | Call::SkipStream => {
                let length = unsigned(parameters, 1).unwrap_or_default();
                let is_wanted = self == Call::ReadStream;
                return read_stream(store, number, length, is_wanted);
            }
            Call::WhyStreamFailed => {
                let Some(Handle::Failure(code)) = handles.0.get(&number) else { return Ok(None) };
                return Ok(Some(Val::Option(Some(Box::new(Val::Enum((*code).to_owned()))))));
            }
            _ => {}
        }
        let value = match self.of_file(handles, number, parameters) {
            Ok(Answer::Nothing) => Ok(None),
            Ok(Answer::Value(value)) => Ok(Some(value)),
            Ok(Answer::Handle(handle)) => match handles.put(handle) {
                Some(number) => Ok(Some(resource(store, number)?)),
                None => Err("insufficient-memory"),
            },
            Err(code) => Err(code),
        };
        Ok(Some(match value {
            Ok(value) => ok(value),
            Err(code) => Val::Result(Err(Some(Box::new(Val::Enum(code.to_owned()))))),
        }))
    }

    /// What a function gives back that is about a file or a folder and may fail.
    fn of_file(
        self,
        handles: &mut Handles,
        number: u32,
        parameters: &[Val],
    ) -> Result<Answer, Code> {
        if self == Call::NextName {
            let Some(Handle::Names(names)) = handles.0.get_mut(&number) else {
                return Err("bad-descriptor");
            };
            return next_name(names).map(|name| Answer::Value(Val::Option(name.map(Box::new))));
        }
        let file = handles.file(number)?;
        let at = || find(file, text(parameters, 2)?, has_flag(parameters, 1, "symlink-follow"));
        Ok(match self {
            Call::OpenAt => Answer::Handle(Handle::File(Arc::new(open(at()?, parameters)?))),
            Call::Read => {
                let length = unsigned(parameters, 1)?;
                let bytes = bytes_at(file, unsigned(parameters, 2)?, length)?;
                let is_end = bytes.is_empty() && length > 0;
                Answer::Value(Val::Tuple(vec![list(&bytes), Val::Bool(is_end)]))
            }
            Call::ReadViaStream => {
                Answer::Handle(Handle::Bytes(Arc::clone(file), unsigned(parameters, 1)?))
            }
            Call::ReadDirectory => {
                Answer::Handle(Handle::Names(Dir::read_from(file).map_err(code_of)?))
            }
            Call::Stat => Answer::Value(stat(&metadata(file)?)),
            Call::StatAt => Answer::Value(stat(&metadata(&at()?)?)),
            Call::Hash => Answer::Value(hash(&metadata(file)?)),
            Call::HashAt => Answer::Value(hash(&metadata(&at()?)?)),
            Call::ReadLinkAt => {
                let link = find(file, text(parameters, 1)?, false)?;
                Answer::Value(Val::String(target(&link)?))
            }
            Call::Type => Answer::Value(type_of(metadata(file)?.file_type())),
            Call::Flags => Answer::Value(Val::Flags(vec!["read".to_owned()])),
            Call::Done => Answer::Nothing,
            Call::Change => return Err("read-only"),
            Call::Folders
            | Call::NextName
            | Call::IsSame
            | Call::ReadStream
            | Call::SkipStream
            | Call::WhyStreamFailed => return Err("unsupported"),
        })
    }
}

/// The folders with their places.
fn preopens(store: &mut StoreContextMut<'_, Guest>, folders: &[Folder]) -> wasmtime::Result<Val> {
    let mut given = Vec::new();
    for folder in folders {
        let number = store.data_mut().handles.put(Handle::File(Arc::clone(&folder.file)));
        let number = number.ok_or_else(|| {
            wasmtime::Error::msg(format!("it holds more than {MAX_OPEN} files at once"))
        })?;
        given.push(Val::Tuple(vec![resource(store, number)?, Val::String(folder.place.clone())]));
    }
    Ok(Val::List(given))
}

/// The next bytes of a stream, or how many of them were skipped.
fn read_stream(
    store: &mut StoreContextMut<'_, Guest>,
    number: u32,
    length: u64,
    is_wanted: bool,
) -> wasmtime::Result<Option<Val>> {
    let handles = &mut store.data_mut().handles;
    let failure = match handles.next_bytes(number, length) {
        None => return Ok(None),
        Some(Ok(bytes)) if bytes.is_empty() && length > 0 => None,
        Some(Ok(bytes)) => {
            let value = if is_wanted { list(&bytes) } else { Val::U64(bytes.len() as u64) };
            return Ok(Some(ok(Some(value))));
        }
        Some(Err(code)) => handles.put(Handle::Failure(code)),
    };
    let error = match failure {
        None => Val::Variant("closed".to_owned(), None),
        Some(number) => {
            let why = resource(store, number)?;
            Val::Variant("last-operation-failed".to_owned(), Some(Box::new(why)))
        }
    };
    Ok(Some(Val::Result(Err(Some(Box::new(error))))))
}

/// What a path below a folder leads to. It is not opened: nothing is known of what it is.
fn find(folder: &File, path: &str, follows_link: bool) -> Result<File, Code> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follows_link);
    let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..LOOKUPS {
        match rustix::fs::openat2(folder, path, flags, Mode::empty(), below) {
            // Something was renamed on the way: the kernel cannot say whether it stayed below.
            Err(Errno::AGAIN) => {}
            found => return found.map(File::from).map_err(code_of),
        }
    }
    Err("would-block")
}

/// Opens what was found, to be read.
fn open(found: File, parameters: &[Val]) -> Result<File, Code> {
    let changes = ["create", "exclusive", "truncate"].iter().any(|it| has_flag(parameters, 3, it));
    if changes || ["write", "mutate-directory"].iter().any(|it| has_flag(parameters, 4, it)) {
        return Err("read-only");
    }
    let kind = metadata(&found)?.file_type();
    if kind.is_symlink() {
        return Err("loop");
    }
    if has_flag(parameters, 3, "directory") && !kind.is_dir() {
        return Err("not-directory");
    }
    if !kind.is_file() && !kind.is_dir() {
        return Err("not-permitted");
    }
    // Just what was looked at: by its path, it might be another one by now.
    let opened = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(opened, flags, Mode::empty()).map(File::from).map_err(code_of)
}

/// So many bytes from there on, or fewer; none at the end.
fn bytes_at(file: &File, at: u64, length: u64) -> Result<Vec<u8>, Code> {
    let mut bytes = vec![0; length.min(READ_BYTES) as usize];
    let read = loop {
        match file.read_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(|error| code_of_io(&error))?,
        }
    };
    bytes.truncate(read);
    Ok(bytes)
}

fn next_name(names: &mut Dir) -> Result<Option<Val>, Code> {
    for entry in names {
        let entry = entry.map_err(code_of)?;
        let name = entry.file_name().to_str().map_err(|_| "illegal-byte-sequence")?;
        if name != "." && name != ".." {
            let kind = match entry.file_type() {
                rustix::fs::FileType::RegularFile => "regular-file",
                rustix::fs::FileType::Directory => "directory",
                rustix::fs::FileType::Symlink => "symbolic-link",
                rustix::fs::FileType::Fifo => "fifo",
                rustix::fs::FileType::Socket => "socket",
                rustix::fs::FileType::CharacterDevice => "character-device",
                rustix::fs::FileType::BlockDevice => "block-device",
                rustix::fs::FileType::Unknown => "unknown",
            };
            return Ok(Some(record([
                ("type", Val::Enum(kind.to_owned())),
                ("name", Val::String(name.to_owned())),
            ])));
        }
    }
    Ok(None)
}

/// Where a link leads to, unless that is somewhere from the root.
fn target(link: &File) -> Result<String, Code> {
    let target = rustix::fs::readlinkat(link, "", Vec::new()).map_err(|error| match error {
        // What it says of a file that is no link.
        Errno::NOENT => "invalid",
        error => code_of(error),
    })?;
    let target = target.into_string().map_err(|_| "illegal-byte-sequence")?;
    if target.starts_with('/') { Err("not-permitted") } else { Ok(target) }
}

fn metadata(file: &File) -> Result<Metadata, Code> {
    file.metadata().map_err(|error| code_of_io(&error))
}

fn is_same(handles: &Handles, one: u32, other: u32) -> bool {
    let identity = |number| {
        let metadata = metadata(handles.file(number)?)?;
        Ok::<_, Code>((metadata.dev(), metadata.ino()))
    };
    identity(one).is_ok_and(|one| identity(other) == Ok(one))
}

fn stat(metadata: &Metadata) -> Val {
    let time = |time: io::Result<SystemTime>| {
        let since_epoch = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Val::Option(since_epoch.map(|since_epoch| Box::new(datetime(since_epoch))))
    };
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let changed = Duration::new(seconds, metadata.ctime_nsec() as u32);
    record([
        ("type", type_of(metadata.file_type())),
        ("link-count", Val::U64(metadata.nlink())),
        ("size", Val::U64(metadata.len())),
        ("data-access-timestamp", time(metadata.accessed())),
        ("data-modification-timestamp", time(metadata.modified())),
        ("status-change-timestamp", time(Ok(UNIX_EPOCH + changed))),
    ])
}

/// A number that another file does not have, nor this one when it was changed.
fn hash(metadata: &Metadata) -> Val {
    let mut hash = Sha256::new();
    for number in [metadata.dev(), metadata.ino(), metadata.len()] {
        hash.update(number.to_le_bytes());
    }
    for number in [metadata.ctime(), metadata.ctime_nsec()] {
        hash.update(number.to_le_bytes());
    }
    let hash = hash.finalize();
    let half = |at: usize| {
        let half = hash[at..at + 8].try_into().expect("a hash is longer than two numbers");
        Val::U64(u64::from_le_bytes(half))
    };
    record([("lower", half(0)), ("upper", half(8))])
}

fn type_of(kind: FileType) -> Val {
    let kinds = [
        (kind.is_file(), "regular-file"),
        (kind.is_dir(), "directory"),
        (kind.is_symlink(), "symbolic-link"),
        (kind.is_fifo(), "fifo"),
        (kind.is_socket(), "socket"),
        (kind.is_char_device(), "character-device"),
        (kind.is_block_device(), "block-device"),
    ];
    let kind = kinds.into_iter().find_map(|(is, name)| is.then_some(name));
    Val::Enum(kind.unwrap_or("unknown").to_owned())
}

fn code_of(error: Errno) -> Code {
    match error {
        Errno::ACCESS => "access",
        // From another device is where a path goes that leads out of its folder.
        Errno::PERM | Errno::XDEV => "not-permitted",
        Errno::NOENT => "no-entry",
        Errno::NOTDIR => "not-directory",
        Errno::ISDIR => "is-directory",
        Errno::LOOP => "loop",
        Errno::NAMETOOLONG => "name-too-long",
        Errno::INVAL => "invalid",
        Errno::AGAIN => "would-block",
        Errno::INTR => "interrupted",
        Errno::NOMEM | Errno::MFILE | Errno::NFILE => "insufficient-memory",
        _ => "io",
    }
}

fn code_of_io(error: &io::Error) -> Code {
    error.raw_os_error().map_or("io", |number| code_of(Errno::from_raw_os_error(number)))
}

// What a component hands over is what its own text says that it is.

fn text(parameters: &[Val], at: usize) -> Result<&str, Code> {
    match parameters.get(at) {
        Some(Val::String(text)) => Ok(text),
        _ => Err("invalid"),
    }
}

fn unsigned(parameters: &[Val], at: usize) -> Result<u64, Code> {
    match parameters.get(at) {
        Some(Val::U64(number)) => Ok(*number),
        _ => Err("invalid"),
    }
}

fn has_flag(parameters: &[Val], at: usize, flag: &str) -> bool {
    matches!(parameters.get(at), Some(Val::Flags(flags)) if flags.iter().any(|it| it == flag))
}

fn list(bytes: &[u8]) -> Val {
    Val::List(bytes.iter().copied().map(Val::U8).collect())
}

fn record<const N: usize>(fields: [(&str, Val); N]) -> Val {
    Val::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests;
