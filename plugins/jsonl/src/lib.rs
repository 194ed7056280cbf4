//! Every event as a line of JSON, for log pipelines.
//!
//! Takes the events of the plugin contract; gives the output `events` the lines of each batch as it comes,
//! in the order of admission. Meant for an output with `lines`: each document is added to those before.
//! What the daemon dropped on the way is a line of its own, in its place. Keeps nothing.

use event_log::line;
use whodunit_sdk::{Batch, Context, NoConfig, Reporter, Tick, documents};

/// The output of the lines.
const OUTPUT: &str = "events";

/// The plugin. What could not be handed over is told at the next tick.
#[derive(Debug, Default)]
pub struct JsonLines {
    refusal: Option<String>,
}

impl Reporter for JsonLines {
    type Config = NoConfig;

    fn start(_: &Context, _: NoConfig) -> Result<JsonLines, String> {
        Ok(JsonLines::default())
    }

    fn on_batch(&mut self, batch: &Batch) {
        let mut lines = Vec::new();
        if batch.dropped() > 0 {
            lines = serde_json::json!({ "dropped": batch.dropped() }).to_string().into_bytes();
            lines.push(b'\n');
        }
        batch.events().for_each(|event| lines.extend(line(&event)));
        if let Err(refusal) = documents::emit(OUTPUT, &lines) {
            self.refusal = Some(refusal.into());
        }
    }

    fn on_tick(&mut self, _: &Tick) -> Result<(), String> {
        self.refusal.take().map_or(Ok(()), Err)
    }
}

whodunit_sdk::export_reporter!(JsonLines);

#[cfg(test)]
mod tests {
    use whodunit_sdk::testing::{BatchBuilder, Harness};

    use super::*;

    #[test]
    fn each_batch_is_a_document_of_its_lines_with_what_was_dropped_before() {
        let mut harness = Harness::<JsonLines>::new().outputs(&[OUTPUT]).start().unwrap();
        harness.batch(BatchBuilder::new().open(1, "/a").open(1, "/b").dropped(3).build());
        let document = String::from_utf8(harness.document(OUTPUT).unwrap()).unwrap();
        let lines: Vec<serde_json::Value> =
            document.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], serde_json::json!({ "dropped": 3 }));
        assert_eq!((&lines[1]["path"], &lines[2]["path"]), (&"/a".into(), &"/b".into()));
        harness.interval().unwrap();
    }

    #[test]
    fn an_output_that_is_not_in_the_toml_is_told_at_the_tick() {
        let mut harness = Harness::<JsonLines>::new().outputs(&["other"]).start().unwrap();
        harness.batch(BatchBuilder::new().open(1, "/a").build());
        assert!(harness.interval().unwrap_err().contains("other"));
        harness.interval().unwrap();
    }
}
