//! Bindings for plugins in C: what `wit-bindgen c` makes of the contract.

use std::path::Path;

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

use crate::BuildError;

/// The bindings of one world of the contract in the folder `wit`: names and contents of its files, a
/// header, a source and an object that carries the world's type.
///
/// # Errors
///
/// `Bindings` where the contract or the world is not as it should be.
pub fn c_bindings(wit: &Path, world: &str) -> Result<Vec<(String, Vec<u8>)>, BuildError> {
    // The alternate form has the whole chain of causes on one line.
    let failed = |cause: String| BuildError::Bindings { wit: wit.to_owned(), cause };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).map_err(|cause| failed(format!("{cause:#}")))?;
    let world = resolve
        .select_world(&[package], Some(world))
        .map_err(|cause| failed(format!("{cause:#}")))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(|cause| failed(format!("{cause:#}")))?;
    Ok(files.iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect())
}
