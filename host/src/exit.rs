//! How the process ends: exit codes, and the one sentence that goes with a failure.
//!
//! Takes the typed error of whatever command failed. Gives its exit code and its text. Never prints.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// How the process ends. 77 and 78 are those of `sysexits.h` (`EX_NOPERM`, `EX_CONFIG`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Success,
    /// Something failed that no other code stands for.
    Failure,
    /// The command line is wrong.
    Usage,
    /// A permission is missing.
    Permission,
    /// The configuration is wrong.
    Configuration,
}

impl Exit {
    /// Every exit, by its code.
    pub const ALL: [Exit; 5] =
        [Exit::Success, Exit::Failure, Exit::Usage, Exit::Permission, Exit::Configuration];

    /// The exit code of the process.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Permission => 77,
            Exit::Configuration => 78,
        }
    }

    /// What it means, for the documentation.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "Everything was done",
            Exit::Failure => "Something failed; the sentence on standard error says what",
            Exit::Usage => "The command line is wrong",
            Exit::Permission => "A permission or capability is missing",
            Exit::Configuration => "The configuration file or an environment variable is wrong",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// An error that knows how the process ends with it.
pub trait Exits: Error + Send + Sync + 'static {
    /// How the process ends with it.
    fn exit(&self) -> Exit;
}

/// A command that failed.
pub struct Failure {
    exit: Exit,
    cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure whose error does not know how the process ends with it.
    pub fn new(exit: Exit, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure { exit, cause: cause.into() }
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The error itself, where it is of that type.
    pub fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.cause.downcast_ref()
    }

    /// The error and its causes in one sentence. A cause that an error repeats in its own text
    /// stands there once.
    pub fn sentence(&self) -> String {
        let mut sentence = self.cause.to_string();
        let mut cause = self.cause.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !sentence.contains(&text) {
                sentence = format!("{sentence}: {text}");
            }
            cause = error.source();
        }
        sentence
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}: {}", self.exit.code(), self.sentence())
    }
}

impl<E: Exits> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { exit: error.exit(), cause: Box::new(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot load the plugin `report`")]
    struct Outer {
        source: Middle,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read /x.wasm: {source}")]
    struct Middle {
        source: std::io::Error,
    }

    impl Exits for Outer {
        fn exit(&self) -> Exit {
            Exit::Configuration
        }
    }

    #[test]
    fn the_causes_of_an_error_are_folded_into_one_sentence_without_repeating() {
        let source = std::io::Error::other("the disk is gone");
        let failure = Failure::from(Outer { source: Middle { source } });
        assert_eq!(
            failure.sentence(),
            "cannot load the plugin `report`: cannot read /x.wasm: the disk is gone"
        );
        assert_eq!(failure.exit(), Exit::Configuration);
        assert!(failure.cause::<Outer>().is_some());
        assert!(failure.cause::<Middle>().is_none());
    }

    #[test]
    fn no_two_exits_share_a_code() {
        let codes = Exit::ALL.map(Exit::code);
        assert!(codes.is_sorted_by(|one, next| one < next), "{codes:?}");
    }
}
