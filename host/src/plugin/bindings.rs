//! The contract as Rust: generated from `wit/`, with the exports of every role. Nothing else stands here.

wasmtime::component::bindgen!({
    inline: "
        package whodunit:daemon;

        world every-role {
            include whodunit:plugin/common@0.1.0;
            export whodunit:plugin/reporter@0.1.0;
            export whodunit:plugin/explainer@0.1.0;
        }
    ",
    world: "whodunit:daemon/every-role",
    path: "../wit",
    ownership: Borrowing { duplicate_if_necessary: true },
});
