//! Which defenses differ significantly, as Markdown.

use std::fmt::Write as _;

use results::{Comparison, Kind};

/// Differences with a smaller p-value are marked.
const LEVEL: f64 = 0.05;

/// For each group of defenses under the same attack, a table of differences in percentage points, the row's minus the
/// column's; `*` where McNemar's exact p-value, adjusted by Holm for the pairs of the table, is below 0.05.
pub fn significance(comparisons: &[Comparison]) -> String {
    let mut text = "## Differences between defenses\n\nAccuracy of the row minus that of the column, in percentage \
                    points, on the same images. \\*: p < 0.05 (McNemar's exact test, Holm-adjusted over the pairs of \
                    one table). Counts and p-values: `significance.csv`.\n"
        .to_string();
    for group in comparisons.chunk_by(|a, b| place(a) == place(b)) {
        let first = &group[0];
        let source = first
            .source
            .as_ref()
            .map_or_else(String::new, |source| format!(" from {source}"));
        let kind = if first.kind == Kind::Natural {
            "clean images"
        } else {
            first.attack.as_str()
        };
        writeln!(
            text,
            "\n### {}, {} ({}, seed {}): {kind}{source}, {} images\n",
            first.dataset, first.network, first.checkpoint, first.seed, first.n
        )
        .expect("writing to a string succeeds");
        grid(&mut text, group);
    }
    text
}

fn place(comparison: &Comparison) -> (&str, &str, results::Checkpoint, u64, &str, Kind, Option<&str>) {
    let target = (&comparison.dataset, &comparison.network);
    (
        target.0,
        target.1,
        comparison.checkpoint,
        comparison.seed,
        &comparison.attack,
        comparison.kind,
        comparison.source.as_deref(),
    )
}

fn grid(text: &mut String, group: &[Comparison]) {
    let mut names: Vec<&str> = Vec::new();
    for name in group
        .iter()
        .flat_map(|comparison| [comparison.first.as_str(), comparison.second.as_str()])
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let cell = |line: &str, column: &str| {
        let found = group.iter().find_map(
            |comparison| match (comparison.first.as_str(), comparison.second.as_str()) {
                (first, second) if (first, second) == (line, column) => {
                    Some((comparison.difference, comparison.p_holm))
                }
                (first, second) if (first, second) == (column, line) => {
                    Some((-comparison.difference, comparison.p_holm))
                }
                _ => None,
            },
        );
        match found {
            None => String::new(),
            // No minus before a zero.
            Some((difference, p)) => {
                let mark = if p < LEVEL { "\\*" } else { "" };
                format!("{:+.1}{mark}", difference + 0.0)
            }
        }
    };
    let mut lines = vec![
        [
            vec![String::new()],
            names.iter().map(|name| name.replace('|', "\\|")).collect(),
        ]
        .concat(),
    ];
    for line in &names {
        let cells = names.iter().map(|column| cell(line, column)).collect();
        lines.push([vec![line.replace('|', "\\|")], cells].concat());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    for (index, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            write!(text, "| {cell:<width$} ", width = width(column)).expect("writing to a string succeeds");
        }
        text.push_str("|\n");
        if index == 0 {
            for column in 0..line.len() {
                write!(text, "|{}", "-".repeat(width(column) + 2)).expect("writing to a string succeeds");
            }
            text.push_str("|\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use results::Checkpoint;

    use super::*;

    #[test]
    fn differences_read_from_line_to_column() {
        let pair = |first: &str, second: &str, difference, p_holm| Comparison {
            dataset: "digits".into(),
            network: "lenet".into(),
            checkpoint: Checkpoint::Best,
            seed: 0,
            attack: "PGD-20".into(),
            kind: Kind::WhiteBox,
            source: None,
            first: first.into(),
            second: second.into(),
            n: 500,
            only_first: 0,
            only_second: 0,
            difference,
            p: p_holm,
            p_holm,
        };
        let all = [
            pair("ALP", "MART", -4.2, 0.01),
            pair("ALP", "TRADES", 0.0, 1.0),
            pair("MART", "TRADES", 4.2, 0.06),
        ];
        let text = significance(&all);
        let (_, table) = text.split_once("###").unwrap();
        insta::assert_snapshot!(table, @r"
         digits, lenet (best, seed 0): PGD-20, 500 images

        |        | ALP    | MART   | TRADES |
        |--------|--------|--------|--------|
        | ALP    |        | -4.2\* | +0.0   |
        | MART   | +4.2\* |        | +4.2   |
        | TRADES | +0.0   | -4.2   |        |
        ");
    }
}
