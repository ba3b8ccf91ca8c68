//! Test only: dashboards and alert rules ask for metrics that the binaries have.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::charts::{listed, read};
    use crate::step;

    /// Metrics that `docs/reference/metrics.md` lists, a histogram's series one by one.
    fn existing() -> BTreeSet<String> {
        let page = read(&step::root().join("docs/reference/metrics.md")).unwrap();
        let mut names = BTreeSet::new();
        for row in page.lines().filter(|line| line.starts_with("| `")) {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let name = cells.next().unwrap().trim_matches('`').to_owned();
            if cells.next() == Some("histogram") {
                for part in ["bucket", "sum", "count"] {
                    names.insert(format!("{name}_{part}"));
                }
            } else {
                names.insert(name);
            }
        }
        names
    }

    /// Words of a file that look like a metric of ours.
    fn asked(text: &str) -> BTreeSet<String> {
        text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
            .filter(|word| word.starts_with("rimward_"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn dashboards_and_rules_ask_only_for_metrics_that_exist() {
        let existing = existing();
        let chart = step::root().join("charts/rimward");
        let mut files = listed(&chart.join("dashboards")).unwrap();
        assert!(files.len() >= 2, "{files:?}");
        files.push(chart.join("rules.yaml"));
        for path in files {
            let asked = asked(&read(&path).unwrap());
            assert!(asked.len() > 3, "{}: {asked:?}", path.display());
            let unknown: Vec<_> = asked.difference(&existing).collect();
            assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
        }
    }
}
