//! How a matrix or the command line says what tables look like.

use anyhow::Result;
use clap::ValueEnum;
use paper_tables::{Look, RowSpec, TableSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit::Stop;
use crate::matrix::{Matrix, MatrixError, TableEntry};
use crate::plan::{Plan, slug};
use crate::suggest::nearest;

/// What stands beside a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Style {
    /// The standard deviation over seeds; of one seed, the 95 % interval over images.
    MeanSd,
    /// The 95 % interval: of the mean over seeds, or of one seed over images.
    Interval,
    /// Nothing.
    Plain,
}

/// Where numbers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// A line for each defense, a column for each attack.
    Wide,
    /// A line for each defense and attack, with everything that is known of the number.
    Long,
}

/// What of a look was asked for. What is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) style: Option<Style>,
    pub(crate) form: Option<Form>,
    pub(crate) bold: Option<bool>,
    pub(crate) against: Option<String>,
}

impl Wanted {
    /// By an entry of a matrix.
    fn of(entry: &TableEntry) -> Self {
        Self {
            style: entry.style,
            form: entry.form,
            bold: entry.bold,
            against: entry.against.clone(),
        }
    }

    /// Changes how a table looks. A defense that it does not have is no line to compare with.
    fn apply(&self, table: &mut TableSpec) {
        let look = &mut table.look;
        if let Some(style) = self.style {
            look.style = match style {
                Style::MeanSd => paper_tables::Style::MeanSd,
                Style::Interval => paper_tables::Style::Interval,
                Style::Plain => paper_tables::Style::Plain,
            };
        }
        if let Some(form) = self.form {
            look.form = Some(match form {
                Form::Wide => paper_tables::Form::Wide,
                Form::Long => paper_tables::Form::Long,
            });
        }
        look.bold = self.bold.unwrap_or(look.bold);
        if let Some(against) = &self.against {
            look.against = find(&table.rows, against).map(|row| row.defense.clone());
        }
    }

    /// Whether a style was asked for that the form has no place for.
    fn is_lost(&self, look: &Look) -> bool {
        self.style.is_some() && look.form == Some(paper_tables::Form::Long)
    }
}

const LOST: &str = "the long form shows mean, deviation and interval in columns of their own, so it has no style; \
                    leave the style out, or take the form `wide`";

/// Changes how all tables of a run look, as the command line wants it.
pub(crate) fn change(tables: &mut [TableSpec], wanted: &Wanted) -> Result<()> {
    for table in tables.iter_mut() {
        wanted.apply(table);
        if wanted.is_lost(&table.look) {
            return Err(Stop::usage(format!("--style: {LOST}")));
        }
    }
    match &wanted.against {
        Some(against) if tables.iter().all(|table| table.look.against.is_none()) => {
            let rows = tables.iter().flat_map(|table| &table.rows);
            Err(Stop::usage(format!(
                "--against: {}",
                unknown(against, rows, "this run")
            )))
        }
        _ => Ok(()),
    }
}

/// How the tables of a matrix's entry look.
pub(crate) fn of_entry(entry: &TableEntry, table: &mut TableSpec) {
    Wanted::of(entry).apply(table);
}

/// Fails where an entry of a matrix wants what cannot be.
pub(crate) fn check(plan: &Plan, matrix: &Matrix) -> Result<(), MatrixError> {
    for (i, entry) in matrix.tables.iter().enumerate() {
        let path = crate::yaml::Path::default().key("tables").index(i);
        for table in &mut crate::tables::table_specs(plan, entry) {
            if Wanted::of(entry).is_lost(&table.look) {
                return Err(matrix.source.error(&path.key("style"), LOST));
            }
            if let Some(against) = &entry.against
                && table.look.against.is_none()
            {
                let message = unknown(against, &table.rows, "this table");
                return Err(matrix.source.error(&path.key("against"), message));
            }
        }
    }
    Ok(())
}

/// The line of a defense, by its label in any case.
fn find<'a>(rows: &'a [RowSpec], label: &str) -> Option<&'a RowSpec> {
    rows.iter().find(|row| slug(&row.defense) == slug(label))
}

fn unknown<'a>(label: &str, rows: impl IntoIterator<Item = &'a RowSpec>, of: &str) -> String {
    let mut known: Vec<&str> = Vec::new();
    for row in rows {
        if !known.contains(&row.defense.as_str()) {
            known.push(&row.defense);
        }
    }
    let meant = nearest(label, known.iter().copied());
    let meant = meant.map_or_else(String::new, |it| format!("; did you mean `{it}`?"));
    format!(
        "no defense of {of} is called `{label}`; there are `{}`{meant}",
        known.join("`, `")
    )
}
