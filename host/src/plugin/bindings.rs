//! The contract as Rust: generated from `wit/`. Nothing else stands here.

wasmtime::component::bindgen!({
    world: "reporter-plugin",
    path: "../wit",
    ownership: Borrowing { duplicate_if_necessary: true },
});
