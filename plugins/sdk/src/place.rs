//! Kinds of places: what a file belongs to, by its mount or by its file system's type.

use std::borrow::Cow;

use crate::directory::Mount;

/// What a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The container's root: its image, and what it wrote over it.
    Image,
    /// Something else that was mounted into it, and that is there without it.
    Volume,
    /// Memory that goes away with the container.
    Tmpfs,
    /// No files but the kernel's own answers.
    Pseudo,
    /// Its mount is not known, and its file system's type says nothing about it.
    Unknown,
}

impl Place {
    /// The name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Place::Image => "image",
            Place::Volume => "volume",
            Place::Tmpfs => "tmpfs",
            Place::Pseudo => "pseudo",
            Place::Unknown => "unknown",
        }
    }
}

/// What the files of a mount belong to.
pub fn of_mount(mount: &Mount) -> Place {
    match of_type(&mount.file_system) {
        // The root is the image, whatever it stands on.
        _ if mount.point == "/" => Place::Image,
        Place::Unknown => Place::Volume,
        known => known,
    }
}

/// What a file belongs to of which no mount is known. The argument is the magic number of its file
/// system's type.
pub fn of_file_system(magic: u64) -> Place {
    of_type(&file_system_name(magic))
}

fn of_type(file_system: &str) -> Place {
    match file_system {
        "tmpfs" | "ramfs" => Place::Tmpfs,
        "proc" | "sysfs" | "devpts" | "devtmpfs" | "cgroup" | "cgroup2" | "mqueue" | "debugfs"
        | "tracefs" | "bpf" | "securityfs" | "nsfs" | "pipefs" | "sockfs" | "anon_inodefs"
        | "selinuxfs" | "efivarfs" | "pstore" | "configfs" | "binfmt_misc" => Place::Pseudo,
        _ => Place::Unknown,
    }
}

/// Magic numbers of types of file systems (`include/uapi/linux/magic.h`, and the file systems' own
/// headers) with the names that `/proc/filesystems` has for them.
const TYPES: [(u64, &str); 33] = [
    (0xef53, "ext4"),
    (0x794c_7630, "overlay"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x7371_7368, "squashfs"),
    (0xe0f5_e1e2, "erofs"),
    (0x9660, "iso9660"),
    (0x4d44, "vfat"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb3"),
    (0x00c3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x1cd1, "devpts"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x1980_0202, "mqueue"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0xcafe_4a11, "bpf"),
    (0x7363_6673, "securityfs"),
    (0x6e73_6673, "nsfs"),
    (0x5049_5045, "pipefs"),
    (0x534f_434b, "sockfs"),
    (0x0904_1934, "anon_inodefs"),
    (0x4249_4e4d, "binfmt_misc"),
];

/// The name of a type of file system, or its magic number where that is not known.
pub fn file_system_name(magic: u64) -> Cow<'static, str> {
    match TYPES.iter().find(|(known, _)| *known == magic) {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(format!("{magic:#x}")),
    }
}

/// The magic number of a name that [`file_system_name`] gave.
pub fn file_system_magic(name: &str) -> Option<u64> {
    match TYPES.iter().find(|(_, known)| *known == name) {
        Some((magic, _)) => Some(*magic),
        None => u64::from_str_radix(name.strip_prefix("0x")?, 16).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_image_and_other_mounts_are_what_they_hold() {
        let place = |point: &str, file_system: &str| {
            of_mount(&Mount {
                id: 1,
                point: point.to_owned(),
                file_system: file_system.to_owned(),
                source: String::new(),
                device: 0,
            })
        };
        assert_eq!(place("/", "tmpfs"), Place::Image);
        assert_eq!(place("/", "overlay"), Place::Image);
        assert_eq!(place("/data", "ext4"), Place::Volume);
        assert_eq!(place("/data", "fuse.sshfs"), Place::Volume);
        assert_eq!(place("/run", "tmpfs"), Place::Tmpfs);
        assert_eq!(place("/proc", "proc"), Place::Pseudo);
    }

    #[test]
    fn a_type_is_known_by_its_number_and_back() {
        for (magic, name) in TYPES {
            assert_eq!(file_system_name(magic), name);
            assert_eq!(file_system_magic(name), Some(magic));
        }
        assert_eq!(file_system_name(0xabc), "0xabc");
        assert_eq!(file_system_magic("0xabc"), Some(0xabc));
        assert_eq!(file_system_magic("fuse.sshfs"), None);
        assert_eq!(of_file_system(0x9fa0), Place::Pseudo);
        assert_eq!(of_file_system(0xef53), Place::Unknown);
    }
}
