//! A version beside the one that runs: what it is handed, what it costs, and how they are compared.

use super::explainers::explanations;
use super::guest::{LOOP, TRAP};
use super::swaps::counting_reporter;
use super::*;
use crate::plugin::shadow::{Compared, Promotion, ShadowError, Shadowed};

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
    fn beside(
        &self,
        name: &str,
        component: &[u8],
        promotion: Promotion,
    ) -> Result<Shadowed, ShadowError> {
        self.beside_while(name, component, (BESIDE, promotion), || {
            self.batch(&["/b"]);
            self.batch(&["/c"]);
        })
    }

    /// Runs a component beside the plugin of that name, and does something meanwhile.
    fn beside_while(
        &self,
        name: &str,
        component: &[u8],
        (time, promotion): (Duration, Promotion),
        meanwhile: impl FnOnce(),
    ) -> Result<Shadowed, ShadowError> {
        let file = self.bench.path("other.wasm");
        fs::write(&file, component).unwrap();
        thread::scope(|scope| {
            let host = &self.host;
            let beside = scope.spawn(|| host.shadow(name, &file, time, promotion));
            let runs = |it: &PluginStatus| it.name == name && it.beside.is_some();
            let begun = || host.status().iter().any(runs) || beside.is_finished();
            while !begun() {
                thread::sleep(Duration::from_millis(1));
            }
            meanwhile();
            beside.join().unwrap()
        })
    }

    fn document(&self, name: &str) -> String {
        fs::read_to_string(self.bench.path(&format!("{name}.json"))).unwrap()
    }
}

fn outputs(beside: &Shadowed) -> &[ComparedOutput] {
    match &beside.compared {
        Compared::Outputs(outputs) => outputs,
        other => panic!("a reporter makes documents: {other:?}"),
    }
}

fn judgements(beside: &Shadowed) -> &Asked<Vec<OtherJudgement>> {
    match &beside.compared {
        Compared::Judgements(asked) => asked,
        other => panic!("a filter judges: {other:?}"),
    }
}

fn compared_explanations(beside: &Shadowed) -> &Asked<OtherExplanations> {
    match &beside.compared {
        Compared::Explanations(asked) => asked,
        other => panic!("an explainer explains: {other:?}"),
    }
}

#[test]
fn the_same_beside_itself_sees_the_same_and_writes_nothing() {
    let running = running();
    let beside = running.beside("hostile", &counter(1, "").component(), Promotion::Never).unwrap();
    assert_eq!((beside.events, beside.missed, &beside.last_error), (2, 0, &None));
    let output = &outputs(&beside)[0];
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
    let beside =
        running.beside("hostile", &counter(1, more).component(), Promotion::IfSame).unwrap();
    let output = &outputs(&beside)[0];
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
    let beside = running.beside("hostile", &traps.component(), Promotion::IfSame).unwrap();
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
    let beside = running.beside("hostile", &component, Promotion::IfSame).unwrap();
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
        running.beside(name, component, Promotion::Never).unwrap_err().to_string()
    };
    assert!(refused("nobody", &component).contains("there is no plugin `nobody`"));
    assert!(
        refused("chooser", &component).contains("is a reporter, and the plugin that runs is a")
    );
    assert!(refused("hostile", b"no component").contains("is not WebAssembly"));
    assert!(refused("hostile", &Hostile::filter().component()).contains("is a filter, and"));
    // A pin in the TOML is not gone round.
    let pinned = running.beside("hostile", &component, Promotion::IfSame).unwrap();
    assert!(!pinned.promoted && pinned.refusal.unwrap().contains("`sha256` in the TOML"));
    assert_eq!(running.status("hostile").swaps, 0);
    running.stop();
}

/// A filter ahead of another, which is called `hostile`. Both go by the first letter of a name.
fn filters() -> Running {
    let filter = Hostile::filter().component();
    Bench::new().neighbour().file("first", &filter).file("hostile", &filter).start()
}

/// A filter like those which does this, too.
fn filter_that(does: &str) -> Vec<u8> {
    Hostile { on_batch: does.to_owned(), ..Hostile::filter() }.component()
}

/// Judges the first event of each batch as the verdict of that number.
fn first_is(verdict: u8) -> String {
    format!("(i32.store8 (i32.const 3145728) (i32.const {verdict}))")
}

#[test]
fn a_filter_beside_another_is_asked_the_same_and_its_judgements_have_no_effect() {
    let running = filters();
    let beside = running.beside_while(
        "hostile",
        &filter_that(&first_is(1)),
        (BESIDE, Promotion::IfSame),
        || {
            running.batch(&["/keep", "/drop", "/tag"]);
            running.batch(&["/drop", "/tagged", "/kept"]);
            running.wait_for("hostile", |status| status.events == 4);
        },
    );
    let beside = beside.unwrap();
    // What the filter ahead of them dropped, neither was asked about.
    assert_eq!((beside.events, beside.missed, &beside.last_error), (4, 0, &None));
    let asked = judgements(&beside);
    assert_eq!((asked.compared, asked.alike, asked.otherwise()), (4, 2, 2));
    assert_eq!((asked.running_silent, asked.shadow_silent), (0, 0));
    assert!(asked.running_ns > 0 && asked.shadow_ns > 0, "{asked:?}");
    let sample = |path: &str, running: &str| JudgedEvent {
        container: "web".to_owned(),
        kind: "open".to_owned(),
        path: path.to_owned(),
        running: running.to_owned(),
        shadow: "drop".to_owned(),
    };
    let other = |sample: JudgedEvent| OtherJudgement {
        running: sample.running.split(' ').next().unwrap().to_owned(),
        shadow: "drop".to_owned(),
        events: 1,
        samples: vec![sample],
    };
    let expected = vec![other(sample("/keep", "keep")), other(sample("/tagged", "tag 7"))];
    assert_eq!(asked.different, expected);
    assert_eq!(beside.refusal.as_deref(), Some("it judges 2 of 4 events otherwise"));
    assert_eq!((running.status("hostile").swaps, running.status("hostile").filtered), (0, 0));
    running.stop_and_check_neighbour(&["/keep", "/kept", "/tag", "/tagged"], 6);
}

#[test]
fn a_filter_that_judges_otherwise_takes_over_where_that_is_accepted() {
    let running = filters();
    let beside = running.beside_while(
        "hostile",
        &filter_that(&first_is(1)),
        (BESIDE, Promotion::IfSound),
        || {
            running.batch(&["/a", "/b"]);
            running.wait_for("hostile", |status| status.events == 2);
        },
    );
    let beside = beside.unwrap();
    assert!(beside.promoted, "{beside:?}");
    let status = running.status("hostile");
    assert_eq!((status.swaps, status.sha256, status.beside), (1, beside.sha256_shadow, None));
    running.batch(&["/c", "/d"]);
    running.batch(&["/e", "/f"]);
    running.wait_for("hostile", |status| status.filtered == 2);
    // The filter ahead drops `/d`.
    running.stop_and_check_neighbour(&["/a", "/b", "/f"], 6);
}

#[test]
fn a_filter_that_is_lost_beside_another_is_ended_and_costs_no_event() {
    for (does, fault) in [(TRAP, "trap"), (LOOP, "timeout")] {
        let running = filters();
        let of_three = format!("(if (i32.eq (local.get 1) (i32.const 3)) (then {does}))");
        let began = Instant::now();
        let patience = (PATIENCE, Promotion::IfSound);
        let beside = running.beside_while("hostile", &filter_that(&of_three), patience, || {
            running.batch(&["/a"]);
            running.batch(&["/b", "/c", "/f"]);
        });
        let beside = beside.unwrap();
        assert!(began.elapsed() < PATIENCE, "it is ended at once");
        assert_eq!((beside.events, beside.missed), (1, 3), "{beside:?}");
        assert_eq!(beside.faults, BTreeMap::from([(fault.to_owned(), 1)]));
        assert_eq!((judgements(&beside).compared, judgements(&beside).alike), (1, 1));
        let refusal = beside.refusal.unwrap();
        assert!(refusal.starts_with("it failed: "), "{refusal}");
        let status = running.status("hostile");
        assert_eq!((status.faults, status.instance), (Faults::default(), 1));
        assert_eq!((status.unjudged, status.beside), (0, None));
        running.stop_and_check_neighbour(&["/a", "/b", "/c", "/f"], 4);
    }
}

#[test]
fn a_filter_that_does_not_judge_beside_another_is_told_and_goes_on() {
    let running = filters();
    // One verdict too few for two events.
    let one_less = "(if (i32.eq (local.get 1) (i32.const 2)) (then (i32.store (i32.const 136) (i32.const 1))))";
    let patience = (BESIDE, Promotion::IfSound);
    let beside = running.beside_while("hostile", &filter_that(one_less), patience, || {
        running.batch(&["/a", "/b"]);
        running.batch(&["/c"]);
        running.wait_for("hostile", |status| status.events == 3);
    });
    let beside = beside.unwrap();
    let asked = judgements(&beside);
    assert_eq!((asked.compared, asked.alike, asked.shadow_silent), (1, 1, 2));
    assert_eq!((beside.events, beside.missed), (3, 0));
    assert_eq!(beside.faults, BTreeMap::from([("guest-error".to_owned(), 1)]));
    let refusal = beside.refusal.unwrap();
    assert_eq!(refusal, "it failed: it gave 1 verdicts for 2 events");
    running.stop_and_check_neighbour(&["/a", "/b", "/c"], 3);
}

/// An explainer whose verdict is the text of its memory there.
fn explainer_that_says(place: u32, length: u32) -> Hostile {
    Hostile::explainer(&format!(
        "(i32.store (i32.const 20) (i32.const {place})) (i32.store (i32.const 24) (i32.const {length}))"
    ))
}

/// The verdicts on so many deaths that happen now.
fn verdicts(running: &Running, deaths: usize) -> Vec<String> {
    let verdict = |explanation| match explanation {
        Explanation::Explained(answer) => answer.verdict,
        Explanation::Unexplained { reason } => panic!("{reason}"),
    };
    explanations(running, deaths).into_iter().map(verdict).collect()
}

#[test]
fn an_explainer_beside_another_explains_the_same_deaths_and_takes_over_where_it_is_accepted() {
    let running = Bench::new().hostile(&explainer_that_says(1024, 6)).start();
    let other = explainer_that_says(1040, 7).component();
    let patience = (BESIDE, Promotion::IfSame);
    let beside = running.beside_while("hostile", &other, patience, || {
        assert_eq!(verdicts(&running, 2), ["report", "report"]);
    });
    let beside = beside.unwrap();
    assert_eq!((beside.events, beside.missed, &beside.last_error), (2, 0, &None));
    let asked = compared_explanations(&beside);
    assert_eq!((asked.compared, asked.alike, asked.different.verdict), (2, 0, 2));
    let sample = &asked.different.samples[1];
    assert_eq!((sample.container.as_str(), sample.pid, sample.time_ns), ("web", 7, NOW.0));
    let difference = &sample.differences[..];
    assert_eq!((difference.len(), difference[0].place.as_str()), (1, "verdict"));
    assert_eq!(difference[0].shadow.as_deref(), Some("\"nowhere\""));
    assert_eq!(beside.refusal.as_deref(), Some("it explains 2 of 2 deaths otherwise"));

    let patience = (BESIDE, Promotion::IfSound);
    let beside = running.beside_while("hostile", &other, patience, || {
        assert_eq!(verdicts(&running, 1), ["report"]);
    });
    assert!(beside.unwrap().promoted);
    assert_eq!(verdicts(&running, 1), ["nowhere"]);
    assert_eq!(running.status("hostile").swaps, 1);
    running.stop();
}

#[test]
fn an_explainer_that_fails_beside_another_is_told_and_costs_no_explanation() {
    let running = Bench::new().hostile(&explainer_that_says(1024, 6)).start();
    let patience = (PATIENCE, Promotion::IfSound);
    let beside =
        running.beside_while("hostile", &Hostile::explainer(TRAP).component(), patience, || {
            assert_eq!(verdicts(&running, 1), ["report"]);
        });
    let beside = beside.unwrap();
    assert_eq!((beside.events, beside.missed, beside.promoted), (0, 1, false), "{beside:?}");
    assert_eq!(beside.faults, BTreeMap::from([("trap".to_owned(), 1)]));
    assert_eq!(running.status("hostile").faults, Faults::default());
    running.stop();
}

/// What ends it early, whatever it runs beside.
#[track_caller]
fn check_ended(bench: fn() -> Bench, component: &[u8]) {
    type End = fn(&Running);
    let ends: [(End, &str); 3] = [
        (|running| drop(running.host.reload("hostile").unwrap()), "took the place of the one"),
        (|running| drop(running.host.apply(&[]).unwrap()), "there is no plugin `hostile`"),
        (|running| drop(running.host.stop(PATIENCE)), "the daemon stops"),
    ];
    for (end, sentence) in ends {
        let running = bench().start();
        let began = Instant::now();
        let time = (PATIENCE, Promotion::IfSound);
        let ended = running.beside_while("hostile", component, time, || end(&running));
        let said = ended.unwrap_err().to_string();
        assert!(said.contains(sentence), "{said}");
        assert!(began.elapsed() < PATIENCE, "{said}");
        running.stop();
    }
}

#[test]
fn it_ends_with_what_it_runs_beside() {
    check_ended(
        || Bench::new().file("hostile", &counter(0, "").component()),
        &counter(1, "").component(),
    );
    let filter = Hostile::filter().component();
    check_ended(|| Bench::new().hostile(&Hostile::filter()), &filter);
    let explainer = explainer_that_says(1024, 6).component();
    check_ended(|| Bench::new().hostile(&explainer_that_says(1024, 6)), &explainer);
}

#[test]
fn one_at_a_time_runs_beside_a_plugin() {
    for (bench, component) in [
        (Bench::new().hostile(&Hostile::filter()), Hostile::filter().component()),
        (Bench::new().file("hostile", &counter(0, "").component()), counter(1, "").component()),
    ] {
        let running = bench.start();
        let file = running.bench.path("second.wasm");
        fs::write(&file, &component).unwrap();
        let time = (BESIDE, Promotion::Never);
        let first = running.beside_while("hostile", &component, time, || {
            let second = running.host.shadow("hostile", &file, BESIDE, Promotion::Never);
            let sentence = second.unwrap_err().to_string();
            assert!(sentence.ends_with("another version runs beside it already"), "{sentence}");
        });
        first.unwrap();
        running.stop();
    }
}
