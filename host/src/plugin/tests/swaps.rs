//! Another version in the place of the one that runs: what is handed over, and what is not taken.

use std::sync::atomic::{AtomicBool, Ordering};

use super::guest::{GROW, LOOP, TRAP};
use super::*;
use crate::control::reload::reload;

/// Size of an event in the contract's flat shape.
const EVENT_BYTES: usize = 56;

/// A reporter that counts events in its state, makes a document of the events of each batch, and one of
/// its count in each tick. Versions differ in their bytes only.
pub(super) fn counting_reporter(version: u32) -> Hostile {
    let count = "(i32.store (i32.const 2000) (i32.add (i32.load (i32.const 2000)) (local.get 1)))
        (call $emit (i32.const 1024) (i32.const 6)
          (local.get 0) (i32.mul (local.get 1) (i32.const 56)) (i32.const 64))";
    let emit_count = "(call $emit (i32.const 1024) (i32.const 6)
        (i32.const 2000) (i32.const 4) (i32.const 64))";
    Hostile {
        on_batch: count.to_owned(),
        on_tick: emit_count.to_owned(),
        save: "(i32.store (i32.const 164) (i32.const 2000))
            (i32.store (i32.const 168) (i32.const 4))"
            .to_owned(),
        restore: "(i32.store (i32.const 2000) (i32.load (local.get 0)))".to_owned(),
        data: format!("(data (i32.const 4000) \"version {version}\")"),
        ..Hostile::stateful()
    }
}

/// A batch of so many opens whose sequence numbers begin with `first`.
fn numbered(first: u64, events: u64) -> Batch {
    let mut batch = opens(&vec!["/some/path"; events as usize]);
    for (number, event) in batch.events.iter_mut().enumerate() {
        event.sequence = first + number as u64;
    }
    batch
}

impl Running {
    fn put(&self, name: &str, component: &[u8]) {
        fs::write(self.bench.path(&format!("{name}.wasm")), component).unwrap();
    }

    /// The sentence with which a version is not taken. The one that runs goes on, and the status says
    /// why.
    fn refuses(&self, name: &str, component: &[u8]) -> String {
        let before = self.status(name);
        self.put(name, component);
        let sentence = self.host.reload(name).expect_err("it is not taken").to_string();
        let after = self.status(name);
        assert_eq!(after.failed_swaps, before.failed_swaps + 1);
        assert_eq!(after.last_swap.unwrap().failure.as_ref(), Some(&sentence));
        assert_eq!(after.sha256, before.sha256);
        assert_eq!((after.state, after.instance), (PluginState::Running, before.instance));
        sentence
    }
}

#[test]
fn two_hundred_swaps_in_a_row_lose_no_event_and_double_none() {
    const BATCH: u64 = 512;
    const PER_SECOND: u64 = 200_000;
    const MOST_WAITING: u64 = 32_768;
    let (documents, tap) = std::sync::mpsc::channel();
    let running = Bench::new()
        .file("swapped", &counting_reporter(0).component())
        .limits(|limits| {
            limits.queue_events = 1 << 16;
            limits.call = Duration::from_secs(60);
        })
        .start_with_tap(documents);
    let versions = [counting_reporter(0).component(), counting_reporter(1).component()];
    let engines = Arc::strong_count(&running.host.engine);
    let swapping = AtomicBool::new(true);
    // What the versions emitted, looked at as it comes.
    let checker = thread::spawn(move || {
        let mut expected = 1;
        for (_, document) in tap {
            if document.len() < EVENT_BYTES {
                // The count, of the one tick.
                let count = u32::from_le_bytes(document[..4].try_into().unwrap());
                return (expected - 1, count);
            }
            for event in document.chunks_exact(EVENT_BYTES) {
                let sequence = u64::from_le_bytes(event[..8].try_into().unwrap());
                assert_eq!(sequence, expected, "lost, doubled, or out of order");
                expected += 1;
            }
        }
        panic!("there was no tick")
    });
    let (sent, longest) = thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let dispatcher = running.host.dispatcher();
            let begin = Instant::now();
            let (mut sent, mut longest) = (0, Duration::ZERO);
            while swapping.load(Ordering::Relaxed) {
                let due = begin + Duration::from_nanos(sent * 1_000_000_000 / PER_SECOND);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // Where the machine gives the plugin less than that, it is waited for.
                while running.host.status()[0].queue_events > MOST_WAITING {
                    thread::sleep(Duration::from_millis(1));
                }
                let batch = Arc::new(numbered(sent + 1, BATCH));
                let handed = Instant::now();
                dispatcher.batch(batch);
                longest = longest.max(handed.elapsed());
                sent += BATCH;
            }
            (sent, longest)
        });
        let reports = (1..=200).map(|number| {
            running.put("swapped", &versions[number % 2]);
            running.host.reload("swapped")
        });
        let reports: Vec<_> = reports.collect();
        // Whatever became of them: the producer has to end.
        swapping.store(false, Ordering::Relaxed);
        let reports: Vec<_> = reports.into_iter().map(Result::unwrap).collect();
        assert!(reports.iter().all(|report| report.sha256_before != report.sha256_after));
        let longest_switch = reports.iter().map(|report| report.switch).max();
        let longest_swap = reports.iter().map(|report| report.took).max();
        eprintln!("the longest switch took {longest_switch:?}, the longest swap {longest_swap:?}");
        producer.join().unwrap()
    });
    eprintln!("{sent} events, and the longest hand-over of a batch took {longest:?}");
    running.tick(TickCause::Stop, sent);
    running.wait_for("swapped", |status| status.events == sent && status.queue_events == 0);
    // Whatever a version was made of is gone with it.
    assert_eq!(Arc::strong_count(&running.host.engine), engines);
    let (statuses, _) = running.stop();
    let status = &statuses[0];
    assert_eq!((status.swaps, status.failed_swaps, status.instance), (200, 0, 201));
    assert_eq!((status.dropped, status.lost_with_instance), (0, 0));
    assert_eq!(status.faults, Faults::default());
    assert_eq!(checker.join().unwrap(), (sent, sent as u32), "each exactly once, in order");
}

#[test]
fn a_version_that_does_not_do_well_is_not_taken_and_the_old_one_goes_on() {
    let good = counting_reporter(0);
    let running = Bench::new()
        .neighbour()
        .file("hostile", &good.component())
        .limits(|limits| limits.call = Duration::from_millis(100))
        .start();
    running.batch(&["/a", "/b"]);
    running.tick(TickCause::Interval, 2);
    running.wait_for("hostile", |status| status.documents == 2);
    let check = |component: &[u8], words: &str| {
        let sentence = running.refuses("hostile", component);
        assert!(sentence.contains(words), "{words:?} in: {sentence}");
    };
    let broken = |change: &dyn Fn(&mut Hostile)| {
        let mut hostile = good.clone();
        change(&mut hostile);
        hostile.component()
    };
    let whole = good.component();
    check(b"not WebAssembly at all", "is not WebAssembly");
    check(&whole[..whole.len() / 2], "damaged");
    check(b"", "is not WebAssembly");
    check(&wat::parse_str("(module)").unwrap(), "core module");
    check(&Hostile::filter().component(), "is a filter, and the plugin that runs is a reporter");
    check(&broken(&|it| it.on_start = LOOP.to_owned()), "took longer than its limit of 1s");
    check(&broken(&|it| it.on_start = TRAP.to_owned()), "it trapped");
    check(&broken(&|it| it.on_batch = TRAP.to_owned()), "it trapped");
    check(&broken(&|it| it.on_batch = LOOP.to_owned()), "took longer than its limit of 100ms");
    check(&broken(&|it| it.on_tick = GROW.to_owned()), "memory limit");
    check(&broken(&|it| it.restore = TRAP.to_owned()), "it trapped");
    check(&broken(&|it| it.restore = LOOP.to_owned()), "took longer than its limit of 100ms");
    // `err` of an empty sentence.
    let refusal = "(i32.store8 (i32.const 16) (i32.const 1))";
    check(&broken(&|it| it.restore = refusal.to_owned()), "does not take its state");
    check(&broken(&|it| it.on_batch = refusal.to_owned()), "`on-batch` failed");
    fs::remove_file(running.bench.path("hostile.wasm")).unwrap();
    let sentence = running.host.reload("hostile").unwrap_err().to_string();
    assert!(sentence.contains("does not exist"), "{sentence}");

    running.put("hostile", &counting_reporter(1).component());
    running.host.reload("hostile").unwrap();
    running.batch(&["/c"]);
    let status = running.wait_for("hostile", |status| status.events == 3);
    assert_eq!((status.swaps, status.last_swap.unwrap().failure), (1, None));
    assert_eq!((status.lost_with_instance, status.faults), (0, Faults::default()));
    running.stop_and_check_neighbour(&["/a", "/b", "/c"], 3);
}

#[test]
fn a_plugin_without_state_hands_over_by_its_documents() {
    let running = Bench::new().neighbour().start();
    running.batch(&["/a"]);
    running.tick(TickCause::Interval, 1);
    running.batch(&["/b"]);
    running.wait_for("neighbour", |status| status.events == 2);
    running.host.reload("neighbour").unwrap();
    running.batch(&["/c"]);
    running.tick(TickCause::Stop, 3);
    let (statuses, bench) = running.stop();
    assert_eq!((statuses[0].swaps, statuses[0].lost_with_instance), (1, 0));
    let report = report(&bench.path("neighbour.json"));
    assert_eq!(report["containers"][0]["files"], json!(["/a", "/b", "/c"]));
}

#[test]
fn a_plugin_without_state_loses_nothing_where_it_is_swapped_before_its_first_tick() {
    let running = Bench::new().neighbour().start();
    running.batch(&["/a"]);
    running.wait_for("neighbour", |status| status.events == 1);
    running.host.reload("neighbour").unwrap();
    running.batch(&["/b"]);
    running.tick(TickCause::Stop, 2);
    let (statuses, bench) = running.stop();
    assert_eq!((statuses[0].swaps, statuses[0].lost_with_instance), (1, 0));
    let report = report(&bench.path("neighbour.json"));
    assert_eq!(report["containers"][0]["files"], json!(["/a", "/b"]));
    assert_eq!(report["dropped_events"], json!(0));
}

#[test]
fn a_fresh_instance_goes_on_from_what_was_saved_last() {
    // It traps in a batch of three, and says what it counted in every tick.
    let mut hostile = counting_reporter(0);
    hostile.on_batch.push_str("(if (i32.eq (local.get 1) (i32.const 3)) (then (unreachable)))");
    let (documents, tap) = std::sync::mpsc::channel();
    let running = Bench::new().file("hostile", &hostile.component()).start_with_tap(documents);
    running.batch(&["/a", "/b"]);
    running.tick(TickCause::Interval, 2);
    running.batch(&["/c", "/d", "/e"]);
    running.batch(&["/f"]);
    running.tick(TickCause::Stop, 6);
    let (statuses, _) = running.stop();
    assert_eq!((statuses[0].faults.trap, statuses[0].lost_with_instance), (1, 3));
    let counts = tap.try_iter().filter(|(_, document)| document.len() == 4);
    let counts: Vec<u8> = counts.map(|(_, document)| document[0]).collect();
    assert_eq!(counts, [2, 3], "the first two and the last one");
}

#[test]
fn a_reload_lifts_a_quarantine() {
    let mut running = Bench::new().neighbour().hostile(&Hostile::on_batch(TRAP)).start();
    for _ in 0..4 {
        running.batch(&["/a"]);
    }
    let quarantined =
        |status: &PluginStatus| matches!(status.state, PluginState::Quarantined { .. });
    running.wait_for("hostile", quarantined);
    running.batch(&["/a", "/b"]);
    running.dispatcher.lost_since();
    // The same again does no better with what it was handed last.
    let sentence = running.host.reload("hostile").unwrap_err().to_string();
    assert!(sentence.contains("it trapped"), "{sentence}");
    assert!(quarantined(&running.status("hostile")));
    running.put("hostile", &Hostile::new().component());
    let reloaded = reload(&running.host, Some("hostile")).unwrap();
    let lifted = reloaded.iter().map(|it| (it.plugin.as_str(), it.swap.as_ref()));
    let lifted: Vec<_> =
        lifted.map(|(name, swap)| (name, swap.map(|swap| swap.quarantine_lifted))).collect();
    assert_eq!(lifted, [("hostile", Some(true))]);
    assert_eq!(running.status("hostile").state, PluginState::Running);
    assert!(running.dispatcher.lost_since() > 0, "what it missed is to be sent again");
    running.batch(&["/c"]);
    running.wait_for("hostile", |status| status.events == 1);
    running.stop_and_check_neighbour(&["/a", "/b", "/c"], 7);
}

#[test]
fn a_state_that_is_too_large_or_not_there_costs_the_instance_and_no_neighbour() {
    // What `save` says of a list: where it is, and how long.
    let list = |at: u32, length: u32| {
        format!(
            "(i32.store (i32.const 164) (i32.const {at}))
             (i32.store (i32.const 168) (i32.const {length}))"
        )
    };
    type Count = fn(&Faults) -> u64;
    let cases: [(String, Count); 5] = [
        (list(0, 1 << 30), |faults| faults.trap + faults.oversized),
        (list(0, 3 << 20), |faults| faults.oversized),
        (list(0x7fff_fff0, 64), |faults| faults.trap),
        (LOOP.to_owned(), |faults| faults.timeout),
        (GROW.to_owned(), |faults| faults.memory),
    ];
    for (save, count) in cases {
        let hostile = Hostile { save, ..Hostile::stateful() };
        let running = Bench::new().neighbour().hostile(&hostile).start();
        running.batch(&["/a"]);
        running.tick(TickCause::Interval, 1);
        let status = running.wait_for("hostile", |status| count(&status.faults) >= 1);
        assert!(status.last_error.is_some());
        running.stop_and_check_neighbour(&["/a"], 1);
    }
}

#[test]
fn a_state_of_garbage_is_refused_once_and_never_tried_again() {
    // It saves a piece of its memory that it never wrote, refuses any state, and traps in a batch of two.
    let hostile = Hostile {
        save: "(i32.store (i32.const 164) (i32.const 70000))
            (i32.store (i32.const 168) (i32.const 5000))"
            .to_owned(),
        restore: "(i32.store8 (i32.const 16) (i32.const 1))".to_owned(),
        on_batch: "(if (i32.eq (local.get 1) (i32.const 2)) (then (unreachable)))".to_owned(),
        ..Hostile::stateful()
    };
    let running = Bench::new().neighbour().hostile(&hostile).start();
    running.batch(&["/a"]);
    running.tick(TickCause::Interval, 1);
    running.batch(&["/b", "/c"]);
    running.batch(&["/d"]);
    let status = running.wait_for("hostile", |status| status.events == 2);
    // The one that trapped, and the one that got the garbage.
    assert_eq!((status.faults.trap, status.faults.guest_error, status.instance), (1, 1, 3));
    assert_eq!(status.state, PluginState::Running);
    running.stop_and_check_neighbour(&["/a", "/b", "/c", "/d"], 4);
}

#[test]
fn a_version_takes_over_from_one_that_cannot_save() {
    let hostile = Hostile { save: TRAP.to_owned(), ..counting_reporter(0) };
    let running = Bench::new().neighbour().hostile(&hostile).start();
    running.batch(&["/a"]);
    running.wait_for("hostile", |status| status.events == 1);
    running.put("hostile", &counting_reporter(1).component());
    running.host.reload("hostile").unwrap();
    let status = running.status("hostile");
    assert_eq!((status.swaps, status.faults.trap, status.lost_with_instance), (1, 1, 1));
    assert_eq!(status.state, PluginState::Running);
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_filter_is_swapped_and_the_chain_goes_on() {
    let keeps_all = Hostile {
        on_batch: "(memory.fill (i32.const 3145728) (i32.const 0) (i32.const 4096))".to_owned(),
        ..Hostile::filter()
    };
    let running = Bench::new().neighbour().hostile(&Hostile::filter()).start();
    running.batch(&["/drop", "/keep"]);
    running.wait_for("hostile", |status| status.filtered == 1);
    let sentence = running.refuses("hostile", &Hostile::new().component());
    assert!(sentence.contains("is a reporter, and the plugin that runs is a filter"), "{sentence}");
    running.put("hostile", &keeps_all.component());
    running.host.reload("hostile").unwrap();
    running.batch(&["/drop", "/other"]);
    running.wait_for("hostile", |status| status.events == 4);
    let status = running.stop_and_check_neighbour(&["/drop", "/keep", "/other"], 4);
    assert_eq!((status.filtered, status.swaps), (1, 1));
}

#[test]
fn an_unknown_plugin_is_named_with_those_that_there_are() {
    let running = Bench::new().neighbour().start();
    let sentence = running.host.reload("neighbor").unwrap_err().to_string();
    assert_eq!(sentence, "there is no plugin `neighbor`; there is `neighbour`");
    running.stop();
}

#[test]
fn a_pinned_plugin_is_not_swapped_for_another_file() {
    let component = counting_reporter(0).component();
    let pin = super::super::load::sha256_of(&component);
    let running = Bench::new()
        .file("pinned", &component)
        .change(|plugin| plugin.sha256 = Some(pin.clone()))
        .start();
    assert_eq!(running.status("pinned").sha256, pin);
    let sentence = running.refuses("pinned", &counting_reporter(1).component());
    assert!(sentence.contains("`sha256` in the TOML asks for"), "{sentence}");
    running.stop();
}
