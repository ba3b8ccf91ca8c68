//! What the guest modules share: the generated bindings, the call to the model, the digits
//! classifier and the trigger of the fixtures.
//!
//! Everything pure lives in [`pixels`], [`labels`], [`datatypes`] and [`trigger`] and is tested natively; what
//! calls the host lives in [`model`] and [`digits`] and is tested in the sandbox by the node
//! agent. Nothing here may import anything but `wasi:nn` and `rimward:inference`.

pub mod datatypes;
pub mod digits;
pub mod labels;
pub mod model;
pub mod pixels;
pub mod trigger;

/// Bindings to the world `model`, generated from `wasm-models/wit`.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the WIT carries the documentation"
)]
pub mod bindings {
    wit_bindgen::generate!({
        world: "model",
        path: "../wit",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "rimward_guests::bindings",
    });
}

/// Exports a function as the module's `infer`. Natively, where nothing can be exported under the
/// component model's names, it only checks the function's type.
#[macro_export]
macro_rules! module {
    ($infer:path) => {
        struct Module;

        impl $crate::Guest for Module {
            fn infer(
                inputs: Vec<$crate::NamedTensor>,
            ) -> Result<Vec<$crate::NamedTensor>, $crate::Error> {
                $infer(inputs)
            }
        }

        #[cfg(target_family = "wasm")]
        $crate::bindings::export!(Module);
        #[cfg(not(target_family = "wasm"))]
        const _: Module = Module;
    };
}

pub use bindings::exports::rimward::inference::handler::Guest;
pub use bindings::rimward::inference::errors::Error;
pub use bindings::rimward::inference::host;
pub use bindings::rimward::inference::tensors::{Datatype, NamedTensor, Tensor};
