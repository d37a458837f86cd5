//! LaTeX with booktabs: a document that compiles on its own, or a fragment for `\input`.

mod escape;
mod long;
mod wide;

use minijinja::{Environment, Value, context};

pub(crate) use self::escape::escape;
use crate::Exporter;
use crate::look::Form;
use crate::table::Table;

/// LaTeX for pdflatex and the packages booktabs, graphicx, longtable and xcolor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latex {
    /// A document that compiles on its own.
    Document,
    /// A `table` or `longtable` environment for `\input`; its first lines name the packages.
    Fragment,
}

impl Exporter for Latex {
    fn extension(&self) -> &'static str {
        "tex"
    }

    fn export(&self, table: &Table) -> String {
        let (fragment, landscape) = match table.look.form() {
            Form::Wide => wide::fragment(table),
            Form::Long => long::fragment(table),
        };
        let text = match self {
            Self::Fragment => fragment,
            Self::Document => filled(
                include_str!("../../templates/document.tex"),
                context! { fragment, landscape },
            ),
        };
        text + "\n"
    }
}

/// An embedded template with its values.
pub(crate) fn filled(template: &str, values: Value) -> String {
    Environment::new()
        .render_str(template, values)
        .expect("the embedded template is sound")
}

/// The notes of a table, as LaTeX.
fn notes(table: &Table) -> Vec<String> {
    table.notes.iter().map(|note| escape(note)).collect()
}

/// One line of a table.
fn row(cells: impl IntoIterator<Item = String>) -> String {
    cells.into_iter().collect::<Vec<_>>().join(" & ") + " \\\\"
}

/// Marks above the line. They take no room, so that numbers stand below each other.
fn marks(letters: &[char]) -> String {
    let raised: String = letters
        .iter()
        .map(|letter| match letter {
            '†' => "$\\dagger$".to_string(),
            letter => letter.to_string(),
        })
        .collect();
    if raised.is_empty() {
        raised
    } else {
        format!("\\rlap{{\\textsuperscript{{{raised}}}}}")
    }
}

#[cfg(test)]
mod tests {
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
    fn long_form() {
        insta::assert_snapshot!(Latex::Fragment.export(&samples::long()));
    }

    #[test]
    fn documents_compile() {
        let mut awkward = samples::white_box();
        awkward.title = r"R&D_1 50% {x} \y #1 $2 ^~ “q” <a|b> 'é' 中 `t`".to_string();
        awkward.id = "awkward".to_string();
        for table in samples::all().into_iter().chain([awkward]) {
            samples::compile(&table.id, &Latex::Document.export(&table));
        }
    }
}
