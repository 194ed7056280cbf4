//! Deaths: who killed it, why, and how sure are we.
//!
//! Owns the death record (`record`) and what explainers make of it (`explanation`). A record is facts
//! only: what they mean is an explainer's work.

pub mod explanation;
pub mod flat;
pub mod record;
