//! What leaves the daemon over HTTP: documents of plugins, to servers that behave and that do not.

use std::net::TcpListener;
use std::time::Instant;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_for, wait_until};
use whodunit_containers::{ContainerBuilder, DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::http::{LISTEN, address, get};
use crate::receivers::{Certificate, Receiver, free_port, lacks_server};
use crate::report::{expect, expect_eq};
use crate::{Outcome, about_capture, needing};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        needing(
            "outgoing::the_report_goes_to_a_server_with_tls_and_a_token",
            lacks_server,
            with_tls,
        ),
        about_capture(
            "outgoing::servers_that_are_down_or_hang_cost_their_own_documents_alone",
            down_and_hanging,
        ),
    ]
}

/// A container that reads two files when it is told to.
fn reader(pod: &Pod) -> ContainerBuilder {
    let files = pod.container("app").file("/etc/one", "", 0o644).file("/etc/two", "", 0o644);
    worker(files, "cat /etc/one /etc/two")
}

/// The status of an output in the API.
fn output_of(address: &str, plugin: &str) -> Result<Value, Failed> {
    let status = get(address, "/api/v1/status")?.json()?;
    let outputs = status["outputs"].as_array().cloned().unwrap_or_default();
    let found = outputs.into_iter().find(|output| output["plugin"] == plugin);
    found.ok_or_else(|| format!("no output of {plugin} in {status:#}").into())
}

fn lists_both(report: &Value) -> bool {
    let files = report["containers"][0]["files"].as_array().cloned().unwrap_or_default();
    ["/etc/one", "/etc/two"].iter().all(|file| files.contains(&json!(file)))
}

fn with_tls() -> Outcome {
    let folder = tempfile::tempdir()?;
    let [own, other] = ["own", "other"].map(|name| Certificate::make(folder.path(), name));
    let (own, other) = (own?, other?);
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "Authorization: Bearer first\n")?;
    let server = Receiver::server(Some(&own), &["503", "200"])?;
    let pod = Pod::new("outgoing")?;
    let mut container = reader(&pod).start()?;
    let plugin = |name: &str, certificate: &Certificate| {
        format!(
            "[[plugin]]\nname = {name:?}\nsource = \"builtin:report-json\"\n[plugin.outputs.report]\n\
             http = \"https://localhost:{}/reports?of={name}\"\nca_file = {:?}\nheaders_file = {headers:?}\n",
            server.port, certificate.authority
        )
    };
    let toml = format!("{LISTEN}\n{}{}", plugin("sent", &own), plugin("doubted", &other));
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&toml);
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let first = server.await_json(|line| line["status"] == 200)?;
    expect_eq("path", &first["path"], &json!("/reports?of=sent"))?;
    expect_eq("type", &first["headers"]["content-type"], &json!("application/json"))?;
    expect_eq("token", &first["headers"]["authorization"], &json!("Bearer first"))?;
    // The one that was refused with 503 came again.
    let refused = server.await_json(|line| line["status"] == 503)?;
    expect_eq("the same body", &first["body"], &refused["body"])?;
    std::fs::write(&headers, "Authorization: Bearer second\n")?;
    let_work(&mut container)?;
    let whole = server.await_json(|line| {
        let body = line["body"].as_str().unwrap_or_default();
        serde_json::from_str(body).is_ok_and(|report| lists_both(&report))
            && line["headers"]["authorization"] == "Bearer second"
    })?;
    expect_eq("status", &whole["status"], &json!(200))?;
    let sent = output_of(&address, "sent")?;
    expect(format!("it is counted: {sent}"), sent["writes"].as_u64() >= Some(2))?;
    expect_eq("failures", &sent["failures"], &json!(1))?;
    // Whom the other authority does not vouch for gets nothing.
    let doubted = output_of(&address, "doubted")?;
    let why = doubted["last_error"].as_str().unwrap_or_default();
    expect(format!("it says why: {doubted}"), why.contains("invalid peer certificate"))?;
    expect_eq("writes", &doubted["writes"], &json!(0))?;
    let came = server.json().into_iter().filter(|line| line["path"] == "/reports?of=doubted");
    expect_eq("documents for a server that nobody vouches for", &came.count(), &0)?;
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}

fn down_and_hanging() -> Outcome {
    // Connections are made, and nobody ever reads from them.
    let hanging = TcpListener::bind("127.0.0.1:0")?;
    let pod = Pod::new("outgoing")?;
    let mut container = reader(&pod).start()?;
    let plugin = |name: &str, port: u16| {
        format!(
            "[[plugin]]\nname = {name:?}\nsource = \"builtin:report-json\"\n[plugin.outputs.report]\n\
             http = \"http://127.0.0.1:{port}/\"\ntimeout = \"300ms\"\nretry_for = \"1s\"\nqueue = \"64KiB\"\n"
        )
    };
    let down = plugin("down", free_port()?);
    let toml = format!("{LISTEN}\n{down}{}", plugin("hangs", hanging.local_addr()?.port()));
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&toml);
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let_work(&mut container)?;
    // Capture and the file beside them go on.
    let written = wait_until(PATIENCE, || {
        let report = std::fs::read(config.report_path()).unwrap_or_default();
        serde_json::from_slice(&report).is_ok_and(|report| lists_both(&report))
    });
    expect("the report has both files", written)?;
    for (plugin, words) in [("down", "cannot be reached"), ("hangs", "no answer within 300ms")] {
        let given_up = wait_for(PATIENCE, || {
            let output = output_of(&address, plugin).ok()?;
            (output["dropped"]["unreachable"].as_u64() >= Some(1)).then_some(output)
        });
        let output = given_up.ok_or_else(|| format!("{plugin} never gives anything up"))?;
        let why = output["last_error"].as_str().unwrap_or_default();
        expect(format!("it says why: {output}"), why.contains(words))?;
        let metrics = get(&address, "/metrics")?.body;
        let labels = format!("{{plugin={plugin:?},output=\"report\",reason=\"unreachable\"}}");
        let metric = format!("whodunit_output_dropped_total{labels}");
        expect(format!("{metric} is in {metrics}"), metrics.contains(&metric))?;
    }
    let began = Instant::now();
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))?;
    let took = began.elapsed().as_secs();
    expect(format!("it ends within its deadline: {took} s"), took < 20)?;
    // Nothing of it reached the totals.
    let report: Value = serde_json::from_slice(&std::fs::read(config.report_path())?)?;
    expect_eq("dropped", &report["dropped_events"], &json!(0))?;
    expect_eq("lost", &report["containers"][0]["lost"], &json!({}))
}
