//! A version beside the one that runs: what it is handed, what it costs, and how they are compared.

use super::guest::TRAP;
use super::swaps::counting_reporter;
use super::*;
use crate::plugin::shadow::{ShadowError, Shadowed};

/// Long enough for a busy machine to hand over a few batches meanwhile.
const BESIDE: Duration = Duration::from_millis(500);

/// A reporter that counts events and says in each tick how many they were, and `more`.
fn counter(version: u32, more: &str) -> Hostile {
    let mut hostile = counting_reporter(version);
    hostile.on_batch =
        "(i32.store (i32.const 2000) (i32.add (i32.load (i32.const 2000)) (local.get 1)))"
            .to_owned();
    hostile.on_tick = format!(
        "{more}
        (i32.store8 (i32.const 2100) (i32.add (i32.const 48) (i32.load (i32.const 2000))))
        (call $emit (i32.const 1024) (i32.const 6) (i32.const 2100) (i32.const 1) (i32.const 64))"
    );
    hostile
}

fn running() -> Running {
    let component = counter(0, "").component();
    let running = Bench::new().neighbour().file("hostile", &component).start();
    running.batch(&["/a"]);
    running.tick(TickCause::Interval, 1);
    running.wait_for("hostile", |status| status.documents == 1);
    running
}

impl Running {
    /// Runs a component beside the plugin of that name while two events come.
    fn beside(&self, name: &str, component: &[u8], promote: bool) -> Result<Shadowed, ShadowError> {
        let file = self.bench.path("other.wasm");
        fs::write(&file, component).unwrap();
        thread::scope(|scope| {
            let host = &self.host;
            let beside = scope.spawn(|| host.shadow(name, &file, BESIDE, promote));
            let runs = |it: &PluginStatus| it.name == name && it.beside.is_some();
            let begun = || host.status().iter().any(runs) || beside.is_finished();
            while !begun() {
                thread::sleep(Duration::from_millis(1));
            }
            self.batch(&["/b"]);
            self.batch(&["/c"]);
            beside.join().unwrap()
        })
    }

    fn document(&self, name: &str) -> String {
        fs::read_to_string(self.bench.path(&format!("{name}.json"))).unwrap()
    }
}

#[test]
fn the_same_beside_itself_sees_the_same_and_writes_nothing() {
    let running = running();
    let beside = running.beside("hostile", &counter(1, "").component(), false).unwrap();
    assert_eq!((beside.events, beside.missed, beside.last_error), (2, 0, None));
    let output = &beside.outputs[0];
    assert_eq!((output.output.as_str(), output.same), ("report", true), "{output:?}");
    assert_eq!((output.running, output.shadow, output.differences.len()), (1, 1, 0));
    assert_ne!(beside.sha256_running, beside.sha256_shadow);
    let status = running.status("hostile");
    assert_eq!((status.swaps, status.instance, status.beside), (0, 1, None));
    // What it was handed at the start, and with the totals at the end.
    assert_eq!((status.documents, status.events), (2, 3));
    running.stop_and_check_neighbour(&["/a", "/b", "/c"], 3);
}

#[test]
fn what_it_makes_otherwise_is_shown_and_goes_nowhere() {
    let running = running();
    // One event more than there were.
    let more = "(i32.store (i32.const 2000) (i32.add (i32.load (i32.const 2000)) (i32.const 1)))";
    let beside = running.beside("hostile", &counter(1, more).component(), true).unwrap();
    let output = &beside.outputs[0];
    assert!(!output.same);
    let difference = &output.differences[0];
    assert_eq!(difference.running.as_deref(), Some("3"));
    assert_eq!(difference.shadow.as_deref(), Some("4"));
    assert!(!beside.promoted);
    assert!(beside.refusal.unwrap().contains("`report` is not the same"));
    assert_eq!(running.status("hostile").swaps, 0);
    running.tick(TickCause::Interval, 3);
    running.wait_for("hostile", |status| status.documents == 3);
    let bench = running.bench.folder.path().to_owned();
    let document = || fs::read_to_string(bench.join("hostile.json")).unwrap_or_default();
    let begin = Instant::now();
    while document() != "3" && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(running.document("hostile"), "3");
    running.stop_and_check_neighbour(&["/a", "/b", "/c"], 3);
}

#[test]
fn its_faults_are_its_own() {
    let running = running();
    let mut traps = counter(1, "");
    // Not in what it is tried with, but in the second event that comes.
    traps.on_batch.push_str(&format!(
        "(if (i32.eq (i32.load (i32.const 2000)) (i32.const 3)) (then {TRAP}))"
    ));
    let beside = running.beside("hostile", &traps.component(), true).unwrap();
    assert_eq!(beside.faults.get("trap"), Some(&1), "{beside:?}");
    assert!(!beside.promoted && beside.refusal.unwrap().contains("it failed: it trapped"));
    let status = running.status("hostile");
    assert_eq!(
        (status.faults, status.instance, status.lost_with_instance),
        (Faults::default(), 1, 0)
    );
    running.stop_and_check_neighbour(&["/a", "/b", "/c"], 3);
}

#[test]
fn one_that_does_as_well_takes_over_where_it_is_told_to_until_the_list_says_otherwise() {
    let running = running();
    let component = counter(1, "").component();
    let beside = running.beside("hostile", &component, true).unwrap();
    assert!(beside.promoted, "{beside:?}");
    let status = running.status("hostile");
    assert_eq!((status.swaps, status.sha256.clone()), (1, beside.sha256_shadow));
    assert!(status.source.ends_with("other.wasm"));
    // Its file is put where the list has it: nothing is swapped, and that is where it comes from.
    let listed = running.bench.plugins[1].clone();
    fs::rename(running.bench.path("other.wasm"), running.bench.path("hostile.wasm")).unwrap();
    assert_eq!(running.host.reload_if_changed(&listed).unwrap(), None);
    assert!(running.status("hostile").source.ends_with("hostile.wasm"));
    running.host.reload("hostile").unwrap();
    running.stop_and_check_neighbour(&["/a", "/b", "/c"], 3);
}

#[test]
fn what_cannot_be_compared_is_refused_and_changes_nothing() {
    let component = counter(1, "").component();
    let running = Bench::new()
        .neighbour()
        .file("chooser", &Hostile::filter().component())
        .file("hostile", &counter(0, "").component())
        .change(|plugin| plugin.sha256 = Some(load::sha256_of(&counter(0, "").component())))
        .start();
    let refused = |name: &str, component: &[u8]| {
        running.beside(name, component, false).unwrap_err().to_string()
    };
    assert!(refused("nobody", &component).contains("there is no plugin `nobody`"));
    assert!(refused("chooser", &component).contains("is a filter: only what a reporter makes"));
    assert!(refused("hostile", b"no component").contains("is not WebAssembly"));
    assert!(refused("hostile", &Hostile::filter().component()).contains("is a filter, and"));
    // A pin in the TOML is not gone round.
    let pinned = running.beside("hostile", &component, true).unwrap();
    assert!(!pinned.promoted && pinned.refusal.unwrap().contains("`sha256` in the TOML"));
    assert_eq!(running.status("hostile").swaps, 0);
    running.stop();
}
