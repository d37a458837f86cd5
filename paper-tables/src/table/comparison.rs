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
