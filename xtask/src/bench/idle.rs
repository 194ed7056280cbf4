//! What the daemon needs while nothing happens.

use std::fs;
use std::thread;
use std::time::Duration;

use whodunit_containers::{Cgroup, DaemonConfig};

use super::BenchError;
use super::files::PEERS;
use super::measure::{Bench, cpu_time, progress, resident_bytes};
use super::peer::Peer;
use super::table::Row;

const CONTAINERS: usize = 50;
const TIME: Duration = Duration::from_secs(20);

/// As in the shipped image and systemd unit.
const ALLOCATOR: &str = "glibc.malloc.trim_threshold=262144:glibc.malloc.mmap_threshold=262144";

impl Bench {
    /// The daemon with many containers in which nothing happens.
    pub(super) fn idle(&self) -> Result<Vec<Row>, BenchError> {
        progress("idle: whodunit");
        let containers: Vec<Cgroup> = (0..CONTAINERS)
            .map(|number| Cgroup::make(format!("whodunit-bench/idle/{number}")))
            .collect::<Result<_, _>>()?;
        let paths: Vec<String> = containers.iter().map(Cgroup::path).collect();
        // Three plugins with the explainer, as in the target.
        let more = "[[plugin]]\nname = \"second\"\nsource = \"builtin:report-json\"\n\
                    outputs = { report = { file = \"/dev/shm/whodunit-bench-second.json\" } }\n";
        let config = DaemonConfig::for_cgroups(&paths)?
            .binary(&self.programs.daemon)
            .interval(Duration::from_secs(30))
            .environment("GLIBC_TUNABLES", ALLOCATOR)
            .more_toml(more);
        // Compiles the plugins: what that takes stays with the allocator.
        config.start()?.stop()?;
        let running = config.start()?;
        // What a start leaves behind is not idleness.
        thread::sleep(Duration::from_secs(2));
        let before = cpu_time(running.pid())?;
        thread::sleep(TIME);
        let cpu = (cpu_time(running.pid())? - before).as_secs_f64() / TIME.as_secs_f64();
        let resident = resident_bytes(running.pid())? / 1e6;
        running.stop()?;
        let _ = fs::remove_file("/dev/shm/whodunit-bench-second.json");
        let mut memory = Row::new("idle resident memory", "MB", resident, 25.0);
        for peer in PEERS {
            progress(&format!("idle: {}", peer.name()));
            let tracing = Peer::start(peer)?;
            memory.others.push((peer.name().to_owned(), tracing.resident_bytes()? / 1e6));
        }
        memory.remark =
            format!("{CONTAINERS} containers, three plugins, the allocator set as in the image");
        let mut idle = Row::new("idle CPU", "% of a core", cpu * 100.0, 0.2);
        idle.remark = format!("{CONTAINERS} containers, {} s", TIME.as_secs());
        Ok(vec![memory, idle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_is_set_as_it_is_shipped() {
        let setting = format!("GLIBC_TUNABLES={ALLOCATOR}\n");
        assert!(include_str!("../../../deploy/Containerfile").contains(&setting));
        assert!(include_str!("../../../deploy/systemd/whodunit.service").contains(&setting));
    }
}
