//! The exact tier: what the kernel opens beneath the system calls. Only where the kernel lets programs hang on
//! its functions, as in the guests.

use std::collections::BTreeSet;

use libtest_mimic::{Completion, Trial};
use serde_json::Value;
use whodunit_containers::Pod;

use crate::report::{expect, expect_eq};
use crate::roads::{self, Kind, LoggedDaemon, has_flag, is_told, with_libraries};
use crate::{Outcome, machine, needing};

pub(crate) fn trials() -> Vec<Trial> {
    let exact = |name, test| needing(name, machine::lacks_for_exact, test);
    let mut trials = vec![
        exact(
            "exact::every_interpreter_is_seen_when_the_kernel_opens_it",
            interpreters as fn() -> Outcome,
        ),
        exact("exact::a_container_s_first_program_has_its_interpreter", first_program),
        Trial::ignorable_test("exact::where_the_kernel_refuses_it_none_is_promised", || {
            match machine::lacks_for_capture() {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => refused(),
            }
        }),
    ];
    for kind in Kind::ALL {
        let name = format!("exact::both_tiers_tell_the_same_of_a_{}_program", kind.name());
        trials.push(Trial::ignorable_test(name, move || {
            match machine::lacks_for_exact().or_else(|| kind.program().err()) {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => same(kind).map(|()| Completion::Completed),
            }
        }));
    }
    trials
}

/// The events about programs and their interpreters: kind, outcome, request and path.
pub(crate) fn programs(events: &[Value]) -> Vec<[String; 4]> {
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .filter(|event| event["kind"] == "exec" || event["kind"] == "load")
        .map(|event| ["kind", "outcome", "requested", "path"].map(|key| text(event, key)))
        .collect()
}

fn interpreters() -> Outcome {
    let dynamic = Kind::Glibc.program()?;
    let pod = Pod::new("interpreters")?;
    let container = with_libraries(pod.container("app"))
        .copy(dynamic, "/srv/dynamic")
        .file("/srv/outer", "#!/srv/middle\n", 0o755)
        .file("/srv/middle", "#!/srv/inner nothing\n", 0o755)
        .file("/srv/inner", "#!/bin/true\n", 0o755)
        .file("/srv/broken", "#!/srv/absent\n", 0o755)
        .file("/srv/shut", "#!/srv/data\n", 0o755)
        .file("/srv/data", "", 0o644)
        .symlink("/srv/true", "../bin/busybox")
        .shell("read stay")
        .start()?;
    let logged = LoggedDaemon::of_tier(&pod, "exact")?;
    let daemon = logged.config.start()?;
    for (program, works) in [
        ("/srv/true", true),
        ("/srv/outer", true),
        ("/srv/dynamic", true),
        ("/srv/broken", false),
        ("/srv/shut", false),
    ] {
        let status = container.exec(&[program, "nothing"])?.status;
        expect_eq(&format!("whether {program} works"), &status.success(), &works)?;
    }
    let exit = daemon.stop()?;
    expect_eq("the daemon's status", &exit.code(), &Some(0))?;
    let events = logged.events()?;
    let own: Vec<Value> = events.into_iter().filter(|event| !has_flag(event, "setup")).collect();
    let expected = [
        ["exec", "used", "/srv/true", "/bin/busybox"],
        ["load", "used", "/srv/middle", "/srv/middle"],
        ["load", "used", "/srv/inner", "/srv/inner"],
        ["load", "used", "/bin/true", "/bin/busybox"],
        ["exec", "used", "/srv/outer", "/srv/outer"],
        ["load", "used", "/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"],
        ["exec", "used", "/srv/dynamic", "/srv/dynamic"],
        ["load", "missing", "/srv/absent", "/srv/absent"],
        ["load", "refused", "/srv/data", "/srv/data"],
    ];
    expect_eq(
        "programs and interpreters, each once, in their order",
        &programs(&own),
        &expected.map(|event| event.map(str::to_owned)).to_vec(),
    )?;
    let mut loads =
        own.iter().filter(|event| event["kind"] == "load" && event["outcome"] == "used");
    expect("no interpreter is inferred", loads.all(|event| !has_flag(event, "inferred")))
}

fn first_program() -> Outcome {
    let dynamic = Kind::Glibc.program()?;
    let pod = Pod::new("first")?;
    let _neighbour = pod.container("neighbour").start()?;
    let logged = LoggedDaemon::of_tier(&pod, "exact")?;
    let daemon = logged.config.start()?;
    let finished = with_libraries(pod.container("app"))
        .copy(dynamic, "/srv/dynamic")
        .program(&["/srv/dynamic", "nothing"])
        .run()?;
    expect_eq("status", &finished.output.status.code(), &Some(0))?;
    let exit = daemon.stop()?;
    expect_eq("the daemon's status", &exit.code(), &Some(0))?;
    let events = logged.events()?;
    let own: Vec<Value> = events.into_iter().filter(|event| !has_flag(event, "setup")).collect();
    let expected = [
        ["load", "used", "/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"],
        ["exec", "used", "/srv/dynamic", "/srv/dynamic"],
    ];
    expect_eq(
        "the first program and its interpreter",
        &programs(&own),
        &expected.map(|event| event.map(str::to_owned)).to_vec(),
    )
}

/// Without the exact tier the same is told: only the interpreter is found afterwards. What the kernel kept from the
/// programs (from Linux 6.19 on) is counted, and may be missing on either side.
fn same(kind: Kind) -> Outcome {
    let (base, exact) = (roads::go(kind, "base")?, roads::go(kind, "exact")?);
    let lines = |events: &[Value]| {
        events.iter().filter(|event| is_told(event)).map(roads::line).collect::<BTreeSet<String>>()
    };
    let (less, more) = (lines(&base.events), lines(&exact.events));
    let different: Vec<_> = less.symmetric_difference(&more).collect();
    let kept = base.kept + exact.kept;
    expect(
        format!("both tiers tell the same, but for {kept} that the kernel kept: {different:#?}"),
        different.len() as u64 <= kept,
    )?;
    for (events, inferred) in [(&base.events, true), (&exact.events, false)] {
        let mut loads = events.iter().filter(|event| event["kind"] == "load");
        let all = loads.all(|event| has_flag(event, "inferred") == inferred);
        expect(format!("interpreters are inferred: {inferred}"), all)?;
    }
    Ok(())
}

fn refused() -> Result<Completion, libtest_mimic::Failed> {
    if machine::lacks_for_exact().is_none() {
        return Ok(Completion::ignored_with("this kernel allows the exact tier"));
    }
    let said =
        machine::end_of_exact(machine::IMPOSSIBLE).ok_or("a daemon that must be exact ran")?;
    for words in ["capture.tier", "does not run its probe", "tier = \"auto\""] {
        expect(format!("{words:?} stands in {said:?}"), said.contains(words))?;
    }
    Ok(Completion::Completed)
}
