//! The world of a module, from the WIT that guests are built with.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wasm-models/wit",
    world: "model",
    imports: { default: trappable },
    with: {
        "wasi:nn/tensor@0.2.0-rc-2024-10-28.tensor": super::nn::NnTensor,
        "wasi:nn/graph@0.2.0-rc-2024-10-28.graph": super::nn::Graph,
        "wasi:nn/inference@0.2.0-rc-2024-10-28.graph-execution-context": super::nn::ExecutionContext,
        "wasi:nn/errors@0.2.0-rc-2024-10-28.error": super::nn::NnError,
        "rimward:inference/tensors@0.1.0.tensor": super::super::tensor::Tensor,
    },
    require_store_data_send: true,
});
