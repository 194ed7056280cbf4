//! The daemon's log: messages of `tracing`, written to standard error.
//!
//! Takes the `[log]` table. The level is that of the daemon's own messages; libraries are heard from
//! `warn` on, so that `debug` shows what the daemon does. Never writes to standard output, which
//! belongs to documents.

use std::io;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::config::{Log, LogFormat, LogLevel};
use crate::exit::{Exit, Exits};

/// The log was started before.
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be started a second time in one process")]
pub struct LogError;

impl Exits for LogError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// Starts the log of this process. `colours` is whether a terminal shows it that wants them.
pub fn start(log: Log, colours: bool) -> Result<(), LogError> {
    let subscriber = subscriber(log, colours, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError)
}

fn subscriber<W>(log: Log, colours: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = level_filter(log.level);
    let heard = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let registry = tracing_subscriber::registry();
    match log.format {
        LogFormat::Text => Box::new(registry.with(layer.compact().with_filter(heard))),
        LogFormat::Json => {
            Box::new(registry.with(layer.json().flatten_event(true).with_filter(heard)))
        }
    }
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the log holds after one message of each kind.
    fn written(level: LogLevel, format: LogFormat, colours: bool) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(Log { level, format }, colours, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(container = "db", "own error");
            tracing::info!("own info");
            tracing::debug!("own debug");
            tracing::warn!(target: "wasmtime", "library warn");
            tracing::info!(target: "wasmtime", "library info");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[track_caller]
    fn check(level: LogLevel, heard: &[&str]) {
        let text = written(level, LogFormat::Text, false);
        let all = ["own error", "own info", "own debug", "library warn", "library info"];
        let found: Vec<&str> = all.into_iter().filter(|message| text.contains(message)).collect();
        assert_eq!(found, heard, "{text}");
    }

    #[test]
    fn the_level_is_that_of_our_own_messages_and_libraries_are_heard_from_warn_on() {
        check(LogLevel::Error, &["own error"]);
        check(LogLevel::Info, &["own error", "own info", "library warn"]);
        check(LogLevel::Trace, &["own error", "own info", "own debug", "library warn"]);
    }

    #[test]
    fn text_is_one_line_a_message_and_has_colours_only_where_asked() {
        let plain = written(LogLevel::Error, LogFormat::Text, false);
        assert_eq!(plain.lines().count(), 1);
        assert!(plain.contains("ERROR") && plain.contains("container=\"db\""), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(written(LogLevel::Error, LogFormat::Text, true).contains('\u{1b}'));
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_at_its_top() {
        let text = written(LogLevel::Error, LogFormat::Json, false);
        let message: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(message["level"], "ERROR");
        assert_eq!(message["message"], "own error");
        assert_eq!(message["container"], "db");
    }
}
