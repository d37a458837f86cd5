//! LaTeX with booktabs: a document that compiles on its own, or a fragment for `\input`.

use minijinja::{Environment, Value, context};

use crate::Exporter;
use crate::shown::{lowered, percent, signed};
use crate::spec::TableKind;
use crate::table::{Block, Cell, Entry, Line, Spread, Table};

/// LaTeX for pdflatex and the packages booktabs, graphicx and xcolor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latex {
    /// A document that compiles on its own.
    Document,
    /// A `table` environment for `\input`; its first lines name the packages.
    Fragment,
}

impl Exporter for Latex {
    fn extension(&self) -> &'static str {
        "tex"
    }

    fn export(&self, table: &Table) -> String {
        let layout = Layout::of(table);
        let environment = Environment::new();
        let template = "the embedded template is sound";
        let fragment = environment
            .render_str(
                include_str!("../templates/fragment.tex"),
                context! {
                    id => table.id.clone(),
                    title => escape(&table.title),
                    alignment => layout.alignment(table),
                    head => layout.head(table),
                    blocks => table.blocks.iter().map(|block| layout.block(table, block)).collect::<Vec<_>>(),
                    columns => 1 + layout.width(table),
                    notes => table.notes.iter().map(|note| escape(note)).collect::<Vec<_>>(),
                    bold => table.entries().any(|entry| entry.highest),
                },
            )
            .expect(template);
        let text = match self {
            Self::Fragment => fragment,
            Self::Document => environment
                .render_str(
                    include_str!("../templates/document.tex"),
                    context! { fragment, landscape => layout.width(table) > 6 },
                )
                .expect(template),
        };
        text + "\n"
    }
}

/// Where checkpoints stand.
enum Layout {
    /// A line each.
    Lines,
    /// Side by side under each attack, as in the paper's Table 4.
    Columns,
}

impl Layout {
    fn of(table: &Table) -> Self {
        match table.kind {
            TableKind::WideNetwork if table.checkpoints.len() > 1 => Self::Columns,
            _ => Self::Lines,
        }
    }

    /// Columns after the first.
    fn width(&self, table: &Table) -> usize {
        match self {
            Self::Lines => table.columns.len(),
            Self::Columns => table.columns.len() * table.checkpoints.len(),
        }
    }

    fn alignment(&self, table: &Table) -> String {
        format!("l{}", "c".repeat(self.width(table)))
    }

    fn head(&self, table: &Table) -> Vec<String> {
        let labels = table.columns.iter().map(|column| escape(&column.label));
        match self {
            Self::Lines => vec![row("Defense", labels)],
            Self::Columns => {
                let span = table.checkpoints.len();
                let spans = labels.map(|label| format!("\\multicolumn{{{span}}}{{c}}{{{label}}}"));
                let rules = (0..table.columns.len()).map(|column| {
                    let first = 2 + column * span;
                    format!("\\cmidrule(lr){{{first}-{}}}", first + span - 1)
                });
                let checkpoints = table.columns.iter().flat_map(|_| &table.checkpoints);
                vec![
                    row("", spans),
                    rules.collect::<Vec<_>>().join(" "),
                    row("Defense", checkpoints.map(ToString::to_string)),
                ]
            }
        }
    }

    /// Data set and network, and lines that are LaTeX already.
    fn block(&self, table: &Table, block: &Block) -> Value {
        let groups: Vec<Vec<String>> = match self {
            Self::Lines => {
                let one_each = block.lines.windows(2).all(|pair| pair[0].defense != pair[1].defense);
                let name = |line: &Line| match one_each {
                    true => escape(&line.defense),
                    false => format!("{}, {}", escape(&line.defense), line.checkpoint),
                };
                let groups = block.lines.iter();
                groups
                    .map(|line| group(table, &name(line), line.entries.iter().collect()))
                    .collect()
            }
            Self::Columns => block
                .lines
                .chunk_by(|a, b| a.defense == b.defense)
                .map(|lines| {
                    let columns = 0..lines[0].entries.len();
                    let entries = columns.flat_map(|column| lines.iter().map(move |line| &line.entries[column]));
                    group(table, &escape(&lines[0].defense), entries.collect())
                })
                .collect(),
        };
        context! { heading => escape(&block.heading()), groups }
    }
}

/// Our numbers and, if there are any, the paper's beneath.
fn group(table: &Table, name: &str, entries: Vec<&Entry>) -> Vec<String> {
    let marks = |entry: &Entry| match table.marks(entry) {
        letters if letters.is_empty() => String::new(),
        letters => format!("\\textsuperscript{{{}}}", letters.iter().collect::<String>()),
    };
    let ours = entries.iter().map(|entry| measured(entry) + &marks(entry));
    let mut lines = vec![row(name, ours)];
    if entries.iter().any(|entry| entry.published.is_some()) {
        lines.push(row(
            "\\quad\\rampartpaper{paper}",
            entries.iter().map(|entry| published(entry)),
        ));
    }
    lines
}

fn row(first: &str, rest: impl Iterator<Item = String>) -> String {
    let mut text = first.to_string();
    for cell in rest {
        text += " & ";
        text += &cell;
    }
    text + " \\\\"
}

fn measured(entry: &Entry) -> String {
    let Some(it) = entry.cell.measurement() else {
        return match entry.cell {
            Cell::Failed { .. } => "\\textit{failed}".to_string(),
            _ => "---".to_string(),
        };
    };
    let mean = match entry.highest {
        true => format!("\\textbf{{{}}}", percent(it.mean)),
        false => percent(it.mean),
    };
    let spread = match it.spread {
        Spread::Deviation(deviation) => format!("$\\pm$ {}", percent(deviation)),
        Spread::Interval { low, high } => format!("[{low:.1}, {high:.1}]"),
    };
    let incomplete = match entry.cell {
        Cell::Partial { planned, .. } => format!(" ({}/{planned})", it.seeds),
        _ => String::new(),
    };
    format!("{mean} \\rampartspread{{{spread}{incomplete}}}")
}

fn published(entry: &Entry) -> String {
    match (&entry.published, entry.difference()) {
        (None, _) => String::new(),
        (Some(it), None) => format!("\\rampartpaper{{{}}}", percent(it.value)),
        (Some(it), Some(difference)) => {
            format!(
                "\\rampartpaper{{{} ({})}}",
                percent(it.value),
                signed(difference, "$-$")
            )
        }
    }
}

/// Text that LaTeX typesets as it is. A character that pdflatex lacks becomes `?`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if let Some(letter) = lowered(character) {
            escaped += &format!("\\textsuperscript{{{letter}}}");
            continue;
        }
        let replacement = match character {
            '\\' => "\\textbackslash{}",
            '~' => "\\textasciitilde{}",
            '^' => "\\textasciicircum{}",
            '<' => "\\textless{}",
            '>' => "\\textgreater{}",
            '|' => "\\textbar{}",
            '"' => "\\textquotedbl{}",
            '\'' => "'",
            '`' => "\\textasciigrave{}",
            '&' => "\\&",
            '%' => "\\%",
            '$' => "\\$",
            '#' => "\\#",
            '_' => "\\_",
            '{' => "\\{",
            '}' => "\\}",
            '—' => "---",
            '–' => "--",
            '…' => "\\dots{}",
            '“' => "``",
            '”' => "''",
            '−' => "$-$",
            '±' => "$\\pm$",
            '×' => "$\\times$",
            '≤' => "$\\le$",
            '≥' => "$\\ge$",
            '∞' => "$_\\infty$",
            '₂' => "$_2$",
            'α' => "$\\alpha$",
            'β' => "$\\beta$",
            'γ' => "$\\gamma$",
            'δ' => "$\\delta$",
            'ε' => "$\\varepsilon$",
            'κ' => "$\\kappa$",
            'λ' => "$\\lambda$",
            'μ' => "$\\mu$",
            'σ' => "$\\sigma$",
            '\n' | '\r' | '\t' => " ",
            ' '..='~' | 'À'..='ſ' => {
                escaped.push(character);
                continue;
            }
            _ => "?",
        };
        escaped.push_str(replacement);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::samples;

    #[test]
    fn every_kind_of_cell() {
        insta::assert_snapshot!(Latex::Fragment.export(&samples::white_box()));
    }

    #[test]
    fn best_and_last() {
        insta::assert_snapshot!(Latex::Document.export(&samples::wide()));
    }

    #[test]
    fn nothing_in_a_name_is_a_command() {
        assert_eq!(
            escape(r"a_b & 50% {x} \y #1 $2"),
            r"a\_b \& 50\% \{x\} \textbackslash{}y \#1 \$2"
        );
        assert_eq!(
            escape("CW∞, ε ± 1 — 中é"),
            "CW$_\\infty$, $\\varepsilon$ $\\pm$ 1 --- ?é"
        );
    }

    /// Set `KEEP_LATEX` to a folder to look at the pages.
    #[test]
    fn documents_compile() {
        let has_latex = Command::new("pdflatex").arg("--version").stdout(Stdio::null()).status();
        if has_latex.is_err() {
            eprintln!("skipped: there is no pdflatex");
            return;
        }
        let mut awkward = samples::white_box();
        awkward.title = r"R&D_1 50% {x} \y #1 $2 ^~ “q” <a|b> 'é' 中 `t`".to_string();
        awkward.id = "awkward".to_string();
        for table in [samples::white_box(), samples::wide(), samples::black_box(), awkward] {
            let temporary = tempfile::tempdir().unwrap();
            let folder = std::env::var_os("KEEP_LATEX").map_or(temporary.path().to_path_buf(), Into::into);
            let file = format!("{}.tex", table.id);
            std::fs::write(folder.join(&file), Latex::Document.export(&table)).unwrap();
            let output = Command::new("pdflatex")
                .args(["-interaction=nonstopmode", "-halt-on-error", &file])
                .current_dir(&folder)
                .output()
                .unwrap();
            let log = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{log}");
            assert!(!log.contains("Overfull"), "{log}");
        }
    }
}
