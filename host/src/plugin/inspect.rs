//! What some bytes are, as far as plugins go, without compiling them.

use wasmparser::{Encoding, Parser, Payload};

use super::role::Role;

/// The package of the contract and its version, as `CONTRACT` has them.
const PACKAGE: &str = "whodunit:plugin";
/// Versions of the contract that this daemon speaks begin with this.
const SPOKEN: &str = "0.1.";

/// What some bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// A component for a role of the contract.
    Plugin(Outside),
    /// A component for several roles at once.
    SeveralRoles(Vec<Role>),
    /// A component for another version of the contract.
    OtherVersion(String),
    /// A component that has nothing to do with the contract, with the names of what it exports.
    Stranger(Vec<String>),
    /// A core module.
    CoreModule,
    /// WebAssembly in its text format.
    Text,
    /// No WebAssembly.
    Garbage,
    /// WebAssembly that breaks off or is damaged.
    Damaged(String),
}

/// A plugin, as far as its outside tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) role: Role,
    /// Whether it saves and restores state.
    pub(super) has_state: bool,
    /// What it imports that is not of the contract.
    pub(super) foreign_imports: Vec<String>,
}

/// Looks at some bytes.
pub(super) fn inspect(bytes: &[u8]) -> Nature {
    if !bytes.starts_with(b"\0asm") {
        let start = bytes.trim_ascii_start();
        let is_text = start.starts_with(b"(component") || start.starts_with(b"(module");
        return if is_text { Nature::Text } else { Nature::Garbage };
    }
    match names(bytes) {
        Ok(Some(names)) => names.nature(),
        Ok(None) => Nature::CoreModule,
        Err(error) => Nature::Damaged(error.message().to_owned()),
    }
}

/// The names at the outside of a component.
#[derive(Default)]
pub(super) struct Names {
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
}

/// The names at the outside of some bytes. None where they are a core module.
pub(super) fn names(bytes: &[u8]) -> Result<Option<Names>, wasmparser::BinaryReaderError> {
    let mut names = Names::default();
    // Sections of what is inside the component come between its own.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Ok(None),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    names.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    names.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(Some(names))
}

impl Names {
    fn nature(self) -> Nature {
        let contract = |name: &String| interface(name).map(|(_, version)| version.to_owned());
        let all = || self.exports.iter().chain(&self.imports);
        let other_version = all().filter_map(contract).find(|version| !version.starts_with(SPOKEN));
        if let Some(version) = other_version {
            return Nature::OtherVersion(version);
        }
        let roles = self.roles();
        let has_state = self.gives("state");
        match roles[..] {
            [] => Nature::Stranger(self.exports),
            [role] => {
                let foreign_imports = self.foreign_imports();
                Nature::Plugin(Outside { role, has_state, foreign_imports })
            }
            [..] => Nature::SeveralRoles(roles),
        }
    }

    /// Whether it exports an interface of the contract.
    fn gives(&self, wanted: &str) -> bool {
        self.exports.iter().filter_map(|name| interface(name)).any(|(name, _)| name == wanted)
    }

    /// The roles that it plays, whether or not this daemon runs them.
    pub(super) fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.gives(role.name())).collect()
    }

    /// Package and version of the contract that it was built for.
    pub(super) fn contract(&self) -> Option<String> {
        let mut all = self.exports.iter().chain(&self.imports);
        let (_, version) = all.find_map(|name| interface(name))?;
        Some(format!("{PACKAGE}@{version}"))
    }

    /// The full name of the interface by which it says who it is.
    pub(super) fn lifecycle(&self) -> Option<String> {
        let is_lifecycle =
            |name: &&String| interface(name).is_some_and(|(name, _)| name == "lifecycle");
        self.exports.iter().find(is_lifecycle).cloned()
    }

    /// What it wants beyond the contract.
    pub(super) fn foreign_imports(&self) -> Vec<String> {
        self.imports.iter().filter(|name| interface(name).is_none()).cloned().collect()
    }
}

/// Interface and version in a name such as `whodunit:plugin/reporter@0.1.0`.
fn interface(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.strip_prefix('/')?.split_once('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wat: &str, nature: Nature) {
        assert_eq!(inspect(&wat::parse_str(wat).unwrap()), nature, "{wat}");
    }

    #[test]
    fn natures_are_told_apart() {
        let export =
            |name: &str| format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#);
        let plugin =
            |role| Nature::Plugin(Outside { role, has_state: false, foreign_imports: vec![] });
        check("(module)", Nature::CoreModule);
        check("(component)", Nature::Stranger(vec![]));
        check("(component (core module))", Nature::Stranger(vec![]));
        check(&export("a:b/c@1.0.0"), Nature::Stranger(vec!["a:b/c@1.0.0".into()]));
        check(&export("whodunit:plugin/reporter@0.1.0"), plugin(Role::Reporter));
        check(&export("whodunit:plugin/reporter@0.1.7"), plugin(Role::Reporter));
        check(&export("whodunit:plugin/filter@0.1.0"), plugin(Role::Filter));
        check(&export("whodunit:plugin/explainer@0.1.0"), plugin(Role::Explainer));
        check(&export("whodunit:plugin/reporter@0.2.0"), Nature::OtherVersion("0.2.0".into()));
        check(
            r#"(component
                (import "wasi:cli/stdout@0.2.0" (instance))
                (instance $i)
                (export "whodunit:plugin/state@0.1.0" (instance $i))
                (export "whodunit:plugin/reporter@0.1.0" (instance $i)))"#,
            Nature::Plugin(Outside {
                role: Role::Reporter,
                has_state: true,
                foreign_imports: vec!["wasi:cli/stdout@0.2.0".into()],
            }),
        );
        check(
            r#"(component
                (instance $i)
                (export "whodunit:plugin/filter@0.1.0" (instance $i))
                (export "whodunit:plugin/reporter@0.1.0" (instance $i)))"#,
            Nature::SeveralRoles(vec![Role::Filter, Role::Reporter]),
        );
        // What is inside does not count as the component's own.
        check(
            r#"(component (component (import "wasi:cli/stdout@0.2.0" (instance))))"#,
            Nature::Stranger(vec![]),
        );
    }

    #[test]
    fn bytes_that_are_no_component_are_told_apart() {
        assert_eq!(inspect(b""), Nature::Garbage);
        assert_eq!(inspect(b"#!/bin/sh"), Nature::Garbage);
        assert_eq!(inspect(b"  (component)"), Nature::Text);
        assert!(matches!(inspect(b"\0asm"), Nature::Damaged(_)));
        let mut component = wat::parse_str("(component (core module (func)))").unwrap();
        component.truncate(component.len() - 2);
        assert!(matches!(inspect(&component), Nature::Damaged(_)));
    }
}
