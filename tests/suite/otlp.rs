//! OTLP: deaths and files by plugins, metrics and deaths by the daemon, each at a real receiver.

use std::collections::BTreeMap;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::daemon::call_limit;
use whodunit_containers::{Container, ContainerBuilder, DaemonConfig, Pod};

use crate::deaths::{Death, container_death};
use crate::discovery::{let_work, worker};
use crate::http::{LISTEN, address, get};
use crate::receivers::{Receiver, free_port, lacks_otlp};
use crate::report::{expect, expect_eq};
use crate::{Outcome, needing};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        needing(
            "otlp::a_plugin_tells_deaths_and_files_with_the_conventions_attributes",
            lacks_otlp,
            by_plugins,
        ),
        needing("otlp::the_daemon_tells_its_metrics_and_deaths", lacks_otlp, by_daemon),
        needing("otlp::a_collector_that_comes_late_gets_what_happened_before", lacks_otlp, late),
    ]
}

/// A container that ends with code 3.
fn dies(pod: &Pod) -> ContainerBuilder {
    pod.container("app").program(&["/bin/sh", "-c", "exit 3"])
}

/// Where the collector of a trial gets log records, of both plugins.
fn plugins(port: u16) -> String {
    let url = format!("http://127.0.0.1:{port}/v1/logs");
    let plugin = |name: &str, more: &str| {
        format!(
            "[[plugin]]\nname = {name:?}\nsource = \"builtin:{name}\"\noutputs.logs.http = {url:?}\n\
             limits = {{ call = {:?} }}\n{more}\n",
            call_limit()
        )
    };
    plugin("otlp", "config = { service_name = \"death-watch\" }") + &plugin("otlp-files", "")
}

/// The plugin stands in the place of the explainer that every daemon of the trials has.
fn without_explainer(config: &DaemonConfig) -> Result<(), Failed> {
    let toml = config.toml();
    let (start, end) = ("\n[[plugin]]\nname = \"death-explainer\"", "[[plugin]]\nname = \"otlp\"");
    let (before, rest) = toml.split_once(start).ok_or("there is an explainer")?;
    let (_, behind) = rest.split_once(end).ok_or("there is the other plugin")?;
    std::fs::write(config.toml_path(), format!("{before}\n{end}{behind}"))?;
    Ok(())
}

fn by_plugins() -> Outcome {
    let collector = Receiver::rotel()?;
    let pod = Pod::new("otlp")?;
    let _bystander = pod.container("app").start()?;
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&plugins(collector.port));
    without_explainer(&config)?;
    let mut daemon = config.spawn_with(&["-c".into(), config.toml_path().into()])?;
    daemon.await_ready()?;
    let app = dies(&pod).run()?;
    let death = container_death(&config, &app.id)?;
    let printed = await_death(&collector)?;
    expect_death(&printed, &pod, &app.id, &death)?;
    let service = "service.name: Str(death-watch)";
    expect(format!("{service:?} is in {printed}"), printed.contains(service))?;
    // What the container used is told at a tick.
    let files = collector.await_text("EventName: whodunit.container.files")?;
    expect(format!("its program is in {files}"), files.contains("/bin/busybox"))?;
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}

/// What `rotel` printed, with the whole of a container's death: it prints a record line by line.
fn await_death(collector: &Receiver) -> Result<String, Failed> {
    collector.await_text("whodunit.container.death")?;
    collector.await_text("whodunit.death.advice")
}

/// Holds what `rotel` printed of a death against the daemon's own record.
fn expect_death(printed: &str, pod: &Pod, id: &str, death: &Death) -> Outcome {
    let headline = death.explanation["headline"].as_str().unwrap_or_default();
    for line in [
        format!("container.id: Str({id})"),
        format!("container.name: Str({id})"),
        format!("k8s.pod.name: Str({})", pod.name()),
        "k8s.namespace.name: Str(default)".to_owned(),
        "EventName: whodunit.container.death".to_owned(),
        "SeverityText: ERROR".to_owned(),
        "SeverityNumber: SEVERITY_NUMBER_ERROR(17)".to_owned(),
        format!("Timestamp: {}", death.record["time_ns"]),
        format!("Body: Str({headline})"),
        "process.exit.code: Int(3)".to_owned(),
        "whodunit.death.verdict: Str(application-error)".to_owned(),
    ] {
        expect(format!("{line:?} is in {printed}"), printed.contains(&line))?;
    }
    Ok(())
}

/// The attributes of a line of `oteltap`, by their names.
fn attributes(list: &Value) -> BTreeMap<String, Value> {
    let list = list.as_array().cloned().unwrap_or_default();
    let pair = |attribute: Value| {
        let value = attribute["value"].as_object().and_then(|value| value.values().next().cloned());
        (attribute["key"].as_str().unwrap_or_default().to_owned(), value.unwrap_or_default())
    };
    list.into_iter().map(pair).collect()
}

/// A daemon with a collector.
fn with_collector(pod: &Pod, port: u16) -> Result<DaemonConfig, Failed> {
    Ok(DaemonConfig::for_pod(pod)?
        .more_toml(LISTEN)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}"))
        .environment("OTEL_METRIC_EXPORT_INTERVAL", "500")
        .environment("OTEL_SERVICE_NAME", "watcher")
        .environment("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=trial"))
}

/// A line of the collector in which something has this name.
fn await_named(collector: &Receiver, name: &str) -> Result<Value, Failed> {
    let quoted = format!("{name:?}");
    collector.await_json(|line| line.to_string().contains(&quoted))
}

fn by_daemon() -> Outcome {
    let (collector, logs) = (Receiver::oteltap(free_port()?)?, Receiver::rotel()?);
    let pod = Pod::new("otlp")?;
    let mut reader =
        worker(pod.container("app").file("/etc/one", "", 0o644), "cat /etc/one").start()?;
    let url = format!("http://127.0.0.1:{}/v1/logs", logs.port);
    let config = with_collector(&pod, collector.port)?;
    let config = config.environment("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", &url);
    let daemon = config.start()?;
    let_work(&mut reader)?;
    let accesses = "whodunit_container_file_accesses_total";
    let metric = wait_for(PATIENCE, || {
        let id = format!("{:?}", reader.id());
        let lines = collector.json().into_iter();
        lines.rev().find(|line| line["name"] == accesses && line.to_string().contains(&id))
    });
    let metric = metric.ok_or_else(|| format!("no accesses in {}", collector.printed()))?;
    expect(format!("a counter: {metric:#}"), metric["sum"]["isMonotonic"] == true)?;
    let temporality = &metric["sum"]["aggregationTemporality"];
    // Cumulative.
    expect_eq("temporality", temporality, &json!(2))?;
    let app = dies(&pod).run()?;
    let death = container_death(&config, &app.id)?;
    let printed = await_death(&logs)?;
    expect_death(&printed, &pod, &app.id, &death)?;
    for line in [
        "service.name: Str(watcher)".to_owned(),
        "deployment.environment.name: Str(trial)".to_owned(),
        format!("process.pid: Int({})", death.record["process"]["pid"]),
    ] {
        expect(format!("{line:?} is in {printed}"), printed.contains(&line))?;
    }
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}

fn late() -> Outcome {
    let port = free_port()?;
    let pod = Pod::new("otlp")?;
    let _reader: Container = pod.container("app").start()?;
    let config = with_collector(&pod, port)?;
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let app = dies(&pod).run()?;
    container_death(&config, &app.id)?;
    let failed = wait_for(PATIENCE, || {
        let status = get(&address, "/api/v1/status").ok()?.json().ok()?;
        let outputs = status["outputs"].as_array().cloned()?;
        outputs.into_iter().find(|output| {
            output["output"] == "otlp-logs" && output["failures"].as_u64() >= Some(1)
        })
    });
    let output = failed.ok_or("nobody notices that there is no collector")?;
    expect_eq("whose", &output["plugin"], &json!("(daemon)"))?;
    // Nothing is missing of what was captured meanwhile.
    expect("the report is there", Path::new(config.report_path()).exists())?;
    let collector = Receiver::oteltap(port)?;
    let record = await_named(&collector, "whodunit.container.death")?;
    let told = attributes(&record["attributes"]);
    expect_eq("verdict", &told["whodunit.death.verdict"], &json!("application-error"))?;
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}
