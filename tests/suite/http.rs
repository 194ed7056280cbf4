//! What the daemon tells over HTTP: metrics, health, the API, the page.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use rustix::process::Signal;
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_for, wait_until};
use whodunit_containers::{Container, Daemon, DaemonConfig, Pod, find_program};

use crate::browser::{self, Browser};
use crate::discovery::{let_work, worker};
use crate::receivers::{Certificate, lacks_server};
use crate::report::{expect, expect_eq, repository};
use crate::{Outcome, about_capture, machine, needing};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("http::metrics_are_those_of_a_container_and_go_with_it", metrics_come_and_go),
        about_capture("http::a_plugin_s_calls_queue_and_memory_are_measured", plugins_measured),
        about_capture("http::probes_are_measured_where_that_is_asked_for", probes_measured),
        about_capture("http::containers_beyond_the_limit_are_folded", folded),
        about_capture("http::answers_fit_their_description", answers_fit),
        about_capture("http::totals_are_those_behind_the_filters", behind_filters),
        about_capture("http::health_and_readiness_say_what_and_since_when", health),
        about_capture("http::only_reading_is_answered_and_only_with_the_token", guarded),
        needing("http::tls_is_spoken_and_its_certificate_renewed", lacks_server, in_private),
        needing("http::promtool_has_nothing_to_say", lacks_for_promtool, promtool),
        needing("http::prometheus_scrapes_it_and_evaluates_the_rules", lacks_for_promtool, scraped),
        needing("http::the_page_works_on_a_phone_with_the_keyboard", lacks_for_browser, page),
    ]
}

fn lacks_for_promtool() -> Option<&'static str> {
    let without = find_program("promtool").is_none();
    let lacks = without.then_some("there is no promtool; install the Debian package prometheus");
    machine::lacks_for_capture().or(lacks)
}

fn lacks_for_browser() -> Option<&'static str> {
    machine::lacks_for_capture().or_else(browser::lacks)
}

/// HTTP at a port that the system chooses.
pub(crate) const LISTEN: &str = "[http]\nlisten = \"127.0.0.1:0\"";

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value, Failed> {
        Ok(serde_json::from_str(&self.body)?)
    }
}

/// Where the daemon answers, as its log says.
pub(crate) fn address(daemon: &mut Daemon<'_>) -> Result<String, Failed> {
    let mut found = None;
    daemon.await_log("the address of HTTP", |entry| {
        let fields = if entry["fields"].is_object() { &entry["fields"] } else { entry };
        if fields["message"] == "HTTP answers" {
            found = fields["address"].as_str().map(str::to_owned);
        }
        found.is_some()
    })?;
    found.ok_or_else(|| "the log has no address".into())
}

/// Sends one request with these lines in its head. Of HTTP 1.0, so that no answer comes in chunks.
pub(crate) fn ask(address: &str, method: &str, path: &str, lines: &str) -> Result<Answer, Failed> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.0\r\n{lines}\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("the answer has no head")?;
    let status = head.split(' ').nth(1).ok_or("the answer has no status")?.parse()?;
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

pub(crate) fn get(address: &str, path: &str) -> Result<Answer, Failed> {
    ask(address, "GET", path, &format!("Host: {address}\r\n"))
}

/// A pod with a container that read two files under a daemon with HTTP.
fn scene(toml: &str, trial: impl FnOnce(&str, Container) -> Outcome) -> Outcome {
    let pod = Pod::new("http")?;
    let mut container = worker(
        pod.container("app").file("/etc/one", "", 0o644).file("/etc/two", "", 0o644),
        "cat /etc/one /etc/two /etc/one",
    )
    .start()?;
    let config = DaemonConfig::for_pod(&pod)?.more_toml(toml);
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let_work(&mut container)?;
    trial(&address, container)?;
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}

/// The value of the sample whose line starts so.
fn sample(metrics: &str, start: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with(start))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn metrics_come_and_go() -> Outcome {
    scene(LISTEN, |address, container| {
        let id = container.id().to_owned();
        let labels =
            format!("namespace=\"default\",pod=\"{}\",container=\"{id}\",container_id=\"{id}\"", {
                let answer = get(address, "/api/v1/status")?.json()?;
                answer["daemon"]["pod_name"].as_str().unwrap_or_default().to_owned()
            });
        let admitted = format!("whodunit_container_events_admitted_total{{{labels}}}");
        let mut last = String::new();
        let counted = wait_until(PATIENCE, || {
            last = get(address, "/metrics").map(|it| it.body).unwrap_or_default();
            sample(&last, &admitted).is_some_and(|value| value >= 3.0)
        });
        expect(format!("{admitted} is counted in {last}"), counted)?;
        let accesses = format!("whodunit_container_file_accesses_total{{{labels},phase=\"run\"}}");
        let accesses = sample(&last, &accesses).unwrap_or_default();
        expect(format!("{accesses} accesses, of which one is a repeat"), accesses >= 4.0)?;
        let of_operation = |operation: &str| {
            let labels = format!("{{{labels},operation=\"{operation}\"}}");
            sample(&last, &format!("whodunit_container_file_operations_total{labels}"))
        };
        let opens = of_operation("open").unwrap_or_default();
        expect(format!("{opens} opens of {accesses} accesses"), (3.0..=accesses).contains(&opens))?;
        let files = sample(&last, &format!("whodunit_container_unique_files{{{labels}}}"));
        let files = files.unwrap_or_default();
        let most = sample(&last, &admitted).unwrap_or_default();
        expect(format!("{files} files in {most} events"), (3.0..=most).contains(&files))?;
        expect_eq(
            "running",
            &sample(&last, "whodunit_plugin_running{plugin=\"report\""),
            &Some(1.0),
        )?;
        let written = wait_until(PATIENCE, || {
            let metrics = get(address, "/metrics").map(|it| it.body).unwrap_or_default();
            sample(&metrics, "whodunit_output_writes_total").is_some_and(|writes| writes >= 1.0)
        });
        expect("the report is written", written)?;
        container.delete()?;
        let gone = wait_until(PATIENCE, || {
            get(address, "/metrics").is_ok_and(|metrics| !metrics.body.contains(&id))
        });
        expect("the series go with the container", gone)
    })
}

fn plugins_measured() -> Outcome {
    scene(LISTEN, |address, _container| {
        let mut last = String::new();
        let of = |metrics: &str, name: &str| {
            sample(metrics, &format!("whodunit_plugin_{name}{{plugin=\"report\""))
        };
        let counted = wait_until(PATIENCE, || {
            last = get(address, "/metrics").map(|it| it.body).unwrap_or_default();
            let calls = of(&last, "calls_total");
            // Its description, its start, and the events.
            calls.is_some_and(|calls| calls >= 3.0) && of(&last, "call_seconds_count") == calls
        });
        expect(format!("every call is in a class of its time in {last}"), counted)?;
        let unbounded = "whodunit_plugin_call_seconds_bucket{plugin=\"report\",le=\"+Inf\"}";
        expect_eq("all of them", &sample(&last, unbounded), &of(&last, "call_seconds_count"))?;
        let seconds = of(&last, "call_seconds_sum").unwrap_or_default();
        expect(format!("they took {seconds} seconds"), seconds > 0.0)?;
        let memory = of(&last, "memory_bytes").unwrap_or_default();
        expect(format!("{memory} bytes are at least a page"), memory >= 65_536.0)?;
        let emptied = wait_until(PATIENCE, || {
            let metrics = get(address, "/metrics").map(|it| it.body).unwrap_or_default();
            of(&metrics, "queue_events") == Some(0.0)
        });
        expect("nothing waits in its queue in the end", emptied)?;
        let plugins = get(address, "/api/v1/plugins")?.json()?;
        let plugin = &plugins["plugins"][0];
        expect(
            format!("the API has them as well: {plugins:#}"),
            plugin["memory_bytes"].as_f64().is_some_and(|it| it >= memory)
                && plugin["call_seconds"]["sum_seconds"].as_f64().is_some_and(|it| it >= seconds),
        )
    })
}

const OF_PROBES: [&str; 2] = ["whodunit_probe_runs_total", "whodunit_probe_run_seconds_total"];

fn probes_measured() -> Outcome {
    scene(LISTEN, |address, _container| {
        let metrics = get(address, "/metrics")?.body;
        let measured = OF_PROBES.iter().any(|name| metrics.contains(name));
        expect(format!("nothing is measured unasked in {metrics}"), !measured)
    })?;
    let pod = Pod::new("http")?;
    let app = pod.container("app").file("/etc/one", "", 0o644);
    let mut container = worker(app, "cat /etc/one /etc/one /etc/one").start()?;
    let toml = format!("{LISTEN}\n[capture]\nmeasure = true");
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&toml);
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let of = |name: &str, probe: &str| {
        let metrics = get(&address, "/metrics").map(|it| it.body).unwrap_or_default();
        sample(&metrics, &format!("{name}{{probe=\"{probe}\"}}"))
    };
    let [runs, seconds] = OF_PROBES;
    let before = of(runs, "files").ok_or("runs are not counted")?;
    let executed = of(runs, "exec").ok_or("runs are not counted")?;
    let_work(&mut container)?;
    let counted = wait_until(PATIENCE, || {
        of(runs, "files").is_some_and(|runs| runs >= before + 3.0)
            && of(runs, "exec").is_some_and(|runs| runs > executed)
    });
    expect("three accesses and an execution are runs", counted)?;
    let took = of(seconds, "files").unwrap_or_default();
    expect(format!("they took {took} seconds"), took > 0.0)?;
    // What falls on the container is a part of what falls on all.
    let labels = format!("container_id=\"{}\"", container.id());
    let (mut own, mut all) = (0.0, 0.0);
    wait_until(PATIENCE, || {
        let metrics = get(&address, "/metrics").map(|it| it.body).unwrap_or_default();
        let sum = |name: &str, label: &str| -> f64 {
            let lines = metrics.lines().filter(|it| it.starts_with(name) && it.contains(label));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        own = sum("whodunit_container_tracing_seconds_total{", &labels);
        all = sum(seconds, "");
        own > 0.0
    });
    expect(format!("{own} seconds of {all} are the container's"), own > 0.0 && own < all)?;
    let probes = get(&address, "/api/v1/probes")?.json()?;
    let probes = probes["probes"].as_array().ok_or("no probes")?;
    for probe in probes {
        let live = probe["live"] == json!(true);
        expect(format!("measured where it runs: {probe}"), live == probe["runs"].is_u64())?;
    }
    let exit = daemon.stop()?;
    expect_eq("exit code", &exit.code(), &Some(0))
}

fn behind_filters() -> Outcome {
    let toml = format!(
        "{LISTEN}\n[[plugin]]\nname = \"rules\"\nsource = \"builtin:path-filter\"\n[[plugin.config.rules]]\n\
         prefix = \"/etc/one\"\naction = \"drop\"\n"
    );
    scene(&toml, |address, container| {
        let id = container.id().to_owned();
        let mut last = String::new();
        let balanced = wait_until(PATIENCE, || {
            last = get(address, "/metrics").map(|it| it.body).unwrap_or_default();
            let lines = last.lines().filter(|line| line.contains(&id));
            let sum = |name: &str| -> f64 {
                let own = lines
                    .clone()
                    .filter(|line| line.starts_with(&format!("whodunit_container_{name}")));
                own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
            };
            let judged = ["admitted", "filtered", "excluded", "duplicate", "lost"];
            let judged: f64 = judged.map(|what| sum(&format!("events_{what}_total"))).iter().sum();
            sum("events_filtered_total") >= 1.0 && judged == sum("file_accesses_total")
        });
        expect(format!("every access is counted once in {last}"), balanced)
    })
}

fn folded() -> Outcome {
    let pod = Pod::new("http")?;
    let _containers =
        (0..3).map(|_| pod.container("app").start()).collect::<Result<Vec<_>, _>>()?;
    let toml = format!("{LISTEN}\nmetrics_containers = 1");
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&toml);
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let metrics = get(&address, "/metrics")?.body;
    expect_eq("containers", &sample(&metrics, "whodunit_containers "), &Some(3.0))?;
    expect_eq("folded", &sample(&metrics, "whodunit_containers_folded "), &Some(2.0))?;
    let infos = metrics.lines().filter(|line| line.starts_with("whodunit_container_info{"));
    expect_eq("containers with series of their own", &infos.count(), &1)
}

/// Lets no property pass that the description does not name.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") {
                map.insert("additionalProperties".into(), Value::Bool(false));
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(list) => list.iter_mut().for_each(strict),
        _ => {}
    }
}

fn answers_fit() -> Outcome {
    scene(LISTEN, |address, container| {
        let description = get(address, "/api/v1/openapi.json")?.json()?;
        expect_eq("version", &description["openapi"], &json!("3.1.0"))?;
        // Its files are in the API once they are in the report.
        let files = format!("/api/v1/containers/{}/files", container.id());
        let listed = wait_for(PATIENCE, || {
            let answer = get(address, &files).ok()?;
            answer.body.contains("/etc/two").then_some(answer)
        });
        let listed = listed.ok_or("the API never lists the files")?.json()?;
        expect_eq("files", &listed["files"], &json!(["/bin/busybox", "/etc/one", "/etc/two"]))?;
        let mut schemas = description["components"].clone();
        strict(&mut schemas);
        let paths = description["paths"].as_object().ok_or("no paths")?;
        let mut held = 0;
        for (path, route) in paths {
            let path = path.replace("{id}", container.id());
            let answer = get(address, &path)?;
            let status = answer.status.to_string();
            let content = &route["get"]["responses"][&status]["content"];
            let (media_type, described) = content
                .as_object()
                .and_then(|content| content.iter().next())
                .ok_or_else(|| format!("{path} answers {status}, which is not described"))?;
            let says = format!("content-type: {media_type}");
            expect(format!("{path}: {says} in {}", answer.head), answer.head.contains(&says))?;
            if media_type != "application/json" {
                continue;
            }
            let mut schema = described["schema"].clone();
            schema["components"] = schemas.clone();
            let validator = jsonschema::validator_for(&schema)?;
            let body = answer.json()?;
            let errors: Vec<String> = validator
                .iter_errors(&body)
                .map(|error| format!("{path}{}: {error}", error.instance_path()))
                .collect();
            expect(format!("{errors:#?} in {body:#}"), errors.is_empty())?;
            held += 1;
        }
        expect(format!("{held} answers were held against it"), held >= 7)?;
        let missing = get(address, "/api/v1/containers/nobody/files")?;
        expect_eq("status of an unknown container", &missing.status, &404)?;
        expect_eq("status of an unknown path", &get(address, "/api/v2")?.status, &404)?;
        Ok(())
    })
}

fn health() -> Outcome {
    scene(LISTEN, |address, _container| {
        let health = get(address, "/healthz")?;
        expect_eq("status", &health.status, &200)?;
        let health = health.json()?;
        let names: Vec<&str> = health["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| it["name"].as_str())
            .collect();
        expect_eq("loops", &names, &vec!["loop capture", "loop main", "loop sinks"])?;
        expect("it says since when", health["since"].is_string())?;
        let ready = get(address, "/readyz")?;
        expect_eq("status", &ready.status, &200)?;
        let again = get(address, "/readyz")?.json()?;
        expect_eq("since when", &again["since"], &ready.json()?["since"])?;
        let plugin = again["checks"]
            .as_array()
            .and_then(|checks| checks.iter().find(|it| it["name"] == "plugin report").cloned());
        expect_eq("plugin", &plugin.map(|it| it["finding"].clone()), &Some(json!("running")))
    })
}

fn guarded() -> Outcome {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "open sesame\n")?;
    let toml = format!("{LISTEN}\ntoken_file = \"{}\"", token.display());
    scene(&toml, |address, _container| {
        let status = |method: &str, path: &str, lines: &str| -> Result<u16, Failed> {
            Ok(ask(address, method, path, lines)?.status)
        };
        let host = "Host: localhost\r\n";
        let bearer = |token: &str| format!("{host}Authorization: Bearer {token}\r\n");
        for path in ["/metrics", "/api/v1/status", "/api/v1/containers/1/files"] {
            expect_eq(path, &status("GET", path, host)?, &401)?;
            expect_eq(path, &status("GET", path, &bearer("open"))?, &401)?;
        }
        expect_eq("with the token", &status("GET", "/metrics", &bearer("open sesame"))?, &200)?;
        for path in ["/", "/healthz", "/readyz", "/api/v1/openapi.json"] {
            expect_eq(path, &status("GET", path, host)?, &200)?;
        }
        let told = ask(address, "GET", "/healthz", host)?.json()?;
        expect_eq("details without the token", &told["checks"], &json!([]))?;
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let refused = status(method, "/api/v1/status", &bearer("open sesame"))?;
            expect_eq(method, &refused, &405)?;
        }
        let rebound = "Host: evil.example\r\nAuthorization: Bearer open sesame\r\n";
        expect_eq("by another name", &status("GET", "/metrics", rebound)?, &403)?;
        let page = ask(address, "GET", "/", host)?;
        for word in ["content-security-policy: default-src 'none'", "nosniff", "no-store"] {
            expect(format!("{word} in {}", page.head), page.head.contains(word))?;
        }
        Ok(())
    })
}

/// The status that `curl` gets, trusting that authority. None where there is no answer.
fn curl(url: &str, authority: &std::path::Path) -> Result<Option<u16>, Failed> {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "30", "--output", "/dev/null", "--cacert"])
        .arg(authority)
        .args(["--write-out", "%{http_code}", url])
        .stdin(Stdio::null())
        .output()?;
    let status = String::from_utf8_lossy(&output.stdout).parse().ok();
    Ok(status.filter(|_| output.status.success()))
}

fn in_private() -> Outcome {
    let folder = tempfile::tempdir()?;
    let [first, second] = ["first", "second"].map(|name| Certificate::make(folder.path(), name));
    let (first, second) = (first?, second?);
    let [certificate, key, token] =
        ["http.pem", "http.key", "token"].map(|name| folder.path().join(name));
    let install = |of: &Certificate| -> Outcome {
        std::fs::copy(&of.certificate, &certificate)?;
        std::fs::copy(&of.key, &key)?;
        Ok(())
    };
    install(&first)?;
    std::fs::write(&token, "open sesame\n")?;
    let toml = format!(
        "{LISTEN}\ntls_certificate = {certificate:?}\ntls_key = {key:?}\ntoken_file = {token:?}\n"
    );
    let pod = Pod::new("http")?;
    let _container = pod.container("app").start()?;
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&toml);
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let port = address.rsplit(':').next().unwrap_or_default();
    let [health, metrics] =
        ["healthz", "metrics"].map(|path| format!("https://localhost:{port}/{path}"));
    expect_eq("by the first", &curl(&health, &first.authority)?, &Some(200))?;
    expect_eq("without the token", &curl(&metrics, &first.authority)?, &Some(401))?;
    expect_eq("by another authority", &curl(&health, &second.authority)?, &None)?;
    expect("without TLS there is no answer", get(&address, "/healthz").is_err())?;

    install(&second)?;
    daemon.signal(Signal::HUP)?;
    let renewed = wait_until(PATIENCE, || {
        curl(&health, &second.authority).is_ok_and(|status| status == Some(200))
    });
    expect("the second is answered with", renewed)?;
    expect_eq("by the first", &curl(&health, &first.authority)?, &None)?;

    // A key that is not the certificate's.
    std::fs::copy(&first.key, &key)?;
    daemon.signal(Signal::HUP)?;
    daemon.await_log("the refusal of the certificate", |entry| {
        entry.to_string().contains("the certificate was not taken, the one before holds")
    })?;
    expect_eq("by the second", &curl(&health, &second.authority)?, &Some(200))?;
    expect_eq("exit code", &daemon.stop()?.code(), &Some(0))?;

    let refused = config.run()?;
    expect_eq("exit code with that key", &refused.code(), &Some(78))?;
    expect(format!("it says why: {}", refused.stderr), refused.stderr.contains("http.tls_key"))
}

fn promtool() -> Outcome {
    scene(LISTEN, |address, _container| {
        let metrics = get(address, "/metrics")?.body;
        let program = find_program("promtool").ok_or("promtool is gone")?;
        let mut check = Command::new(program)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        check.stdin.take().ok_or("no standard input")?.write_all(metrics.as_bytes())?;
        let output = check.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        expect_eq("what promtool says", &said.trim(), &"")?;
        expect("promtool is content", output.status.success())
    })
}

/// Runs promtool on files of `deploy/prometheus`.
fn check_shipped(arguments: &[&str]) -> Outcome {
    let program = find_program("promtool").ok_or("promtool is gone")?;
    let folder = repository().join("deploy/prometheus");
    let output = Command::new(program).args(arguments).current_dir(folder).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    expect(format!("promtool {arguments:?} is content: {said}"), output.status.success())
}

fn scraped() -> Outcome {
    check_shipped(&["check", "rules", "rules.yml"])?;
    check_shipped(&["test", "rules", "rules.test.yml"])?;
    scene(LISTEN, |address, container| {
        let folder = tempfile::tempdir()?;
        let rules = repository().join("deploy/prometheus/rules.yml");
        let config = folder.path().join("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
                 rule_files: [{rules:?}]\n\
                 scrape_configs:\n  - job_name: whodunit\n    static_configs: [{{ targets: [{address:?}] }}]\n"
            ),
        )?;
        // Free a moment ago: Prometheus cannot say which port it was given.
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let program = find_program("prometheus").ok_or("prometheus is gone")?;
        let mut prometheus = Ended(
            Command::new(program)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                .arg(format!("--web.listen-address={free}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
        let ask = |path: &str| get(&free, path).and_then(|answer| answer.json());
        let query = format!(
            "/api/v1/query?query=whodunit_container_events_admitted_total%7Bcontainer%3D%22{}%22%7D%3E%3D3",
            container.id()
        );
        let found = wait_until(PATIENCE, || {
            ask(&query).is_ok_and(|it| it["data"]["result"][0]["metric"]["job"] == "whodunit")
        });
        expect("Prometheus has the container's events", found)?;
        let healthy = wait_until(PATIENCE, || {
            let groups = ask("/api/v1/rules").unwrap_or_default()["data"]["groups"].clone();
            let rules = groups.as_array().into_iter().flatten();
            let rules: Vec<&Value> =
                rules.filter_map(|group| group["rules"].as_array()).flatten().collect();
            rules.len() >= 13 && rules.iter().all(|rule| rule["health"] == "ok")
        });
        expect("every rule is evaluated", healthy)?;
        prometheus.0.kill()?;
        Ok(())
    })
}

/// A process that ends with its trial.
pub(crate) struct Ended(pub(crate) std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn page() -> Outcome {
    scene(LISTEN, |address, container| {
        let browser = Browser::open(390, 844)?;
        browser.go(&format!("http://{address}/"))?;
        let id = container.id();
        browser
            .wait(&format!("document.getElementById('containers').innerText.includes('{id}')"))?;
        browser.wait("document.getElementById('plugins').innerText.includes('running')")?;
        browser
            .wait("document.getElementById('losses').innerText.includes('Every probe is live')")?;
        browser.wait("document.documentElement.scrollWidth <= window.innerWidth")?;
        // By the keyboard alone: to the button of the container, which shows its files. The report
        // that has them is written every interval.
        let on_button = "document.activeElement.getAttribute('aria-label')";
        let reached = (0..20).find_map(|_| {
            browser.press('\u{e004}').ok()?;
            browser
                .value(on_button)
                .ok()
                .filter(|label| label == &format!("Show the files of {id}"))
        });
        expect("Tab reaches the button", reached.is_some())?;
        browser.press('\u{e007}')?;
        browser.wait("document.getElementById('files').innerText.includes('/etc/two')")?;
        browser.wait("document.activeElement.id === 'files-title'")?;
        browser.screenshot("phone-light")?;
        let ground = "getComputedStyle(document.body).backgroundColor";
        browser.prefer("light")?;
        let light = browser.value(ground)?;
        browser.prefer("dark")?;
        let dark = browser.value(ground)?;
        browser.screenshot("phone-dark")?;
        expect(format!("{light} and {dark} differ"), light != dark)?;
        expect_eq("complaints in the console", &browser.complaints()?, &Vec::new())
    })
}
