//! What was compared, and what came out, in a sentence and in bars.

use results::Kind;

use crate::figures::{Bar, Bars, file_name};
use crate::format::percent;
use crate::table::{Block, Cell, Entry, Line, Table};

/// What a reader should know first about one data set and network.
#[derive(Debug, Clone, PartialEq)]
pub struct Headline {
    /// What was compared.
    pub compared: String,
    /// Which defense is best under the strongest attack, by how much, and whether that is significant.
    pub outcome: String,
    /// Clean accuracy and that under the strongest attack, for every defense.
    pub bars: Bars,
}

/// A headline for each part of a table. Columns called like one of `leave_out`, which are worst cases, are no attacks.
pub fn headlines(table: &Table, leave_out: &[String]) -> Vec<Headline> {
    let attacks: Vec<usize> = (0..table.columns.len())
        .filter(|&column| {
            let heading = &table.columns[column];
            heading.kind != Kind::Natural && !leave_out.contains(&heading.label)
        })
        .collect();
    let blocks = table.blocks.iter();
    blocks.map(|block| headline(table, block, &attacks)).collect()
}

fn headline(table: &Table, block: &Block, attacks: &[usize]) -> Headline {
    let checkpoint = table.checkpoints.first();
    let lines: Vec<&Line> = block
        .lines
        .iter()
        .filter(|line| Some(&line.checkpoint) == checkpoint)
        .collect();
    let strongest = strongest(&lines, attacks);
    let natural = table.columns.iter().position(|heading| heading.kind == Kind::Natural);
    let shown: Vec<usize> = natural.into_iter().chain(strongest).collect();
    let which = match (table.checkpoints.len(), checkpoint) {
        (2.., Some(checkpoint)) => format!(", {checkpoint} checkpoint"),
        _ => String::new(),
    };
    Headline {
        compared: compared(table, block, &lines, attacks),
        outcome: match strongest {
            Some(column) => outcome(&table.columns[column].label, &lines, column),
            None => "No attack has a result yet.".to_string(),
        },
        bars: Bars {
            id: file_name(&["overview", &table.id, &block.dataset, &block.network]),
            title: format!("{}{which}: accuracy in %", block.heading()),
            y: "accuracy in %".to_string(),
            series: shown
                .iter()
                .map(|&column| table.columns[column].label.clone())
                .collect(),
            groups: lines
                .iter()
                .map(|line| {
                    (
                        line.defense.clone(),
                        shown.iter().map(|&column| bar(&line.entries[column])).collect(),
                    )
                })
                .collect(),
        },
    }
}

fn bar(entry: &Entry) -> Option<Bar> {
    let measured = entry.cell.measurement()?;
    Some(Bar {
        value: measured.mean,
        deviation: measured.deviation,
        interval: measured.deviation.is_none().then_some((measured.low, measured.high)),
    })
}

/// The attack that leaves least on average, among those that most defenses were attacked with.
fn strongest(lines: &[&Line], attacks: &[usize]) -> Option<usize> {
    let means = |column: usize| -> Vec<f64> {
        let measured = lines.iter().filter_map(|line| line.entries[column].cell.measurement());
        measured.map(|measured| measured.mean).collect()
    };
    let most = attacks
        .iter()
        .map(|&column| means(column).len())
        .max()
        .filter(|most| *most > 0)?;
    let complete = attacks.iter().copied().filter(|&column| means(column).len() == most);
    complete.min_by(|&a, &b| {
        let mean = |column| results::mean(&means(column)).unwrap_or(f64::INFINITY);
        mean(a).total_cmp(&mean(b))
    })
}

fn compared(table: &Table, block: &Block, lines: &[&Line], attacks: &[usize]) -> String {
    let entries = || lines.iter().flat_map(|line| &line.entries);
    let seeds = entries().map(|entry| entry.cell.planned()).max().unwrap_or(0);
    let seeds = match seeds {
        0 | 1 => "one seed each".to_string(),
        many => format!("{many} seeds each"),
    };
    let defenses = match lines.len() {
        1 => "1 defense".to_string(),
        many => format!("{many} defenses"),
    };
    let names: Vec<&str> = attacks
        .iter()
        .map(|&column| table.columns[column].label.as_str())
        .collect();
    let under = match names.len() {
        0 => String::new(),
        1..=5 => format!(", attacked with {}", and(&names)),
        many => format!(", attacked in {many} ways"),
    };
    format!("{}: {defenses}, {seeds}{under}.", block.heading())
}

fn outcome(attack: &str, lines: &[&Line], column: usize) -> String {
    let mut ranked: Vec<(&str, &Entry, f64)> = lines
        .iter()
        .filter_map(|line| {
            let entry = &line.entries[column];
            match &entry.cell {
                Cell::Measured(measured) => Some((line.defense.as_str(), entry, measured.mean)),
                _ => None,
            }
        })
        .collect();
    ranked.sort_by(|a, b| b.2.total_cmp(&a.2));
    let Some((best, _, highest)) = ranked.first().copied() else {
        return format!("Under the strongest attack, {attack}, no defense has all its seeds yet.");
    };
    let kept = format!("{} % of the images are still classified correctly", percent(highest));
    let equal: Vec<&str> = ranked
        .iter()
        .filter(|other| percent(other.2) == percent(highest))
        .map(|other| other.0)
        .collect();
    let Some((second, entry, lower)) = ranked.get(equal.len()).copied() else {
        return match equal.len() {
            1 => format!("With {best} under the strongest attack, {attack}, {kept}."),
            _ => format!("All are equal under the strongest attack, {attack}: {kept}."),
        };
    };
    let significant = match entry.tied {
        Some(true) => "the difference is not significant",
        Some(false) => "the difference is significant",
        None => "the difference was not tested for significance",
    };
    let by = percent(highest - lower);
    let points = if by == "1.00" { "point" } else { "points" };
    match equal.len() {
        1 => format!(
            "{best} is the most robust under the strongest attack, {attack}: {kept}, {by} {points} more than with {second}; \
             {significant}."
        ),
        _ => format!(
            "{} are equally robust under the strongest attack, {attack}: {kept}, {by} {points} more than with {second}; \
             {significant}.",
            and(&equal)
        ),
    }
}

/// `a, b and c`.
fn and(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_string(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_headline_says_who_won_and_whether_it_means_something() {
        let leave_out = ["worst of PGD-20, CW".to_string()];
        let said = headlines(&fixtures::marked(None), &leave_out);
        assert_eq!(
            said[0].compared,
            "mnist, lenet: 4 defenses, 2 seeds each, attacked with PGD-20."
        );
        assert_eq!(
            said[0].outcome,
            "MART is the most robust under the strongest attack, PGD-20: 96.10 % of the images are still classified \
             correctly, 1.00 point more than with Dynamic; the difference was not tested for significance."
        );
        // Without Dynamic, TRADES is second, and tied.
        let mut table = fixtures::marked(None);
        table.blocks[0].lines.truncate(3);
        let said = headlines(&table, &leave_out);
        assert!(
            said[0]
                .outcome
                .ends_with("2.00 points more than with TRADES; the difference is not significant.")
        );
        assert_eq!(said[0].bars.groups.len(), 3);
        assert_eq!(said[0].bars.groups[2].0, "MART");
        // Without TRADES, Standard is, and differs.
        table.blocks[0].lines.remove(1);
        let said = headlines(&table, &leave_out);
        assert!(
            said[0]
                .outcome
                .ends_with("6.00 points more than with Standard; the difference is significant.")
        );
    }

    #[test]
    fn a_run_that_is_not_complete_has_a_headline_too() {
        let said = headlines(&fixtures::white_box(), &[]);
        assert_eq!(said.len(), 2);
        assert!(
            said[0].compared.contains("4 defenses, 3 seeds each"),
            "{}",
            said[0].compared
        );
        let mut table = fixtures::white_box();
        for line in &mut table.blocks[0].lines {
            for entry in &mut line.entries {
                entry.cell = Cell::Missing { planned: 3 };
            }
        }
        assert_eq!(headlines(&table, &[])[0].outcome, "No attack has a result yet.");
    }
}
