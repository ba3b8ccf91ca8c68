use super::*;
use crate::report::fake_api::FakeApi;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A writer as it is at the agent's start, with these labels from the command line. What is watched is put in
/// by hand.
fn writer(api: &FakeApi, given: &[(&str, &str)], there: There) -> Writer {
    let client = api.client();
    Writer {
        definition: Definition::new(client.clone()),
        told: None,
        api: Api::all(client.clone()),
        teller: Teller::new(client, "node-1"),
        cluster: cluster(given, None),
        pictures: watch::channel(Picture::blank()).1,
        seen: watch::channel(Seen::Unknown).1,
        node: watch::channel(NodeSeen::Unknown).1,
        there,
        written: EdgeNodeStatus::default(),
        refusals: Refusals::default(),
    }
}

fn cluster(given: &[(&str, &str)], kubeconfig: Option<PathBuf>) -> Cluster {
    Cluster {
        node_name: "node-1".to_owned(),
        labels: labels(given),
        kubeconfig,
        lease_seconds: 1,
    }
}

fn node(uid: &str, with: &[(&str, &str)]) -> NodeSeen {
    NodeSeen::There {
        uid: uid.to_owned(),
        labels: labels(with),
    }
}

impl Writer {
    async fn ensure_for(&mut self, node: NodeSeen) {
        self.node = watch::channel(node).1;
        self.ensure().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_is_not_known_keeps_its_labels_and_its_owner() {
    let api = FakeApi::start().await;
    let mut first = writer(&api, &[], There::Missing);
    first.ensure_for(NodeSeen::Unknown).await;
    assert_eq!(api.lock().writes.len(), 0);
    first.ensure_for(node("u-1", &[("zone", "a")])).await;
    assert_eq!(api.lock().edge_labels(), labels(&[("zone", "a")]));
    assert_eq!(api.lock().owner.as_deref(), Some("u-1"));
    // Another flag after a start: what the Node said is not known yet.
    let mut changed = writer(&api, &[("tier", "edge")], first.there);
    changed.ensure_for(NodeSeen::Unknown).await;
    assert_eq!(api.lock().writes.len(), 1);
    // An API server that starts forbids all until it has read its roles.
    changed.ensure_for(NodeSeen::Forbidden).await;
    let both = labels(&[("tier", "edge"), ("zone", "a")]);
    assert_eq!(api.lock().edge_labels(), both);
    assert_eq!(api.lock().owner.as_deref(), Some("u-1"));
    changed.ensure_for(NodeSeen::Missing).await;
    assert_eq!(api.lock().edge_labels(), labels(&[("tier", "edge")]));
    assert_eq!(api.lock().owner, None);
}

#[tokio::test]
async fn another_node_of_the_same_name_is_another_owner() {
    let api = FakeApi::start().await;
    let mut writer = writer(&api, &[], There::Missing);
    for (uid, writes) in [("u-1", 1), ("u-1", 1), ("u-2", 2), ("u-2", 2)] {
        writer.ensure_for(node(uid, &[])).await;
        assert_eq!(api.lock().owner.as_deref(), Some(uid));
        assert_eq!(api.lock().writes.len(), writes);
    }
}

#[tokio::test]
async fn labels_that_are_gone_from_the_node_go_and_nothing_is_written_twice() {
    let api = FakeApi::start().await;
    let mut first = writer(&api, &[("tier", "edge")], There::Missing);
    let mut writes = 0;
    let mut look = async |writer: &mut Writer, seen: &NodeSeen, more, want: &[(&str, &str)]| {
        for _ in 0..3 {
            writer.ensure_for(seen.clone()).await;
        }
        writes += more;
        assert_eq!(api.lock().edge_labels(), labels(want));
        assert_eq!(api.lock().writes.len(), writes);
    };
    let seen = node("u-1", &[("zone", "a"), ("gpu", "yes")]);
    let all = [("gpu", "yes"), ("tier", "edge"), ("zone", "a")];
    look(&mut first, &seen, 1, &all).await;
    // Somebody else's label is neither a difference nor taken away.
    api.lock().label_by_hand("owner", "ann");
    first.there = There::Object(Box::new(api.edge_metadata()));
    let with_anns = [
        ("gpu", "yes"),
        ("owner", "ann"),
        ("tier", "edge"),
        ("zone", "a"),
    ];
    look(&mut first, &seen, 0, &with_anns).await;
    let seen = node("u-1", &[("zone", "a")]);
    let without = [("owner", "ann"), ("tier", "edge"), ("zone", "a")];
    look(&mut first, &seen, 1, &without).await;
    // After a start, with nothing remembered.
    let there = There::Object(Box::new(api.edge_metadata()));
    let mut again = writer(&api, &[("tier", "edge")], there);
    look(&mut again, &seen, 0, &without).await;
    let there = There::Object(Box::new(api.edge_metadata()));
    let mut other = writer(&api, &[], there);
    look(&mut other, &node("u-1", &[]), 1, &[("owner", "ann")]).await;
}

/// A whole report, with a kubeconfig that shows this token.
async fn reports(api: &FakeApi, token: &str, steps: impl Future<Output = ()>) {
    reports_through(api, token, |access| access, steps).await;
}

async fn reports_through(
    api: &FakeApi,
    token: &str,
    how: impl FnOnce(Access) -> Access,
    steps: impl Future<Output = ()>,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    api.write_kubeconfig(&path, token);
    api.lock().kubeconfig = Some(path.clone());
    let (_pictures, pictures) = watch::channel(Picture::blank());
    let (events, _kept) = mpsc::channel(64);
    let access = how(Access::new(Some(path.clone()), "node-1"));
    tokio::select! {
        () = through(access, cluster(&[], Some(path)), pictures, events) => unreachable!("it reports for ever"),
        () = steps => {}
    }
}

#[tokio::test]
async fn a_label_of_the_node_is_seen_when_it_changes() {
    let api = FakeApi::start().await;
    api.lock().node_labels = labels(&[("zone", "a")]);
    reports(&api, "t", async {
        api.until(|state| state.edge_labels() == labels(&[("zone", "a")]))
            .await;
        assert_eq!(api.lock().owner.as_deref(), Some("node-uid"));
        api.lock().node_labels = labels(&[("zone", "b"), ("gpu", "yes")]);
        let both = labels(&[("gpu", "yes"), ("zone", "b")]);
        api.until(|state| state.edge_labels() == both).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_cannot_be_read_is_tried_again_and_nothing_is_written_until_then() {
    let api = FakeApi::start().await;
    api.lock().node = 500;
    api.lock().node_labels = labels(&[("zone", "a")]);
    reports(&api, "t", async {
        api.until(|state| state.node_reads >= 2).await;
        assert_eq!(api.lock().edge_labels(), labels(&[]));
        api.lock().node = 200;
        api.until(|state| state.edge_labels() == labels(&[("zone", "a")]))
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_replaced_under_a_running_agent_is_used_before_and_after_the_old_one_ends()
{
    let api = FakeApi::start().await;
    api.lock().tokens = vec!["first"];
    reports(&api, "first", async {
        api.until(|state| state.leases >= 1).await;
        // Renewed in good time: the old one is still good for a while.
        api.lock().tokens = vec!["first", "second"];
        api.rewrite_kubeconfig("second");
        api.until(|state| state.shown == "second").await;
        assert_eq!(api.lock().refused, 0);
        // Renewed late: refused for a while.
        api.lock().tokens = vec!["third"];
        api.until(|state| state.refused >= 2).await;
        api.rewrite_kubeconfig("third");
        let before = api.lock().leases;
        api.until(|state| state.leases > before).await;
    })
    .await;
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_for_a_moment_costs_no_beat() {
    let api = FakeApi::start().await;
    api.lock().tokens = vec!["first", "second"];
    reports_through(&api, "first", Access::hasty, async {
        api.until(|state| state.leases >= 1).await;
        let path = api.lock().kubeconfig.clone().unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let half = &whole[..whole.len() / 2];
        let nowhere = whole.replace("http://127.0.0.1:", "http://127.0.0.1:1");
        api.write_kubeconfig(&path, "unknown");
        let refused = std::fs::read_to_string(&path).unwrap();
        for broken in [Some(half), None, Some(&nowhere), Some(&refused)] {
            match broken {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            // The first is under way perhaps.
            let before = api.lock().leases;
            api.until(|state| state.leases >= before + 2).await;
        }
        assert_eq!(api.lock().refused_lists, 0);
        api.rewrite_kubeconfig("second");
        api.until(|state| state.shown == "second").await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_that_lasts_lists_nothing_anew() {
    let api = FakeApi::start().await;
    api.lock().tokens = vec!["first"];
    reports_through(&api, "first", Access::hasty, async {
        api.until(|state| state.leases >= 1 && state.lists >= 1)
            .await;
        api.lock().tokens = vec!["another"];
        api.until(|state| state.refused >= 20).await;
        assert_eq!(api.lock().refused_lists, 0);
        api.lock().tokens = vec!["first"];
        let before = api.lock().leases;
        api.until(|state| state.leases > before).await;
    })
    .await;
}

#[test]
fn a_clock_that_jumps_ten_years_either_way_renews_a_lease_like_any_other() {
    let cluster = cluster(&[], None);
    let said = [0, -10, 10, 0].map(|years: i64| {
        let seconds = 1_800_000_000 + years * 365 * 86_400;
        lease(&cluster, Timestamp::from_second(seconds).unwrap())
    });
    for pair in said.windows(2) {
        assert_ne!(pair[0], pair[1], "its readers see that it changes");
        let without_time = |lease: &Lease| {
            let mut spec = lease.spec.clone().unwrap();
            spec.renew_time = None;
            spec
        };
        assert_eq!(without_time(&pair[0]), without_time(&pair[1]));
    }
}

#[tokio::test]
async fn nothing_is_written_while_the_definition_is_missing_or_older() {
    for amiss in [None, Some(0)] {
        let api = FakeApi::start().await;
        api.lock().definition = amiss;
        let mut writer = writer(&api, &[("tier", "edge")], There::Missing);
        writer.node = watch::channel(NodeSeen::Missing).1;
        let error = writer.ensure().await.unwrap_err().to_string();
        assert!(error.contains("edgenodes.rimward.dev"), "{error}");
        assert_eq!(api.lock().writes.len(), 0);
    }
}
