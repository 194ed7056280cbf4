//! What a plugin is for.

/// What a plugin is for. Each role is a world of the contract (`wit/roles.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Decides which events go on.
    Filter,
    /// Makes documents from events.
    Reporter,
    /// Explains deaths.
    Explainer,
}

impl Role {
    /// Every role, in the order in which they see what happens.
    pub const ALL: [Role; 3] = [Role::Filter, Role::Reporter, Role::Explainer];

    /// The word in documents, which is also the name of the interface that its plugins export.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Filter => "filter",
            Role::Reporter => "reporter",
            Role::Explainer => "explainer",
        }
    }

    /// The name with its article, for sentences.
    pub const fn with_article(self) -> &'static str {
        match self {
            Role::Filter => "a filter",
            Role::Reporter => "a reporter",
            Role::Explainer => "an explainer",
        }
    }
}
