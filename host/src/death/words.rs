//! The last words of a cgroup: memory, CPU, processes and pressure, as the files of its controllers say.
//!
//! Owns where those files are: in cgroup v2 all stand in the container's folder; in v1, and in the hybrid of both, each
//! controller has a hierarchy of its own. Reads, and keeps nothing. A file that is not there is a gap and no error: the
//! folder goes with its container.

use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::record::{CpuSample, Limit, MemorySample, PidsSample, PressureSample, Resource};

/// What v1 says where there is no limit: the largest multiple of a page in an `i64` (`PAGE_COUNTER_MAX`), or close to it.
const V1_UNLIMITED: u64 = 1 << 62;

/// What a cgroup said at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// When, in nanoseconds since boot.
    pub(crate) time_ns: u64,
    pub(crate) memory: Option<MemorySample>,
    pub(crate) cpu: Option<CpuSample>,
    pub(crate) pids: Option<PidsSample>,
    pub(crate) pressure: Vec<PressureSample>,
}

impl Words {
    /// Whether nothing was said.
    pub(crate) fn is_silent(&self) -> bool {
        self.memory.is_none()
            && self.cpu.is_none()
            && self.pids.is_none()
            && self.pressure.is_empty()
    }
}

/// Where the controllers are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controllers {
    unified: PathBuf,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl Controllers {
    /// Finds them, given the root of the v2 hierarchy.
    pub(crate) fn find(unified: &Path) -> Controllers {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Controllers::parse(unified, &mounts)
    }

    fn parse(unified: &Path, mountinfo: &str) -> Controllers {
        let legacy = |controller: &str| {
            mountinfo.lines().find_map(|line| {
                // id, parent, device, root, mount point, options, tags..., "-", type, source, super options
                let (before, after) = line.split_once(" - ")?;
                let mut after = after.split(' ');
                let is_legacy = after.next()? == "cgroup";
                let has_it = after.nth(1)?.split(',').any(|option| option == controller);
                (is_legacy && has_it).then(|| before.split(' ').nth(4).map(PathBuf::from))?
            })
        };
        Controllers {
            unified: unified.to_owned(),
            memory: legacy("memory"),
            cpu: legacy("cpu"),
            cpuacct: legacy("cpuacct"),
            pids: legacy("pids"),
        }
    }

    /// What the cgroup at this path, below the root and with a leading `/`, says now.
    pub(crate) fn listen(&self, cgroup_path: &[u8], time_ns: u64) -> Words {
        let folder = below(&self.unified, cgroup_path);
        let legacy = |root: &Option<PathBuf>| root.as_ref().map(|root| below(root, cgroup_path));
        let cpu = self.cpu(cgroup_path);
        let resources = [Resource::Cpu, Resource::Memory, Resource::Io];
        Words {
            time_ns,
            memory: match legacy(&self.memory) {
                Some(folder) => memory_v1(&folder),
                None => memory_v2(&folder),
            },
            cpu,
            pids: pids(&legacy(&self.pids).unwrap_or_else(|| folder.clone())),
            pressure: resources
                .into_iter()
                .filter_map(|resource| pressure(&folder, resource))
                .collect(),
        }
    }

    /// Whether nothing ran in the cgroup at this path since it said this: then it has nothing new to say.
    pub(crate) fn is_as_before(&self, cgroup_path: &[u8], before: &Words) -> bool {
        let tells_use = self.cpu.is_none() || self.cpuacct.is_some();
        tells_use && before.cpu.is_some() && self.cpu(cgroup_path) == before.cpu
    }

    fn cpu(&self, cgroup_path: &[u8]) -> Option<CpuSample> {
        let folder = |root: &PathBuf| below(root, cgroup_path);
        match &self.cpu {
            Some(root) => cpu_v1(&folder(root), self.cpuacct.as_ref().map(folder).as_deref()),
            None => cpu_v2(&folder(&self.unified)),
        }
    }

    /// The memory cgroups from that at this path upward, each with its id and its path; the root is left out.
    pub(crate) fn memory_line(&self, cgroup_path: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let root = self.memory.as_ref().unwrap_or(&self.unified);
        let mut line = Vec::new();
        let mut path = cgroup_path;
        while !path.is_empty() && path != b"/" {
            if let Ok(found) = below(root, path).metadata() {
                line.push((found.ino(), path.to_vec()));
            }
            let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            path = &path[..slash];
        }
        line
    }

    /// The ids of the processes in the cgroup at this path and in those below it.
    pub(crate) fn processes(&self, cgroup_path: &[u8]) -> Vec<u32> {
        let mut pids = Vec::new();
        let mut folders = vec![below(&self.unified, cgroup_path)];
        while let Some(folder) = folders.pop() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        pids
    }
}

fn below(root: &Path, cgroup_path: &[u8]) -> PathBuf {
    let relative = cgroup_path.strip_prefix(b"/").unwrap_or(cgroup_path);
    root.join(std::ffi::OsStr::from_bytes(relative))
}

/// What a file of a controller says. They are shorter than the buffer and come whole with one read: their number
/// times that of the containers is read again and again.
fn text(folder: &Path, file: &str) -> Option<String> {
    let mut buffer = [0; 4096];
    let length = fs::File::open(folder.join(file)).ok()?.read(&mut buffer).ok()?;
    std::str::from_utf8(&buffer[..length]).ok().map(str::to_owned)
}

fn number(folder: &Path, file: &str) -> Option<u64> {
    text(folder, file)?.trim().parse().ok()
}

/// The value of a key in a file of lines like `key value`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A limit of v2: a number or `max`.
fn limit(folder: &Path, file: &str) -> Limit {
    match text(folder, file) {
        Some(text) if text.trim() == "max" => Limit::Unlimited,
        Some(text) => text.trim().parse().map_or(Limit::Unknown, Limit::At),
        None => Limit::Unknown,
    }
}

fn memory_v2(folder: &Path) -> Option<MemorySample> {
    let events = text(folder, "memory.events").unwrap_or_default();
    Some(MemorySample {
        current_bytes: number(folder, "memory.current")?,
        limit: limit(folder, "memory.max"),
        peak_bytes: number(folder, "memory.peak"),
        events_max: keyed(&events, "max"),
        events_oom: keyed(&events, "oom"),
        events_oom_kill: keyed(&events, "oom_kill"),
    })
}

fn memory_v1(folder: &Path) -> Option<MemorySample> {
    let control = text(folder, "memory.oom_control").unwrap_or_default();
    Some(MemorySample {
        current_bytes: number(folder, "memory.usage_in_bytes")?,
        limit: match number(folder, "memory.limit_in_bytes") {
            Some(limit) if limit >= V1_UNLIMITED => Limit::Unlimited,
            Some(limit) => Limit::At(limit),
            None => Limit::Unknown,
        },
        peak_bytes: number(folder, "memory.max_usage_in_bytes"),
        events_max: number(folder, "memory.failcnt"),
        // v1 counts the kills only.
        events_oom: None,
        events_oom_kill: keyed(&control, "oom_kill"),
    })
}

fn cpu_v2(folder: &Path) -> Option<CpuSample> {
    let stat = text(folder, "cpu.stat")?;
    // Without the controller there is `usage_usec` alone, and no quota.
    let max = text(folder, "cpu.max")?;
    let mut max = max.split_whitespace();
    let quota_ns = match max.next()? {
        "max" => Limit::Unlimited,
        quota => quota.parse::<u64>().map_or(Limit::Unknown, |us| Limit::At(us * 1_000)),
    };
    let period_us: u64 = max.next()?.parse().ok()?;
    Some(CpuSample {
        usage_ns: keyed(&stat, "usage_usec")? * 1_000,
        periods: keyed(&stat, "nr_periods").unwrap_or(0),
        throttled_periods: keyed(&stat, "nr_throttled").unwrap_or(0),
        throttled_ns: keyed(&stat, "throttled_usec").unwrap_or(0) * 1_000,
        quota_ns,
        period_ns: period_us * 1_000,
    })
}

fn cpu_v1(folder: &Path, cpuacct: Option<&Path>) -> Option<CpuSample> {
    let stat = text(folder, "cpu.stat")?;
    let quota = text(folder, "cpu.cfs_quota_us").unwrap_or_default();
    Some(CpuSample {
        usage_ns: cpuacct.and_then(|folder| number(folder, "cpuacct.usage")).unwrap_or(0),
        periods: keyed(&stat, "nr_periods").unwrap_or(0),
        throttled_periods: keyed(&stat, "nr_throttled").unwrap_or(0),
        throttled_ns: keyed(&stat, "throttled_time").unwrap_or(0),
        quota_ns: match quota.trim().parse::<i64>() {
            Ok(us) if us < 0 => Limit::Unlimited,
            Ok(us) => Limit::At(us as u64 * 1_000),
            Err(_) => Limit::Unknown,
        },
        period_ns: number(folder, "cpu.cfs_period_us").unwrap_or(0) * 1_000,
    })
}

/// Both versions have the same files.
fn pids(folder: &Path) -> Option<PidsSample> {
    let events = text(folder, "pids.events").unwrap_or_default();
    Some(PidsSample {
        current: number(folder, "pids.current")?,
        limit: limit(folder, "pids.max"),
        events_max: keyed(&events, "max"),
    })
}

fn pressure(folder: &Path, resource: Resource) -> Option<PressureSample> {
    let text = text(folder, &format!("{}.pressure", resource.name()))?;
    let average = |line: &str| {
        let rest = text.lines().find_map(|found| found.strip_prefix(line))?;
        let percent = rest.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
        let (whole, part) = percent.split_once('.')?;
        Some(whole.parse::<u32>().ok()? * 100 + part.parse::<u32>().ok()?)
    };
    Some(PressureSample {
        resource,
        some_avg10: average("some")?,
        // There is no `full` of CPU before Linux 5.13.
        full_avg10: average("full").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn version_2_speaks_from_one_folder() {
        let root = folder_with(&[
            ("pod/app/memory.current", "1048576\n"),
            ("pod/app/memory.max", "2097152\n"),
            ("pod/app/memory.peak", "2097152\n"),
            (
                "pod/app/memory.events",
                "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
            ("pod/app/cpu.max", "50000 100000\n"),
            (
                "pod/app/cpu.stat",
                "usage_usec 12\nuser_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 30\n",
            ),
            ("pod/app/pids.current", "3\n"),
            ("pod/app/pids.max", "max\n"),
            ("pod/app/pids.events", "max 5\n"),
            (
                "pod/app/memory.pressure",
                "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\n\
                 full avg10=0.25 avg60=0.00 avg300=0.00 total=9\n",
            ),
        ]);
        let words = Controllers::parse(root.path(), "").listen(b"/pod/app", 77);
        let memory = words.memory.unwrap();
        assert_eq!((memory.current_bytes, memory.limit), (1 << 20, Limit::At(2 << 20)));
        assert_eq!((memory.events_max, memory.events_oom), (Some(7), Some(2)));
        assert_eq!(memory.events_oom_kill, Some(1));
        let cpu = words.cpu.unwrap();
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled_ns), (9, 4, 30_000));
        assert_eq!((cpu.quota_ns, cpu.period_ns), (Limit::At(50_000_000), 100_000_000));
        let pids = words.pids.unwrap();
        assert_eq!((pids.current, pids.limit, pids.events_max), (3, Limit::Unlimited, Some(5)));
        assert_eq!(words.pressure.len(), 1);
        assert_eq!((words.pressure[0].some_avg10, words.pressure[0].full_avg10), (150, 25));
        assert_eq!(words.time_ns, 77);
    }

    #[test]
    fn a_cgroup_in_which_nothing_ran_is_as_before() {
        let stat = |usage: u32| format!("usage_usec {usage}\nnr_periods 9\nnr_throttled 4\n");
        let root = folder_with(&[("app/cpu.max", "max 100000\n"), ("app/cpu.stat", &stat(12))]);
        let controllers = Controllers::parse(root.path(), "");
        let before = controllers.listen(b"/app", 7);
        assert!(controllers.is_as_before(b"/app", &before));
        fs::write(root.path().join("app/cpu.stat"), stat(13)).unwrap();
        assert!(!controllers.is_as_before(b"/app", &before));
        // Who does not say whether anything ran is asked for everything.
        assert!(!controllers.is_as_before(b"/app", &Words::default()));
        let cpu = root.path().join("app/cpu").display().to_string();
        let mounts = format!("1 0 0:1 / {cpu} rw - cgroup cgroup rw,cpu\n");
        fs::create_dir_all(root.path().join("app/cpu/app")).unwrap();
        fs::write(root.path().join("app/cpu/app/cpu.stat"), "nr_periods 8\n").unwrap();
        let silent = Controllers::parse(Path::new("/nowhere"), &mounts);
        let before = silent.listen(b"/app", 7);
        assert!(before.cpu.is_some() && !silent.is_as_before(b"/app", &before));
    }

    #[test]
    fn version_1_speaks_from_a_hierarchy_for_each_controller() {
        let root = folder_with(&[
            ("memory/app/memory.usage_in_bytes", "4096\n"),
            ("memory/app/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/app/memory.failcnt", "3\n"),
            ("memory/app/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("cpu/app/cpu.stat", "nr_periods 8\nnr_throttled 2\nthrottled_time 500\n"),
            ("cpu/app/cpu.cfs_quota_us", "-1\n"),
            ("cpu/app/cpu.cfs_period_us", "100000\n"),
            ("cpuacct/app/cpuacct.usage", "99\n"),
        ]);
        let at = |name: &str| root.path().join(name).display().to_string();
        let mounts: String = ["memory", "cpu", "cpuacct"]
            .map(|name| format!("1 0 0:1 / {} rw - cgroup cgroup rw,{name}\n", at(name)))
            .concat();
        let words = Controllers::parse(Path::new("/nowhere"), &mounts).listen(b"/app", 1);
        let memory = words.memory.unwrap();
        assert_eq!((memory.current_bytes, memory.limit), (4096, Limit::Unlimited));
        assert_eq!((memory.events_max, memory.events_oom_kill), (Some(3), Some(2)));
        let cpu = words.cpu.unwrap();
        assert_eq!((cpu.usage_ns, cpu.throttled_ns), (99, 500));
        assert_eq!((cpu.quota_ns, cpu.period_ns), (Limit::Unlimited, 100_000_000));
        assert_eq!(words.pids, None);
    }

    #[test]
    fn a_folder_that_is_gone_is_silent() {
        let root = folder_with(&[]);
        assert!(Controllers::parse(root.path(), "").listen(b"/gone", 1).is_silent());
    }

    #[test]
    fn the_memory_line_goes_from_the_container_to_the_top() {
        let root = folder_with(&[("pods/pod/app/x", ""), ("pods/pod/y", "")]);
        let line = Controllers::parse(root.path(), "").memory_line(b"/pods/pod/app");
        let paths: Vec<&[u8]> = line.iter().map(|(_, path)| path.as_slice()).collect();
        assert_eq!(paths, [b"/pods/pod/app".as_slice(), b"/pods/pod", b"/pods"]);
    }
}
