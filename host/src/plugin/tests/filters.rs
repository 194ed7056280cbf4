//! Filters: what they keep, drop and tag, and what becomes of events that they do not judge.

use super::guest::{GROW, LOOP, TRAP};
use super::*;
use crate::config::OnFailure;

/// A reporter that makes a document of the attributes of each batch, as the contract lays them out.
fn attributes_reporter() -> Hostile {
    let code = "(call $emit (i32.const 1024) (i32.const 6)
        (local.get 2) (i32.mul (local.get 3) (i32.const 16)) (i32.const 64))";
    Hostile::on_batch(code)
}

#[test]
fn a_filter_drops_keeps_and_tags_and_the_reporter_sees_it() {
    let (documents, tap) = std::sync::mpsc::channel();
    let running = Bench::new()
        .neighbour()
        .file("chooser", &Hostile::filter().component())
        .file("watcher", &attributes_reporter().component())
        .start_with_tap(documents);
    running.batch(&["/keep", "/drop", "/tag", "/keep"]);
    running.tick(TickCause::Stop, 4);
    let (statuses, bench) = running.stop();
    let report = report(&bench.path("neighbour.json"));
    assert_eq!(report["containers"][0]["files"], json!(["/keep", "/tag"]));
    let counters = &report["containers"][0]["counters"];
    let counted = ["received", "admitted", "filtered", "duplicate"].map(|name| &counters[name]);
    assert_eq!(counted, [&json!(4), &json!(2), &json!(1), &json!(1)], "{report:#}");
    let chooser = statuses.iter().find(|status| status.name == "chooser").unwrap();
    assert_eq!(chooser.role, Role::Filter);
    assert_eq!((chooser.events, chooser.filtered, chooser.unjudged), (4, 1, 0));
    let of_watcher = tap.try_iter().find(|(sink, _)| sink.plugin() == "watcher").unwrap().1;
    // One attribute: its key, and 8 bytes further its value.
    let key = u16::from_le_bytes(of_watcher[0..2].try_into().unwrap());
    let value = u64::from_le_bytes(of_watcher[8..16].try_into().unwrap());
    assert_eq!((of_watcher.len(), key, value), (16, AttributeKey::Tag.code(), 7));
}

#[test]
fn filters_are_asked_one_after_the_other_about_what_the_ones_before_kept() {
    let filter = Hostile::filter().component();
    let running = Bench::new()
        .neighbour()
        .file("first", &filter)
        .file("second", &filter)
        .change(|plugin| plugin.events = vec!["exec".to_owned()])
        .file("hostile", &filter)
        .start();
    running.batch(&["/drop", "/keep", "/tag"]);
    let third = running.wait_for("hostile", |status| status.events > 0);
    assert_eq!((third.events, third.filtered), (2, 0), "what the first dropped is not asked about");
    assert_eq!(running.status("second").calls, 2, "it was started, and nothing else");
    running.stop_and_check_neighbour(&["/keep", "/tag"], 3);
}

/// Breaks a filter in its first call and says what the neighbour gets of the batch.
fn files_behind_a_broken_filter(code: &str, on_failure: OnFailure) -> (Value, PluginStatus) {
    let broken = Hostile { on_batch: code.to_owned(), ..Hostile::filter() };
    let running = Bench::new()
        .neighbour()
        .file("hostile", &broken.component())
        .change(|plugin| plugin.on_failure = on_failure)
        .start();
    running.batch(&["/a", "/b"]);
    running.wait_for("hostile", |status| status.unjudged == 2);
    running.tick(TickCause::Stop, 2);
    let status = running.status("hostile");
    let (_, bench) = running.stop();
    (report(&bench.path("neighbour.json")), status)
}

#[test]
fn a_filter_that_fails_open_lets_through_and_one_that_fails_closed_does_not() {
    for code in [LOOP, TRAP, GROW] {
        let (report, status) = files_behind_a_broken_filter(code, OnFailure::Open);
        assert_eq!(report["containers"][0]["files"], json!(["/a", "/b"]));
        let faults = status.faults;
        assert_eq!(faults.trap + faults.timeout + faults.memory, 1, "{faults:?}");
        let (report, _) = files_behind_a_broken_filter(code, OnFailure::Closed);
        assert_eq!(report["containers"][0]["files"], json!([]));
        assert_eq!(report["containers"][0]["complete"], json!(false), "{report:#}");
        assert_eq!(report["containers"][0]["lost"]["filter-failed"], json!(2), "{report:#}");
    }
}

#[test]
fn a_wrong_number_of_verdicts_is_no_judgement_and_costs_no_instance() {
    let one_less = "(i32.store (i32.const 136) (i32.sub (local.get 1) (i32.const 1)))";
    let (report, status) = files_behind_a_broken_filter(one_less, OnFailure::Open);
    assert_eq!(report["containers"][0]["files"], json!(["/a", "/b"]));
    assert_eq!((status.faults.guest_error, status.instance), (1, 1));
    assert!(status.last_error.unwrap().contains("gave 1 verdicts for 2 events"));
}

#[test]
fn a_verdict_that_is_none_costs_the_instance() {
    let garbage = "(i32.store8 (i32.const 3145728) (i32.const 9))";
    let (_, status) = files_behind_a_broken_filter(garbage, OnFailure::Open);
    assert_eq!(status.faults.trap, 1, "{status:?}");
    let outside = "(i32.store (i32.const 132) (i32.const 0x7ffffff0))";
    let (_, status) = files_behind_a_broken_filter(outside, OnFailure::Open);
    assert_eq!(status.faults.trap, 1, "{status:?}");
}

#[test]
fn repeats_are_dropped_and_counted_behind_the_filters() {
    let running = Bench::new().neighbour().file("chooser", &Hostile::filter().component()).start();
    assert!(running.dispatcher.has_filters());
    running.batch(&["/keep", "/keep", "/drop"]);
    running.batch(&["/keep"]);
    running.wait_for("neighbour", |status| status.events == 1);
    running.dispatcher.forget_repeats();
    running.batch(&["/keep"]);
    running.wait_for("neighbour", |status| status.events == 2);
    running.stop();
}
