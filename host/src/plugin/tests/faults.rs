//! Guests that fail: what they cost, and that it is their own.

use super::guest::{GROW, LOOP, TRAP, emit};
use super::*;

#[test]
fn the_shipped_reporter_reports_what_it_was_handed() {
    let running = Bench::new().neighbour().start();
    running.batch(&["/etc/passwd", "/b\\c"]);
    running.batch(&["/etc/passwd", "/a"]);
    running.tick(TickCause::Interval, 3);
    running.wait_for("neighbour", |status| status.documents == 1);
    running.batch(&["/later"]);
    running.tick(TickCause::Stop, 5);
    let (statuses, bench) = running.stop();
    let report = report(&bench.path("neighbour.json"));
    assert_eq!(report["pod_name"], "pod");
    let container = &report["containers"][0];
    assert_eq!(container["name"], "web");
    assert_eq!(container["cgroup_id"], "4711");
    assert_eq!(container["cgroup_path"], "/kubepods/pod1/web\\xff");
    assert_eq!(container["files"], json!(["/a", "/b\\\\c", "/etc/passwd", "/later"]));
    assert_eq!(container["total_events"], 5);
    let status = &statuses[0];
    assert_eq!(status.description.as_ref().unwrap().0, "report-json");
    assert_eq!((status.events, status.dropped, status.instance), (5, 0, 1));
    assert_eq!(status.faults, Faults::default());
    assert!(matches!(status.state, PluginState::Stopped { .. }), "{status:?}");
}

#[test]
fn a_guest_of_component_text_does_well_if_it_does_nothing() {
    let running = Bench::new().neighbour().hostile(&Hostile::new()).start();
    running.batch(&["/a"]);
    let status = running.stop_and_check_neighbour(&["/a"], 1);
    assert_eq!((status.events, status.instance, status.faults), (1, 1, Faults::default()));
}

#[test]
fn a_guest_that_loops_for_ever_is_stopped() {
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(LOOP)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.timeout == 1);
    assert!(status.last_error.unwrap().contains("took longer than its limit of 200ms"));
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).lost_with_instance, 1);
}

#[test]
fn a_guest_that_loops_in_its_start_harms_nobody() {
    let running = Bench::new()
        .neighbour()
        .hostile(&Hostile::on_start(LOOP))
        .limits(|limits| limits.call = Duration::from_millis(1))
        .start();
    running.batch(&["/a"]);
    running.wait_for("hostile", |status| {
        matches!(status.state, PluginState::Quarantined { .. }) && status.faults.timeout == 4
    });
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_guest_that_grows_for_ever_is_stopped() {
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(GROW)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.memory == 1);
    assert!(status.last_error.unwrap().contains("memory limit of 67108864 bytes"));
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).faults.trap, 0);
}

#[test]
fn a_guest_that_traps_gets_a_fresh_instance() {
    // It traps where its batch has one event, and lives on with two.
    let traps = "(if (i32.eq (local.get 1) (i32.const 1)) (then (unreachable)))";
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(traps)).start();
    running.batch(&["/a"]);
    running.batch(&["/b", "/c"]);
    running.batch(&["/d"]);
    running.batch(&["/e", "/f"]);
    let status = running.wait_for("hostile", |status| status.events == 4);
    assert_eq!((status.faults.trap, status.instance), (2, 3));
    assert_eq!(status.state, PluginState::Running);
    let files = ["/a", "/b", "/c", "/d", "/e", "/f"];
    let status = running.stop_and_check_neighbour(&files, 6);
    // The second loss took along what its instance had been handed since it started.
    assert_eq!(status.lost_with_instance, 4);
}

#[test]
fn a_guest_that_always_traps_is_quarantined_and_asked_for_nothing_again() {
    let mut running = Bench::new().neighbour().hostile(&Hostile::on_batch(TRAP)).start();
    for _ in 0..4 {
        running.batch(&["/a"]);
    }
    let status = running
        .wait_for("hostile", |status| matches!(status.state, PluginState::Quarantined { .. }));
    let PluginState::Quarantined { reason } = &status.state else { unreachable!() };
    assert!(reason.contains("lost 4 instances in a row"), "{reason}");
    assert_eq!((status.faults.trap, status.instance), (4, 4));
    assert_eq!(running.dispatcher.lost_since(), 4);
    running.batch(&["/a"]);
    running.wait_for("hostile", |status| status.dropped == 1);
    assert_eq!(running.dispatcher.lost_since(), 0);
    running.stop_and_check_neighbour(&["/a"], 5);
}

#[test]
fn a_document_of_1_gb_is_not_taken() {
    // More than its memory holds: the engine finds that out first.
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(&emit(1 << 30))).start();
    running.batch(&["/a"]);
    running.wait_for("hostile", |status| status.faults.trap + status.faults.oversized == 1);
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).documents, 0);
}

#[test]
fn a_document_far_over_the_limit_costs_the_instance() {
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(&emit(3 << 20))).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.oversized == 1);
    assert!(status.last_error.unwrap().contains("more than its limit of 1048576 bytes"));
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).documents, 0);
}

#[test]
fn a_document_over_the_limit_is_refused() {
    let code = emit((1 << 20) + 1);
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(&code)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.refused_documents == 1);
    assert_eq!(status.state, PluginState::Running);
    let status = running.stop_and_check_neighbour(&["/a"], 1);
    assert_eq!((status.documents, status.instance), (0, 1));
}

#[test]
fn a_document_for_an_unknown_output_is_refused() {
    let code =
        "(call $emit (i32.const 1040) (i32.const 7) (i32.const 0) (i32.const 1) (i32.const 64))";
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(code)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.refused_documents == 1);
    assert!(status.last_error.unwrap().contains("`nowhere`, which is not in the TOML"));
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_flood_of_log_messages_is_counted_and_left_out() {
    let flood = "
        (local.set $n (i32.const 10000))
        (loop $again
          (call $log (i32.const 4) (i32.const 1056) (i32.const 5))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    let running = Bench::new()
        .neighbour()
        .hostile(&Hostile::on_batch(flood))
        .limits(|limits| limits.call = Duration::from_secs(60))
        .start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.events == 1);
    // 20 a second pass; the flood takes far less than a minute.
    assert!((8_000..10_000).contains(&status.faults.suppressed_log), "{status:?}");
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_hung_plugin_drops_its_own_events_only() {
    let mut running = Bench::new()
        .neighbour()
        .hostile(&Hostile::on_batch(LOOP))
        .limits(|limits| limits.queue_events = 3)
        .start();
    // While it hangs in the first batch, the second fills its queue and the third finds no room.
    running.batch(&["/a"]);
    let deadline = Instant::now() + PATIENCE;
    while running.status("hostile").dropped == 0 {
        assert!(Instant::now() < deadline, "its queue never filled");
        running.batch(&["/b", "/c"]);
    }
    assert!(running.dispatcher.lost_since() >= 2);
    running.tick(TickCause::Stop, 3);
    let (_, bench) = running.stop();
    let report = report(&bench.path("neighbour.json"));
    assert_eq!(report["containers"][0]["files"], json!(["/a", "/b", "/c"]));
    assert_eq!(report["dropped_events"], 0);
}

#[test]
fn a_loss_is_told_to_the_next_instance_and_to_capture() {
    // It traps in ticks only; in a batch that tells of dropped events, it makes a document.
    let hostile = Hostile {
        on_tick: "(if (i32.eqz (i32.load8_u (i32.const 2048))) (then (unreachable)))".to_owned(),
        on_batch: format!("(if (i64.eq (local.get 6) (i64.const 3)) (then {}))", emit(6)),
        ..Hostile::new()
    };
    let mut running = Bench::new().hostile(&hostile).start();
    running.batch(&["/a", "/b", "/c"]);
    running.tick(TickCause::Interval, 3);
    let status = running.wait_for("hostile", |status| status.documents >= 1);
    assert!(status.faults.trap >= 1);
    assert_eq!(running.dispatcher.lost_since(), 3);
    running.stop();
}

#[test]
fn a_replaced_reporter_goes_on_from_its_last_document() {
    // Too little memory for many paths: the instance dies of the large batch and the next one
    // starts with what was written before.
    let running = Bench::new().neighbour().limits(|limits| limits.memory_bytes = 4 << 20).start();
    running.batch(&["/early"]);
    running.tick(TickCause::Interval, 1);
    running.wait_for("neighbour", |status| status.documents == 1);
    let many: Vec<_> = (0..60_000).map(|number| format!("/many/{number:040}")).collect();
    running.batch(&many.iter().map(String::as_str).collect::<Vec<_>>());
    running.wait_for("neighbour", |status| status.faults.memory == 1);
    running.batch(&["/late"]);
    running.tick(TickCause::Stop, 60_002);
    let (statuses, bench) = running.stop();
    assert_eq!(statuses[0].lost_with_instance, 60_000);
    let report = report(&bench.path("neighbour.json"));
    let container = &report["containers"][0];
    assert_eq!(container["files"], json!(["/early", "/late"]));
    assert_eq!(container["total_events"], 60_002);
    assert_eq!(report["reporter_restarts"], 1);
    assert_eq!(report["reporter_dropped_events"], 60_000);
    assert_eq!(container["complete"], false);
}

#[test]
fn compiled_code_is_kept_in_the_cache_folder() {
    let running = Bench::new().neighbour().start();
    let (_, bench) = running.stop();
    let files = |folder: PathBuf| fs::read_dir(folder).unwrap().count();
    assert!(files(bench.path("cache")) > 0);
}

#[test]
fn without_an_explainer_a_death_goes_on_without_a_verdict() {
    let running = Bench::new().neighbour().start();
    let deaths = running.host.deaths();
    deaths.put(death(1));
    deaths.put(death(2));
    let explained: Vec<_> = running.explained.iter().take(2).collect();
    for (number, explained) in explained.into_iter().enumerate() {
        assert_eq!(explained.death, death(number as u8 + 1));
        let reason = "no explainer answered: there is none".to_owned();
        assert_eq!(explained.explanation, Explanation::Unexplained { reason });
    }
    assert_eq!(deaths.lost(), 0);
}

/// Hands the guest a batch and a tick, waits until it has failed as it should, and checks the neighbour.
fn check(hostile: &Hostile, limits: impl FnOnce(&mut Limits), has_failed: fn(&Faults) -> bool) {
    let running = Bench::new().neighbour().hostile(hostile).limits(limits).start();
    running.batch(&["/a"]);
    running.tick(TickCause::Interval, 1);
    let status = running.wait_for("hostile", |status| has_failed(&status.faults));
    assert!(status.last_error.is_some(), "{status:?}");
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_guest_that_loops_in_any_export_is_stopped() {
    let short = |limits: &mut Limits| limits.call = Duration::from_millis(10);
    let stateful = Hostile::stateful;
    let code = || LOOP.to_owned();
    for hostile in [
        Hostile { describe: code(), ..stateful() },
        Hostile { on_start: code(), ..stateful() },
        Hostile { on_batch: code(), ..stateful() },
        Hostile { on_tick: code(), ..stateful() },
        Hostile { save: code(), ..stateful() },
        // It traps in the tick after the one that it saves in: the fresh instance restores.
        Hostile {
            restore: code(),
            on_batch: "(i32.store (i32.const 2000) (i32.const 1))".to_owned(),
            on_tick: "(if (i32.eqz (i32.load (i32.const 2000))) (then (unreachable)))
                (i32.store (i32.const 2000) (i32.const 0))"
                .to_owned(),
            ..stateful()
        },
    ] {
        let restores = !hostile.restore.is_empty();
        let running = Bench::new().neighbour().hostile(&hostile).limits(short).start();
        running.batch(&["/a"]);
        running.tick(TickCause::Interval, 1);
        if restores {
            running.wait_for("hostile", |status| status.calls >= 4);
            running.tick(TickCause::Interval, 1);
        }
        running.wait_for("hostile", |status| status.faults.timeout >= 1);
        running.stop_and_check_neighbour(&["/a"], 1);
    }
}

#[test]
fn a_guest_that_calls_itself_for_ever_is_stopped() {
    let hostile = Hostile {
        data: "(func $deep (param i32) (result i32)
            (i32.add (i32.const 1) (call $deep (local.get 0))))"
            .to_owned(),
        ..Hostile::on_batch("(drop (call $deep (i32.const 1)))")
    };
    check(&hostile, |_| {}, |faults| faults.trap >= 1);
}

#[test]
fn a_guest_that_grows_a_table_for_ever_is_stopped() {
    let hostile = Hostile {
        data: "(table $table 1 funcref)".to_owned(),
        ..Hostile::on_batch(
            "(loop $again (br_if $again (i32.ne (i32.const -1)
                (table.grow $table (ref.null func) (i32.const 65536)))))
             (unreachable)",
        )
    };
    check(&hostile, |_| {}, |faults| faults.memory >= 1);
}

#[test]
fn a_guest_that_leaks_slowly_is_replaced_when_it_is_full() {
    // A MiB more in every batch, of 64.
    let leak = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 16))) (then (unreachable)))";
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(leak)).start();
    running.batch(&["/a"]);
    let one = running.wait_for("hostile", |status| status.events == 1).memory_bytes;
    running.batch(&["/a"]);
    let two = running.wait_for("hostile", |status| status.events == 2).memory_bytes;
    assert_eq!(two - one, 1 << 20, "the status shows what it holds");
    for _ in 0..64 {
        running.batch(&["/a"]);
    }
    let status = running.wait_for("hostile", |status| status.faults.memory >= 1);
    assert!(status.memory_bytes < 64 << 20, "{status:?}");
    running.stop_and_check_neighbour(&["/a"], 66);
}

#[test]
fn a_million_documents_cost_their_author_time_and_nobody_memory() {
    let million = "(local.set $n (i32.const 1000000))
        (loop $again
          (call $emit (i32.const 1024) (i32.const 6) (i32.const 0) (i32.const 1) (i32.const 64))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    let running = Bench::new()
        .neighbour()
        .hostile(&Hostile::on_batch(million))
        .limits(|limits| limits.call = Duration::from_secs(60))
        .start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.events == 1);
    assert_eq!((status.documents, status.faults), (1_000_000, Faults::default()));
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn text_that_is_none_and_references_that_lead_nowhere_cost_the_instance() {
    let text = r#"(data (i32.const 1100) "\ff\fe")"#.to_owned();
    // Logs it; names an output by it; fails with it.
    let not_utf8 = [
        "(call $log (i32.const 0) (i32.const 1100) (i32.const 2))",
        "(call $emit (i32.const 1100) (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 64))",
        "(i32.store8 (i32.const 3000) (i32.const 1)) (i32.store (i32.const 3004) (i32.const 1100))
         (i32.store (i32.const 3008) (i32.const 2)) (return (i32.const 3000))",
    ];
    let nowhere = [
        "(call $log (i32.const 0) (i32.const 0x7fffff00) (i32.const 2))",
        "(call $log (i32.const 77) (i32.const 1056) (i32.const 5))",
        "(call $emit (i32.const 1024) (i32.const 6) (i32.const -8) (i32.const 64) (i32.const 64))",
        "(call $emit (i32.const 1040) (i32.const 7) (i32.const 0) (i32.const 1) (i32.const -4))",
        "(return (i32.const 0x7ffffff0))",
        "(return (i32.const 17))",
    ];
    for code in not_utf8.into_iter().chain(nowhere) {
        let hostile = Hostile { data: text.clone(), ..Hostile::on_batch(code) };
        check(&hostile, |_| {}, |faults| faults.trap >= 1);
    }
}
