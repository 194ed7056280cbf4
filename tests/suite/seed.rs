//! The integration tests that the project began with, each under its name, on pods of a real containerd in which the daemon
//! is a container with cgroup and pid namespaces of its own. What `kubectl exec` does there is `ExecSync` here.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::condition::{PATIENCE, wait_until};

use crate::http::get;
use crate::kubelet::{Images, KubePod, NamesFrom, PROGRAM};
use crate::report::{expect, expect_eq, lists, lists_ended};
use crate::{Outcome, machine, needing};

pub(crate) fn trials(images: &Images) -> Vec<Trial> {
    let trial = |name: &str, run: fn(&Images) -> Outcome| {
        let images = images.clone();
        needing(format!("seed::{name}"), machine::lacks_for_containerd, move || run(&images))
    };
    vec![
        trial("basic_multi_container_tracing", basic_multi_container_tracing),
        trial("container_attribution", container_attribution),
        trial("self_exclusion", self_exclusion),
        trial("dynamic_container_discovery", dynamic_container_discovery),
        trial("metrics_endpoint", metrics_endpoint),
        trial("single_container_behavior", single_container_behavior),
        trial("error_handling_snoop_only_pod", error_handling_snoop_only_pod),
    ]
}

fn containers(report: &Value) -> impl Iterator<Item = &Value> {
    report["containers"].as_array().into_iter().flatten()
}

fn names(report: &Value) -> Vec<&str> {
    let mut names: Vec<&str> =
        containers(report).filter_map(|container| container["name"].as_str()).collect();
    names.sort_unstable();
    names
}

fn mentions(report: &Value, name: &str, file: &str) -> bool {
    let container = containers(report).find(|container| container["name"] == name);
    container.is_some_and(|container| container.to_string().contains(&format!("\"{file}\"")))
}

/// Until the sidecar watches.
fn ready(pod: &KubePod) -> Result<Value, Failed> {
    pod.await_log("that it is ready", |line| line["message"] == "ready")
}

/// Two containers that use a file each, and the daemon: two containers in the report, each with its own file.
fn basic_multi_container_tracing(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "multi-container-test")?;
    let (nginx, busybox) = (pod.idle("nginx")?, pod.idle("busybox")?);
    pod.sidecar(NamesFrom::Bundles)?;
    ready(&pod)?;
    pod.exec(&nginx, &["cat", "/etc/nginx/nginx.conf"])?;
    pod.exec(&busybox, &["cat", "/etc/hosts"])?;
    let report = pod.await_report("both files", |report| {
        lists(report, "nginx", "files", "/etc/nginx/nginx.conf")
            && lists(report, "busybox", "files", "/etc/hosts")
    })?;
    expect_eq("containers", &names(&report), &vec!["busybox", "nginx"])?;
    let leaks = mentions(&report, "nginx", "/etc/hosts")
        || mentions(&report, "busybox", "/etc/nginx/nginx.conf");
    expect(format!("files do not leak between containers: {report:#}"), !leaks)?;
    for container in containers(&report) {
        let id = container["cgroup_id"].as_str().and_then(|id| id.parse::<u64>().ok());
        expect("a cgroup's id is not zero", id.is_some_and(|id| id > 0))?;
        let events = container["total_events"].as_u64();
        expect("there are events", events.is_some_and(|events| events > 0))?;
    }
    Ok(())
}

/// The same file in two containers is in the list of both.
fn container_attribution(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "attribution-test")?;
    let both = [pod.idle("container1")?, pod.idle("container2")?];
    pod.sidecar(NamesFrom::Bundles)?;
    ready(&pod)?;
    for container in &both {
        pod.exec(container, &["cat", "/etc/passwd"])?;
    }
    let who = |report: &Value| -> Vec<String> {
        let names = names(report).into_iter().map(str::to_owned);
        names.filter(|name| lists(report, name, "files", "/etc/passwd")).collect()
    };
    let report = pod.await_report("the file in both", |report| who(report).len() == 2)?;
    let expected = ["container1", "container2"].map(str::to_owned);
    expect_eq("who used it", &who(&report), &expected.into())
}

/// What happens in the daemon's own container is in no report.
fn self_exclusion(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "self-exclusion-test")?;
    let app = pod.idle("app")?;
    let daemon = pod.sidecar(NamesFrom::Bundles)?;
    ready(&pod)?;
    // Its image has no `cat`: its own program reads a file.
    pod.exec(&daemon, &[PROGRAM, "check", "-c", "/etc/whodunit/whodunit.toml"])?;
    // What was read before this is in a report that has this.
    pod.exec(&app, &["cat", "/etc/passwd"])?;
    let report = pod.await_report("what came after it", |report| {
        lists(report, "app", "files", "/etc/passwd")
    })?;
    expect_eq("containers", &names(&report), &vec!["app"])?;
    expect_eq("ended containers", &report["ended_containers"], &Value::Array(Vec::new()))?;
    let own = report.to_string().contains("/etc/whodunit/whodunit.toml");
    expect(format!("nothing of the daemon's own is in {report:#}"), !own)
}

/// Init containers are not listed as running, whether they ended before the daemon came or under its eyes; one that
/// is started later is.
fn dynamic_container_discovery(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "init-container-test")?;
    pod.run("init-before", &["true"])?;
    pod.idle("main")?;
    pod.sidecar(NamesFrom::Bundles)?;
    ready(&pod)?;
    // It stays until it has a name: one that is gone in a moment goes by its id.
    pod.run("init-under-watch", &["sh", "-c", "cat /etc/passwd; sleep 2"])?;
    pod.await_report("the end of the second", |report| lists_ended(report, "init-under-watch"))?;
    let late = pod.idle("late")?;
    pod.exec(&late, &["cat", "/etc/passwd"])?;
    let report =
        pod.await_report("the late one", |report| lists(report, "late", "files", "/etc/passwd"))?;
    expect_eq("containers", &names(&report), &vec!["late", "main"])?;
    let ended: Vec<&Value> =
        report["ended_containers"].as_array().into_iter().flatten().map(|it| &it["name"]).collect();
    expect_eq("ended containers", &ended, &vec![&Value::from("init-under-watch")])
}

/// The metrics have samples for each container by its name, and none for the daemon's.
fn metrics_endpoint(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "metrics-test")?;
    let app = pod.idle("app")?;
    pod.sidecar(NamesFrom::Bundles)?;
    let line = pod.await_log("where it answers", |line| line["message"] == "HTTP answers")?;
    let address = line["address"].as_str().ok_or("the log has no address")?;
    ready(&pod)?;
    pod.exec(&app, &["cat", "/etc/passwd"])?;
    let mut last = String::new();
    let counted = wait_until(PATIENCE, || {
        last = get(address, "/metrics").map(|answer| answer.body).unwrap_or_default();
        last.lines().any(|line| {
            line.starts_with("whodunit_container_file_accesses_total{")
                && line.contains("container=\"app\"")
                && line.contains("phase=\"run\"")
                && line.rsplit(' ').next().is_some_and(|value| value != "0")
        })
    });
    expect(format!("file accesses of `app` are counted in {last}"), counted)?;
    expect("the daemon has no series", !last.contains("container=\"whodunit\""))
}

/// One container beside the daemon is enough.
fn single_container_behavior(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "single-app-test")?;
    pod.idle("app")?;
    pod.sidecar(NamesFrom::Bundles)?;
    let ready = ready(&pod)?;
    expect_eq("containers that were discovered", &ready["containers"], &Value::from(1))
}

/// A pod with nobody but the daemon is an error that says so.
fn error_handling_snoop_only_pod(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "snoop-only-test")?;
    pod.sidecar(NamesFrom::Bundles)?;
    let says = "no containers discovered (pod has only whodunit?)";
    let said = wait_until(PATIENCE, || pod.log().contains(says));
    expect(format!("it says {says:?}: {}", pod.log()), said)?;
    expect("there is no report", !pod.report_path().exists())
}
