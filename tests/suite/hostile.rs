//! Hostile guests: whatever one of them does, the other plugin's report stays exact, and the daemon
//! ends in order.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use whodunit_containers::{DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::guests::{Guest, OK, QUIET};
use crate::report::{execs, expect, expect_eq, last_report};
use crate::{Outcome, machine, needing};

/// A gibibyte in pages of 64 KiB, and room for the rest.
const PAGES_OF_1_GB: u32 = (1 << 30 >> 16) + 16;

const FOR_EVER: &str = "(loop $again (br $again)) (unreachable)";

const TRAP: &str = "(unreachable)";

/// Grows by 1 MiB and writes to all of it, until it is refused; 4 GiB at most.
const GROW: &str = r#"
    (block $refused
      (loop $again
        (br_if $refused (i32.eq (i32.const -1) (memory.grow (i32.const 16))))
        (memory.fill
          (i32.mul (i32.sub (memory.size) (i32.const 16)) (i32.const 65536))
          (i32.const 1) (i32.const 1048576))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $count) (i32.const 4096)))))
    (i32.const 1024)"#;

/// A document of 1 GiB, which it really has.
const EMIT_1_GB: &str = r#"
    (call $emit (i32.const 32) (i32.const 6) (i32.const 65536) (i32.const 1073741824)
      (i32.const 2048))
    (i32.const 1024)"#;

/// An error text of 1 GiB, which it really has.
const FAIL_WITH_1_GB: &str = r#"
    (i32.store8 (i32.const 4096) (i32.const 1))
    (i32.store (i32.const 4100) (i32.const 65536))
    (i32.store (i32.const 4104) (i32.const 1073741824))
    (i32.const 4096)"#;

/// A document of 1 GiB that lies outside its memory.
const EMIT_WHAT_IT_HAS_NOT: &str = r#"
    (call $emit (i32.const 32) (i32.const 6) (i32.const 65536) (i32.const 1073741824)
      (i32.const 2048))
    (i32.const 1024)"#;

/// A million messages of 4 KiB.
const FLOOD: &str = r#"
    (memory.fill (i32.const 8192) (i32.const 120) (i32.const 4096))
    (loop $again
      (call $log (i32.const 0) (i32.const 8192) (i32.const 4096))
      (local.set $count (i32.add (local.get $count) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $count) (i32.const 1000000))))
    (i32.const 1024)"#;

/// What the daemon may have written to its log at most, whatever a guest says: the guest's 20
/// messages of 4 KiB a second for as long as a trial takes, and its own.
const LOG_BYTES_AT_MOST: usize = 8 << 20;

/// What the daemon may have held in memory at most, in KiB: its own, one guest of 1 GiB where that
/// is allowed, and no copy of it.
const MEMORY_KIB_AT_MOST: u64 = 512 << 10;

struct Kind {
    name: &'static str,
    guest: Guest,
    limits: &'static str,
    /// Whether the guest loses its instance, so that the log has to say so.
    lost: bool,
}

fn kinds() -> Vec<Kind> {
    let small = "memory = \"32MiB\"\ncall = \"200ms\"";
    let roomy = "memory = \"2GiB\"\noutput = \"64MiB\"\ncall = \"200ms\"";
    let kind = |name, pages, on_batch, on_tick, limits, lost| Kind {
        name,
        guest: Guest { pages, on_batch, on_tick },
        limits,
        lost,
    };
    vec![
        kind("loops_for_ever_on_a_batch", 1, FOR_EVER, OK, small, true),
        kind("loops_for_ever_on_a_tick", 1, OK, FOR_EVER, small, true),
        kind("grows_its_memory", 1, GROW, OK, small, false),
        kind("traps_on_a_batch", 1, TRAP, OK, small, true),
        kind("traps_on_a_tick", 1, OK, TRAP, small, true),
        kind("emits_a_document_of_1_gb", PAGES_OF_1_GB, OK, EMIT_1_GB, roomy, false),
        kind("fails_with_a_text_of_1_gb", PAGES_OF_1_GB, FAIL_WITH_1_GB, OK, roomy, true),
        kind("emits_memory_that_it_does_not_have", 1, OK, EMIT_WHAT_IT_HAS_NOT, small, true),
        kind("floods_the_log", 1, FLOOD, OK, small, false),
    ]
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = kinds()
        .into_iter()
        .map(|kind| {
            needing(
                format!("hostile::a_guest_that_{}_harms_nobody", kind.name),
                machine::lacks_for_capture,
                move || contained(&kind),
            )
        })
        .collect();
    trials.push(needing(
        "hostile::a_quiet_guest_is_taken_and_loses_nothing",
        machine::lacks_for_capture,
        quiet_guest,
    ));
    trials.push(Trial::test("hostile::every_guest_is_a_component", || {
        for kind in kinds() {
            kind.guest
                .component()
                .map_err(|error| format!("{}: {:?}", kind.name, error.message()))?;
        }
        Ok(())
    }));
    trials
}

fn config_with(pod: &Pod, guest: &Guest, limits: &str) -> Result<DaemonConfig, Failed> {
    let config = DaemonConfig::for_pod(pod)?;
    let component = config.folder().join("hostile.wasm");
    fs::write(&component, guest.component()?)?;
    let output = config.folder().join("out/hostile.json");
    Ok(config.more_toml(&format!(
        "[[plugin]]\nname = \"hostile\"\nsource = '{}'\n\
         [plugin.outputs]\nreport = {{ file = '{}' }}\n[plugin.limits]\n{limits}",
        component.display(),
        output.display()
    )))
}

fn contained(kind: &Kind) -> Outcome {
    let pod = Pod::new("hostile")?;
    let app = pod.container("app").file("/etc/a", "", 0o644).file("/etc/b", "", 0o644);
    let mut app = worker(app, "cat /etc/a; echo first; read go; cat /etc/a /etc/b").start()?;
    let config = config_with(&pod, &kind.guest, kind.limits)?;
    let mut daemon = config.start()?;
    app.tell("go")?;
    app.hear("first")?;
    // Long enough for several ticks, and for the guest to have had its batch.
    let mut updates = std::collections::BTreeSet::new();
    daemon.wait_report("ten updates while the guest does its worst", |report| {
        updates.insert(report["last_updated_at"].to_string());
        updates.len() >= 10
    })?;
    if kind.lost {
        daemon.await_log("that the guest lost its instance", |entry| {
            let level = entry["level"].as_str();
            matches!(level, Some("WARN" | "ERROR")) && entry.to_string().contains("hostile")
        })?;
    }
    let_work(&mut app)?;
    let memory_kib = peak_memory_kib(daemon.pid())?;
    let log_bytes = daemon.stderr().len();
    let asked = Instant::now();
    let report = last_report(&config, daemon)?;
    let took = asked.elapsed();

    expect(format!("it ends soon: {took:?}"), took < Duration::from_secs(10))?;
    expect(format!("its log stays small: {log_bytes} bytes"), log_bytes < LOG_BYTES_AT_MOST)?;
    expect(format!("its memory stays small: {memory_kib} KiB"), memory_kib < MEMORY_KIB_AT_MOST)?;
    report.expect_running(&[&app])?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/a", "/etc/b"])?;
    entry.expect_events(3 + execs(2))?;
    entry.expect_nothing_lost()?;
    expect_eq("dropped_events", &report.number("dropped_events"), &0)?;
    expect_eq("reporter_restarts", &report.number("reporter_restarts"), &0)?;
    expect("the refused document is not there", !config.folder().join("out/hostile.json").exists())
}

/// The most that a process ever had in memory, from the kernel.
fn peak_memory_kib(pid: u32) -> Result<u64, Failed> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse().ok());
    kib.ok_or_else(|| Failed::from("the kernel does not say how much memory the daemon had"))
}

/// The control: what makes the others lose their instances is what they do, not what they are.
fn quiet_guest() -> Outcome {
    let pod = Pod::new("quiet-guest")?;
    let app = pod.container("app").file("/etc/a", "", 0o644);
    let mut app = worker(app, "cat /etc/a").start()?;
    let config = config_with(&pod, &QUIET, "call = \"200ms\"")?;
    let daemon = config.start()?;
    let_work(&mut app)?;
    let stderr_before_the_end = daemon.stderr();
    let report = last_report(&config, daemon)?;
    expect(
        format!("nobody complains of the guest: {stderr_before_the_end}"),
        !stderr_before_the_end.lines().any(|line| {
            line.contains("hostile") && (line.contains("WARN") || line.contains("ERROR"))
        }),
    )?;
    report.container(&app)?.expect_files(&["/bin/busybox", "/etc/a"])
}
