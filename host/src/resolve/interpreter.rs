//! What a program asks the kernel to load beside it: the interpreter of an ELF program, and that of a
//! `#!` script.
//!
//! Takes a handle of an executed file, reads its beginning and gives a path. The kernel maps that file
//! without a system call of the program, so nobody else can tell.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::pread;

/// How much of a script's first line counts: `BINPRM_BUF_SIZE` of `include/uapi/linux/binfmts.h`, 256
/// since Linux 5.1.
const SCRIPT_HEAD_BYTES: usize = 256;
/// The longest path of an interpreter: `PATH_MAX`, as `load_elf_binary` has it.
const PATH_MAX: u64 = 4096;
/// What the kernel reads of program headers at most: `ELF_MIN_ALIGN` is at least so much
/// (`load_elf_phdrs`: 64 KiB).
const HEADERS_AT_MOST: usize = 65_536;

/// The path of the interpreter that a file names, as it stands in the file. None where it names none, is
/// no regular file, or is nothing that the kernel executes.
pub(super) fn interpreter(handle: BorrowedFd<'_>, kind: FileType) -> Option<Vec<u8>> {
    if kind != FileType::RegularFile {
        return None;
    }
    let file = readable(handle)?;
    let mut head = [0; SCRIPT_HEAD_BYTES];
    let length = pread(&file, &mut head, 0).ok()?;
    let head = &head[..length];
    if let Some(line) = head.strip_prefix(b"#!") {
        return of_script(line);
    }
    of_program(head, |offset, room| {
        let mut bytes = vec![0; room];
        let length = pread(&file, &mut bytes, offset).ok()?;
        bytes.truncate(length);
        Some(bytes)
    })
}

/// A file that can be read from a handle that cannot.
fn readable(handle: BorrowedFd<'_>) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    // Regular, so that no open waits; the flag is for a file system that makes one wait nevertheless.
    openat(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// The interpreter of a script's first line, as `load_script` of `fs/binfmt_script.c` reads it.
fn of_script(line: &[u8]) -> Option<Vec<u8>> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = line.split(|byte| *byte == b'\n').next()?;
    let start = line.iter().position(|byte| !blank(byte))?;
    let line = &line[start..];
    let end = line.iter().position(|byte| blank(byte) || *byte == 0).unwrap_or(line.len());
    (end > 0).then(|| line[..end].to_vec())
}

/// The `PT_INTERP` of a program with this beginning. `read` gives bytes of it, or fewer at its end.
fn of_program(head: &[u8], read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    const PT_INTERP: u64 = 3;
    let is_64 = match head.get(..6)? {
        [0x7f, b'E', b'L', b'F', 2, 1 | 2] => true,
        [0x7f, b'E', b'L', b'F', 1, 1 | 2] => false,
        _ => return None,
    };
    let numbers = Numbers { little: head[5] == 1 };
    let (table, entry_size, entries) = if is_64 {
        (numbers.at(head, 32, 8)?, numbers.at(head, 54, 2)?, numbers.at(head, 56, 2)?)
    } else {
        (numbers.at(head, 28, 4)?, numbers.at(head, 42, 2)?, numbers.at(head, 44, 2)?)
    };
    let entry_size = usize::try_from(entry_size).ok()?;
    let size = entry_size.checked_mul(usize::try_from(entries).ok()?)?;
    if entry_size < 32 || size > HEADERS_AT_MOST {
        return None;
    }
    let headers = read(table, size)?;
    let header = headers
        .chunks_exact(entry_size)
        .find(|header| numbers.at(header, 0, 4) == Some(PT_INTERP))?;
    let (offset, length) = if is_64 {
        (numbers.at(header, 8, 8)?, numbers.at(header, 32, 8)?)
    } else {
        (numbers.at(header, 4, 4)?, numbers.at(header, 16, 4)?)
    };
    if !(2..=PATH_MAX).contains(&length) {
        return None;
    }
    let text = read(offset, length as usize)?;
    let path = text.split(|byte| *byte == 0).next()?;
    // The kernel refuses one that does not end with a NUL.
    (path.len() < text.len() && !path.is_empty()).then(|| path.to_vec())
}

/// Numbers of a byte order.
#[derive(Clone, Copy)]
struct Numbers {
    little: bool,
}

impl Numbers {
    /// The number of `size` bytes at `at`.
    fn at(self, bytes: &[u8], at: usize, size: usize) -> Option<u64> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(line: &str) -> Option<String> {
        of_script(line.as_bytes()).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn a_script_names_its_interpreter_as_the_kernel_reads_it() {
        let sh = Some("/bin/sh".to_owned());
        for line in ["/bin/sh\n", "  \t/bin/sh -e\n", "/bin/sh", "/bin/sh\t\nexit", "/bin/sh\0x"] {
            assert_eq!(script(line), sh, "{line:?}");
        }
        for line in ["\n/bin/sh", "   \n", ""] {
            assert_eq!(script(line), None, "{line:?}");
        }
    }

    /// A program of 64 or 32 bits with these program headers of (type, offset, size).
    fn program(is_64: bool, little: bool, headers: &[(u64, u64, u64)], text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        let mut put = |at: usize, size: usize, number: u64| {
            for place in 0..size {
                let shift = if little { place } else { size - 1 - place };
                bytes[at + place] = (number >> (8 * shift)) as u8;
            }
        };
        let class = if is_64 { 2 } else { 1 };
        put(4, 1, class);
        put(5, 1, if little { 1 } else { 2 });
        let (size, fields) = if is_64 { (56, [32, 54, 56]) } else { (32, [28, 42, 44]) };
        put(fields[0], if is_64 { 8 } else { 4 }, 64);
        put(fields[1], 2, size);
        put(fields[2], 2, headers.len() as u64);
        for (number, (kind, offset, length)) in headers.iter().enumerate() {
            let at = 64 + number * size as usize;
            put(at, 4, *kind);
            let (word, places) = if is_64 { (8, [8, 32]) } else { (4, [4, 16]) };
            put(at + places[0], word, *offset);
            put(at + places[1], word, *length);
        }
        bytes[..4].copy_from_slice(b"\x7fELF");
        bytes[400..400 + text.len()].copy_from_slice(text);
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Vec<u8>> {
        of_program(&bytes[..bytes.len().min(SCRIPT_HEAD_BYTES)], |offset, room| {
            let start = usize::try_from(offset).ok()?.min(bytes.len());
            Some(bytes[start..bytes.len().min(start.checked_add(room)?)].to_vec())
        })
    }

    #[test]
    fn a_program_of_either_size_and_byte_order_names_its_interpreter() {
        let text = b"/lib/ld.so\0";
        let headers = [(1, 0, 9), (3, 400, text.len() as u64)];
        for (is_64, little) in [(true, true), (true, false), (false, true), (false, false)] {
            let bytes = program(is_64, little, &headers, text);
            assert_eq!(of(&bytes).as_deref(), Some(&b"/lib/ld.so"[..]), "{is_64} {little}");
        }
    }

    #[test]
    fn what_names_none_or_is_broken_gives_none() {
        let text = b"/lib/ld.so\0";
        assert_eq!(of(&program(true, true, &[(1, 0, 9)], text)), None);
        // Without its NUL, past the end, and of a size that no kernel takes.
        for header in [(3, 400, 10), (3, u64::MAX, 11), (3, 400, u64::MAX), (3, 400, 0)] {
            assert_eq!(of(&program(true, true, &[header], text)), None, "{header:?}");
        }
        let whole = program(true, true, &[(3, 400, 11)], text);
        for length in 0..200 {
            assert!(of(&whole[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn this_test_s_own_program_and_a_script_are_read_through_a_handle() {
        let handle = |path: &std::path::Path| {
            let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            interpreter(file.as_fd(), FileType::RegularFile)
        };
        let own = handle(&std::env::current_exe().unwrap());
        let is_static = cfg!(target_feature = "crt-static");
        assert_eq!(own.is_none(), is_static, "{own:?}");
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#! /usr/bin/env python3\n").unwrap();
        assert_eq!(handle(script.path()).as_deref(), Some(&b"/usr/bin/env"[..]));
        let folder = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(interpreter(folder.as_fd(), FileType::Directory), None);
    }
}
