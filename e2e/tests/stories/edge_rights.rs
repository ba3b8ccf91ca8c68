//! What the account of a pull cluster may do on the hub, held against the real authoriser: each request that
//! architecture.md denies it is sent and refused, and the list of its rights has nothing else.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use hyper::Request;
use kube::{Client, Error};
use rimward_e2e::{Kubectl, control_plane};
use serde_json::{Value, json};

const KINDS: &str = "/apis/rimward.dev/v1alpha1";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// A site reads its own orders, reports on them, renews its Lease, and can do nothing else. Its cluster is
/// `west`; an assignment `east` is another's.
pub(crate) async fn check(account: &Kubectl) -> Result<()> {
    let client = control_plane::client(account.kubeconfig()).await?;
    for path in [
        "clusterassignments/west",
        "clusterassignments/west/status",
        "clusterassignments?fieldSelector=metadata.name%3Dwest",
    ] {
        allowed(&client, "GET", &format!("{KINDS}/{path}"), &Value::Null).await?;
    }
    let own_lease = format!("{LEASES}/rimward-clusters/leases/west");
    allowed(&client, "GET", &own_lease, &Value::Null).await?;

    for (method, path, body) in refused() {
        let answer = send(&client, method, &path, &body).await;
        let code = match &answer {
            Err(Error::Api(status)) => status.code,
            _ => 0,
        };
        ensure!(code == 403, "{method} {path} {body}: {answer:?}");
    }
    a_report_changes_nothing_else(&client).await?;
    its_rights_are_listed_whole(&client).await
}

/// Everything that such an account may be tempted to, one by one.
fn refused() -> Vec<(&'static str, String, Value)> {
    let mut table = Vec::new();
    let mut add = |method, path: String, body: Value| table.push((method, path, body));
    let none = Value::Null;

    // Its own assignment: read only, but for the status.
    let own = format!("{KINDS}/clusterassignments/west");
    for patch in [
        json!({"spec": {"models": []}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"metadata": {"annotations": {"rimward.dev/hold": "not now"}}}),
        json!({"metadata": {"finalizers": ["example.com/never"]}}),
        json!({"metadata": {"ownerReferences": []}}),
        json!({"status": {"clusterUID": "mine"}}),
    ] {
        add("PATCH", own.clone(), patch);
    }
    let whole = assignment("west");
    add("PUT", own.clone(), whole.clone());
    add("PUT", format!("{own}/status"), whole);
    add("DELETE", own, none.clone());

    // Those of others, by name or all at once.
    let other = format!("{KINDS}/clusterassignments/east");
    let all = format!("{KINDS}/clusterassignments");
    add("GET", other.clone(), none.clone());
    add("GET", format!("{other}/status"), none.clone());
    add("PATCH", other.clone(), json!({"spec": {"models": []}}));
    let report = json!({"status": {"clusterUID": "mine"}});
    add("PATCH", format!("{other}/status"), report);
    add("DELETE", other, none.clone());
    add("POST", all.clone(), assignment("further"));
    add("DELETE", all.clone(), none.clone());
    for query in [
        "",
        "?watch=1",
        "?fieldSelector=metadata.name%3Deast",
        "?watch=1&fieldSelector=metadata.name%3Deast",
        "?fieldSelector=metadata.name%21%3Deast",
        "?labelSelector=a%3Db",
    ] {
        add("GET", format!("{all}{query}"), none.clone());
    }

    // Leases: its own heartbeat, nobody else's, and not to make or take away.
    let leases = format!("{LEASES}/rimward-clusters/leases");
    let beat = json!({"spec": {"holderIdentity": "mine"}});
    add("GET", leases.clone(), none.clone());
    add("GET", format!("{leases}/east"), none.clone());
    add("PATCH", format!("{leases}/east"), beat.clone());
    add("POST", leases.clone(), lease("further"));
    add("PUT", format!("{leases}/west"), lease("west"));
    add("DELETE", format!("{leases}/west"), none.clone());
    for namespace in ["rimward-system", "default"] {
        let west = format!("{LEASES}/{namespace}/leases/west");
        add("GET", west.clone(), none.clone());
        add("PATCH", west, beat.clone());
    }
    let leader = format!("{LEASES}/rimward-system/leases/rimward-hub");
    add("PATCH", leader, beat);

    // What people and the hub keep.
    for kind in ["edgeclusters", "edgenodes"] {
        add("GET", format!("{KINDS}/{kind}"), none.clone());
        add("GET", format!("{KINDS}/{kind}/west"), none.clone());
        let paused = json!({"spec": {"paused": true}});
        add("PATCH", format!("{KINDS}/{kind}/west"), paused);
    }
    for kind in [
        "models",
        "modeldeployments",
        "modelrevisions",
        "rolloutpolicies",
    ] {
        add(
            "GET",
            format!("{KINDS}/namespaces/team/{kind}"),
            none.clone(),
        );
        add("GET", format!("{KINDS}/{kind}"), none.clone());
    }
    for namespace in [
        "rimward-clusters",
        "rimward-system",
        "kube-system",
        "default",
    ] {
        let core = format!("/api/v1/namespaces/{namespace}");
        for kind in ["secrets", "configmaps", "pods", "serviceaccounts", "events"] {
            add("GET", format!("{core}/{kind}"), none.clone());
        }
        add("GET", format!("{core}/secrets/west"), none.clone());
    }
    add("GET", "/api/v1/namespaces".to_owned(), none.clone());
    add(
        "GET",
        "/api/v1/namespaces/kube-system".to_owned(),
        none.clone(),
    );
    add("GET", "/api/v1/nodes".to_owned(), none.clone());

    // Ways to more rights than it has.
    let token =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    for name in ["west", "east"] {
        let accounts = "/api/v1/namespaces/rimward-clusters/serviceaccounts";
        add("POST", format!("{accounts}/{name}/token"), token.clone());
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = "clusterroles/rimward:cluster:west";
    add("GET", format!("{rbac}/{role}"), none);
    add("PATCH", format!("{rbac}/{role}"), json!({"rules": []}));
    table
}

/// The right to report goes no further than the status: metadata and spec sent along are left out.
async fn a_report_changes_nothing_else(client: &Client) -> Result<()> {
    let path = format!("{KINDS}/clusterassignments/west");
    let before = allowed(client, "GET", &path, &Value::Null).await?;
    let smuggled = json!({
        "metadata": {
            "labels": {"a": "b"},
            "annotations": {"rimward.dev/hub-generation": "1"},
            "finalizers": ["example.com/never"],
        },
        "spec": {"models": []},
        "status": {"clusterUID": "mine"},
    });
    allowed(client, "PATCH", &format!("{path}/status"), &smuggled).await?;
    let after = allowed(client, "GET", &path, &Value::Null).await?;
    ensure!(after["status"]["clusterUID"] == "mine", "{after}");
    for field in ["labels", "annotations", "finalizers", "generation"] {
        let (before, after) = (&before["metadata"][field], &after["metadata"][field]);
        ensure!(before == after, "{field}: {before} became {after}");
    }
    ensure!(before["spec"] == after["spec"], "{after}");
    ensure!(after["spec"]["models"][0].is_object(), "{after}");
    Ok(())
}

/// All that the server says the account may do, beside asking about itself.
async fn its_rights_are_listed_whole(client: &Client) -> Result<()> {
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let anywhere = [
        "get,list,watch rimward.dev clusterassignments west",
        "get,patch rimward.dev clusterassignments/status west",
    ];
    let beat = "get,patch coordination.k8s.io leases west";
    for (namespace, more) in [("rimward-clusters", Some(beat)), ("rimward-system", None)] {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        });
        let answer = allowed(client, "POST", path, &review).await?;
        let rules = answer["status"]["resourceRules"].as_array();
        let rules: BTreeSet<String> = rules
            .context("no rules")?
            .iter()
            .map(|rule| {
                let words = ["verbs", "apiGroups", "resources", "resourceNames"].map(|field| {
                    let words = rule[field].as_array().into_iter().flatten();
                    let mut words: Vec<_> = words.filter_map(Value::as_str).collect();
                    words.sort_unstable();
                    words.join(",")
                });
                words.join(" ")
            })
            .filter(|rule| !rule.contains(" selfsubject"))
            .collect();
        let expected = anywhere
            .into_iter()
            .chain(more)
            .map(str::to_owned)
            .collect();
        ensure!(rules == expected, "in {namespace}: {rules:#?}");
    }
    Ok(())
}

async fn allowed(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value> {
    let answer = send(client, method, path, body).await;
    answer.with_context(|| format!("{method} {path}"))
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, Error> {
    let media = if method == "PATCH" { MERGE } else { JSON };
    let bytes = match body {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(bytes)
        .map_err(Error::HttpError)?;
    client.request(request).await
}

fn assignment(name: &str) -> Value {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment",
        "metadata": {"name": name}, "spec": {"models": []},
    })
}

fn lease(name: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name}, "spec": {"holderIdentity": "mine"},
    })
}
