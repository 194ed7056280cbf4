//! The report as its readers get it: every document here is checked against the published schema.

use jsonschema::Validator;
use report_json::Report;
use serde_json::{Value, json};
use whodunit_sdk::directory::Mount;
use whodunit_sdk::testing::{BatchBuilder, Harness, Setup, TickBuilder, container};
use whodunit_sdk::{AttributeKey, Cause, Flags, Kind, TickCause};

const SCHEMA: &str = include_str!("../report.schema.json");
const TABLE: &str = include_str!("../../../docs/report.md");

/// The start of a test's world, in nanoseconds and in the report's form.
const NOW: u64 = 1_768_471_200_000_000_000;
const NOW_TEXT: &str = "2026-01-15T10:00:00Z";
const SECOND: u64 = 1_000_000_000;

fn world() -> Setup<Report> {
    Harness::<Report>::new()
        .container(container(1, "web"))
        .container(container(2, "db"))
        .probe("open", true, "")
}

fn validator() -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(&serde_json::from_str(SCHEMA).unwrap())
        .unwrap()
}

/// The report that is there now, which follows its schema.
fn report(harness: &Harness<Report>) -> Value {
    let document = harness.document("report").expect("a report was emitted");
    let report: Value = serde_json::from_slice(&document).unwrap();
    let errors: Vec<_> = validator().iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
    check_sums(&report);
    report
}

/// What holds in every report.
fn check_sums(report: &Value) {
    let number = |value: &Value| value.as_u64().unwrap();
    let sum = |object: &Value| object.as_object().unwrap().values().map(number).sum::<u64>();
    let (mut events, mut lost) = (0, 0);
    for list in ["containers", "ended_containers"] {
        for container in report[list].as_array().unwrap() {
            assert_eq!(container["total_events"], container["counters"]["received"]);
            assert_eq!(number(&container["lost_total"]), sum(&container["lost"]));
            let reasons = container["incomplete_reasons"].as_array().unwrap();
            assert_eq!(container["complete"], json!(reasons.is_empty()));
            assert_eq!(container.get("ended_at").is_some(), list == "ended_containers");
            events += number(&container["total_events"]);
            lost += number(&container["lost_total"]);
            let lists = [
                "files",
                "executed",
                "interpreters",
                "listed",
                "setup_files",
                "missing",
                "unresolved",
            ];
            for paths in lists {
                let paths = container[paths].as_array().unwrap();
                assert!(paths.is_sorted_by_key(|path| path.as_str().unwrap()), "{paths:?}");
            }
        }
    }
    assert_eq!(
        number(&report["total_events"]),
        events + number(&report["forgotten"]["total_events"])
    );
    let elsewhere = sum(&report["lost"])
        + sum(&report["earlier_runs"]["lost"])
        + number(&report["reporter_dropped_events"])
        + number(&report["forgotten"]["dropped_events"]);
    assert_eq!(number(&report["dropped_events"]), lost + elsewhere);
}

fn received(number: u64) -> [(&'static str, u64); 2] {
    [("received", number), ("admitted", number)]
}

#[test]
fn a_report_has_every_field_of_a_quiet_and_of_a_busy_container() {
    let mut harness = world()
        .surroundings(|surroundings| {
            surroundings.pod_name = Some("my-app".to_owned());
            surroundings.namespace = Some("default".to_owned());
        })
        .start()
        .unwrap();
    harness.batch(
        BatchBuilder::new()
            .container_started(1, "/kubepods/pod1/web")
            .open(1, "/lib/libc.so")
            .flags(Flags::SETUP)
            .exec(1, "/usr/sbin/nginx")
            .open(1, "/etc/nginx/nginx.conf")
            .open(1, "/etc/hosts")
            .flags(Flags::UNRESOLVED)
            .open(1, "/cut")
            .flags(Flags::TRUNCATED)
            .open(1, "pipe:[7]")
            .flags(Flags::DETACHED)
            .open(1, "/etc/ssl")
            .failed(2)
            .open(1, "/etc/hosts/x")
            .failed(20)
            .open(1, "/etc/shadow")
            .failed(13)
            .open(1, "/run/fifo")
            .failed(512)
            .open(1, "")
            .only_requested("relative")
            .event(999, 1, b"/something/new")
            .build(),
    );
    harness
        .tick(
            TickBuilder::new()
                .container(1, &[("received", 150), ("setup", 1), ("duplicate", 140)])
                .last_event(NOW + SECOND)
                .container(2, &[])
                .build(),
        )
        .unwrap();
    let report = report(&harness);
    assert_eq!(report["schema_version"], 2);
    assert_eq!(report["pod_name"], "my-app");
    assert_eq!(report["namespace"], "default");
    assert_eq!(report["started_at"], NOW_TEXT);
    assert_eq!(report["last_updated_at"], NOW_TEXT);
    assert_eq!(report["total_events"], 150);
    assert_eq!(report["dropped_events"], 0);
    assert_eq!(report["daemon"]["generation"], 1);
    assert_eq!(report["probes"], json!([{ "name": "open", "live": true }]));
    let [web, db] = report["containers"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!(web["name"], "web");
    assert_eq!(web["cgroup_id"], "1001");
    assert_eq!(web["cgroup_path"], "/kubepods/pod1/web");
    assert_eq!(web["files"], json!(["/etc/nginx/nginx.conf", "/usr/sbin/nginx"]));
    assert_eq!(web["unique_files"], 2);
    assert_eq!(web["executed"], json!(["/usr/sbin/nginx"]));
    assert_eq!(web["setup_files"], json!(["/lib/libc.so"]));
    assert_eq!(web["missing"], json!(["/etc/hosts/x", "/etc/ssl"]));
    assert_eq!(web["refused"], json!([{ "path": "/etc/shadow", "errno": 13 }]));
    assert_eq!(web["unresolved"], json!(["/cut", "/etc/hosts", "relative"]));
    assert_eq!(web["last_event_at"], "2026-01-15T10:00:01Z");
    assert_eq!(web["counters"]["duplicate"], 140);
    assert_eq!(web["incomplete_reasons"], json!(["3 paths that it used could not be resolved"]));
    assert_eq!(db["complete"], true);
    assert_eq!(db["files"], json!([]));
    assert_eq!(db["total_events"], 0);
    assert_eq!(db.get("last_event_at"), None);
}

/// A mount of container 1.
fn mount(id: u32, point: &str, file_system: &str) -> Mount {
    Mount {
        id,
        point: point.to_owned(),
        file_system: file_system.to_owned(),
        source: "none".to_owned(),
        device: 8 << 20 | 1,
    }
}

/// A batch with one event of each way to use or change a file.
fn everything() -> whodunit_sdk::Batch {
    let identified = |batch: BatchBuilder, inode, mount| {
        batch
            .attribute(AttributeKey::Device, 8 << 20 | 1)
            .attribute(AttributeKey::Inode, inode)
            .attribute(AttributeKey::FileSystem, 0xef53)
            .attribute(AttributeKey::Mount, mount)
    };
    let event =
        |batch: BatchBuilder, kind: Kind, path: &str| batch.event(kind.code(), 1, path.as_bytes());
    let mut batch = identified(BatchBuilder::new().open(1, "/etc/a"), 11, 1).requested("../etc/a");
    batch = identified(event(batch, Kind::Stat, "/etc/a"), 11, 1).requested("/lib/a");
    batch = identified(event(batch, Kind::List, "/data"), 2, 2);
    batch = identified(batch.exec(1, "/bin/sh"), 12, 1);
    batch = identified(event(batch, Kind::Load, "/lib64/ld.so"), 13, 99);
    for (kind, path) in [
        (Kind::Access, "/x/access"),
        (Kind::Readlink, "/x/readlink"),
        (Kind::Chdir, "/x"),
        (Kind::Map, "/x/map"),
        (Kind::OtherUse, "/x/other"),
        (Kind::Make, "/tmp/made"),
        (Kind::Rename, "/tmp/made"),
        (Kind::Attributes, "/etc/a"),
        (Kind::Truncate, "/tmp/cut"),
        (Kind::Link, "/tmp/linked"),
        (Kind::Unlink, "/tmp/gone"),
    ] {
        batch = event(batch, kind, path);
    }
    batch = event(batch, Kind::Unlink, "/tmp/never").failed(2);
    batch = event(batch, Kind::Make, "/tmp").failed(17);
    batch = event(batch, Kind::Stat, "/unsure").flags(Flags::UNRESOLVED);
    batch = event(batch, Kind::Rename, "/setup").flags(Flags::SETUP);
    event(batch, Kind::Follow, "/lib").flags(Flags::INFERRED).requested("usr/lib").build()
}

fn check_everything(web: &Value) {
    let files = [
        "/bin/sh",
        "/data",
        "/etc/a",
        "/lib64/ld.so",
        "/x",
        "/x/access",
        "/x/map",
        "/x/other",
        "/x/readlink",
    ];
    assert_eq!(web["files"], json!(files));
    assert_eq!(web["executed"], json!(["/bin/sh"]));
    assert_eq!(web["interpreters"], json!(["/lib64/ld.so"]));
    assert_eq!(web["listed"], json!(["/data"]));
    assert_eq!(web["missing"], json!(["/tmp/never"]));
    assert_eq!(web["refused"], json!([{ "path": "/tmp", "errno": 17 }]));
    assert_eq!(web["unresolved"], json!(["/unsure"]));
    assert_eq!(web["setup_files"], json!([]));
    assert_eq!(web["links"], json!([{ "path": "/lib", "target": "usr/lib" }]));
    assert_eq!(
        web["changed"],
        json!([
            { "path": "/etc/a", "operations": ["attributes"] },
            { "path": "/tmp/cut", "operations": ["truncate"] },
            { "path": "/tmp/gone", "operations": ["unlink"] },
            { "path": "/tmp/linked", "operations": ["link"] },
            { "path": "/tmp/made", "operations": ["rename", "make"] },
        ])
    );
    let mount = |id, point: &str, file_system: &str, place: &str| {
        json!({
            "id": id, "point": point, "file_system": file_system, "source": "none",
            "device": "8:1", "place": place,
        })
    };
    let mounts = [mount(1, "/", "overlay", "image"), mount(2, "/data", "ext4", "volume")];
    assert_eq!(web["mounts"], json!(mounts));
    let details = web["details"].as_array().unwrap();
    let paths: Vec<_> = details.iter().map(|detail| detail["path"].as_str().unwrap()).collect();
    assert_eq!(paths, files);
    let detail = |path: &str| details.iter().find(|detail| detail["path"] == path).unwrap().clone();
    assert_eq!(
        detail("/etc/a"),
        json!({
            "path": "/etc/a", "operations": ["open", "stat", "attributes"],
            "requested": ["../etc/a", "/lib/a"], "place": "image",
            "mount": 1, "device": "8:1", "inode": 11, "file_system": "overlay",
        })
    );
    assert_eq!(detail("/data")["place"], "volume");
    // Its mount is not among those that were seen.
    assert_eq!(detail("/lib64/ld.so")["place"], "unknown");
    assert_eq!(detail("/lib64/ld.so")["file_system"], "ext4");
    assert_eq!(
        detail("/x/map"),
        json!({ "path": "/x/map", "operations": ["map"], "place": "unknown" })
    );
}

#[test]
fn every_way_to_use_or_change_a_file_has_its_place_and_survives_a_restart() {
    let mut harness = world()
        .mount(1, mount(1, "/", "overlay"))
        .mount(1, mount(2, "/data", "ext4"))
        .start()
        .unwrap();
    harness.batch(everything());
    let tick = || TickBuilder::new().container(1, &received(20)).build();
    harness.tick(tick()).unwrap();
    let before = report(&harness);
    check_everything(&before["containers"][0]);
    // The instance that comes after it knows it from the document alone.
    let mut harness = harness.replace(Cause::Replaced("it trapped".to_owned())).unwrap();
    harness.tick(tick()).unwrap();
    let after = report(&harness);
    check_everything(&after["containers"][0]);
    assert_eq!(after["containers"], before["containers"]);
}

#[test]
fn only_so_many_files_as_are_configured_are_told_in_full() {
    let mut harness = world().config(r#"{"max_details_per_container": 2}"#).start().unwrap();
    harness.batch(BatchBuilder::new().open(1, "/a").open(1, "/b").open(1, "/c").build());
    harness.interval().unwrap();
    let container = &report(&harness)["containers"][0];
    assert_eq!(container["files"], json!(["/a", "/b", "/c"]));
    assert_eq!(container["details"].as_array().unwrap().len(), 2);
    assert_eq!((&container["details_omitted"], &container["truncated"]), (&json!(1), &json!(0)));
}

#[test]
fn details_make_room_before_files_do() {
    let mut harness = world().document_limit(60_000).start().unwrap();
    let files = (0..500).fold(BatchBuilder::new(), |batch, number| {
        batch
            .open(1, format!("/usr/share/doc/package-{number:04}/copyright"))
            .requested(format!("../doc/package-{number:04}/copyright"))
    });
    harness.batch(files.build());
    harness.interval().unwrap();
    let report = report(&harness);
    let container = &report["containers"][0];
    assert_eq!(container["files"].as_array().unwrap().len(), 500);
    assert_eq!(container["truncated"], 0);
    let details = container["details"].as_array().unwrap().len();
    assert!((50..500).contains(&details), "{details}");
    assert_eq!(container["details_omitted"], 500 - details);
}

#[test]
fn outside_a_pod_its_name_is_left_out() {
    let mut harness = world().start().unwrap();
    harness.interval().unwrap();
    let report = report(&harness);
    assert_eq!((report.get("pod_name"), report.get("namespace")), (None, None));
    assert_eq!(report["containers"], json!([]));
}

#[test]
fn the_same_file_in_two_containers_is_two_entries() {
    let mut harness = world().start().unwrap();
    let batch = BatchBuilder::new().open(1, "/etc/passwd").open(2, "/etc/passwd");
    harness.batch(batch.open(1, "/etc/passwd").open(2, "/only/db").build());
    harness.interval().unwrap();
    let report = report(&harness);
    assert_eq!(report["containers"][0]["files"], json!(["/etc/passwd"]));
    assert_eq!(report["containers"][1]["files"], json!(["/etc/passwd", "/only/db"]));
}

#[test]
fn a_file_that_was_missing_and_later_used_is_in_both_lists() {
    let mut harness = world().start().unwrap();
    harness.batch(BatchBuilder::new().open(1, "/tmp/x").failed(2).open(1, "/tmp/x").build());
    harness.interval().unwrap();
    let container = &report(&harness)["containers"][0];
    assert_eq!(container["files"], container["missing"]);
}

#[test]
fn paths_are_bytes_and_come_out_exactly() {
    let mut harness = world().start().unwrap();
    let long = vec![b'a'; 4095];
    let paths: [&[u8]; 5] = [b"/\xff", b"/a\nb", b"/back\\slash", "/gr\u{fc}n".as_bytes(), &long];
    let batch = paths.iter().fold(BatchBuilder::new(), |batch, path| batch.open(1, path));
    harness.batch(batch.build());
    harness.interval().unwrap();
    let report = report(&harness);
    let files = report["containers"][0]["files"].as_array().unwrap();
    let mut bytes: Vec<_> = files
        .iter()
        .map(|file| whodunit_sdk::escape::unescape(file.as_str().unwrap()).unwrap().into_owned())
        .collect();
    bytes.sort();
    let mut expected = paths.map(<[u8]>::to_vec);
    expected.sort();
    assert_eq!(bytes, expected);
}

#[test]
fn what_speaks_against_completeness_is_said() {
    let mut harness = world()
        .probe("exec", false, "this kernel has no such tracepoint")
        .probe("files", false, "this kernel has none of that either")
        .probe("oom", false, "which no file depends on")
        .start()
        .unwrap();
    harness.batch(BatchBuilder::new().dropped(4).build());
    harness
        .tick(
            TickBuilder::new()
                .container(1, &[("received", 9), ("lost.ring-full", 3), ("lost.path", 0)])
                .found_running()
                .counters(&[("lost.unattributed", 2), ("ticks", 7)])
                .build(),
        )
        .unwrap();
    let report = report(&harness);
    assert_eq!(report["dropped_events"], 3 + 2 + 4);
    assert_eq!(report["reporter_dropped_events"], 4);
    assert_eq!(report["lost"], json!({ "unattributed": 2 }));
    let container = &report["containers"][0];
    assert_eq!(container["lost"], json!({ "ring-full": 3 }));
    assert_eq!(
        container["incomplete_reasons"],
        json!([
            "it was already there when the daemon first saw it",
            "3 of its events were lost (ring-full: 3)",
            "the probe `exec` did not run: this kernel has no such tracepoint",
            "the probe `files` did not run: this kernel has none of that either",
            "events were lost that may be of any container (unattributed: 2)",
            "4 events of any container did not reach the reporter",
        ])
    );
}

#[test]
fn files_beyond_the_limit_are_counted() {
    let mut harness = world().config(r#"{"max_files_per_container": 2}"#).start().unwrap();
    let batch = BatchBuilder::new().open(1, "/a").open(1, "/b").open(1, "/c").open(1, "/a");
    harness.batch(batch.open(2, "/d").build());
    harness.interval().unwrap();
    let report = report(&harness);
    let web = &report["containers"][0];
    assert_eq!((&web["files"], &web["truncated"]), (&json!(["/a", "/b"]), &json!(1)));
    assert_eq!(web["complete"], false);
    assert_eq!(report["containers"][1]["truncated"], 0);
}

#[test]
fn a_report_that_the_output_does_not_take_is_cut_and_says_so() {
    let mut harness = world().document_limit(20_000).start().unwrap();
    let files = (0..1000).fold(BatchBuilder::new(), |batch, number| {
        batch.open(1, format!("/usr/share/doc/package-{number:04}/copyright"))
    });
    harness.batch(files.build());
    harness.interval().unwrap();
    let report = report(&harness);
    let container = &report["containers"][0];
    let listed = container["files"].as_array().unwrap().len();
    assert!((200..1000).contains(&listed), "{listed}");
    assert_eq!(container["unique_files"], 1000);
    assert_eq!(container["truncated"], 1000 - listed);
    assert_eq!(container["complete"], false);
}

#[test]
fn an_output_that_is_not_configured_is_an_error_in_words() {
    let mut harness = world().outputs(&["other"]).start().unwrap();
    let sentence = harness.interval().unwrap_err();
    assert!(sentence.contains("not in the TOML (other)"), "{sentence}");
}

#[test]
fn configuration_is_checked() {
    let refusal = |config: &str| world().config(config).start().err().expect("it is refused");
    assert!(refusal(r#"{"max_end": 1}"#).contains("unknown field `max_end`"));
    assert!(refusal(r#"{"max_files_per_container": 0}"#).contains("must be at least 1"));
}

#[test]
fn one_that_ended_without_a_name_gets_it_as_soon_as_it_is_known() {
    let mut harness = world().start().unwrap();
    let named = |id: u32, name: &str| {
        let mut named = container(id, name);
        named.name_source = "oci".to_owned();
        named
    };
    harness.put_container(container(3, "0a1b2c"));
    harness.put_container(container(4, "0a1b2c"));
    harness.batch(BatchBuilder::new().open(3, "/a").open(4, "/b").build());
    let counters = [("received", 1)];
    let tick = TickBuilder::new().container(3, &counters).ended(NOW).container(4, &counters);
    harness.tick(tick.ended(NOW).build()).unwrap();
    let names = |harness: &Harness<Report>| -> Vec<Value> {
        let report = report(harness);
        let ended = report["ended_containers"].as_array().unwrap();
        ended.iter().map(|container| container["name"].clone()).collect()
    };
    assert_eq!(names(&harness), ["0a1b2c", "0a1b2c"]);
    harness.put_container(named(3, "late"));
    harness.tick(TickBuilder::new().build()).unwrap();
    assert_eq!(names(&harness), ["late", "0a1b2c"]);
    // The other turns out to be one that nobody wants to see.
    let mut pause = named(4, "pause");
    pause.attributes.push(("left-out".to_owned(), "it only holds a pod".to_owned()));
    harness.put_container(pause);
    harness.tick(TickBuilder::new().build()).unwrap();
    assert_eq!(names(&harness), ["late"]);
    // What the directory says of them from now on is about somebody else.
    harness.put_container(named(3, "another"));
    harness.tick(TickBuilder::new().build()).unwrap();
    assert_eq!(names(&harness), ["late"]);
}

#[test]
fn an_ended_container_stands_in_the_history_which_is_bounded() {
    let mut harness = world().config(r#"{"max_ended": 2}"#).start().unwrap();
    for number in 1..=4 {
        harness.put_container(container(number, &format!("job-{number}")));
        harness.batch(BatchBuilder::new().open(number, "/a").build());
        let ended = NOW + u64::from(number) * SECOND;
        let tick = TickBuilder::new().container(number, &[("received", 10), ("lost.path", 1)]);
        harness.tick(tick.ended(ended).build()).unwrap();
        report(&harness);
    }
    let report = report(&harness);
    assert_eq!(report["containers"], json!([]));
    let ended = report["ended_containers"].as_array().unwrap();
    let names: Vec<_> = ended.iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["job-3", "job-4"]);
    assert_eq!(ended[1]["ended_at"], "2026-01-15T10:00:04Z");
    assert_eq!(ended[1]["files"], json!(["/a"]));
    let forgotten = json!({ "containers": 2, "total_events": 20, "dropped_events": 2 });
    assert_eq!(report["forgotten"], forgotten);
    assert_eq!(report["total_events"], 40);
}

#[test]
fn a_replaced_instance_counts_nothing_twice() {
    let mut harness = world().start().unwrap();
    harness.batch(BatchBuilder::new().open(1, "/early").open(2, "/db").dropped(1).build());
    let lost = [("received", 10), ("lost.path", 2)];
    harness.tick(TickBuilder::new().container(1, &lost).container(2, &[]).build()).unwrap();
    let mut harness = harness.replace(Cause::Replaced("it trapped".to_owned())).unwrap();
    harness.batch(BatchBuilder::new().open(1, "/late").dropped(3).build());
    let lost = [("received", 15), ("lost.path", 2)];
    let ended = TickBuilder::new().container(1, &lost).container(2, &received(1)).ended(NOW);
    harness.tick(ended.build()).unwrap();
    let report = report(&harness);
    assert_eq!(report["reporter_restarts"], 1);
    assert_eq!(report["daemon"]["generation"], 1);
    assert_eq!(report["total_events"], 16);
    assert_eq!(report["dropped_events"], 2 + 4);
    let web = &report["containers"][0];
    assert_eq!(web["files"], json!(["/early", "/late"]));
    assert_eq!(web["total_events"], 15);
    assert_eq!(web["gaps"], 0);
    assert_eq!(report["ended_containers"][0]["files"], json!(["/db"]));
}

#[test]
fn a_restarted_daemon_goes_on_and_its_totals_add_up() {
    let mut harness = world().start().unwrap();
    let batch = BatchBuilder::new().open(1, "/early").open(1, "/no").failed(2).open(1, "/x");
    let batch = batch.failed(13).exec(1, "/bin/sh").open(1, "/s").flags(Flags::SETUP);
    harness.batch(batch.open(1, b"/\xff\\").flags(Flags::UNRESOLVED).open(2, "/db").build());
    harness
        .tick(
            TickBuilder::new()
                .container(1, &[("received", 10), ("lost.path", 2)])
                .container(2, &received(5))
                .counters(&[("lost.unattributed", 1)])
                .cause(TickCause::Stop)
                .build(),
        )
        .unwrap();
    let first = report(&harness);

    // Container numbers of another run are others; the cgroup is the same.
    harness.clear_containers();
    let mut same = container(9, "web");
    same.cgroup_id = 1001;
    harness.put_container(same);
    harness.surroundings(|surroundings| surroundings.started += 60 * SECOND);
    let mut harness = harness.replace(Cause::Start).unwrap();
    harness.batch(BatchBuilder::new().open(9, "/late").build());
    let totals = [("received", 7), ("lost.path", 1), ("lost.ring-full", 4)];
    harness
        .tick(
            TickBuilder::new()
                .time(NOW + 90 * SECOND)
                .container(9, &totals)
                .found_running()
                .build(),
        )
        .unwrap();
    let second = report(&harness);
    assert_eq!(second["started_at"], first["started_at"]);
    assert_eq!(second["daemon"]["generation"], 2);
    assert_eq!(second["reporter_restarts"], 0);
    assert_eq!(second["earlier_runs"]["lost"], json!({ "unattributed": 1 }));
    let web = &second["containers"][0];
    assert_eq!(web["files"], json!(["/bin/sh", "/early", "/late"]));
    for list in ["executed", "setup_files", "missing", "unresolved", "refused"] {
        assert_eq!(web[list], first["containers"][0][list], "{list}");
    }
    assert_eq!(web["total_events"], 17);
    assert_eq!(web["lost"], json!({ "path": 3, "ring-full": 4 }));
    assert_eq!(web["earlier_runs"]["counters"]["received"], 10);
    assert_eq!((&web["gaps"], &web["from_birth"]), (&json!(1), &json!(true)));
    assert_eq!(web["watched_since"], NOW_TEXT);
    let reasons = web["incomplete_reasons"].as_array().unwrap();
    assert!(reasons[0].as_str().unwrap().contains("restarted once"), "{reasons:?}");
    // The other one went away while no daemon ran.
    let db = &second["ended_containers"][0];
    assert_eq!((&db["name"], &db["ended_at"]), (&json!("db"), &json!(NOW_TEXT)));
    assert_eq!(db["total_events"], 5);

    // And once more, now replaced in the middle of the second run.
    let mut harness = harness.replace(Cause::Replaced("it trapped".to_owned())).unwrap();
    let totals = [("received", 8), ("lost.path", 1), ("lost.ring-full", 4)];
    harness.tick(TickBuilder::new().container(9, &totals).found_running().build()).unwrap();
    let third = report(&harness);
    assert_eq!(third["containers"][0]["total_events"], 18);
    assert_eq!(third["containers"][0]["lost_total"], 7);
    assert_eq!(third["daemon"]["generation"], 2);
}

#[test]
fn containers_of_an_earlier_boot_are_history() {
    let mut harness = world().start().unwrap();
    harness.batch(BatchBuilder::new().open(1, "/a").build());
    harness.tick(TickBuilder::new().container(1, &received(1)).build()).unwrap();
    harness.surroundings(|surroundings| {
        surroundings.boot_id = "00000000-0000-0000-0000-000000000002".to_owned();
        surroundings.started += SECOND;
    });
    let mut harness = harness.replace(Cause::Start).unwrap();
    // The same cgroup id and path, by chance or by order of start.
    harness.tick(TickBuilder::new().container(1, &received(1)).build()).unwrap();
    let report = report(&harness);
    assert_eq!(report["containers"][0]["files"], json!([]));
    assert_eq!(report["containers"][0]["total_events"], 1);
    assert_eq!(report["ended_containers"][0]["files"], json!(["/a"]));
}

#[test]
fn a_document_that_is_no_report_is_left_behind_and_counted() {
    for document in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"schema_version": 99}"#,
        r#"{"schema_version": 1}"#,
        r#"{"schema_version": 2}"#,
    ] {
        let mut harness = world().previous("report", document.as_bytes()).start().unwrap();
        assert!(harness.log()[0].1.contains("left behind"), "{:?}", harness.log());
        harness.interval().unwrap();
        assert_eq!(report(&harness)["unreadable_reports"], 1);
    }
}

#[test]
fn a_container_that_nobody_knows_any_more_is_reported_all_the_same() {
    let mut harness = world().start().unwrap();
    harness.batch(BatchBuilder::new().open(77, "/a").build());
    harness.interval().unwrap();
    let container = &report(&harness)["containers"][0];
    assert_eq!(
        (&container["name"], &container["cgroup_id"]),
        (&json!("container-77"), &json!("0"))
    );
    assert_eq!(container["files"], json!(["/a"]));
}

#[test]
fn the_schema_refuses_what_it_does_not_know() {
    let mut harness = world().start().unwrap();
    harness.tick(TickBuilder::new().container(1, &[]).build()).unwrap();
    let report = report(&harness);
    let validator = validator();
    let check = |change: &dyn Fn(&mut Value)| {
        let mut changed = report.clone();
        change(&mut changed);
        assert!(!validator.is_valid(&changed), "{changed:#}");
    };
    check(&|report| report["surprise"] = json!(1));
    check(&|report| report["containers"][0]["surprise"] = json!(1));
    check(&|report| report["containers"][0]["cgroup_id"] = json!(1001));
    check(&|report| report["started_at"] = json!("yesterday"));
    check(&|report| report["total_events"] = json!(-1));
    check(&|report| _ = report.as_object_mut().unwrap().remove("daemon"));
}

/// The names of all fields below a schema, with their descriptions.
fn fields(root: &Value, node: &Value, prefix: &str, found: &mut Vec<(String, String)>) {
    if let Some(reference) = node["$ref"].as_str() {
        let target = root.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        fields(root, target, prefix, found);
    }
    if node["type"] == "array" {
        fields(root, &node["items"], &format!("{prefix}[]"), found);
    }
    for (name, field) in node["properties"].as_object().into_iter().flatten() {
        assert!(node["additionalProperties"] == false, "{prefix} is open");
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let description = field["description"].as_str().unwrap_or_else(|| {
            let reference = field["$ref"].as_str().unwrap_or_else(|| panic!("{path} has none"));
            let target = root.pointer(reference.strip_prefix('#').unwrap()).unwrap();
            target["description"].as_str().unwrap()
        });
        found.push((path.clone(), description.to_owned()));
        // Their fields are those of `containers`.
        if path != "ended_containers" {
            fields(root, field, &path, found);
        }
    }
}

#[test]
fn the_table_of_the_documentation_is_that_of_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut expected = Vec::new();
    fields(&schema, &schema, "", &mut expected);
    let (_, table) = TABLE.split_once("## Every field").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let mut documented: Vec<(String, String)> = rows
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            (cells[0].trim_matches('`').to_owned(), cells[2].to_owned())
        })
        .collect();
    expected.sort();
    documented.sort();
    assert_eq!(documented, expected);
}
