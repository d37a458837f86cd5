//! What every format of a table has in common.

use crate::table::Table;

/// Writes a table in one format.
pub trait Exporter {
    /// The usual extension of a file in this format.
    fn extension(&self) -> &'static str;

    /// The table as text, with a line break at the end.
    fn export(&self, table: &Table) -> String;
}
