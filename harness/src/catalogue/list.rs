//! Lists of what a matrix can name.

use std::io::Write;

use anyhow::Result;
use attacks::Registry;
use comfy_table::{ContentArrangement, Table, presets};
use plan::Methods;
use serde_json::{Value, json};

use super::text::example;

/// Everything of one kind, and the columns that a table of it has.
pub(crate) struct List {
    pub(crate) items: Vec<Value>,
    columns: &'static [&'static str],
}

impl List {
    /// The attacks.
    pub(crate) fn attacks(methods: &Methods) -> Self {
        Self::of_registry(&methods.attacks)
    }

    /// The defenses.
    pub(crate) fn defenses(methods: &Methods) -> Self {
        Self::of_registry(&methods.defenses)
    }

    /// The networks.
    pub(crate) fn models(methods: &Methods) -> Self {
        let entries = methods.networks.entries();
        let item = |entry: &models::Entry| {
            json!({
                "name": entry.name, "summary": entry.summary, "source": entry.source, "version": entry.version,
            })
        };
        Self {
            items: entries.iter().map(item).collect(),
            columns: &["name", "summary", "source"],
        }
    }

    /// The data sets.
    pub(crate) fn datasets() -> Self {
        let item = |entry: &datasets::Entry| {
            let [c, h, w] = entry.image;
            json!({
                "name": entry.name, "summary": entry.summary, "source": entry.source, "licence": entry.licence,
                "image": format!("{c}×{h}×{w}"), "classes": entry.classes.len(), "train": entry.train,
                "test": entry.test,
            })
        };
        Self {
            items: datasets::entries().iter().map(item).collect(),
            columns: &["name", "summary", "image", "classes", "train", "test", "licence"],
        }
    }

    fn of_registry<T: ?Sized + 'static>(registry: &Registry<T>) -> Self {
        let item = |entry: &attacks::Entry<T>| {
            json!({
                "name": entry.name, "summary": entry.summary, "source": entry.source, "version": entry.version,
                "example": example(entry.name, entry.example),
            })
        };
        Self {
            items: registry.entries().iter().map(item).collect(),
            columns: &["name", "summary", "source", "example"],
        }
    }

    /// For readers.
    pub(crate) fn print(&self, out: &mut dyn Write) -> Result<()> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(self.columns);
        for item in &self.items {
            let cell = |column: &&str| match &item[*column] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            table.add_row(self.columns.iter().map(cell));
        }
        writeln!(out, "{}", table.trim_fmt())?;
        Ok(())
    }
}
