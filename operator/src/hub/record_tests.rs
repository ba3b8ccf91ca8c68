use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rimward_core::fleet::{DoubtLimits, Fleet};
use rimward_core::ids::DeploymentKey;
use serde_json::json;
use tokio::sync::mpsc;

use crate::election::Leadership;
use crate::hub::apply::Writer;
use crate::hub::observe::Caches;
use crate::hub::parse::Graces;
use crate::hub::reconcile::Memory;
use crate::hub::steps::WRITES_MAX;
use crate::metrics::{Kind, Metrics};
use crate::testing;

/// Deployments that no plan is made of, since their Model is not there: each has that to say in its status.
fn memory(caches: &Caches, many: usize) -> (Memory, BTreeSet<DeploymentKey>) {
    let graces = Graces {
        offline_seconds: 300,
        heartbeat_seconds: 30,
    };
    let fleet = Fleet::new(300, DoubtLimits::default());
    let mut memory = Memory::new(fleet, graces, std::time::Instant::now());
    let mut touched = BTreeSet::new();
    for nth in 0..many {
        let name = format!("d{nth}");
        let object = json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "team", "uid": name, "resourceVersion": "5"},
            "spec": {"modelRef": {"name": "digits-1"}, "placement": {}},
        });
        caches.wrote(
            Kind::ModelDeployment,
            serde_json::from_value(object).unwrap(),
        );
        let named = ("team".to_owned(), name.clone());
        memory.view.look_at_deployment(caches, &named);
        touched.insert(DeploymentKey::parse("team", &name).unwrap());
    }
    (memory, touched)
}

/// A hung write costs the turn its time once for all that wait, not once each.
#[tokio::test]
async fn deployments_do_not_wait_for_each_others_records() {
    let (log, mut asked) = mpsc::unbounded_channel();
    let uri = testing::serve(move |asked| {
        log.send(asked.path).unwrap();
        async { None }.boxed()
    });
    let caches = Arc::new(Caches::unwatched());
    let (mut memory, touched) = memory(&caches, 2 * WRITES_MAX);
    let client = testing::client(&uri);
    let (metrics, leadership) = (Arc::new(Metrics::default()), Leadership::endless());
    let writer = Writer::new(client, metrics, caches.clone(), leadership);
    let write = super::write(&writer, &caches.feed, &mut memory, &touched);
    let hung = async {
        let mut of = BTreeSet::new();
        while of.len() < WRITES_MAX {
            of.insert(asked.recv().await.unwrap());
        }
        of
    };
    let of = tokio::select! {
        _ = write => panic!("the server does not answer"),
        of = tokio::time::timeout(Duration::from_secs(10), hung) => of.expect("they wait for each other"),
    };
    assert!(of.iter().all(|path| path.ends_with("/status")), "{of:?}");
}
