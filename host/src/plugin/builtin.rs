//! The plugins that are shipped inside the binary.

/// Their names and components, as the build script left them.
const BUILTINS: [(&str, &[u8]); 8] = [
    ("report-json", include_bytes!(concat!(env!("OUT_DIR"), "/report-json.wasm"))),
    ("death-explainer", include_bytes!(concat!(env!("OUT_DIR"), "/death-explainer.wasm"))),
    ("event-log", include_bytes!(concat!(env!("OUT_DIR"), "/event-log.wasm"))),
    ("jsonl", include_bytes!(concat!(env!("OUT_DIR"), "/jsonl.wasm"))),
    ("otlp", include_bytes!(concat!(env!("OUT_DIR"), "/otlp.wasm"))),
    ("otlp-files", include_bytes!(concat!(env!("OUT_DIR"), "/otlp-files.wasm"))),
    ("apparmor-profile", include_bytes!(concat!(env!("OUT_DIR"), "/apparmor-profile.wasm"))),
    ("path-filter", include_bytes!(concat!(env!("OUT_DIR"), "/path-filter.wasm"))),
];

/// The component of that name.
pub(super) fn component(name: &str) -> Option<&'static [u8]> {
    BUILTINS.iter().find(|(known, _)| *known == name).map(|(_, component)| *component)
}

/// The names that may stand behind `builtin:`.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|(name, _)| *name)
}
