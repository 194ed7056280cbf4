//! The mounts of a container, from the kernel's own table of them (`/proc/<pid>/mountinfo`, proc(5)).

use crate::directory::Mount;

/// Reads a table. Lines that are none are left out.
pub(super) fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let _parent = fields.next()?;
    let device = fields.next()?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    let (major, minor) = (number(&device[..colon])?, number(&device[colon + 1..])?);
    let _root = fields.next()?;
    let point = unescaped(fields.next()?);
    // Options, and then fields that may be absent, up to a hyphen.
    fields.find(|field| *field == b"-")?;
    let file_system = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescaped(fields.next()?);
    Some(Mount { id, point, file_system, source, device: major << 20 | minor })
}

fn number(digits: &[u8]) -> Option<u32> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Takes back the octal escapes of space, tab, newline and backslash (`mangle_path` of `fs/seq_file.c`).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let code =
            octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// Whether a look-up in a mount may wait for somebody else: a server on the network, or a process that
/// plays one. The root of a container is taken as it is, or nothing of it could be told.
pub(super) fn is_slow(mount: &Mount) -> bool {
    if mount.point == b"/" {
        return false;
    }
    let file_system = mount.file_system.split('.').next().unwrap_or_default();
    matches!(
        file_system,
        "fuse"
            | "fuseblk"
            | "nfs"
            | "nfs4"
            | "cifs"
            | "smb3"
            | "9p"
            | "autofs"
            | "ceph"
            | "afs"
            | "gfs2"
            | "ocfs2"
            | "lustre"
            | "virtiofs"
            | "orangefs"
            | "coda"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_its_optional_fields_and_its_escapes() {
        let table =
            b"36 35 98:2 / / rw,noatime master:1 shared:2 - overlay overlay rw,lowerdir=/a\n\
            37 36 0:22 /x /with\\040space\\134 rw - fuse.sshfs me@host:/ rw\n\
            a line that is none\n\
            38 36 8:1 / /data rw - ext4 /dev/sda1 rw\n";
        let mounts = parse(table);
        let points: Vec<_> =
            mounts.iter().map(|mount| (mount.id, mount.point.as_slice())).collect();
        assert_eq!(points, [(36, &b"/"[..]), (37, b"/with space\\"), (38, b"/data")]);
        assert_eq!(mounts[0].file_system, "overlay");
        assert_eq!(mounts[0].device, 98 << 20 | 2);
        assert_eq!(mounts[1].source, b"me@host:/");
        let slow: Vec<_> = mounts.iter().map(is_slow).collect();
        assert_eq!(slow, [false, true, false]);
    }

    #[test]
    fn the_table_of_this_process_has_a_root() {
        let mounts = parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        assert!(mounts.iter().any(|mount| mount.point == b"/"), "{mounts:?}");
    }

    #[test]
    fn a_root_is_never_slow() {
        let root = Mount {
            id: 1,
            point: b"/".to_vec(),
            file_system: "fuse.fuse-overlayfs".to_owned(),
            source: Vec::new(),
            device: 0,
        };
        assert!(!is_slow(&root));
    }
}
