//! The plugin's own configuration: JSON from the daemon, typed by serde.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// For a plugin with nothing to configure: any key is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// The typed configuration, or one sentence that says what is wrong with it.
pub(crate) fn parse<C: DeserializeOwned>(json: &str) -> Result<C, String> {
    serde_json::from_str(json).map_err(|error| {
        // Positions in the JSON mean nothing to someone who wrote TOML.
        let error = error.to_string();
        let cause = error.rsplit_once(" at line ").map_or(error.as_str(), |(cause, _)| cause);
        format!("its `config` table is not right: {cause}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        most: u32,
    }

    #[test]
    fn keys_are_checked() {
        assert_eq!(parse(r#"{"most": 3}"#), Ok(Config { most: 3 }));
        assert_eq!(parse("{}"), Ok(Config { most: 0 }));
        assert_eq!(
            parse::<Config>(r#"{"moist": 3}"#).unwrap_err(),
            "its `config` table is not right: unknown field `moist`, expected `most`"
        );
        assert!(parse::<Config>(r#"{"most": "x"}"#).unwrap_err().ends_with("expected u32"));
        assert!(parse::<NoConfig>(r#"{"most": 3}"#).is_err());
        assert_eq!(parse("{}"), Ok(NoConfig {}));
    }
}
