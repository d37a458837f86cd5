//! How a table looks: what stands beside a mean, which form it has, what is marked.

use serde::{Deserialize, Serialize};

/// How a table looks. Numbers are the same in every look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Look {
    /// What stands beside a mean.
    pub style: Style,
    /// A line for each defense or for each number. `None`: the first for readers, the second in CSV.
    pub form: Option<Form>,
    /// Whether the highest number of a column is bold, and those that are tied with it are marked.
    pub bold: bool,
    /// Label of the defense with which all others are compared, if any.
    pub against: Option<String>,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            style: Style::MeanSd,
            form: None,
            bold: true,
            against: None,
        }
    }
}

impl Look {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The form for readers.
    pub(crate) fn form(&self) -> Form {
        self.form.unwrap_or(Form::Wide)
    }
}

/// What stands beside a mean over seeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// The sample standard deviation over seeds; where there is one seed, the interval over images.
    #[default]
    MeanSd,
    /// The 95 % interval: of the mean over seeds, by Student's distribution; where there is one seed, over images.
    Interval,
    /// Nothing.
    Plain,
}

/// Where numbers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A line for each defense and checkpoint, a column for each attack.
    Wide,
    /// A line for each defense, checkpoint and attack, with everything that is known of the number.
    Long,
}
