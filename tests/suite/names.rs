//! What containers are called, and where that comes from.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use whodunit_containers::{DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::report::{expect_eq, last_report, lists};
use crate::{Outcome, about_capture};

pub(crate) fn trials() -> Vec<Trial> {
    vec![about_capture("names::a_late_name_of_a_bundle_is_in_the_report", late_name)]
}

/// The bundle of containerd's CRI plugin is written where the daemon looks for it after the container was reported by
/// its id: what was seen before goes by the name too.
fn late_name() -> Outcome {
    let pod = Pod::new("names")?;
    let container = pod.container("app").file("/etc/early", "", 0o644);
    let mut container = worker(container, "cat /etc/early").start()?;
    let host = tempfile::tempdir()?;
    let config = DaemonConfig::for_pod(&pod)?.host_root(host.path());
    let mut daemon = config.start()?;
    let_work(&mut container)?;
    let id = container.id();
    daemon.wait_report("the container by its id", |report| {
        lists(report, id, "files", "/etc/early")
    })?;
    let tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    let bundle = host.path().join(tasks).join(id);
    fs::create_dir_all(&bundle)?;
    let annotations = json!({ "annotations": {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.sandbox-name": "cart-7d9",
        "io.kubernetes.cri.sandbox-namespace": "shop",
    } });
    fs::write(bundle.join("config.json"), annotations.to_string())?;
    daemon.wait_report("the container by its name", |report| {
        lists(report, "web", "files", "/etc/early")
    })?;
    let report = last_report(&config, daemon)?;
    let entry = report.running_called("web")?;
    entry.expect_files(&["/bin/busybox", "/etc/early"])?;
    expect_eq("name source", &entry.0["name_source"], &Value::from("oci"))?;
    expect_eq("id", &entry.0["id"], &Value::from(id))
}
