//! Copies of the CustomResourceDefinitions, as templates.
//!
//! Owns what is put around a copy: the switch, the keep policy, the labels. What stands in a definition is
//! `crds/src`'s.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::{NOTICE, listed, read};

/// Where the copies are; nothing else lies there.
pub(super) const FOLDERS: [&str; 2] = [
    "charts/rimward/templates/crds",
    "charts/rimward-crds/templates/crds",
];

/// A chart's own names for the switch and for the keep policy; the chart of the kinds alone has no switch.
const CHARTS: [(&str, &str, &str); 2] = [
    (FOLDERS[0], "if .Values.crds.enabled", ".Values.crds.keep"),
    (FOLDERS[1], "if true", ".Values.keep"),
];

/// Every copy in both charts.
pub(super) fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for path in listed(&root.join("crds/yaml"))? {
        let (text, name) = (read(&path)?, path.file_name().unwrap_or_default());
        for (folder, switch, keep) in CHARTS {
            let name = format!("{folder}/{}", name.to_string_lossy());
            files.push((name, template(&text, switch, keep)?));
        }
    }
    ensure!(!files.is_empty(), "crds/yaml is empty");
    Ok(files)
}

fn template(definition: &str, switch: &str, keep: &str) -> Result<String> {
    // A rule or a description with these would be taken for an action of the template.
    ensure!(!definition.contains("{{"), "a definition says {{{{");
    let lines: Vec<&str> = definition
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let Some(at) = lines.iter().position(|line| *line == "metadata:") else {
        bail!("a definition has no metadata");
    };
    let mut text = format!("{NOTICE}{{{{- {switch} }}}}\n");
    let line = |text: &mut String, line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    for had in &lines[..=at] {
        line(&mut text, had);
    }
    let policy = [
        format!("    {{{{- if {keep} }}}}"),
        "    helm.sh/resource-policy: keep".to_owned(),
        "    {{- end }}".to_owned(),
    ];
    let had_annotations = lines.get(at + 1) == Some(&"  annotations:");
    if had_annotations {
        line(&mut text, "  annotations:");
        policy.iter().for_each(|it| line(&mut text, it));
    } else {
        line(&mut text, &format!("  {{{{- if {keep} }}}}"));
        line(&mut text, "  annotations:");
        line(&mut text, "    helm.sh/resource-policy: keep");
        line(&mut text, "  {{- end }}");
    }
    let rest = &lines[at + 1 + usize::from(had_annotations)..];
    let (mut in_metadata, mut labelled) = (true, false);
    for had in rest {
        in_metadata &= had.starts_with(' ');
        if in_metadata && !labelled && had.starts_with("  name:") {
            line(&mut text, "  labels:");
            line(
                &mut text,
                "    {{- include \"rimward.labels\" (dict \"root\" $ \"component\" \"crds\") | nindent 4 }}",
            );
            labelled = true;
        }
        line(&mut text, had);
    }
    ensure!(labelled, "a definition has no name, or labels of its own");
    line(&mut text, "{{- end }}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::template;

    const WITHOUT: &str = "# c\napiVersion: v1\nmetadata:\n  name: a\nspec:\n  name: b\n";

    #[test]
    fn a_copy_is_kept_when_the_release_goes_whether_it_had_annotations_or_not() {
        let text = template(WITHOUT, "if x", ".k").unwrap();
        assert!(
            text.contains(
                "metadata:\n  {{- if .k }}\n  annotations:\n    helm.sh/resource-policy: keep\n"
            ),
            "{text}"
        );
        assert_eq!(text.matches("labels:").count(), 1);
        let with = WITHOUT.replace("  name: a", "  annotations:\n    r: \"1\"\n  name: a");
        let text = template(&with, "if x", ".k").unwrap();
        assert!(
            text.contains("    {{- end }}\n    r: \"1\"\n  labels:"),
            "{text}"
        );
    }

    #[test]
    fn a_definition_that_would_be_taken_for_a_template_is_refused() {
        assert!(template(&WITHOUT.replace("b\n", "'{{'\n"), "if x", ".k").is_err());
    }
}
