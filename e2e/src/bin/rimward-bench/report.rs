//! What was found, as a page of Markdown.
//!
//! Owns the page's form. What a benchmark means, its module says.

use std::fmt::Write as _;

/// One measured thing, beside its peer or limit.
#[derive(Debug, Default)]
pub(crate) struct Row {
    what: String,
    measured: String,
    beside: String,
    ratio: String,
    aim: Option<Aim>,
}

/// What measures are meant to reach.
#[derive(Debug)]
struct Aim {
    words: &'static str,
    is_met: bool,
    why_missed: &'static str,
}

/// What one benchmark found.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its title.
    pub(crate) title: &'static str,
    /// How it is measured: against what, how often.
    pub(crate) how: String,
    /// What the column of the other side is called.
    pub(crate) beside: &'static str,
    /// What was found.
    pub(crate) rows: Vec<Row>,
    /// What is to be said about it.
    pub(crate) notes: Vec<String>,
}

impl Row {
    /// A measured thing.
    pub(crate) fn new(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            ..Self::default()
        }
    }

    /// The other side, and the ratio of the first to it.
    pub(crate) fn beside(mut self, beside: impl Into<String>, ratio: Option<f64>) -> Self {
        self.beside = beside.into();
        self.ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2} ×"));
        self
    }

    /// What it is meant to reach; `why_missed` is printed when it does not.
    pub(crate) fn aim(
        mut self,
        words: &'static str,
        is_met: bool,
        why_missed: &'static str,
    ) -> Self {
        self.aim = Some(Aim {
            words,
            is_met,
            why_missed,
        });
        self
    }

    /// As a line of a table.
    pub(crate) fn line(&self) -> String {
        let Self {
            what,
            measured,
            beside,
            ratio,
            aim,
        } = self;
        let (aim, verdict) = match aim {
            None => ("", ""),
            Some(aim) if aim.is_met => (aim.words, "met"),
            Some(aim) => (aim.words, "**missed**"),
        };
        format!("| {what} | {measured} | {beside} | {ratio} | {aim} | {verdict} |")
    }
}

impl Section {
    /// As Markdown.
    pub(crate) fn page(&self) -> String {
        let mut page = format!("## {}\n\n{}\n\n", self.title, self.how);
        let _ = writeln!(page, "| | Rimward | {} | ratio | aim | |", self.beside);
        page += "|---|---:|---:|---:|---|---|\n";
        for row in &self.rows {
            let _ = writeln!(page, "{}", row.line());
        }
        for note in self.missed().iter().chain(&self.notes) {
            let _ = write!(page, "\n{note}\n");
        }
        page
    }

    /// One paragraph for each reason why something misses its aim.
    fn missed(&self) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for row in &self.rows {
            let Some(aim) = row.aim.as_ref().filter(|aim| !aim.is_met) else {
                continue;
            };
            match reasons.iter_mut().find(|(why, _)| *why == aim.why_missed) {
                Some((_, rows)) => rows.push(&row.what),
                None => reasons.push((aim.why_missed, vec![&row.what])),
            }
        }
        let paragraph = |(why, rows): &(&str, Vec<&str>)| {
            format!("Misses its aim: *{}*. {why}", rows.join("*, *"))
        };
        reasons.iter().map(paragraph).collect()
    }
}

/// The whole page.
pub(crate) fn page(facts: &[(&str, String)], sections: &[Section]) -> String {
    let mut page = String::from(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`, which measures everything anew; not edited by hand. Each number is a \
         median over the repeats, the least and the greatest repeat in parentheses; both sides are measured in \
         turn in the same run. Ratios carry over to other machines better than times do. Where the load average is above the number of cores, \
         other programs ran beside, and whatever is handed between threads looks worse than it is.\n\n\
         | | |\n|---|---|\n",
    );
    for (name, value) in facts {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    let aims = sections.iter().flat_map(|section| &section.rows);
    let aims: Vec<bool> = aims
        .filter_map(|row| row.aim.as_ref().map(|aim| aim.is_met))
        .collect();
    let met = aims.iter().filter(|is_met| **is_met).count();
    let _ = write!(
        page,
        "\n{met} of {} aims are met; what misses its aim says why below its table.\n",
        aims.len()
    );
    for section in sections {
        page += "\n";
        page += &section.page();
    }
    page
}

/// The page with these sections in the place of those of the same title, or at its end.
pub(crate) fn merged(page: &str, facts: &[(&str, String)], sections: &[Section]) -> String {
    let mut parts = page.split("\n## ").map(str::to_owned);
    let head = parts.next().unwrap_or_default();
    let mut parts: Vec<String> = parts
        .map(|part| format!("## {}", part.trim_end()))
        .collect();
    let fact = |name: &str| facts.iter().find(|(it, _)| *it == name);
    let fact = |name: &str| fact(name).map_or("", |(_, value)| value.as_str());
    let when = format!(
        "Measured by itself on {}, load average at the start {}.",
        fact("date"),
        fact("load average at the start")
    );
    for section in sections {
        let text = section.page();
        let (title, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let text = format!("{title}\n\n{when} {}", rest.trim_end());
        let begin = format!("{title}\n");
        match parts.iter_mut().find(|part| part.starts_with(&begin)) {
            Some(part) => *part = text,
            None => parts.push(text),
        }
    }
    let whole = parts.join("\n\n");
    let (met, missed) = (
        whole.matches("| met |").count(),
        whole.matches("| **missed** |").count(),
    );
    let lines = head.trim_end().lines().map(|line| {
        if line.contains(" aims are met") {
            format!(
                "{met} of {} aims are met; what misses its aim says why below its table.",
                met + missed
            )
        } else {
            line.to_owned()
        }
    });
    format!("{}\n\n{whole}\n", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_is_measured_by_itself_takes_its_place_and_no_others() {
        let section = |title, met| Section {
            title,
            how: "So.".to_owned(),
            beside: "limit",
            rows: vec![Row::new("fast", "1 s").aim("≤ 1 s", met, "why.")],
            notes: Vec::new(),
        };
        let facts = |date: &str| {
            vec![
                ("date", date.to_owned()),
                ("load average at the start", "1.0".to_owned()),
            ]
        };
        let old = page(
            &facts("monday"),
            &[section("One", true), section("Two", false)],
        );
        let new = merged(
            &old,
            &facts("tuesday"),
            &[section("Two", true), section("Three", true)],
        );
        assert!(new.contains("3 of 3 aims are met"), "{new}");
        assert_eq!(new.matches("## Two").count(), 1, "{new}");
        assert_eq!(
            new.matches("Measured by itself on tuesday").count(),
            2,
            "{new}"
        );
        assert!(new.contains("## One\n\nSo."), "{new}");
        let again = merged(&new, &facts("tuesday"), &[section("Two", true)]);
        assert_eq!(again, new);
    }

    #[test]
    fn a_missed_aim_is_told_with_its_reason_and_a_met_one_without() {
        let rows = vec![
            Row::new("slow", "9 s").aim("≤ 1 s", false, "It waits."),
            Row::new("fast", "1 s")
                .beside("2 s", Some(0.5))
                .aim("≤ 1 s", true, "never told."),
        ];
        let page = Section {
            title: "T",
            how: "So.".to_owned(),
            beside: "limit",
            rows,
            notes: vec!["A note.".to_owned()],
        }
        .page();
        assert!(
            page.contains("| slow | 9 s |  |  | ≤ 1 s | **missed** |"),
            "{page}"
        );
        assert!(
            page.contains("| fast | 1 s | 2 s | 0.50 × | ≤ 1 s | met |"),
            "{page}"
        );
        assert!(page.contains("Misses its aim: *slow*. It waits."), "{page}");
        assert!(!page.contains("never told"), "{page}");
        assert!(page.ends_with("A note.\n"), "{page}");
    }
}
