//! Whether the plugin contract still is what was published.
//!
//! `wit/published/<version>/` holds the contract as it was released, one folder a version, none before the
//! first release. A plugin that was built for one of them has to run on a daemon that says a compatible
//! version: nothing that it calls or answers may be gone or changed. What breaks that needs a version that
//! says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use wit_parser::{
    Function, Handle, Interface, InterfaceId, Resolve, Type, TypeDef, TypeDefKind, TypeOwner,
    World, WorldItem,
};

use crate::steps::Claim;

/// Checks `wit/` against every published version.
pub(crate) fn claim(root: &Path) -> Claim {
    let name = "the contract keeps what its published versions promise";
    let folder = root.join("wit");
    let problems = match Contract::read(&folder) {
        Ok(now) => published(&folder.join("published"))
            .and_then(|published| {
                let breaks = published.iter().map(|then| now.breaks(then));
                breaks.collect::<Result<Vec<_>, _>>().map(|breaks| breaks.concat())
            })
            .unwrap_or_else(|problem| vec![problem]),
        Err(problem) => vec![problem],
    };
    Claim { name, problems }
}

fn published(folder: &Path) -> Result<Vec<Contract>, String> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut contracts = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            contracts.push(Contract::read(&path)?);
        }
    }
    Ok(contracts)
}

/// A version of the contract, as text that can be compared.
struct Contract {
    version: String,
    /// By the name of the interface.
    interfaces: BTreeMap<String, Items>,
    /// What a plugin of each world calls, and what it answers, by the names of interfaces.
    worlds: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
}

/// Types and functions by their names.
#[derive(Default)]
struct Items {
    types: BTreeMap<String, String>,
    functions: BTreeMap<String, String>,
}

impl Contract {
    fn read(folder: &Path) -> Result<Contract, String> {
        let mut resolve = Resolve::default();
        let (package, _) =
            resolve.push_dir(folder).map_err(|error| format!("{}: {error:#}", folder.display()))?;
        let package = &resolve.packages[package];
        let version = package.name.version.as_ref().map(ToString::to_string).unwrap_or_default();
        let interfaces = package.interfaces.iter();
        let interfaces =
            interfaces.map(|(name, id)| (name.clone(), items(&resolve, &resolve.interfaces[*id])));
        let worlds = package.worlds.iter();
        let worlds = worlds.map(|(name, id)| (name.clone(), sides(&resolve, &resolve.worlds[*id])));
        Ok(Contract { version, interfaces: interfaces.collect(), worlds: worlds.collect() })
    }

    /// What a plugin that was built for `then` would miss.
    fn breaks(&self, then: &Contract) -> Result<Vec<String>, String> {
        if series(&self.version)? != series(&then.version)? {
            return Ok(Vec::new());
        }
        let mut breaks = Vec::new();
        let mut say = |what: String| {
            breaks.push(format!(
                "{what} since {}: undo that, or give the contract a version that says so",
                then.version
            ));
        };
        for (name, then) in &then.interfaces {
            let Some(now) = self.interfaces.get(name) else {
                say(format!("the interface `{name}` is gone"));
                continue;
            };
            let kinds =
                [("type", &then.types, &now.types), ("function", &then.functions, &now.functions)];
            for (kind, then, now) in kinds {
                for (item, shape) in then {
                    match now.get(item) {
                        Some(found) if found == shape => {}
                        Some(_) => say(format!("the {kind} `{name}.{item}` was changed")),
                        None => say(format!("the {kind} `{name}.{item}` is gone")),
                    }
                }
            }
        }
        // What plugins answer is asked of all of them: older ones know nothing of a new function.
        let answered: BTreeSet<&String> =
            then.worlds.values().flat_map(|(_, answers)| answers).collect();
        for name in answered {
            let (Some(before), Some(now)) = (then.interfaces.get(name), self.interfaces.get(name))
            else {
                continue;
            };
            for function in now.functions.keys().filter(|it| !before.functions.contains_key(*it)) {
                say(format!("plugins have to answer `{name}.{function}`, which is new"));
            }
        }
        for (world, (_, before)) in &then.worlds {
            let Some((_, now)) = self.worlds.get(world) else {
                say(format!("the world `{world}` is gone"));
                continue;
            };
            for interface in now.difference(before) {
                say(format!("the world `{world}` asks for `{interface}`, which is new"));
            }
        }
        Ok(breaks)
    }
}

/// The part of a version within which everything is compatible: the first number that is not 0, with what
/// stands before it.
fn series(version: &str) -> Result<Vec<u64>, String> {
    let numbers: Result<Vec<u64>, _> = version.split('.').take(3).map(str::parse).collect();
    let numbers = numbers.map_err(|_| format!("`{version}` is no version of a contract"))?;
    let first = numbers.iter().position(|number| *number != 0).unwrap_or(numbers.len());
    Ok(numbers.into_iter().take(first + 1).collect())
}

fn items(resolve: &Resolve, interface: &Interface) -> Items {
    let types = interface.types.iter();
    let functions = interface.functions.iter();
    Items {
        types: types
            .map(|(name, id)| (name.clone(), definition(resolve, &resolve.types[*id])))
            .collect(),
        functions: functions.map(|(name, it)| (name.clone(), signature(resolve, it))).collect(),
    }
}

/// The interfaces that a plugin of a world calls, and those that it answers.
fn sides(resolve: &Resolve, world: &World) -> (BTreeSet<String>, BTreeSet<String>) {
    let name = |item: &WorldItem| match item {
        WorldItem::Interface { id, .. } => Some(interface_name(resolve, *id)),
        WorldItem::Function(function) => Some(function.name.clone()),
        WorldItem::Type { .. } => None,
    };
    let imports = world.imports.values().filter_map(name).collect();
    (imports, world.exports.values().filter_map(name).collect())
}

fn interface_name(resolve: &Resolve, id: InterfaceId) -> String {
    resolve.interfaces[id].name.clone().unwrap_or_default()
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let params = function.params.iter();
    let params: Vec<_> =
        params.map(|it| format!("{}: {}", it.name, type_name(resolve, &it.ty))).collect();
    let result = function.result.as_ref().map(|it| type_name(resolve, it)).unwrap_or_default();
    format!("({}) -> {result}", params.join(", "))
}

/// A type where it is used: its name, if it has one.
fn type_name(resolve: &Resolve, of: &Type) -> String {
    let Type::Id(id) = of else {
        return format!("{of:?}");
    };
    let of = &resolve.types[*id];
    match (&of.name, of.owner) {
        (Some(name), TypeOwner::Interface(owner)) => {
            format!("{}.{name}", interface_name(resolve, owner))
        }
        (Some(name), TypeOwner::World(_) | TypeOwner::None) => name.clone(),
        (None, _) => definition(resolve, of),
    }
}

/// What a type is made of, in order.
fn definition(resolve: &Resolve, of: &TypeDef) -> String {
    let name = |of: &Type| type_name(resolve, of);
    let optional = |of: &Option<Type>| of.as_ref().map(name).unwrap_or_default();
    let list = |parts: Vec<String>| parts.join(", ");
    match &of.kind {
        TypeDefKind::Record(it) => {
            let fields = it.fields.iter();
            list(fields.map(|field| format!("{}: {}", field.name, name(&field.ty))).collect())
        }
        TypeDefKind::Variant(it) => {
            let cases = it.cases.iter();
            list(cases.map(|case| format!("{}({})", case.name, optional(&case.ty))).collect())
        }
        TypeDefKind::Enum(it) => list(it.cases.iter().map(|case| case.name.clone()).collect()),
        TypeDefKind::Flags(it) => list(it.flags.iter().map(|flag| flag.name.clone()).collect()),
        TypeDefKind::Tuple(it) => format!("tuple<{}>", list(it.types.iter().map(name).collect())),
        TypeDefKind::Option(it) => format!("option<{}>", name(it)),
        TypeDefKind::Result(it) => format!("result<{}, {}>", optional(&it.ok), optional(&it.err)),
        TypeDefKind::List(it) => format!("list<{}>", name(it)),
        TypeDefKind::Map(key, value) => format!("map<{}, {}>", name(key), name(value)),
        TypeDefKind::FixedLengthList(it, length) => format!("list<{}, {length}>", name(it)),
        TypeDefKind::Future(it) => format!("future<{}>", optional(it)),
        TypeDefKind::Stream(it) => format!("stream<{}>", optional(it)),
        TypeDefKind::Type(it) => format!("= {}", name(it)),
        TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => {
            format!("{} {}", of.kind.as_str(), name(&Type::Id(*id)))
        }
        TypeDefKind::Resource | TypeDefKind::Unknown => of.kind.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "package a:b@0.1.0;
        interface called { record r { x: u8 } f: func(r: r) -> result<list<u8>, string>; }
        interface answered { use called.{r}; g: func(r: r); }
        world w { import called; export answered; }";

    fn contract(text: &str) -> Contract {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.wit"), text).unwrap();
        Contract::read(folder.path()).unwrap()
    }

    fn check(change: (&str, &str), words: &[&str]) {
        assert!(THEN.contains(change.0), "{}", change.0);
        let now = contract(&THEN.replace(change.0, change.1));
        let breaks = now.breaks(&contract(THEN)).unwrap();
        assert_eq!(breaks.len(), words.len(), "{change:?}: {breaks:?}");
        for (said, words) in breaks.iter().zip(words) {
            assert!(said.contains(words), "{words} in {said}");
        }
    }

    #[test]
    fn what_was_published_stays() {
        check(("x: u8", "x: u8"), &[]);
        check(("x: u8", "x: u16"), &["type `called.r` was changed"]);
        check(("x: u8", "x: u8, y: u8"), &["type `called.r` was changed"]);
        check(("list<u8>", "list<u16>"), &["function `called.f` was changed"]);
        check(("f: func(r: r)", "h: func(r: r)"), &["function `called.f` is gone"]);
        check(("world w {", "world v {"), &["world `w` is gone"]);
    }

    #[test]
    fn plugins_may_get_more_and_are_not_asked_for_more() {
        check(("f: func", "h: func(); f: func"), &[]);
        check(("g: func", "h: func(); g: func"), &["plugins have to answer `answered.h`"]);
        let exported = "interface more { i: func(); } world w { export more;";
        check(("world w {", exported), &["asks for `more`"]);
        let imported = "interface more { i: func(); } world w { import more;";
        check(("world w {", imported), &[]);
    }

    #[test]
    fn a_version_that_says_so_may_break() {
        let broken = THEN.replace("x: u8", "x: u16");
        for (version, breaks) in [("0.1.9", 1), ("0.2.0", 0), ("1.0.0", 0)] {
            let now = contract(&broken.replace("0.1.0", version));
            assert_eq!(now.breaks(&contract(THEN)).unwrap().len(), breaks, "{version}");
        }
        assert_eq!(series("1.2.3").unwrap(), series("1.9.0").unwrap());
        assert_ne!(series("0.0.1").unwrap(), series("0.0.2").unwrap());
    }
}
