//! What is inside of the binary: a bill of materials in the format CycloneDX 1.5, and so that of the image, which holds nothing
//! else.
//!
//! Takes what cargo says of the workspace, and the checksums of `Cargo.lock`. Gives the same bytes for the same sources. Lists what
//! the daemon, the kernel programs and the shipped plugins are linked from; what only builds or tests them is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::workspace::{CargoError, Workspace};

/// Members of the workspace that are in the binary, by their folders, and for what they are built.
const SHIPPED: [(&str, &str); 3] = [
    ("host", "host-tuple"),
    ("host-ebpf", "bpfel-unknown-none"),
    ("plugins", "wasm32-unknown-unknown"),
];
/// What is not shipped of them.
const EXAMPLES: &str = "plugins/examples";

/// The bill of materials of a binary.
pub(crate) fn of(workspace: &Workspace, binary: &Path) -> Result<Value, CargoError> {
    let lock = fs::read_to_string(workspace.root.join("Cargo.lock")).unwrap_or_default();
    let bytes = fs::read(binary).unwrap_or_default();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut bill = Bill { checksums: checksums(&lock), ..Bill::default() };
    for (folder, target) in SHIPPED {
        bill.add(&workspace.metadata(target)?, &workspace.root, folder);
    }
    Ok(bill.document(&digest))
}

/// Checksums by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let begin = format!("{key} = \"");
        let line = block.lines().find_map(|line| line.strip_prefix(&begin))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]");
    let entry = |block: &str| {
        let key = (value(block, "name")?, value(block, "version")?);
        Some((key, value(block, "checksum")?))
    };
    blocks.filter_map(entry).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// Whether a crate runs in the compiler only.
fn is_macro(package: &Value) -> bool {
    list(package, "targets").any(|target| list(target, "kind").any(|kind| kind == "proc-macro"))
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"))
}

/// What was found so far.
#[derive(Default)]
struct Bill {
    checksums: BTreeMap<(String, String), String>,
    /// Components by their references, the daemon among them.
    components: BTreeMap<String, Value>,
    /// What each depends on.
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl Bill {
    /// Adds what is linked into the members below a folder, as far as they are shipped.
    fn add(&mut self, metadata: &Value, root: &Path, folder: &str) {
        let packages: BTreeMap<&str, &Value> =
            list(metadata, "packages").map(|package| (text(package, "id"), package)).collect();
        let nodes: BTreeMap<&str, &Value> =
            list(&metadata["resolve"], "nodes").map(|node| (text(node, "id"), node)).collect();
        let is_shipped = |package: &Value| {
            let manifest = Path::new(text(package, "manifest_path"));
            let place = manifest.strip_prefix(root).unwrap_or(manifest);
            place.starts_with(folder) && !place.starts_with(EXAMPLES)
        };
        // Macros, and what is for building and testing, are left out.
        let linked = |id: &str| -> Vec<&str> {
            let node = nodes.get(id).copied().unwrap_or(&Value::Null);
            let normal = list(node, "deps")
                .filter(|edge| list(edge, "dep_kinds").any(|kind| kind["kind"].is_null()));
            let ids = normal.map(|edge| text(edge, "pkg"));
            ids.filter(|id| packages.get(id).is_some_and(|package| !is_macro(package))).collect()
        };
        let roots = packages.iter().filter(|(_, package)| is_shipped(package)).map(|(id, _)| *id);
        let mut waiting: Vec<&str> = roots.collect();
        let mut inside = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !inside.insert(id) {
                continue;
            }
            let package = packages[id];
            let depends = linked(id);
            let of_this = self.dependencies.entry(purl(package)).or_default();
            of_this.extend(depends.iter().map(|id| purl(packages[id])));
            self.components.insert(purl(package), component(package, "library", &self.checksums));
            waiting.extend(depends);
        }
    }

    fn document(mut self, digest: &str) -> Value {
        let daemon = self.components.iter().find(|(_, it)| it["name"] == "whodunit");
        let daemon = daemon.map(|(reference, _)| reference.clone()).unwrap_or_default();
        let mut application = self.components.remove(&daemon).unwrap_or_default();
        application["type"] = json!("application");
        application["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
        let dependencies = self.dependencies.into_iter();
        let dependencies: Vec<Value> =
            dependencies.map(|(it, on)| json!({ "ref": it, "dependsOn": on })).collect();
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "component": application },
            "components": self.components.into_values().collect::<Vec<Value>>(),
            "dependencies": dependencies,
        })
    }
}

fn component(package: &Value, kind: &str, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(package, "name"), text(package, "version"));
    let mut component = json!({
        "type": kind, "bom-ref": purl(package), "name": name, "version": version,
        "purl": purl(package),
    });
    // Cargo took a slash for "or" once.
    let license = text(package, "license").replace(" / ", " OR ").replace('/', " OR ");
    if !license.is_empty() {
        component["licenses"] = json!([{ "expression": license }]);
    }
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_builds_or_tests_is_not() {
        let workspace = Workspace::find().unwrap();
        let bill = of(&workspace, Path::new(env!("CARGO_MANIFEST_PATH"))).unwrap();
        let names: BTreeSet<&str> =
            list(&bill, "components").map(|component| text(component, "name")).collect();
        for name in ["aya", "wasmtime", "aya-ebpf", "whodunit-sdk", "report-json", "hyper"] {
            assert!(names.contains(name), "{name} is linked");
        }
        for name in ["libtest-mimic", "xtask", "top-folders", "serde_derive", "whodunit", "rcgen"] {
            assert!(!names.contains(name), "{name} is not linked");
        }
        let daemon = &bill["metadata"]["component"];
        assert_eq!((text(daemon, "name"), text(daemon, "type")), ("whodunit", "application"));
        let references: BTreeSet<&str> =
            list(&bill, "components").chain([daemon]).map(|it| text(it, "bom-ref")).collect();
        for dependency in list(&bill, "dependencies") {
            for reference in list(dependency, "dependsOn").filter_map(Value::as_str) {
                assert!(references.contains(reference), "{reference} is a component");
            }
        }
        for component in list(&bill, "components") {
            assert!(component["licenses"].is_array(), "{component} has a licence");
        }
    }

    #[test]
    fn checksums_are_those_of_the_lock() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\n\
                    checksum = \"0b\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let key = ("a".to_owned(), "1.0.0".to_owned());
        assert_eq!(checksums(lock), BTreeMap::from([(key, "0b".to_owned())]));
    }
}
