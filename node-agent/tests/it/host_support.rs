//! Packages, preflights and hosts for the tests: the real ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rimward_node_agent::host::native::{self, KEY_BYTES, SealKey};
use rimward_node_agent::proto::flight;
use rimward_node_agent::proto::spawn::{
    HostProcess, PreflightFiles, Program, run_preflight, spawn_host,
};
use rimward_node_agent::proto::{
    Backend, Datatype, DeploymentSpec, FdRole, FromHost, HostLimits, ModelVariant, PreflightJob,
    PreflightReport, RuntimeLimits, SlotId, SlotStats, TensorSpec, ToHost,
};

/// The machine is noisy: nothing is waited for longer than this, and nothing is timed.
pub const PATIENCE: Duration = Duration::from_secs(60);

const KEY: [u8; KEY_BYTES] = [42; KEY_BYTES];

pub fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_rimward-node-agent"))
}

/// A package folder of this repository.
#[derive(Clone, Debug)]
pub struct Package {
    folder: PathBuf,
    /// Instead of the folder's, and without its golden vectors.
    model: Option<Vec<u8>>,
    pub spec: DeploymentSpec,
}

impl Package {
    fn new(folder: &str, inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(folder);
        let revision = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let spec = DeploymentSpec {
            deployment: "default/digits".to_owned(),
            endpoint: "digits".to_owned(),
            revision,
            package_version: "1.0.0".to_owned(),
            variant: ModelVariant {
                name: "fp32".to_owned(),
                format: "onnx".to_owned(),
                precision: "fp32".to_owned(),
                backend: Backend::Rten,
            },
            inputs,
            outputs,
            limits: RuntimeLimits {
                timeout_milliseconds: 20_000,
                ..RuntimeLimits::default()
            },
            config: BTreeMap::new(),
        };
        Self {
            folder,
            model: None,
            spec,
        }
    }

    /// A package with the digits' tensors.
    pub fn digits(folder: &str) -> Self {
        Self::new(
            folder,
            vec![tensor("image", Datatype::Uint8, &[-1, 8, 8])],
            vec![
                tensor("probabilities", Datatype::Fp32, &[-1, 10]),
                tensor("label", Datatype::Int64, &[-1]),
            ],
        )
    }

    pub fn good() -> Self {
        Self::digits("examples/packages/digits-1.0.0")
    }

    pub fn fixture(name: &str) -> Self {
        Self::digits(&format!("wasm-models/fixtures/{name}"))
    }

    /// The model alone, behind the built-in module.
    pub fn pass_through() -> Self {
        Self::new(
            "wasm-models/fixtures/passthrough",
            vec![tensor("image", Datatype::Fp32, &[-1, 1, 8, 8])],
            vec![tensor("probabilities", Datatype::Fp32, &[-1, 10])],
        )
    }

    /// Answers a request without tensors with so many zeros.
    pub fn zeros(count: u64) -> Self {
        let mut package = Self::pass_through();
        package.model = Some(model_that_wants(count));
        package.spec.inputs = Vec::new();
        package.spec.outputs = vec![tensor("probabilities", Datatype::Fp32, &[-1])];
        package
    }

    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.spec.config.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut RuntimeLimits)) -> Self {
        change(&mut self.spec.limits);
        self
    }

    pub fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(file)).unwrap()
    }

    fn open(&self, file: &str) -> Option<OwnedFd> {
        File::open(self.folder.join(file)).ok().map(OwnedFd::from)
    }

    fn model(&self) -> OwnedFd {
        match &self.model {
            Some(bytes) => file(bytes),
            None => self.open("model.onnx").unwrap(),
        }
    }

    pub fn job(&self) -> PreflightJob {
        PreflightJob {
            spec: self.spec.clone(),
            module_digest: None,
            timeout_milliseconds: 300_000,
            memory_bytes_max: 1 << 30,
        }
    }

    pub fn files(&self) -> (PreflightFiles, File) {
        let native_code = tempfile::tempfile().unwrap();
        let files = PreflightFiles {
            module: self.open("module.wasm"),
            model: self.model(),
            golden_vectors: match self.model {
                Some(_) => None,
                None => self.open("golden.json"),
            },
            native_code_output: native_code.try_clone().unwrap().into(),
        };
        (files, native_code)
    }

    pub async fn preflight(&self) -> PreflightReport {
        run_preflight(&program(), &self.job(), self.files().0).await
    }
}

pub fn tensor(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec {
        name: name.parse().unwrap(),
        datatype,
        shape: shape.to_vec(),
    }
}

/// Bytes as a file, for packages that are made up.
pub fn file(bytes: &[u8]) -> OwnedFd {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// One field of a protobuf message.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

/// A model of a hundred bytes that makes a tensor of that many elements while it is loaded or run.
pub fn model_that_wants(elements: u64) -> Vec<u8> {
    let node = [
        field(1, b"s"),
        field(2, b"probabilities"),
        field(4, b"ConstantOfShape"),
    ]
    .concat();
    // INT64, one element.
    let tensor = [
        vec![8, 1, 16, 7],
        field(8, b"s"),
        field(9, &elements.to_le_bytes()),
    ]
    .concat();
    let output = [field(1, b"probabilities"), field(2, &field(1, &[8, 1]))].concat();
    let graph = [
        field(1, &node),
        field(2, b"g"),
        field(5, &tensor),
        field(12, &output),
    ]
    .concat();
    [vec![8, 8], field(8, &[16, 13]), field(7, &graph)].concat()
}

/// A running host, and the supervisor's side of it.
pub struct Host {
    pub process: HostProcess,
    pub address: SocketAddr,
    listener: TcpListener,
    next_slot: u64,
    flight: File,
}

impl Host {
    pub async fn start() -> Self {
        Self::start_with(HostLimits::default()).await
    }

    pub async fn start_with(limits: HostLimits) -> Self {
        let mut host = Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), limits).await;
        host.listen().await;
        host
    }

    /// A host that does not listen yet.
    async fn on(listener: TcpListener, limits: HostLimits) -> Self {
        let address = listener.local_addr().unwrap();
        let process = spawn_host(&program()).unwrap();
        let flight = flight::file().unwrap();
        let fds = [(FdRole::FlightRecorder, flight.as_fd())];
        process
            .channel
            .send(&ToHost::Start { limits }, &fds)
            .await
            .unwrap();
        let mut host = Self {
            process,
            address,
            listener,
            next_slot: 1,
            flight,
        };
        assert!(matches!(host.told().await, FromHost::Ready {}));
        host
    }

    /// The slots that it is at work for, as it says or said last.
    pub fn at_work(&self) -> Vec<SlotId> {
        flight::read(&self.flight).into_iter().collect()
    }

    /// Waits until nothing is worked on, then asks for the counters.
    pub async fn stats_when_idle(&mut self) -> BTreeMap<SlotId, SlotStats> {
        loop {
            let stats = self.stats().await;
            if stats.values().all(|it| it.inflight + it.queued == 0) {
                // What has just ended is counted a moment later.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return self.stats().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Another host for the same listening socket.
    pub async fn successor(&self) -> Self {
        Self::on(self.listener.try_clone().unwrap(), HostLimits::default()).await
    }

    pub async fn listen(&mut self) {
        self.process
            .channel
            .send(
                &ToHost::Listen {},
                &[(FdRole::RestListener, self.listener.as_fd())],
            )
            .await
            .unwrap();
    }

    pub async fn told(&mut self) -> FromHost {
        tokio::time::timeout(PATIENCE, self.process.channel.recv())
            .await
            .expect("the host says nothing")
            .unwrap()
            .0
    }

    pub async fn tell(&self, message: ToHost) {
        self.process.channel.send(&message, &[]).await.unwrap();
    }

    /// Preflight, seal, open, load: as the supervisor does.
    pub async fn load(&mut self, package: &Package) -> SlotId {
        match self.try_load(package).await {
            (slot, FromHost::Loaded { .. }) => slot,
            (_, other) => panic!("not loaded: {other:?}"),
        }
    }

    pub async fn try_load(&mut self, package: &Package) -> (SlotId, FromHost) {
        self.try_load_as(package, package).await
    }

    /// Preflights one and loads the other, of the same module and model.
    pub async fn load_as(&mut self, preflighted: &Package, loaded: &Package) -> SlotId {
        match self.try_load_as(preflighted, loaded).await {
            (slot, FromHost::Loaded { .. }) => slot,
            (_, other) => panic!("not loaded: {other:?}"),
        }
    }

    async fn try_load_as(
        &mut self,
        preflighted: &Package,
        package: &Package,
    ) -> (SlotId, FromHost) {
        let slot = self.begin_load(preflighted, package).await;
        (slot, self.told().await)
    }

    /// Asks for a load and does not wait for it.
    pub async fn begin_load(&mut self, preflighted: &Package, package: &Package) -> SlotId {
        let (files, mut code) = preflighted.files();
        let report = run_preflight(&program(), &preflighted.job(), files).await;
        let PreflightReport::Passed { native: id, .. } = report else {
            panic!("preflight: {report:?}")
        };
        let key = SealKey::new(&KEY);
        let seal = native::seal(&key, &id, &mut code).unwrap();
        let opened = native::open(&key, &seal, &id.module_digest, &mut code).unwrap();
        let slot = SlotId(self.next_slot);
        self.next_slot += 1;
        let load = ToHost::Load {
            slot,
            spec: Box::new(package.spec.clone()),
            native: id,
        };
        let model = package.model();
        let fds = [
            (FdRole::NativeCode, opened.as_fd()),
            (FdRole::Model, model.as_fd()),
        ];
        self.process.channel.send(&load, &fds).await.unwrap();
        slot
    }

    pub async fn route(&mut self, current: Option<SlotId>, candidate: Option<SlotId>) {
        self.tell(ToHost::Route {
            endpoint: "digits".to_owned(),
            current,
            candidate,
        })
        .await;
        assert!(matches!(
            self.told().await,
            FromHost::Routed { done: true, .. }
        ));
    }

    /// A host that serves one package.
    pub async fn serving(package: &Package) -> (Self, SlotId) {
        let mut host = Self::start().await;
        let slot = host.load(package).await;
        host.route(Some(slot), None).await;
        (host, slot)
    }

    /// Unloads a slot; gives its last counters.
    pub async fn unload(&mut self, slot: SlotId) -> SlotStats {
        self.tell(ToHost::Unload { slot }).await;
        let last = match self.told().await {
            FromHost::SlotStats { slot: of, stats } if of == slot => *stats,
            other => panic!("{other:?}"),
        };
        match self.told().await {
            FromHost::Unloaded { slot: gone } if gone == slot => last,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a lame duck is done; gives how many connections stayed, and its last counters.
    pub async fn drained(&mut self) -> (u64, BTreeMap<SlotId, SlotStats>) {
        let mut last = BTreeMap::new();
        loop {
            match self.told().await {
                FromHost::SlotStats { slot, stats } => drop(last.insert(slot, *stats)),
                FromHost::HostStats { .. } => {}
                FromHost::Drained {
                    abandoned_connections,
                } => return (abandoned_connections, last),
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn stats(&mut self) -> BTreeMap<SlotId, SlotStats> {
        self.tell(ToHost::Stats {}).await;
        let mut all = BTreeMap::new();
        loop {
            match self.told().await {
                FromHost::SlotStats { slot, stats } => drop(all.insert(slot, *stats)),
                FromHost::HostStats { .. } => return all,
                other => panic!("{other:?}"),
            }
        }
    }
}
