//! The choice between a whole document and a fragment.

use minijinja::context;

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
    /// A fragment in this form. `landscape`: it needs a page's longer side.
    pub(crate) fn complete(self, fragment: String, landscape: bool) -> String {
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

impl Exporter for Latex {
    fn extension(&self) -> &'static str {
        "tex"
    }

    fn export(&self, table: &Table) -> String {
        let (fragment, landscape) = match table.style.form() {
            Form::Wide => wide::fragment(table),
            Form::Long => long::fragment(table),
        };
        self.complete(fragment, landscape)
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
