//! Templates of the rights, made from the files that are applied without Helm.
//!
//! Owns the few places where an installation has names of its own: object names, the accounts, and the namespaces
//! that they are in. Plain text: whatever else stands in a source stands in the chart, comments too.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{NOTICE, read};

/// A source, where it goes, and whose it is.
const SOURCES: [(&str, &str, &str); 4] = [
    (
        "operator/rbac/hub.yaml",
        "charts/rimward/templates/hub/rbac.yaml",
        "hub",
    ),
    (
        "operator/rbac/actions.yaml",
        "charts/rimward/templates/hub/actions.yaml",
        "hub",
    ),
    (
        "operator/rbac/edge.yaml",
        "charts/rimward/templates/edge/rbac.yaml",
        "edge",
    ),
    (
        "node-agent/rbac.yaml",
        "charts/rimward/templates/agent/rbac.yaml",
        "agent",
    ),
];

/// Kinds that have values of their own, so they are written by hand.
const BY_HAND: [&str; 2] = ["Namespace", "ServiceAccount"];

/// What `rbac.create` is about; admission policies are there in any case, since they take rights away.
const RBAC: &str = "apiVersion: rbac.authorization.k8s.io/";

/// Every template of rights.
pub(super) fn files(root: &Path) -> Result<Vec<(String, String)>> {
    SOURCES
        .iter()
        .map(|(source, target, component)| {
            Ok((
                (*target).to_owned(),
                template(&read(&root.join(source))?, component)?,
            ))
        })
        .collect()
}

fn template(source: &str, component: &str) -> Result<String> {
    ensure!(!source.contains("{{"), "a source of rights says {{{{");
    let mut text = NOTICE.to_owned();
    for document in source.split("\n---\n") {
        let kind = document
            .lines()
            .find_map(|line| line.strip_prefix("kind: "))
            .unwrap_or_default();
        if BY_HAND.contains(&kind) {
            continue;
        }
        let switch = if document.lines().any(|line| line.starts_with(RBAC)) {
            format!("and .Values.{component}.enabled .Values.rbac.create")
        } else {
            format!(".Values.{component}.enabled")
        };
        text += &format!("{{{{- if {switch} }}}}\n---\n");
        text += &substituted(document, component);
        text += "{{- end }}\n";
    }
    Ok(text)
}

fn substituted(document: &str, component: &str) -> String {
    let own = format!("rimward-{component}");
    let account = format!(
        "{{{{ include \"rimward.serviceAccountName\" (dict \"root\" . \"component\" \"{component}\") }}}}"
    );
    let name = format!("{{{{ include \"rimward.fullname\" . }}}}-{component}");
    let mut text = String::new();
    let mut of_account = false;
    for line in document.lines() {
        let bare = line.trim_start_matches([' ', '-']).trim_end();
        let indent = &line[..line.len() - line.trim_start_matches([' ', '-']).len()];
        let line = if bare == format!("name: {own}") {
            let value = if of_account { &account } else { &name };
            format!("{indent}name: {value}")
        } else if bare == format!("policyName: {own}") {
            format!("{indent}policyName: {name}")
        } else if bare == "namespace: rimward-system" {
            format!("{indent}namespace: {{{{ .Release.Namespace }}}}")
        } else if bare == "namespace: rimward-agents" {
            format!("{indent}namespace: {{{{ .Values.agent.namespace.name }}}}")
        } else {
            let user = format!("system:serviceaccount:rimward-agents:{own}");
            line.replace(
                &user,
                &format!("system:serviceaccount:{{{{ .Values.agent.namespace.name }}}}:{account}"),
            )
        };
        of_account = bare == "kind: ServiceAccount";
        text += &line;
        text.push('\n');
        if line == "metadata:" {
            text += &format!(
                "  labels:\n    {{{{- include \"rimward.labels\" (dict \"root\" $ \"component\" \"{component}\") | nindent 4 }}}}\n"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: rimward-system
---
# Why.
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: rimward-hub
  namespace: rimward-system
roleRef:
  kind: Role
  name: rimward-hub
subjects:
  - kind: ServiceAccount
    name: rimward-hub
    namespace: rimward-system
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: rimward-hub
  namespace: rimward-clusters
rules:
  - resourceNames: [rimward-hub]
";

    #[test]
    fn names_follow_the_release_and_names_that_the_program_has_stay() {
        let text = template(SOURCE, "hub").unwrap();
        assert!(!text.contains("kind: Namespace"), "{text}");
        assert!(text.contains("# Why.\n"), "{text}");
        assert!(text.contains("  namespace: {{ .Release.Namespace }}\n"));
        assert!(text.contains("  name: {{ include \"rimward.fullname\" . }}-hub\n"));
        assert!(text.contains(
            "  - kind: ServiceAccount\n    name: {{ include \"rimward.serviceAccountName\""
        ));
        assert!(text.contains("  namespace: rimward-clusters\n"));
        assert!(text.contains("resourceNames: [rimward-hub]\n"));
        assert!(!text.contains("namespace: rimward-system"), "{text}");
    }

    #[test]
    fn no_source_keeps_a_name_that_an_installation_may_choose() {
        for (name, text) in files(crate::step::root()).unwrap() {
            let kept: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .filter(|line| line.contains("rimward-system") || line.contains("rimward-agents"))
                .collect();
            assert!(kept.is_empty(), "{name}: {kept:?}");
        }
    }
}
