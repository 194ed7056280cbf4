//! Which files are left out by the prefix of their path.
//!
//! Owns the excluded prefixes. Takes resolved paths as bytes and says yes or no; counts nothing.

/// The excluded prefixes.
///
/// A prefix stands for a folder and everything below it, with or without a slash at its end: `/proc`
/// and `/proc/` both cover `/proc` and `/proc/self/maps`, and neither covers `/procfoo`. `/` covers
/// every absolute path. An empty prefix covers nothing.
#[derive(Clone, Debug, Default)]
pub struct Excluded {
    /// Without the slashes at their ends, and none of them covered by another.
    folders: Vec<Box<[u8]>>,
}

impl Excluded {
    /// Excludes everything at or below these prefixes.
    pub fn new(prefixes: &[String]) -> Excluded {
        let mut folders: Vec<Box<[u8]>> = prefixes
            .iter()
            .filter(|prefix| !prefix.is_empty())
            .map(|prefix| prefix.trim_end_matches('/').as_bytes().into())
            .collect();
        // A folder sorts before everything below it, so one pass drops what is covered already.
        folders.sort_unstable();
        let mut outermost: Vec<Box<[u8]>> = Vec::with_capacity(folders.len());
        for folder in folders {
            if !outermost.iter().any(|outer| stands_at_or_below(&folder, outer)) {
                outermost.push(folder);
            }
        }
        Excluded { folders: outermost }
    }

    /// Whether a resolved path is excluded.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.folders.iter().any(|folder| stands_at_or_below(path, folder))
    }
}

fn stands_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| match rest.first() {
        // The empty folder is the root, whose own path is `/`.
        None => true,
        Some(next) => *next == b'/',
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefixes: &[&str], covered: &[&str], not_covered: &[&str]) {
        let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        let excluded = Excluded::new(&prefixes);
        for path in covered {
            assert!(excluded.covers(path.as_bytes()), "{prefixes:?} must cover {path:?}");
        }
        for path in not_covered {
            assert!(!excluded.covers(path.as_bytes()), "{prefixes:?} must not cover {path:?}");
        }
    }

    #[test]
    fn a_prefix_covers_the_folder_and_what_is_below_it() {
        check(
            &["/proc/", "/sys/", "/dev/"],
            &["/proc", "/proc/", "/proc/1/maps", "/sys/fs/cgroup", "/dev/null"],
            &["/procfoo", "/etc/passwd", "/", "", "/home/proc/x", "proc/1", "/pro"],
        );
    }

    #[test]
    fn a_slash_at_the_end_changes_nothing() {
        check(&["/foo"], &["/foo", "/foo/", "/foo/bar"], &["/foobar", "/fo", "/bar/foo"]);
        check(&["/foo///"], &["/foo", "/foo/", "/foo/bar"], &["/foobar", "/fo"]);
    }

    #[test]
    fn the_root_covers_every_absolute_path() {
        check(&["/"], &["/", "/a", "/a/b"], &["pipe:[7]", "memfd:x"]);
    }

    #[test]
    fn no_prefix_and_an_empty_prefix_cover_nothing() {
        check(&[], &[], &["/", "/proc", ""]);
        check(&[""], &[], &["/", "/proc", "relative"]);
    }

    #[test]
    fn a_prefix_below_another_is_dropped() {
        let prefixes = ["/a/b", "/a-b", "/a", "/a/", "/c"].map(String::from);
        let excluded = Excluded::new(&prefixes);
        assert_eq!(excluded.folders.len(), 3);
        check(&["/a/b", "/a-b", "/a"], &["/a/c", "/a/b/c", "/a-b/c"], &["/a-c", "/a.b"]);
    }

    #[test]
    fn paths_are_bytes() {
        let excluded = Excluded::new(&["/x".to_owned()]);
        assert!(excluded.covers(b"/x/\xff\n"));
        assert!(!excluded.covers(b"/x\xff"));
    }
}
