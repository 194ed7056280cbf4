//! The contract as Rust: generated from `wit/`. Nothing else stands here.
//!
//! One world with the exports of every role: what a component really exports is looked up one by one
//! (`load.rs`), so that all roles share one set of types.

wasmtime::component::bindgen!({
    inline: "
        package whodunit:host;
        world every-plugin {
            include whodunit:plugin/common@0.1.0;
            export whodunit:plugin/reporter@0.1.0;
            export whodunit:plugin/filter@0.1.0;
            export whodunit:plugin/explainer@0.1.0;
            export whodunit:plugin/state@0.1.0;
        }
    ",
    path: "../wit",
    ownership: Borrowing { duplicate_if_necessary: true },
});
