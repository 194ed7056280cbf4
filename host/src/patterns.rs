//! Patterns of container names, as the TOML has them.

use globset::{Glob, GlobSet, GlobSetBuilder};

/// What any of these patterns fits. They were checked when the configuration was read; one that is no
/// pattern fits nothing.
pub(crate) fn any_of(patterns: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    patterns.iter().filter_map(|pattern| Glob::new(pattern).ok()).for_each(|glob| {
        set.add(glob);
    });
    set.build().unwrap_or_else(|_| GlobSet::empty())
}
