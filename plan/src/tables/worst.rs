//! Columns for the worst case of each image over several attacks.

use paper_tables::{ColumnSpec, TableKind};
use results::Kind;

/// Whether a table of this kind can have such columns: those of attacks on the networks themselves.
pub(super) const fn has_worst(kind: TableKind) -> bool {
    matches!(
        kind,
        TableKind::WhiteBox | TableKind::WideNetwork | TableKind::Unlabeled | TableKind::Summary
    )
}

/// The label of such a column.
pub fn worst_label(names: &[String]) -> String {
    format!("worst of {}", names.join(", "))
}

/// Such a column.
pub(super) fn worst_column(names: &[String]) -> ColumnSpec {
    ColumnSpec {
        label: worst_label(names),
        attack: worst_label(names),
        kind: Kind::WhiteBox,
        source: None,
        published: None,
    }
}
