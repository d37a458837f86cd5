//! A comparison as text for a terminal and as Markdown for a job's summary.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::comparison::{Comparison, Line, Scope, Verdict};

/// Which lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Those beyond their tolerance, missing, failed or new.
    Moved,
    /// All of them.
    All,
}

const HEADER: [&str; 8] = [
    "network",
    "defense",
    "attack",
    "before",
    "after",
    "difference",
    "tolerance",
    "verdict",
];

/// A table of what moved, notes, and a summary.
pub(crate) fn text(comparison: &Comparison, shown: Shown) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADER);
    for i in 3..7 {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = shown_lines(comparison, shown);
    for line in &lines {
        table.add_row(cells(line));
    }
    let mut out = String::new();
    if !lines.is_empty() {
        let _ = writeln!(out, "{}\n", table.trim_fmt());
    }
    for note in notes(comparison, &lines) {
        let _ = writeln!(out, "{note}");
    }
    out + &summary(comparison)
}

/// The same as Markdown, the failures in bold.
pub(crate) fn markdown(comparison: &Comparison, shown: Shown) -> String {
    let escaped = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;");
        text.replace(['\n', '\r'], " ")
    };
    let failures = comparison.failures().len();
    let mut out = match failures {
        0 => "### Results are as before\n\n".to_string(),
        _ => "### Results have moved\n\n".to_string(),
    };
    let lines = shown_lines(comparison, shown);
    if !lines.is_empty() {
        let _ = writeln!(out, "| {} |", HEADER.join(" | "));
        out += "|---|---|---|---:|---:|---:|---:|---|\n";
        for line in &lines {
            let mut cells = cells(line).map(|cell| escaped(&cell));
            if comparison.fails(line) {
                cells[7] = format!("**{}**", cells[7]);
            }
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out.push('\n');
    }
    for note in notes(comparison, &lines) {
        let _ = writeln!(out, "- {}", escaped(&note));
    }
    let _ = writeln!(out, "- {}", escaped(&summary(comparison)));
    out
}

/// Failures first, then the rest in the order of the comparison.
fn shown_lines(comparison: &Comparison, shown: Shown) -> Vec<&Line> {
    let mut lines = comparison.failures();
    let rest = comparison.lines.iter().filter(|line| !comparison.fails(line));
    let quiet = |line: &&Line| matches!(line.verdict, Verdict::Within | Verdict::Same);
    lines.extend(rest.filter(|line| shown == Shown::All || !quiet(line)));
    lines
}

fn cells(line: &Line) -> [String; 8] {
    let points = |value: Option<f64>| value.map_or_else(|| "-".to_string(), |value| format!("{value:.2}"));
    let checkpoint = match line.scope {
        Scope::Cell | Scope::Attack | Scope::Defense if line.checkpoint == "last" => "",
        _ => &format!(" ({})", line.checkpoint),
    };
    [
        format!("{}, {}", line.dataset, line.network),
        format!("{}{checkpoint}", line.defense),
        line.attack.clone(),
        points(line.before.as_ref().map(|side| side.mean)),
        points(line.after.as_ref().map(|side| side.mean)),
        line.difference
            .map_or_else(|| "-".to_string(), |difference| format!("{difference:+.2}")),
        points(line.tolerance),
        describe(line.verdict).to_string(),
    ]
}

/// A verdict in words.
pub(super) fn describe(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Regressed => "regressed",
        Verdict::WeakerAttack => "weaker attack",
        Verdict::Missing => "missing",
        Verdict::Failed => "failed",
        Verdict::Improved => "improved",
        Verdict::New => "new",
        Verdict::Within => "within",
        Verdict::Same => "same",
    }
}

/// What the table does not say.
fn notes(comparison: &Comparison, lines: &[&Line]) -> Vec<String> {
    let mut notes = Vec::new();
    if lines.iter().any(|line| line.verdict == Verdict::WeakerAttack) {
        notes.push(
            "weaker attack: it leaves more accuracy over all defenses than chance or the tolerance allows; if every defense \
             has become better instead, renew the baseline with --update"
                .into(),
        );
    }
    for line in lines {
        if let Some(error) = &line.error {
            notes.push(format!("failed: {}, {}: {error}", line.defense, line.attack));
        }
    }
    notes.extend(comparison.warnings.iter().map(|warning| format!("warning: {warning}")));
    notes.extend(comparison.notes.iter().map(|note| format!("differs: {note}")));
    notes
}

/// One line of counts.
pub(super) fn summary(comparison: &Comparison) -> String {
    let counted = |scope: Scope| comparison.lines.iter().filter(|line| line.scope == scope).count();
    let verdicts = [
        Verdict::Regressed,
        Verdict::WeakerAttack,
        Verdict::Missing,
        Verdict::Failed,
        Verdict::Improved,
        Verdict::New,
        Verdict::Within,
        Verdict::Same,
    ];
    let counts: Vec<String> = verdicts
        .into_iter()
        .map(|verdict| (describe(verdict), comparison.count(verdict)))
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    format!(
        "{} cells, {} means over defenses and {} over attacks compared: {}",
        counted(Scope::Cell),
        counted(Scope::Attack),
        counted(Scope::Defense),
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::compare::compare;
    use super::super::compare::tests::{rules, stored};
    use super::*;

    fn comparison() -> Comparison {
        let before = stored(&[
            ("A|<b>", "PGD", &[300, 302, 304, 306, 308, 310]),
            ("B", "PGD", &[300, 302, 304, 306, 308, 310]),
        ]);
        let after = stored(&[("A|<b>", "PGD", &[200, 202]), ("B", "PGD", &[301, 302])]);
        compare(&after, &before, &rules())
    }

    #[test]
    fn text_shows_what_moved() {
        let comparison = comparison();
        let moved = text(&comparison, Shown::Moved);
        let first: Vec<&str> = moved.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            first[..6],
            ["digits,", "tiny-cnn", "A|<b>", "PGD", "61.00", "40.20"],
            "{moved}"
        );
        assert!(first.contains(&"-20.80") && first.ends_with(&["regressed"]), "{moved}");
        assert!(!moved.contains(" B "), "{moved}");
        assert!(
            moved.ends_with("2 cells, 1 means over defenses and 0 over attacks compared: 2 regressed, 1 within"),
            "{moved}"
        );
        assert!(text(&comparison, Shown::All).contains(" B "));
    }

    #[test]
    fn markdown_is_a_table_whatever_the_labels() {
        let markdown = markdown(&comparison(), Shown::All);
        let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 2 + 3, "{markdown}");
        for row in rows {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 9, "{row}");
        }
        assert!(
            markdown.contains("A\\|&lt;b>") && markdown.contains("**regressed**"),
            "{markdown}"
        );
    }
}
