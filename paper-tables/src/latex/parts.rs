//! Parts that both forms of a table share.

use minijinja::{Environment, Value};

use super::escape::{escape, remark};
use crate::table::Table;

/// An embedded template with its values.
pub(crate) fn filled(template: &str, values: Value) -> String {
    Environment::new()
        .render_str(template, values)
        .expect("the embedded template is sound")
}

/// The notes of a table, as LaTeX.
pub(super) fn notes(table: &Table) -> Vec<String> {
    let mut notes: Vec<String> = table.notes.iter().map(|note| escape(note)).collect();
    // Everything of a table that its author has named.
    let lines = table.blocks.iter().flat_map(|block| &block.lines);
    let names = lines.map(|line| line.defense.as_str());
    let names = names.chain(table.columns.iter().map(|column| column.label.as_str()));
    let names = names.chain(table.blocks.iter().map(|block| block.label.as_str()));
    let named: String = names.chain([table.title.as_str()]).map(escape).collect();
    notes.extend(remark(&(named + &notes.concat())));
    notes
}

/// One line of a table.
pub(super) fn row(cells: impl IntoIterator<Item = String>) -> String {
    cells.into_iter().collect::<Vec<_>>().join(" & ") + " \\\\"
}

/// Marks above the line. They take up no space, so that numbers stay aligned.
pub(super) fn marks(letters: &[char]) -> String {
    let raised: String = letters
        .iter()
        .map(|letter| match letter {
            '†' => "\\ensuremath{\\dagger}".to_string(),
            letter => letter.to_string(),
        })
        .collect();
    if raised.is_empty() {
        raised
    } else {
        format!("\\rlap{{\\textsuperscript{{{raised}}}}}")
    }
}
