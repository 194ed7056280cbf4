//! What every role exports in the same way.

/// Keeps the instance and exports the life of a plugin: the part of a component that all roles share. Leaves `INSTANCE` and
/// `Exports` behind. `start` is the one of [`guest`](crate::guest) for the role.
#[doc(hidden)]
#[macro_export]
macro_rules! export_life {
    ($plugin:ty, $start:path) => {
        use $crate::bindings::exports::whodunit::plugin::lifecycle;

        ::std::thread_local! {
            static INSTANCE: ::std::cell::RefCell<::std::option::Option<$plugin>> =
                const { ::std::cell::RefCell::new(::std::option::Option::None) };
        }

        struct Exports;

        impl lifecycle::Guest for Exports {
            fn describe() -> lifecycle::Description {
                lifecycle::Description {
                    name: env!("CARGO_PKG_NAME").into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                }
            }

            fn start(
                context: lifecycle::Context,
            ) -> ::std::result::Result<(), ::std::string::String> {
                $start(&INSTANCE, context)
            }
        }

        $crate::bindings::export_common_bindings!(Exports with_types_in $crate::bindings);
    };
}
