//! Explainers: what is made of a death.

use serde::de::DeserializeOwned;

use crate::{Context, Death};

pub use crate::bindings::explainer::exports::whodunit::plugin::explainer::Explanation;

/// A plugin that explains deaths.
pub trait Explainer: Sized {
    /// The plugin's own table of the daemon's TOML, as [`crate::Reporter::Config`].
    type Config: DeserializeOwned;

    /// Called once in an instance's life. An error is a sentence for the operator: what is wrong,
    /// and what to do.
    fn start(context: &Context, config: Self::Config) -> Result<Self, String>;

    /// What to make of a death: [`Explanation::unknown`] where the evidence does not tell, so that the
    /// daemon asks the next explainer. An error is logged and counted by the daemon; the instance goes
    /// on.
    fn explain(&mut self, death: &Death) -> Result<Explanation, String>;
}

impl Explanation {
    /// The verdict of an explainer that cannot say.
    pub const UNKNOWN: &'static str = "unknown";

    /// A verdict (a stable identifier), its headline, and how sure it is, in percent.
    pub fn new(
        verdict: impl Into<String>,
        headline: impl Into<String>,
        confidence: u8,
    ) -> Explanation {
        Explanation {
            verdict: verdict.into(),
            headline: headline.into(),
            explanation: String::new(),
            confidence,
            rests_on: Vec::new(),
            missing: Vec::new(),
            advice: Vec::new(),
        }
    }

    /// No verdict, and why.
    pub fn unknown(why: impl Into<String>) -> Explanation {
        Explanation::new(Explanation::UNKNOWN, why, 0)
    }
}

/// Makes a component of an [`Explainer`]. Its name and version are those of the crate.
///
/// Expands to nothing but a check of the type where the target is not WebAssembly.
#[macro_export]
macro_rules! export_explainer {
    ($explainer:ty) => {
        const _: fn() = $crate::guest::is_explainer::<$explainer>;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::explainer::exports::whodunit::plugin::explainer;

            $crate::export_life!($explainer, $crate::guest::start_explainer);

            impl explainer::Guest for Exports {
                fn explain(
                    death: explainer::Death,
                ) -> ::std::result::Result<explainer::Explanation, ::std::string::String> {
                    $crate::guest::explain(&INSTANCE, death)
                }
            }

            $crate::bindings::explainer::export_explainer_bindings!(
                Exports with_types_in $crate::bindings::explainer
            );
        };
    };
}
