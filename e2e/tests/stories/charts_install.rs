//! The charts on a real API server, without nodes: their pods are admitted where they shall be, others are not, and
//! nobody installs Rimward twice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::helm::{NO_REGISTRY, chart};
use rimward_e2e::{ControlPlane, Helm, Kubectl, Seen, story, wait_for};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);
const SYSTEM: &str = "rimward-system";
const AGENTS: &str = "rimward-agents";
const ALL: &str = "edge.enabled=true,edge.cluster=here,edge.hub.kubeconfig=x,agent.enabled=true,agent.trust.file=x";

#[test]
fn pods_meet_the_level_restricted_but_for_what_the_values_name() {
    story("charts-install", async |story| {
        let folder = story.scratch().path();
        let plane = ControlPlane::start("one", folder, Options::default()).await?;
        let (helm, kubectl) = (Helm::new(&plane.kubeconfig(), folder)?, plane.kubectl()?);
        restricted(&kubectl, SYSTEM).await?;
        // The kinds by the other chart: this one must not want them too.
        helm.run(["install", "kinds", &chart("rimward-crds"), "-n", SYSTEM])
            .await?;
        let refused = release(&helm, "install", "rimward", SYSTEM, ALL)
            .output()
            .await?;
        let refused = refused.refusal()?;
        ensure!(
            refused.contains("clusterassignments.rimward.dev") && refused.contains("kinds"),
            "{refused}"
        );
        let own_kinds = format!("{ALL},crds.enabled=false,test.endpoint=http://a");
        let said = release(&helm, "install", "rimward", SYSTEM, &own_kinds)
            .run()
            .await?;
        ensure!(said.contains("helm test rimward"), "{said}");

        for name in ["rimward-hub", "rimward-edge"] {
            let pod = pod_of(&kubectl, "deployment", name, SYSTEM).await?;
            admitted(&kubectl, &pod).await.context(name)?;
        }
        tests_are_admitted(&helm, &kubectl).await?;
        let agent = pod_of(&kubectl, "daemonset", "rimward-agent", AGENTS).await?;
        admitted(&kubectl, &agent).await?;
        let mut elsewhere = agent.clone();
        elsewhere["metadata"]["namespace"] = json!(SYSTEM);
        for field in ["serviceAccountName", "serviceAccount"] {
            elsewhere["spec"][field] = json!("default");
        }
        let refused = create(&kubectl, &elsewhere).await?.refusal()?;
        ensure!(refused.contains("hostPath"), "{refused}");
        soon_guarded(&kubectl, &agent).await?;
        others_are_refused(&kubectl, &agent).await?;
        what_the_values_name_is_admitted(&helm, &kubectl).await?;

        let second = release(&helm, "install", "second", "elsewhere", ALL)
            .output()
            .await?;
        let refused = second.refusal()?;
        for word in [
            "Namespace \"rimward-",
            "\"second\"",
            "current value is \"rimward\"",
        ] {
            ensure!(refused.contains(word), "{refused}");
        }
        Ok(())
    });
}

fn release(
    helm: &Helm,
    verb: &str,
    name: &str,
    namespace: &str,
    set: &str,
) -> rimward_e2e::command::Line {
    let registry = format!("image.registry={NO_REGISTRY}");
    let line = helm.line([verb, name, &chart("rimward"), "-n", namespace]);
    let line = line.args(["--set", &registry, "--set", set]);
    if verb == "install" {
        line.args(["--create-namespace"])
    } else {
        line
    }
}

/// A namespace at PodSecurity's strictest level.
async fn restricted(kubectl: &Kubectl, name: &str) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    kubectl.apply(&object.to_string()).await?;
    Ok(())
}

/// A pod as its controller would make it.
async fn pod_of(kubectl: &Kubectl, kind: &str, name: &str, namespace: &str) -> Result<Value> {
    let object = kubectl.get_json([kind, name, "-n", namespace]).await?;
    let template = &object["spec"]["template"];
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probe", "namespace": namespace, "labels": template["metadata"]["labels"],
                     "annotations": template["metadata"]["annotations"]},
        "spec": template["spec"],
    }))
}

async fn create(kubectl: &Kubectl, pod: &Value) -> Result<rimward_e2e::command::Output> {
    let line = kubectl.line(["create", "--dry-run=server", "-f", "-"]);
    line.input(pod.to_string()).output().await
}

async fn admitted(kubectl: &Kubectl, pod: &Value) -> Result<()> {
    let output = create(kubectl, pod).await?;
    ensure!(output.stderr.is_empty(), "{}", output.stderr);
    output.success()?;
    Ok(())
}

/// The same once the API server goes by the policy as it is now: it reads policies again about every second.
async fn soon_admitted(kubectl: &Kubectl, pod: &Value, what: &str) -> Result<()> {
    wait_for(&format!("{what} to be let in"), WITHIN, async || {
        Ok(match admitted(kubectl, pod).await {
            Ok(()) => Seen::Done(()),
            Err(error) => Seen::NotYet(error.to_string()),
        })
    })
    .await
}

/// Waits until the policy is in force at all.
async fn soon_guarded(kubectl: &Kubectl, agent: &Value) -> Result<()> {
    let mut other = agent.clone();
    other["spec"]["hostPID"] = json!(true);
    wait_for("the policy to be in force", WITHIN, async || {
        Ok(match create(kubectl, &other).await?.refusal() {
            Ok(_) => Seen::Done(()),
            Err(error) => Seen::NotYet(error.to_string()),
        })
    })
    .await
}

/// The pods of `helm test`, which are in the release's namespace.
async fn tests_are_admitted(helm: &Helm, kubectl: &Kubectl) -> Result<()> {
    let hooks = helm.run(["get", "hooks", "rimward", "-n", SYSTEM]).await?;
    let pod: Value = serde_yaml::from_str(&hooks).context("the hook is one pod")?;
    ensure!(pod["kind"] == "Pod", "{hooks}");
    admitted(kubectl, &pod).await
}

/// What the agents' namespace keeps out: everything that restricted does, and every other way to the host.
async fn others_are_refused(kubectl: &Kubectl, agent: &Value) -> Result<()> {
    const AGENT: &str = "/spec/containers/0";
    const CONTEXT: &str = "/spec/containers/0/securityContext";
    const PREPARE: &str = "/spec/initContainers/0";
    let cases = [
        (
            "another folder",
            "/spec/volumes",
            "-",
            json!({"name": "x", "hostPath": {"path": "/etc"}}),
            "but /var/lib/rimward",
        ),
        (
            "a folder above",
            "/spec/volumes",
            "-",
            json!({"name": "x", "hostPath": {"path": "/var/lib"}}),
            "but /var/lib/rimward",
        ),
        (
            "nfs",
            "/spec/volumes",
            "-",
            json!({"name": "x", "nfs": {"path": "/", "server": "a"}}),
            "no folder or device",
        ),
        (
            "privileged",
            AGENT,
            "securityContext",
            json!({"privileged": true, "capabilities": {"drop": ["ALL"]}}),
            "may not be privileged",
        ),
        (
            "the host's network",
            "/spec",
            "hostNetwork",
            json!(true),
            "hostNetwork is false",
        ),
        (
            "a port of the host",
            "/spec/containers/0/ports/0",
            "hostPort",
            json!(80),
            "hostPort is null",
        ),
        (
            "the host's processes",
            "/spec",
            "hostPID",
            json!(true),
            "hostPID",
        ),
        ("the host's IPC", "/spec", "hostIPC", json!(true), "hostIPC"),
        ("root", CONTEXT, "runAsUser", json!(0), "may not be root"),
        (
            "root for the pod",
            "/spec/securityContext",
            "runAsUser",
            json!(0),
            "may not be root",
        ),
        (
            "perhaps root",
            "/spec/securityContext",
            "runAsNonRoot",
            json!(false),
            "runAsNonRoot",
        ),
        (
            "a capability",
            CONTEXT,
            "capabilities",
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "no capability",
        ),
        (
            "CHOWN elsewhere",
            CONTEXT,
            "capabilities",
            json!({"drop": ["ALL"], "add": ["CHOWN"]}),
            "no capability",
        ),
        (
            "capabilities kept",
            CONTEXT,
            "capabilities",
            json!({}),
            "drop ALL",
        ),
        (
            "escalation",
            CONTEXT,
            "allowPrivilegeEscalation",
            json!(true),
            "allowPrivilegeEscalation",
        ),
        (
            "no context",
            AGENT,
            "securityContext",
            Value::Null,
            "allowPrivilegeEscalation",
        ),
        (
            "no seccomp",
            "/spec/securityContext",
            "seccompProfile",
            Value::Null,
            "seccomp",
        ),
        (
            "another seccomp",
            CONTEXT,
            "seccompProfile",
            json!({"type": "Unconfined"}),
            "seccomp",
        ),
        (
            "AppArmor off",
            "/spec/securityContext",
            "appArmorProfile",
            json!({"type": "Unconfined"}),
            "AppArmor",
        ),
        (
            "a sysctl",
            "/spec/securityContext",
            "sysctls",
            json!([{"name": "net.core.somaxconn", "value": "1"}]),
            "sysctl",
        ),
        (
            "SELinux",
            CONTEXT,
            "seLinuxOptions",
            json!({"type": "spc_t"}),
            "SELinux",
        ),
        ("another root", PREPARE, "name", json!("other"), ""),
        (
            "more for prepare",
            "/spec/initContainers/0/securityContext",
            "capabilities",
            json!({"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE"]}),
            "only CHOWN",
        ),
        (
            "a shell as prepare",
            PREPARE,
            "command",
            json!(["/bin/sh"]),
            "only run `prepare`",
        ),
        (
            "other words for prepare",
            PREPARE,
            "args",
            json!(["run"]),
            "only run `prepare`",
        ),
        (
            "prepare that stays",
            PREPARE,
            "restartPolicy",
            json!("Always"),
            "only run `prepare`",
        ),
    ];
    let mut let_in = Vec::new();
    for (what, at, field, value, words) in cases {
        let mut pod = agent.clone();
        let place = pod
            .pointer_mut(at)
            .with_context(|| format!("{what}: {at}"))?;
        match place {
            Value::Array(list) => list.push(value),
            place => place[field] = value,
        }
        match create(kubectl, &pod).await?.refusal() {
            Ok(said) if said.contains("rimward-agent-pods") && said.contains(words) => {}
            Ok(said) => let_in.push(format!("{what}: refused otherwise: {said}")),
            Err(_) => let_in.push(format!("{what}: let in")),
        }
    }
    ensure!(let_in.is_empty(), "{}", let_in.join("\n"));
    Ok(())
}

/// Devices, the node's network and ports, by values: each opens the policy for exactly that.
async fn what_the_values_name_is_admitted(helm: &Helm, kubectl: &Kubectl) -> Result<()> {
    let cases = [
        ("agent.inference.hostPort=8000", None),
        ("agent.inference.hostNetwork=true", None),
        (
            "agent.devices.nodes={/dev/dri/renderD128},agent.devices.supplementalGroups={44}",
            None,
        ),
        ("agent.devices.privileged=true", None),
        (
            "agent.libraries[0].path=/opt/engine,agent.libraries[1].path=/usr/lib/tpu,agent.libraries[1].mountPath=/opt/tpu",
            None,
        ),
        // What libraries are mounted from where the runtime knows it: nothing of the host.
        (
            "agent.extraVolumes[0].name=engine,agent.extraVolumes[0].image.reference=registry.invalid/engine:1,\
             agent.extraVolumeMounts[0].name=engine,agent.extraVolumeMounts[0].mountPath=/opt/engine",
            None,
        ),
        ("agent.hostFolder.path=/opt/rimward", None),
        (
            "agent.hostFolder.prepare=false",
            Some("/spec/initContainers"),
        ),
    ];
    for (set, absent) in cases {
        let set = format!("{ALL},crds.enabled=false,{set}");
        release(helm, "upgrade", "rimward", SYSTEM, &set)
            .run()
            .await?;
        let agent = pod_of(kubectl, "daemonset", "rimward-agent", AGENTS).await?;
        soon_admitted(kubectl, &agent, &set).await?;
        if let Some(absent) = absent {
            ensure!(agent.pointer(absent).is_none(), "{set}: {agent}");
        }
        let mut other = agent.clone();
        let volumes = other["spec"]["volumes"].as_array_mut().context("volumes")?;
        volumes.push(json!({"name": "x", "hostPath": {"path": "/etc"}}));
        create(kubectl, &other)
            .await?
            .refusal()
            .with_context(|| set.clone())?;
        libraries_are_only_read(kubectl, &agent)
            .await
            .with_context(|| set.clone())?;
    }
    Ok(())
}

/// A pod that could write to what the values let in to be read is refused, whichever of its containers could.
async fn libraries_are_only_read(kubectl: &Kubectl, agent: &Value) -> Result<()> {
    let mounts = agent.pointer("/spec/containers/0/volumeMounts");
    let mounts = mounts.and_then(Value::as_array).context("mounts")?;
    let named = |mount: &&Value| {
        let name = mount["name"].as_str().unwrap_or_default();
        name.starts_with("library-")
    };
    for library in mounts.iter().filter(named) {
        let mut of_agent = agent.clone();
        let mounts = of_agent.pointer_mut("/spec/containers/0/volumeMounts");
        for mount in mounts.and_then(Value::as_array_mut).context("mounts")? {
            if mount["name"] == library["name"] {
                mount["readOnly"] = json!(false);
            }
        }
        let mut of_prepare = agent.clone();
        let mounts = of_prepare.pointer_mut("/spec/initContainers/0/volumeMounts");
        let mounts = mounts.and_then(Value::as_array_mut).context("mounts")?;
        mounts.push(json!({"name": library["name"], "mountPath": "/x"}));
        for pod in [of_agent, of_prepare] {
            let said = create(kubectl, &pod).await?.refusal()?;
            ensure!(said.contains("may only read /opt/engine"), "{said}");
        }
    }
    Ok(())
}
