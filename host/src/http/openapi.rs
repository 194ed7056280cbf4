//! The description of the API, made from the types of its answers.
//!
//! OpenAPI 3.1, whose schemas are JSON Schema of 2020-12.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::status::Status;
use crate::status::deaths::{DeathAnswer, DeathsAnswer};
use crate::status::document::{ContainerStatus, Moment, OutputStatus, PluginReport, ProbeReport};
use crate::status::health::Health;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorAnswer {
    /// In one sentence.
    pub error: String,
}

/// The containers that are watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainersAnswer {
    /// When their totals were taken.
    pub as_of: Moment,
    /// In the order in which they were found.
    pub containers: Vec<ContainerStatus>,
}

/// The files that a container used, as the newest report has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilesAnswer {
    /// The container's name.
    pub container: String,
    /// The plugin that reported them.
    pub plugin: String,
    /// When it did.
    pub as_of: Moment,
    /// Paths in the container, sorted. Bytes that are no UTF-8 stand as `\xNN`, a backslash as `\\`.
    pub files: Vec<String>,
    /// How many more there are that the report does not hold.
    pub truncated: u64,
    /// Whether the report holds the list to be whole.
    pub complete: bool,
}

/// The plugins and where their documents go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginsAnswer {
    /// In the order of the TOML.
    pub plugins: Vec<PluginReport>,
    /// Their outputs.
    pub outputs: Vec<OutputStatus>,
}

/// The probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbesAnswer {
    /// Every probe of this build.
    pub probes: Vec<ProbeReport>,
}

impl From<Status> for ContainersAnswer {
    fn from(status: Status) -> ContainersAnswer {
        ContainersAnswer { as_of: status.as_of, containers: status.containers }
    }
}

impl From<Status> for PluginsAnswer {
    fn from(status: Status) -> PluginsAnswer {
        PluginsAnswer { plugins: status.plugins, outputs: status.outputs }
    }
}

impl From<Status> for ProbesAnswer {
    fn from(status: Status) -> ProbesAnswer {
        ProbesAnswer { probes: status.probes }
    }
}

/// A path that is answered.
pub struct Route {
    /// The path. What stands in braces is the caller's choice.
    pub path: &'static str,
    /// What the answer is.
    pub summary: &'static str,
    /// Whether a configured token is needed.
    pub guarded: bool,
    /// The answers by their status.
    answers: fn(&mut SchemaGenerator) -> Vec<(u16, &'static str, Value)>,
}

/// Every path, in the order of the documentation.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/",
        summary: "A page for people: containers, plugins, losses",
        guarded: false,
        answers: |_| vec![(200, "text/html", json!({ "type": "string" }))],
    },
    Route {
        path: "/metrics",
        summary: "Metrics in the text format of Prometheus",
        guarded: true,
        answers: |_| vec![(200, "text/plain", json!({ "type": "string" }))],
    },
    Route {
        path: "/healthz",
        summary: "Whether every loop of the daemon turns: 200, or 503. Details only with the token",
        guarded: false,
        answers: |schemas| vec![of::<Health>(200, schemas), of::<Health>(503, schemas)],
    },
    Route {
        path: "/readyz",
        summary: "Whether probes are attached, containers discovered and plugins running: 200, or \
                  503. Details only with the token",
        guarded: false,
        answers: |schemas| vec![of::<Health>(200, schemas), of::<Health>(503, schemas)],
    },
    Route {
        path: "/api/v1/status",
        summary: "Everything: the daemon, containers, probes, plugins, outputs, losses",
        guarded: true,
        answers: |schemas| vec![of::<Status>(200, schemas)],
    },
    Route {
        path: "/api/v1/containers",
        summary: "The containers that are watched, with their totals",
        guarded: true,
        answers: |schemas| vec![of::<ContainersAnswer>(200, schemas)],
    },
    Route {
        path: "/api/v1/containers/{id}/files",
        summary: "The files that a container used. `id` is its number or the runtime's id",
        guarded: true,
        answers: |schemas| vec![of::<FilesAnswer>(200, schemas), of::<ErrorAnswer>(404, schemas)],
    },
    Route {
        path: "/api/v1/deaths",
        summary: "The newest deaths with what was made of them, the newest first",
        guarded: true,
        answers: |schemas| vec![of::<DeathsAnswer>(200, schemas)],
    },
    Route {
        path: "/api/v1/deaths/{id}",
        summary: "A death with its evidence. `id` is that of the list",
        guarded: true,
        answers: |schemas| vec![of::<DeathAnswer>(200, schemas), of::<ErrorAnswer>(404, schemas)],
    },
    Route {
        path: "/api/v1/plugins",
        summary: "The plugins, and where their documents go",
        guarded: true,
        answers: |schemas| vec![of::<PluginsAnswer>(200, schemas)],
    },
    Route {
        path: "/api/v1/probes",
        summary: "The probes, and why one does not run",
        guarded: true,
        answers: |schemas| vec![of::<ProbesAnswer>(200, schemas)],
    },
    Route {
        path: "/api/v1/openapi.json",
        summary: "This description",
        guarded: false,
        answers: |_| vec![(200, "application/json", json!({ "type": "object" }))],
    },
];

fn of<T: JsonSchema>(status: u16, schemas: &mut SchemaGenerator) -> (u16, &'static str, Value) {
    (status, "application/json", schemas.subschema_for::<T>().to_value())
}

/// The description.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let error = of::<ErrorAnswer>(0, &mut schemas);
    let mut paths = serde_json::Map::new();
    for route in ROUTES {
        let mut answers = serde_json::Map::new();
        for (status, media_type, schema) in (route.answers)(&mut schemas) {
            answers.insert(status.to_string(), answer("What was asked for", media_type, &schema));
        }
        if route.guarded {
            answers.insert("401".to_owned(), answer("The token is missing", error.1, &error.2));
        }
        let names = route.path.split('/').filter_map(|step| {
            let name = step.strip_prefix('{')?.strip_suffix('}')?;
            Some(json!({
                "name": name, "in": "path", "required": true, "schema": { "type": "string" },
            }))
        });
        let names: Vec<Value> = names.collect();
        let security = if route.guarded { json!([{ "token": [] }]) } else { json!([]) };
        paths.insert(
            route.path.to_owned(),
            json!({ "get": {
                "summary": route.summary,
                "parameters": names,
                "security": security,
                "responses": answers,
            } }),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "whodunit",
            "description": "What the daemon sees and does. Read-only: nothing here changes anything.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn answer(description: &str, media_type: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { media_type: { "schema": schema } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_description_leads_to_a_schema() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        found.push(reference.clone());
                    }
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let description = openapi();
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(found.len() > 8, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
    }
}
