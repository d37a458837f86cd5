//! The choice between a whole document and a fragment.

use minijinja::context;

use super::escape::comments;
use super::parts::filled;
use super::{long, wide};
use crate::exporter::Exporter;
use crate::style::Form;
use crate::table::Table;

/// LaTeX for pdflatex and the packages booktabs, graphicx, longtable and xcolor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latex {
    /// A document that compiles on its own.
    Document,
    /// A `table` or `longtable` environment for `\input`; its first lines name the packages.
    Fragment,
}

impl Latex {
    /// A fragment in this form, with the packages it needs. `landscape`: it needs a page's longer side.
    pub(crate) fn complete(self, fragment: String, packages: &str, landscape: bool) -> String {
        let fragment = comments(&fragment) + &fragment;
        let text = match self {
            Self::Fragment => format!(
                "% For \\input in a paper. Needs \\usepackage[utf8]{{inputenc}}, \\usepackage[T1]{{fontenc}} and the \
                 packages {packages}.\n{fragment}"
            ),
            Self::Document => filled(
                include_str!("../../templates/document.tex"),
                context! { fragment, landscape },
            ),
        };
        text + "\n"
    }
}

impl Exporter for Latex {
    fn extension(&self) -> &'static str {
        "tex"
    }

    fn export(&self, table: &Table) -> String {
        let ((fragment, landscape), packages) = match table.style.form() {
            Form::Wide => (wide::fragment(table), "booktabs, graphicx and xcolor"),
            Form::Long => (long::fragment(table), "booktabs and longtable"),
        };
        self.complete(fragment, packages, landscape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_kind_of_cell() {
        insta::assert_snapshot!(Latex::Fragment.export(&fixtures::white_box()));
    }

    #[test]
    fn best_and_last() {
        insta::assert_snapshot!(Latex::Document.export(&fixtures::wide()));
    }

    #[test]
    fn long_form() {
        insta::assert_snapshot!(Latex::Fragment.export(&fixtures::long()));
    }

    /// A paper of any class takes every table, several at once, whatever they are called.
    #[test]
    fn a_paper_takes_fragments() {
        let mut named = fixtures::white_box();
        named.blocks[0].lines[0].defense = "基线⁺".into();
        named.blocks[0].lines[1].defense = "基线⁻".into();
        let tables = [fixtures::long(), fixtures::wide(), named];
        let fragments: String = tables.iter().map(|table| Latex::Fragment.export(table)).collect();
        let paper = "\\documentclass[a4paper]{article}\n\\usepackage[utf8]{inputenc}\n\\usepackage[T1]{fontenc}\n\
                     \\usepackage[margin=2cm]{geometry}\n\\usepackage{booktabs,graphicx,longtable,xcolor}\n";
        fixtures::compile(
            "paper",
            &format!("{paper}\\begin{{document}}\nText.\n{fragments}\nText.\n\\end{{document}}\n"),
        );
        assert!(!fragments.contains("documentclass") && !fragments.contains("usepackage{"));
        assert_eq!(fragments.matches("% For \\input in a paper. Needs").count(), 3);
        let both = ["[U+7EBF]}\\ensuremath{^{+}} &", "[U+7EBF]}\\ensuremath{^{-}} &"];
        assert!(both.iter().all(|name| fragments.contains(name)), "{fragments}");
        assert!(
            fragments.contains("characters that the fonts lack.\\par"),
            "{fragments}"
        );
        assert!(
            fragments.contains("% \\texttt{[U+57FA]} is written for 基"),
            "{fragments}"
        );
    }

    #[test]
    fn documents_compile() {
        let mut awkward = fixtures::white_box();
        awkward.title = r"R&D_1 50% {x} \y #1 $2 ^~ “q” <a|b> 'é' 中 `t`".to_string();
        awkward.id = "awkward".to_string();
        for table in fixtures::all().into_iter().chain([awkward]) {
            fixtures::compile(&table.id, &Latex::Document.export(&table));
        }
    }
}
