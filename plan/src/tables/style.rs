//! The style of tables, as a matrix or the command line asks for it.

use paper_tables::{Form, PublishedRule, RowSpec, SpreadStyle, TableSpec, TableStyle};
use suggest::nearest;

use crate::label::slug;
use crate::matrix::TableEntry;

/// What of a table's style was asked for. `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StyleChanges {
    /// What is printed beside a mean.
    pub style: Option<SpreadStyle>,
    /// A line for each defense, or for each number.
    pub form: Option<Form>,
    /// Whether the best number of a column is bold.
    pub bold: Option<bool>,
    /// Label of the defense that the others are compared with.
    pub against: Option<String>,
    /// Beside which rows published numbers are shown.
    pub published: Option<PublishedRule>,
}

impl StyleChanges {
    /// By an entry of a matrix.
    fn of(entry: &TableEntry) -> Self {
        Self {
            style: entry.style,
            form: entry.form,
            bold: entry.bold,
            against: entry.against.clone(),
            published: entry.published,
        }
    }

    /// Changes the style of a table. A defense that is not in the table is ignored as the one to compare with.
    fn apply(&self, table: &mut TableSpec) {
        let style = &mut table.style;
        style.spread = self.style.unwrap_or(style.spread);
        style.form = self.form.or(style.form);
        style.bold = self.bold.unwrap_or(style.bold);
        style.published = self.published.unwrap_or(style.published);
        if let Some(against) = &self.against {
            style.against = find(&table.rows, against).map(|row| row.defense.clone());
        }
    }

    /// Whether a requested style is not supported by the form.
    fn style_is_ignored(&self, style: &TableStyle) -> bool {
        self.style.is_some() && style.form == Some(Form::Long)
    }
}

const LOST: &str = "the long form shows mean, deviation and interval in columns of their own, so it has no style; \
                    leave the style out, or take the form `wide`";

/// Applies what the command line asks for to all tables of a run. The error names the option.
pub fn restyle(tables: &mut [TableSpec], changes: &StyleChanges) -> Result<(), String> {
    for table in tables.iter_mut() {
        changes.apply(table);
        if changes.style_is_ignored(&table.style) {
            return Err(format!("--style: {LOST}"));
        }
    }
    match &changes.against {
        Some(against) if tables.iter().all(|table| table.style.against.is_none()) => {
            let rows = tables.iter().flat_map(|table| &table.rows);
            Err(format!("--against: {}", unknown(against, rows, "this run")))
        }
        _ => Ok(()),
    }
}

/// Applies the style of a matrix's entry to the table made of it. The error names the field.
pub(crate) fn style_entry(entry: &TableEntry, table: &mut TableSpec) -> Result<(), (&'static str, String)> {
    let changes = StyleChanges::of(entry);
    changes.apply(table);
    if changes.style_is_ignored(&table.style) {
        return Err(("style", LOST.to_string()));
    }
    match &entry.against {
        Some(against) if table.style.against.is_none() => Err(("against", unknown(against, &table.rows, "this table"))),
        _ => Ok(()),
    }
}

/// The line of a defense, by its label in any case, or by what is left of it in the name of a folder.
fn find<'a>(rows: &'a [RowSpec], label: &str) -> Option<&'a RowSpec> {
    let lower = label.to_lowercase();
    let same = rows.iter().find(|row| row.defense.to_lowercase() == lower);
    // Nothing remains of a label without Latin letters and digits.
    let short = slug(label);
    same.or_else(|| rows.iter().find(|row| !short.is_empty() && slug(&row.defense) == short))
}

fn unknown<'a>(label: &str, rows: impl IntoIterator<Item = &'a RowSpec>, of: &str) -> String {
    let mut known: Vec<&str> = Vec::new();
    for row in rows {
        if !known.contains(&row.defense.as_str()) {
            known.push(&row.defense);
        }
    }
    let meant = nearest(label, known.iter().copied());
    let meant = meant.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
    format!(
        "no defense of {of} is called `{label}`; there are `{}`{meant}",
        known.join("`, `")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_in_any_case_and_script() {
        let rows = ["鲁棒", "基线", "MART λ=5"].map(|defense| RowSpec {
            defense: defense.to_string(),
            recipe: None,
            published: None,
        });
        let found = |label: &str| find(&rows, label).map(|row| row.defense.as_str());
        assert_eq!(found("基线"), Some("基线"));
        assert_eq!(found("mart Λ=5"), Some("MART λ=5"));
        assert_eq!(found("mart-5"), Some("MART λ=5"));
        assert_eq!(found("基"), None);
    }
}
