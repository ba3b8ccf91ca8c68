//! A tensor that a module hands on by its handle is copied neither by the module nor by the host.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::host::PASS_THROUGH;
use crate::host::backend::{BackendError, LoadedModel, ModelTensor, WorkerContext, Workers};
use crate::proto::{Datatype, WhatRuns};

const DIGITS: &[u8] = include_bytes!("../../../../wasm-models/modules/digits.wasm");

const TENSOR_BYTES: usize = 16 << 20;
/// Enough for a module, and much less than the tensor has.
const GUEST_MEMORY_BYTES: u64 = 2 << 20;
/// Beside the tensor, for handles. Not for a second tensor.
const SPARE_BYTES: u64 = 64 << 10;

/// An engine that answers with what it was asked, and remembers where in memory that was.
#[derive(Debug, Default)]
struct Echo(Mutex<Vec<usize>>);

impl LoadedModel for Echo {
    fn what_runs(&self) -> WhatRuns {
        WhatRuns {
            backend: String::new(),
            device: String::new(),
            precision: String::new(),
            memory_bytes: 0,
        }
    }

    fn run(
        &self,
        _: &mut WorkerContext,
        inputs: Vec<(String, ModelTensor)>,
        _: &Arc<TensorBudget>,
    ) -> Result<Vec<(String, ModelTensor)>, BackendError> {
        let addresses = inputs
            .iter()
            .map(|(_, tensor)| address(tensor.data.bytes()));
        self.0.lock().unwrap().extend(addresses);
        Ok(inputs)
    }
}

fn address(bytes: &Bytes) -> usize {
    bytes.as_ptr().addr()
}

/// Asks a module about one tensor; gives where that was for the client, for the engine and in the answer.
async fn addresses(module: &[u8]) -> Result<(usize, Vec<usize>, Vec<usize>), GuestFailure> {
    let sandbox = Sandbox::new(1).unwrap();
    let component = Component::new(sandbox.engine(), module).unwrap();
    let module = sandbox.link(&component).unwrap();
    let model = Arc::new(Echo::default());
    let tensor_bytes_max = TENSOR_BYTES as u64 + SPARE_BYTES;
    let world = Arc::new(GuestWorld {
        model: Arc::clone(&model) as Arc<dyn LoadedModel>,
        variant_name: "echo".to_owned(),
        workers: Workers::default(),
        config: BTreeMap::new(),
        channel: GuestChannel::new("shop/echo", "r1"),
        guest_memory_bytes_max: GUEST_MEMORY_BYTES,
        tensor_bytes_max,
    });
    let budget = TensorBudget::new(tensor_bytes_max);
    let shape = [u32::try_from(TENSOR_BYTES / 64).unwrap(), 8, 8];
    let data = budget.charge(Bytes::from(vec![7; TENSOR_BYTES])).unwrap();
    let tensor = Tensor::new(Datatype::Uint8, &shape, data).unwrap();
    let asked = address(tensor.data());
    let deadline = Instant::now() + Duration::from_secs(120);
    let inputs = vec![("image".to_owned(), tensor)];
    let outputs = module
        .infer(&world, inputs, budget, deadline, false, ())
        .await?;
    let answered = outputs.iter().map(|(_, tensor)| address(tensor.data()));
    let computed = model.0.lock().unwrap().clone();
    Ok((asked, computed, answered.collect()))
}

#[tokio::test]
async fn a_tensor_handed_on_is_the_clients_own_for_the_engine_and_in_the_answer() {
    let (asked, computed, answered) = addresses(PASS_THROUGH).await.unwrap();
    assert_eq!((computed, answered), (vec![asked], vec![asked]));
    // The measure itself: a module that reads the tensor cannot, in so little memory.
    let failure = addresses(DIGITS).await.unwrap_err();
    assert!(
        matches!(failure, GuestFailure::MemoryExceeded(_)),
        "{failure:?}"
    );
}
