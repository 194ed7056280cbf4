//! The WebAssembly System Interface, as far as the TOML grants it: `stub`, where every function is there and
//! answers with nothing, or `p2`, where those of the granted capabilities answer ([`given`]) and the others do so with
//! nothing.
//!
//! Some languages make components that import much of it and use little. What a function with nothing behind
//! it gives back is the emptiest value of its type: an empty list, none, 0, and an error where it can give one, so that
//! a stream is closed and a file is not there. Nothing here writes a file, and only [`files`] reads one.

mod capability;
mod files;
mod given;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Linker, Resource, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};

use self::given::Given;
use super::imports::Guest;

pub(super) use self::capability::{NoFolder, System, asked};
pub(super) use self::files::Handles;

/// Whether an import is of the system interface.
pub(super) fn is_wasi(import: &str) -> bool {
    import.starts_with("wasi:")
}

/// Stands behind every resource that is given out.
struct Nothing;

/// Gives the linker everything of the system interface that the component imports. What is not granted answers with
/// nothing.
pub(super) fn link(
    linker: &mut Linker<Guest>,
    engine: &Engine,
    component: &Component,
    system: &Arc<System>,
) -> wasmtime::Result<()> {
    for (interface, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            continue;
        };
        if !is_wasi(interface) {
            continue;
        }
        let mut linked = linker.instance(interface)?;
        for (name, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) => {
                    let given = given::given(interface, name, &system.grants);
                    let system = Arc::clone(system);
                    linked.func_new(name, move |store, function, parameters, results| {
                        answer(store, &function, given, &system, parameters, results)
                    })?;
                }
                ComponentItem::Resource(_) => {
                    let forget = |mut store: StoreContextMut<'_, Guest>, number| {
                        store.data_mut().handles.close(number);
                        Ok(())
                    };
                    linked.resource(name, ResourceType::host::<Nothing>(), forget)?;
                }
                // Types need no definition, and the interface has nothing else.
                _ => {}
            }
        }
    }
    Ok(())
}

fn answer(
    mut store: StoreContextMut<'_, Guest>,
    function: &ComponentFunc,
    given: Option<Given>,
    system: &System,
    parameters: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let mut handles = Vec::new();
    for parameter in parameters {
        take(&mut store, parameter, &mut handles)?;
    }
    for (result, of) in results.iter_mut().zip(function.results()) {
        let answered = match given {
            Some(given) => given.answer(&mut store, system, parameters, &handles, Some(&of))?,
            None => None,
        };
        *result = match answered {
            Some(answered) => answered,
            None => emptiest(&mut store, &of)?,
        };
    }
    // One that gives nothing back may do something all the same.
    match given.filter(|_| results.is_empty()) {
        Some(given) => given.answer(&mut store, system, parameters, &handles, None).map(drop),
        None => Ok(()),
    }
}

/// Takes the resources in a value, and gives the numbers behind them: one that was lent must not outlive the
/// call.
fn take(
    store: &mut StoreContextMut<'_, Guest>,
    value: &Val,
    handles: &mut Vec<u32>,
) -> wasmtime::Result<()> {
    match value {
        Val::Resource(resource) => {
            let resource = Resource::<Nothing>::try_from_resource_any(*resource, &mut *store)?;
            handles.push(resource.rep());
            Ok(())
        }
        Val::List(values) | Val::Tuple(values) => {
            values.iter().try_for_each(|value| take(store, value, handles))
        }
        Val::Record(fields) => fields.iter().try_for_each(|(_, value)| take(store, value, handles)),
        Val::Option(Some(value))
        | Val::Variant(_, Some(value))
        | Val::Result(Ok(Some(value)) | Err(Some(value))) => take(store, value, handles),
        _ => Ok(()),
    }
}

/// The emptiest value of a type.
fn emptiest(store: &mut StoreContextMut<'_, Guest>, of: &Type) -> wasmtime::Result<Val> {
    Ok(match of {
        Type::Bool => Val::Bool(false),
        Type::S8 => Val::S8(0),
        Type::U8 => Val::U8(0),
        Type::S16 => Val::S16(0),
        Type::U16 => Val::U16(0),
        Type::S32 => Val::S32(0),
        Type::U32 => Val::U32(0),
        Type::S64 => Val::S64(0),
        Type::U64 => Val::U64(0),
        Type::Float32 => Val::Float32(0.0),
        Type::Float64 => Val::Float64(0.0),
        Type::Char => Val::Char('\0'),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Flags(_) => Val::Flags(Vec::new()),
        Type::Enum(of) => Val::Enum(of.names().next().unwrap_or_default().to_owned()),
        Type::Record(of) => {
            let mut fields = Vec::new();
            for field in of.fields() {
                fields.push((field.name.to_owned(), emptiest(store, &field.ty)?));
            }
            Val::Record(fields)
        }
        Type::Tuple(of) => {
            let mut values = Vec::new();
            for of in of.types() {
                values.push(emptiest(store, &of)?);
            }
            Val::Tuple(values)
        }
        Type::Variant(of) => {
            // `closed` of a stream is such a case.
            let case = of.cases().find(|case| case.ty.is_none()).or_else(|| of.cases().next());
            let case = case.ok_or_else(|| wasmtime::Error::msg("a variant without a case"))?;
            let payload = case.ty.map(|of| emptiest(store, &of)).transpose()?;
            Val::Variant(case.name.to_owned(), payload.map(Box::new))
        }
        Type::Result(of) => match (of.ok(), of.err()) {
            (None, None) => Val::Result(Ok(None)),
            (_, error) => {
                let error = error.map(|of| emptiest(store, &of)).transpose()?;
                Val::Result(Err(error.map(Box::new)))
            }
        },
        Type::Own(_) => resource(store, 0)?,
        _ => return Err(wasmtime::Error::msg("a type that no stub can give back")),
    })
}

/// A resource with that number behind it; 0 stands for nothing.
fn resource(store: &mut StoreContextMut<'_, Guest>, number: u32) -> wasmtime::Result<Val> {
    let resource = Resource::<Nothing>::new_own(number);
    Ok(Val::Resource(resource.try_into_resource_any(store)?))
}

fn ok(value: Option<Val>) -> Val {
    Val::Result(Ok(value.map(Box::new)))
}

fn datetime(since_epoch: Duration) -> Val {
    Val::Record(vec![
        ("seconds".to_owned(), Val::U64(since_epoch.as_secs())),
        ("nanoseconds".to_owned(), Val::U32(since_epoch.subsec_nanos())),
    ])
}
