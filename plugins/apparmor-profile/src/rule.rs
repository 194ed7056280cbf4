//! One rule: what was done with a file, and how AppArmor writes that.

use whodunit_sdk::{Event, Flags, Kind};

/// What was done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Access {
    read: bool,
    write: bool,
    map: bool,
    execute: bool,
    link: bool,
    directory: bool,
}

impl Access {
    /// What an event needs. None for one that AppArmor does not mediate by the file: a `stat`, say.
    pub(crate) fn of(event: &Event<'_>) -> Option<Access> {
        let directory = event.flags().contains(Flags::DIRECTORY);
        let nothing = Access { directory, ..Access::default() };
        match event.kind() {
            Kind::Open if event.flags().contains(Flags::WRITE) => {
                Some(Access { read: true, write: true, ..nothing })
            }
            Kind::Open | Kind::List => Some(Access { read: true, ..nothing }),
            Kind::Exec => Some(Access { read: true, map: true, execute: true, ..nothing }),
            Kind::Map | Kind::Load => Some(Access { read: true, map: true, ..nothing }),
            Kind::Truncate | Kind::Rename | Kind::Unlink | Kind::Make | Kind::Attributes => {
                Some(Access { write: true, ..nothing })
            }
            Kind::Link => Some(Access { link: true, read: true, write: true, ..nothing }),
            Kind::ContainerStarted
            | Kind::ContainerEnded
            | Kind::Stat
            | Kind::Access
            | Kind::Readlink
            | Kind::Chdir
            | Kind::Follow
            | Kind::OtherUse
            | Kind::ProcessForked
            | Kind::ProcessExecuted
            | Kind::ProcessExited
            | Kind::SignalGenerated
            | Kind::SignalDelivered
            | Kind::OomKill
            | Kind::CpuThrottled
            | Kind::Other(_) => None,
        }
    }

    /// Both.
    pub(crate) fn with(self, other: Access) -> Access {
        Access {
            read: self.read || other.read,
            write: self.write || other.write,
            map: self.map || other.map,
            execute: self.execute || other.execute,
            link: self.link || other.link,
            directory: self.directory || other.directory,
        }
    }

    /// The letters of a file rule. A program runs in the profile of whoever executes it (`ix`).
    pub(crate) fn letters(self) -> String {
        let letters = [
            (self.read, "r"),
            (self.write, "w"),
            (self.map, "m"),
            (self.link, "l"),
            (self.execute, "ix"),
        ];
        letters.into_iter().filter(|(is, _)| *is).map(|(_, letter)| letter).collect()
    }
}

/// A path as AppArmor matches it literally: quoted, with what is special in a pattern escaped, and bytes
/// that are no printable ASCII in octal. A directory ends with a slash.
pub(crate) fn pattern(path: &[u8], access: Access) -> String {
    let mut pattern = String::from("\"");
    for byte in path {
        match byte {
            b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b'^' | b',' | b'"' | b'\\' | b'@' => {
                pattern.push('\\');
                pattern.push(char::from(*byte));
            }
            b' '..=b'~' => pattern.push(char::from(*byte)),
            _ => pattern.push_str(&format!("\\{byte:03o}")),
        }
    }
    if access.directory && !path.ends_with(b"/") {
        pattern.push('/');
    }
    pattern.push('"');
    pattern
}
