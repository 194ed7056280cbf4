//! The files of one container, as the newest report has them.
//!
//! The daemon itself keeps no list of files: a reporter does, and its document is read here.

use serde_json::Value;

use super::openapi::FilesAnswer;
use crate::sink::{Outlet, SinkId};
use crate::status::document::{ContainerStatus, PluginReport};

/// The source of the reporters whose documents are understood.
const REPORTER: &str = "builtin:report-json";
/// The output that they write.
const OUTPUT: &str = "report";
/// The largest document that is read for a question.
const MAX_REPORT_BYTES: usize = 64 << 20;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// No reporter has an output that can be read back.
    #[error("no plugin `{REPORTER}` writes its output `{OUTPUT}` to a file that is there already")]
    NoReport,
    /// The reports do not have it.
    #[error("the report does not name this container yet: it is written every interval")]
    NotReported,
}

/// Looks for a container in the reports of the daemon's plugins.
pub(super) fn files_of(
    container: &ContainerStatus,
    plugins: &[PluginReport],
    sinks: &Outlet,
) -> Result<FilesAnswer, FilesError> {
    let mut error = FilesError::NoReport;
    for plugin in plugins.iter().filter(|plugin| plugin.source == REPORTER) {
        let document = sinks.read(&SinkId::new(&plugin.name, OUTPUT), MAX_REPORT_BYTES);
        let Some(report) = document.and_then(|body| serde_json::from_slice::<Value>(&body).ok())
        else {
            continue;
        };
        match answer(container, &plugin.name, &report) {
            Some(answer) => return Ok(answer),
            None => error = FilesError::NotReported,
        }
    }
    Err(error)
}

fn answer(container: &ContainerStatus, plugin: &str, report: &Value) -> Option<FilesAnswer> {
    let containers = report["containers"].as_array()?;
    let entry = containers.iter().find(|entry| {
        entry["id"] == container.runtime_id && entry["cgroup_path"] == container.cgroup_path
    })?;
    let paths = entry["files"].as_array()?.iter().filter_map(Value::as_str);
    Some(FilesAnswer {
        container: container.name.clone(),
        plugin: plugin.to_owned(),
        as_of: serde_json::from_value(report["last_updated_at"].clone()).ok()?,
        files: paths.map(str::to_owned).collect(),
        truncated: entry["truncated"].as_u64().unwrap_or(0),
        complete: entry["complete"].as_bool().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::metrics::tests::container;

    #[test]
    fn a_container_is_found_by_its_id_and_cgroup() {
        let mut wanted = container(1, "web", 0);
        wanted.cgroup_path = "/pod/web".to_owned();
        let report = |cgroup: &str| {
            json!({
                "last_updated_at": "2026-01-02T03:04:05.006Z",
                "containers": [{
                    "id": "web-id", "cgroup_path": cgroup, "complete": true,
                    "files": ["/etc/a", "/etc/b"],
                }],
            })
        };
        let found = answer(&wanted, "report", &report("/pod/web")).unwrap();
        assert_eq!(found.files, ["/etc/a", "/etc/b"]);
        assert_eq!((found.truncated, found.complete), (0, true));
        assert_eq!(found.as_of.to_string(), "2026-01-02T03:04:05.006Z");
        assert!(answer(&wanted, "report", &report("/other/web")).is_none());
        assert!(answer(&wanted, "report", &json!({})).is_none());
    }
}
