//! Deaths over HTTP: metrics, the API, the page; and in the status.

use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use serde_json::json;
use whodunit_containers::condition::slowness;
use whodunit_containers::{DaemonConfig, Pod, daemon};

use super::claim::Claim;
use super::{container_death, mortal, stops};
use crate::Outcome;
use crate::browser::{self, Browser};
use crate::http::{LISTEN, address, get};
use crate::report::{expect, expect_eq};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new(
            "deaths::metrics_api_and_status_tell_of_them",
            &["application-error"],
            over_http,
        )
        .needing(stops::lacks_cpu_limits),
        Claim::new(
            "deaths::the_page_shows_one_within_two_seconds",
            &["application-error"],
            on_the_page,
        )
        .needing(browser::lacks),
    ]
}

/// The value of the sample that has all of these in its line.
fn sample(metrics: &str, parts: &[&str]) -> Option<f64> {
    let line = metrics.lines().find(|line| parts.iter().all(|part| line.contains(part)))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn over_http() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_pod(&pod)?.more_toml(LISTEN);
    let starved = mortal(&pod, &["toil", "15"]).cpu_percent(10).start()?;
    starved.hear("ready 1")?;
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let dead = mortal(&pod, &["exit", "7"]).run()?;
    let death = container_death(&config, &dead.id)?;
    death.expect_verdict("application-error", 95..=99, &[])?;
    let listed = get(&address, "/api/v1/deaths")?.json()?;
    let summary = &listed["deaths"][0];
    for (field, expected) in [
        ("runtime_id", json!(dead.id)),
        ("subject", json!("container")),
        ("process", json!("mortal")),
        ("ended", json!("exit code 7")),
        ("verdict", json!("application-error")),
        ("headline", death.explanation["headline"].clone()),
    ] {
        expect_eq(field, &summary[field], &expected)?;
    }
    let id = summary["id"].as_str().ok_or("a death in the list has an id")?;
    let whole = get(&address, &format!("/api/v1/deaths/{id}"))?.json()?;
    expect_eq("the record", &whole["death"], &death.record)?;
    expect_eq("its explanation", &whole["explanation"], &death.explanation)?;
    expect_eq("what the list says", &whole["summary"], summary)?;
    expect_eq("status of no death", &get(&address, "/api/v1/deaths/1-1")?.status, &404)?;

    let metrics = get(&address, "/metrics")?.body;
    let deaths = ["whodunit_deaths_total{", "subject=\"container\"", "application-error"];
    expect_eq("deaths by verdict", &sample(&metrics, &deaths), &Some(1.0))?;
    let throttled = ["whodunit_container_cpu_throttled_seconds_total{", starved.id()];
    expect(
        format!("seconds throttled: {metrics}"),
        sample(&metrics, &throttled).is_some_and(|seconds| seconds > 0.0),
    )?;

    let status = get(&address, "/api/v1/status")?.json()?;
    expect_eq("by verdict", &status["deaths"]["containers"], &json!({"application-error": 1}))?;
    expect_eq("the newest", &status["deaths"]["newest"], summary)?;
    let mut status = Command::new(daemon::binary()?);
    let told = status.args(["status", "--config"]).arg(config.toml_path()).output()?;
    let text = String::from_utf8_lossy(&told.stdout);
    let headline = death.explanation["headline"].as_str().unwrap_or_default();
    for expected in ["application-error", "newest death: ", headline] {
        expect(format!("`status` says {expected:?}: {text}"), text.contains(expected))?;
    }
    expect_eq("the daemon's end", &daemon.stop()?.code(), &Some(0))
}

fn on_the_page() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_pod(&pod)?.more_toml(LISTEN);
    let mut app = mortal(&pod, &["outlive", "15", "7"]).start()?;
    app.hear("ready 1")?;
    let mut daemon = config.start()?;
    let address = address(&mut daemon)?;
    let browser = Browser::open(1280, 900)?;
    browser.go(&format!("http://{address}/"))?;
    browser.wait("document.getElementById('plugins').innerText.includes('running')")?;
    let text = |id: &str| -> Result<String, Failed> {
        let value = browser.value(&format!("document.getElementById('{id}').innerText"))?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    };
    let moment = Instant::now();
    app.tell("go")?;
    browser
        .wait(&format!("document.getElementById('deaths').innerText.includes('{}')", app.id()))?;
    let after = moment.elapsed();
    println!("on the page {} ms after it happened", after.as_millis());
    expect(
        format!("within two seconds, not {after:?}"),
        after < Duration::from_secs(2) * slowness(),
    )?;
    let death = container_death(&config, app.id())?;
    death.expect_verdict("application-error", 80..=99, &[])?;
    let headline = death.explanation["headline"].as_str().unwrap_or_default();
    let said = text("deaths")?;
    for expected in [headline, "application-error", "exit code 7"] {
        expect(format!("the page says {expected:?}: {said}"), said.contains(expected))?;
    }
    // What it means is one click away.
    browser.value("document.querySelector('#deaths summary').click()")?;
    let advice = death.explanation["advice"][0].as_str().unwrap_or_default();
    let said = text("deaths")?;
    expect(format!("the page says {advice:?}: {said}"), said.contains(advice))?;
    browser.screenshot("death")?;
    expect_eq("complaints in the console", &browser.complaints()?, &Vec::<String>::new())?;
    expect_eq("the daemon's end", &daemon.stop()?.code(), &Some(0))
}
