//! `kubectl rimward cluster add NAME`: the EdgeCluster, its account, and the file for the edge.
//!
//! Adding a cluster again is how its credential is renewed: every step gives the same objects.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rimward_core::ids::ClusterName;
use rimward_crds::edge_cluster::CREDENTIAL_EXPIRES;
use serde_json::{Value, json};

use super::account;
use super::edge_file::{self, PrivateFile};
use super::helm_values::{self, OWN_SERVER, Site};
use crate::connect::{ConnectArgs, words};
use crate::kubeconfig;

/// Field manager of what the CLI writes.
const FIELD_MANAGER: &str = "rimward-cli";

/// Longest name of an EdgeCluster, as its CRD says.
const NAME_CHARS_MAX: usize = 63;

/// What `cluster add` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the cluster in the fleet.
    name: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// URL under which the edge dials the hub (with --push: the hub dials the edge); needed when the
    /// kubeconfig's server is a loopback address.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The edge cluster is the hub's own cluster. Its pods dial the hub at https://kubernetes.default.svc, unless --server
    /// says another URL, and the values of --helm-values leave the hub's operator where it is.
    #[arg(long, conflicts_with = "push")]
    same_cluster: bool,
    /// The hub dials the cluster with this kubeconfig, instead of the cluster dialling the hub.
    #[arg(long, value_name = "KUBECONFIG")]
    push: Option<PathBuf>,
    /// Context of the pushed kubeconfig to use [default: its current one].
    #[arg(long, value_name = "NAME", requires = "push")]
    push_context: Option<String>,
    /// Labels of the EdgeCluster, which placements select by.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    labels: Vec<String>,
    /// Where to write what is applied on the edge; it holds a credential, so never the terminal
    /// [default: NAME.yaml].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the values with which the chart is installed on the edge, instead; they hold the credential too
    /// [default: NAME.values.yaml].
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "out")]
    helm_values: Option<Option<PathBuf>>,
    /// How long the account's credential is good for, in days; the API server may shorten it.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    token_days: u32,
}

impl Args {
    /// The URL that takes the place of the kubeconfig's.
    fn hub_server(&self) -> Option<&str> {
        let own = self.same_cluster.then_some(OWN_SERVER);
        self.server.as_deref().or(own)
    }
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = parse_name(&args.name)?;
    let labels = parse_labels(&args.labels)?;
    let out = out(&args, name.as_str());
    // Everything that can be wrong on this machine is found before anything is made on the hub.
    let pushed = args
        .push
        .as_ref()
        .map(|path| {
            let file = kubeconfig::read(path)?;
            pushed_kubeconfig(name.as_str(), &file, &args)
                .with_context(|| format!("--push {}", path.display()))
        })
        .transpose()?;
    let own = kubeconfig::choose(&args.connect.kubeconfig()?, args.connect.context())?;
    let hub = match &pushed {
        Some(_) => None,
        None => Some(kubeconfig::endpoint(
            &own.cluster,
            args.hub_server(),
            "the edge cluster",
        )?),
    };
    let file = PrivateFile::create(&out)?;

    let client = args.connect.client().await?;
    let made = make(
        &client,
        &account::edge_cluster(name.as_str(), &labels, pushed.is_some()),
    )
    .await?;
    let owner = owner(&made)?;
    make(&client, &account::namespace(account::NAMESPACE)).await?;
    make(&client, &account::lease(name.as_str(), &owner)).await?;
    let server = hub.as_ref().map_or("", kubeconfig::Endpoint::server);
    let helm = args.helm_values.is_some();
    let site = Site::new(args.same_cluster, server);
    let text = |hub: Option<&str>| {
        if helm {
            helm_values::text(name.as_str(), hub, site)
        } else {
            edge_file::text(name.as_str(), hub)
        }
    };
    let (text, valid_until) = match (&pushed, &hub) {
        (None, Some(endpoint)) => {
            for object in account::account(name.as_str(), &owner) {
                make(&client, &object).await?;
            }
            let (token, valid_until) = token(&client, name.as_str(), args.token_days).await?;
            let mut noted = account::edge_cluster(name.as_str(), &labels, false);
            noted["metadata"]["annotations"] = json!({ CREDENTIAL_EXPIRES: valid_until });
            make(&client, &noted).await?;
            let user = json!({ "token": token });
            let kubeconfig = kubeconfig::standalone("hub", endpoint, user)?;
            (text(Some(&kubeconfig))?, Some(valid_until))
        }
        (pushed, _) => {
            make(&client, &account::namespace(account::SYSTEM_NAMESPACE)).await?;
            let kubeconfig = pushed.as_deref().unwrap_or_default();
            let secret = account::push_secret(name.as_str(), &owner, kubeconfig);
            make(&client, &secret).await?;
            (text(None)?, None)
        }
    };
    file.finish(&text)?;
    println!("edgecluster.rimward.dev/{name} added");
    if let Some(valid_until) = valid_until {
        println!(
            "{} holds its credential, good until {valid_until}: keep it secret",
            out.display()
        );
    }
    let out = out.display().to_string();
    if helm {
        println!("Install on the edge:  {}", helm_values::command(&out, site));
    } else {
        println!("Apply it on the edge:  kubectl apply --server-side -f {out}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the file for the edge goes.
fn out(args: &Args, name: &str) -> PathBuf {
    let (given, default) = match &args.helm_values {
        Some(file) => (file, format!("{name}.values.yaml")),
        None => (&args.out, format!("{name}.yaml")),
    };
    given.clone().unwrap_or_else(|| PathBuf::from(default))
}

fn parse_name(text: &str) -> anyhow::Result<ClusterName> {
    let name: ClusterName = text.parse()?;
    ensure!(
        text.len() <= NAME_CHARS_MAX,
        "cluster name has {} characters, at most {NAME_CHARS_MAX} are allowed",
        text.len()
    );
    Ok(name)
}

fn parse_labels(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    pairs
        .iter()
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .with_context(|| format!("--labels {pair:?} is not KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The kubeconfig to store on the hub: one context, nothing outside itself.
fn pushed_kubeconfig(
    name: &str,
    file: &kube::config::Kubeconfig,
    args: &Args,
) -> anyhow::Result<String> {
    let chosen = kubeconfig::choose(file, args.push_context.as_deref())?;
    let user = kubeconfig::credential(&chosen.user)?;
    let endpoint = kubeconfig::endpoint(&chosen.cluster, args.server.as_deref(), "the hub")?;
    kubeconfig::standalone(name, &endpoint, Value::Object(user))
}

/// Applies one object. A field that another manager owns with another value is a conflict, not ours to
/// force.
async fn make(client: &Client, object: &Value) -> anyhow::Result<DynamicObject> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
    let name = text("/metadata/name").unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams::apply(FIELD_MANAGER);
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .map_err(words)
        .with_context(|| format!("making {kind} {name}"))
}

fn owner(cluster: &DynamicObject) -> anyhow::Result<Value> {
    let uid = cluster.uid().context("the EdgeCluster has no UID")?;
    Ok(json!({
        "apiVersion": "rimward.dev/v1alpha1",
        "kind": "EdgeCluster",
        "name": cluster.name_any(),
        "uid": uid,
    }))
}

/// Asks for a token of the cluster's account; returns it and until when it is good.
async fn token(client: &Client, cluster: &str, days: u32) -> anyhow::Result<(String, String)> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), account::NAMESPACE);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(i64::from(days) * 24 * 60 * 60),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(cluster, &PostParams::default(), &request)
        .await
        .map_err(words)
        .with_context(|| format!("asking for a token of account {cluster}"))?;
    let status = answer.status.unwrap_or_default();
    let token = status.token.context("the API server gave no token")?;
    let until = status.expiration_timestamp.map(|time| time.0.to_string());
    Ok((
        token,
        until.context("the API server gave no end of the token's time")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        let labels = parse_labels(&["tier=canary".to_owned(), "site=".to_owned()]).unwrap();
        assert_eq!(labels["tier"], "canary");
        assert_eq!(labels["site"], "");
        for bad in ["tier", "=x"] {
            let error = parse_labels(&[bad.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("is not KEY=VALUE"), "{error}");
        }
    }

    #[test]
    fn the_hubs_own_cluster_is_dialled_from_within_unless_another_url_is_given() {
        #[derive(Debug, clap::Parser)]
        struct Typed {
            #[command(flatten)]
            args: Args,
        }
        let typed = |line: &str| {
            let typed = <Typed as clap::Parser>::try_parse_from(line.split(' '));
            typed.map(|typed| typed.args)
        };
        let args = typed("add here --same-cluster").unwrap();
        assert_eq!(args.hub_server(), Some("https://kubernetes.default.svc"));
        let args = typed("add here --same-cluster --server https://hub.lan:6443").unwrap();
        assert_eq!(args.hub_server(), Some("https://hub.lan:6443"));
        assert_eq!(typed("add north").unwrap().hub_server(), None);
        assert!(typed("add here --same-cluster --push file").is_err());
    }

    #[test]
    fn a_name_that_no_edge_cluster_may_have_is_refused_before_anything_is_made() {
        assert!(parse_name("site-a").is_ok());
        assert!(parse_name("Site").is_err());
        assert!(parse_name(&"a".repeat(64)).is_err());
    }
}
