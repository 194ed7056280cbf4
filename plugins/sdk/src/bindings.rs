//! The contract as Rust: generated from `wit/`, once for every plugin. Nothing else stands here.

wit_bindgen::generate!({
    world: "reporter-plugin",
    path: "../../wit",
    pub_export_macro: true,
    export_macro_name: "export_bindings",
    default_bindings_module: "whodunit_sdk::bindings",
    additional_derives: [PartialEq],
});
