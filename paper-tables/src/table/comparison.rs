//! Footnotes on published numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::types::Table;
use crate::protocol::{Concern, Difference};

/// Where published numbers were read, and how their protocols compare with those of the rows.
pub(super) fn comparison(table: &Table) -> Vec<String> {
    let compared = || table.entries().filter_map(|entry| entry.published.as_ref());
    let citations: BTreeSet<&str> = compared().map(|number| number.citation.as_str()).collect();
    let mut notes = Vec::new();
    if !citations.is_empty() {
        notes.push(format!(
            "paper: {}; in parentheses, our result minus the paper's, in percentage points.",
            join(citations)
        ));
    }
    for note in compared().flat_map(|number| &number.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes.extend(differences(table));
    let withheld = table.entries().filter(|entry| entry.withheld).count();
    if withheld > 0 {
        let (numbers, were) = if withheld == 1 {
            ("number is", "it was")
        } else {
            ("numbers are", "they were")
        };
        notes.push(format!(
            "{withheld} published {numbers} not shown, because {were} measured under another protocol; \
             `--published any` shows what differs."
        ));
    }
    notes
}

/// In what the protocols of rows differ from the published ones: each difference with the lines or columns that have it.
fn differences(table: &Table) -> Option<String> {
    let mut found: BTreeMap<&Difference, BTreeSet<&str>> = BTreeMap::new();
    let mut all: BTreeMap<Concern, BTreeSet<&str>> = BTreeMap::new();
    for block in &table.blocks {
        for line in &block.lines {
            for (heading, entry) in table.columns.iter().zip(&line.entries) {
                let Some(number) = &entry.published else { continue };
                let place = |of| match of {
                    Concern::Data => block.label.as_str(),
                    Concern::Attack => heading.label.as_str(),
                    Concern::Training => line.defense.as_str(),
                };
                for of in [Concern::Data, Concern::Attack, Concern::Training] {
                    all.entry(of).or_default().insert(place(of));
                }
                for difference in &number.differences {
                    found.entry(difference).or_default().insert(place(difference.of));
                }
            }
        }
    }
    // Those that have the same differences are named together.
    let mut groups: BTreeMap<(Concern, BTreeSet<&str>), Vec<&str>> = BTreeMap::new();
    for (difference, places) in found {
        groups
            .entry((difference.of, places))
            .or_default()
            .push(&difference.text);
    }
    let texts: Vec<String> = groups
        .into_iter()
        .map(|((of, places), differences)| {
            let places = if places.len() > 1 && all.get(&of) == Some(&places) {
                "all".to_string()
            } else {
                join(places)
            };
            format!("{places}: {}", differences.join("; "))
        })
        .collect();
    (!texts.is_empty()).then(|| format!("≠ not the published protocol. {}.", texts.join(". ")))
}

fn join(texts: BTreeSet<&str>) -> String {
    texts.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use crate::{Csv, Entry, Exporter, Latex, Markdown, PublishedRule, Table, TableStyle, fixtures};

    fn entry<'t>(table: &'t Table, defense: &str, column: &str) -> &'t Entry {
        let line = table.blocks[0]
            .lines
            .iter()
            .find(|line| line.defense == defense)
            .unwrap();
        let place = table
            .columns
            .iter()
            .position(|heading| heading.label == column)
            .unwrap();
        &line.entries[place]
    }

    /// A table of two defenses whose MART was attacked with smaller steps, under each rule.
    fn with_other_steps(published: PublishedRule) -> Table {
        let style = TableStyle {
            published,
            ..TableStyle::default()
        };
        fixtures::changed(style, |row| {
            if row.defense == "MART" && row.attack == "PGD-20" {
                let config = row.evaluation_config.take().unwrap();
                row.evaluation_config = Some(config.replace("0.8/255", "0.01"));
            }
            if row.defense == "TRADES" {
                let config = row.training_config.take().unwrap();
                row.training_config = Some(config.replace("0.0035", "0.0005"));
            }
        })
    }

    #[test]
    fn a_published_number_needs_the_published_protocol() {
        let table = with_other_steps(PublishedRule::Matching);
        let mart = entry(&table, "MART", "PGD-20");
        assert!(mart.withheld && mart.published.is_none() && mart.difference().is_none());
        assert_eq!(entry(&table, "MART", "FGSM").published.as_ref().unwrap().value, 65.65);
        // Nothing of TRADES is comparable: its training is another one.
        assert!(entry(&table, "TRADES", "Natural").withheld);
        let note = "5 published numbers are not shown, because they were measured under another protocol";
        assert!(table.notes.iter().any(|text| text.contains(note)), "{:#?}", table.notes);
    }

    #[test]
    fn differences_of_protocols_are_named_beside_numbers() {
        let table = with_other_steps(PublishedRule::Any);
        assert_eq!(entry(&table, "MART", "PGD-20").published.as_ref().unwrap().value, 55.57);
        let expected = "≠ not the published protocol. PGD-20: step size 0.01, not 0.8/255. TRADES: weight decay 0.0005, \
                        not 0.0035.";
        assert!(table.notes.iter().any(|text| text == expected), "{:#?}", table.notes);
        for text in [
            Markdown::default().export(&table),
            Latex::Fragment.export(&table).replace("\\ensuremath{\\neq}", "≠"),
        ] {
            assert!(text.contains("55.57≠") && !text.contains("65.65≠"), "{text}");
        }
        let csv = Csv.export(&table);
        assert!(
            csv.contains(",\"step size 0.01, not 0.8/255\"\n") && csv.contains(",same\n"),
            "{csv}"
        );
    }

    #[test]
    fn no_published_number_is_shown_if_none_is_wanted() {
        let table = with_other_steps(PublishedRule::None);
        assert!(
            table
                .entries()
                .all(|entry| entry.published.is_none() && !entry.withheld)
        );
    }
}
