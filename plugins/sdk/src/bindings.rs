//! The contract as Rust: generated from `wit/`, once for every plugin. Nothing else stands here.
//!
//! What every role shares stands at the top, and what a role adds in a module of its own. A plugin
//! exports both: their worlds are joined when its component is made.

wit_bindgen::generate!({
    world: "common",
    path: "../../wit",
    pub_export_macro: true,
    export_macro_name: "export_common_bindings",
    default_bindings_module: "whodunit_sdk::bindings",
    additional_derives: [PartialEq],
});

/// What a reporter adds.
pub mod reporter {
    wit_bindgen::generate!({
        inline: "
            package whodunit:sdk;

            world reporter-half {
                export whodunit:plugin/reporter@0.1.0;
            }
        ",
        world: "whodunit:sdk/reporter-half",
        path: "../../wit",
        pub_export_macro: true,
        export_macro_name: "export_reporter_bindings",
        default_bindings_module: "whodunit_sdk::bindings::reporter",
        additional_derives: [PartialEq],
        with: {
            "whodunit:plugin/types@0.1.0": crate::bindings::whodunit::plugin::types,
        },
    });
}

/// What a filter adds.
pub mod filter {
    wit_bindgen::generate!({
        inline: "
            package whodunit:sdk;

            world filter-half {
                export whodunit:plugin/filter@0.1.0;
            }
        ",
        world: "whodunit:sdk/filter-half",
        path: "../../wit",
        pub_export_macro: true,
        export_macro_name: "export_filter_bindings",
        default_bindings_module: "whodunit_sdk::bindings::filter",
        additional_derives: [PartialEq],
        with: {
            "whodunit:plugin/types@0.1.0": crate::bindings::whodunit::plugin::types,
        },
    });
}

/// What an explainer adds.
pub mod explainer {
    wit_bindgen::generate!({
        inline: "
            package whodunit:sdk;

            world explainer-half {
                export whodunit:plugin/explainer@0.1.0;
            }
        ",
        world: "whodunit:sdk/explainer-half",
        path: "../../wit",
        pub_export_macro: true,
        export_macro_name: "export_explainer_bindings",
        default_bindings_module: "whodunit_sdk::bindings::explainer",
        additional_derives: [PartialEq],
        with: {
            "whodunit:plugin/types@0.1.0": crate::bindings::whodunit::plugin::types,
        },
    });
}
