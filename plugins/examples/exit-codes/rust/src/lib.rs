//! Explains exit codes in the words of those who run the program.

use std::collections::BTreeMap;

use whodunit_sdk::death::WaitStatus;
use whodunit_sdk::{Context, Death, Explainer, Explanation, export_explainer};

/// The plugin's own table of the TOML.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What each code means, such as `42 = "It found no licence"`.
    pub codes: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Config {
        let meaning = "Its configuration is wrong".to_owned();
        Config { codes: BTreeMap::from([("78".to_owned(), meaning)]) }
    }
}

/// The explainer: what each code means.
pub struct ExitCodes(BTreeMap<u8, String>);

impl Explainer for ExitCodes {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<ExitCodes, String> {
        let code = |(code, meaning): (String, String)| match code.parse() {
            Ok(code) => Ok((code, meaning)),
            Err(_) => Err(format!("`{code}` in `config.codes` is no exit code: 0 to 255 are")),
        };
        Ok(ExitCodes(config.codes.into_iter().map(code).collect::<Result<_, _>>()?))
    }

    fn explain(&mut self, death: &Death) -> Result<Explanation, String> {
        let WaitStatus::Exited(code) = death.status() else {
            return Ok(Explanation::unknown("It did not exit by itself"));
        };
        Ok(match self.0.get(&code) {
            Some(meaning) => Explanation::new("known-exit-code", meaning, 90),
            // The next explainer is asked.
            None => Explanation::unknown("That is not one of ours"),
        })
    }
}

export_explainer!(ExitCodes);
