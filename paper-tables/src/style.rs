//! How a table is styled: what is shown beside a mean, one line per defense or per number, what is marked.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a table is styled. The numbers are the same in every style.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableStyle {
    /// What is shown beside a mean.
    #[serde(rename = "style")]
    pub spread: SpreadStyle,
    /// One line per defense or per number. `None`: per defense for readers, per number in CSV.
    pub form: Option<Form>,
    /// Whether the highest number of a column is bold, and numbers tied with it are marked.
    pub bold: bool,
    /// Label of the defense with which all others are compared, if any.
    pub against: Option<String>,
    /// Beside which rows published numbers are shown.
    pub published: PublishedRule,
}

impl Default for TableStyle {
    fn default() -> Self {
        Self {
            spread: SpreadStyle::MeanSd,
            form: None,
            bold: true,
            against: None,
            published: PublishedRule::Matching,
        }
    }
}

impl TableStyle {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The form for readers.
    pub(crate) fn form(&self) -> Form {
        self.form.unwrap_or(Form::Wide)
    }
}

// The comments of the variants below are the help of `--style` and `--form` and descriptions in the matrix's schema.

/// What is shown beside a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Style")]
pub enum SpreadStyle {
    /// The standard deviation over seeds; of one seed, the 95 % interval over images.
    MeanSd,
    /// The 95 % interval: of the mean over seeds, or of one seed over images.
    Interval,
    /// Nothing.
    Plain,
}

/// One line per defense, or per number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A line for each defense, a column for each attack.
    Wide,
    /// A line for each defense and attack, with everything that is known of the number.
    Long,
}

/// Beside which rows published numbers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "PublishedNumbers")]
pub enum PublishedRule {
    /// Beside rows whose protocol is the published one in everything its source states.
    Matching,
    /// Beside rows of any protocol; what differs from the published one is named.
    Any,
    /// Nowhere.
    None,
}
