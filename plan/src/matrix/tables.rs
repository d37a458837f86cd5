//! The tables a matrix asks for, as its author writes them.

use paper_tables::{Form, PublishedRule, SpreadStyle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A table to typeset.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableEntry {
    /// Which table.
    pub name: TableName,
    /// Only these networks; all unless given.
    #[serde(default)]
    pub networks: Option<Vec<String>>,
    /// Only these data sets; all unless given.
    #[serde(default)]
    pub datasets: Option<Vec<String>>,
    /// The heading.
    #[serde(default)]
    pub title: Option<String>,
    /// More columns: the worst case of each image over a list of attacks, by their labels; `transfer/PGD-20` for one
    /// that is transferred.
    #[serde(default)]
    pub worst_of: Vec<Vec<String>>,
    /// What is shown beside a mean; the deviation over seeds unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<SpreadStyle>,
    /// A line for each defense, or for each number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// Whether the highest number of a column is bold, and those tied with it are marked; so unless `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bold: Option<bool>,
    /// Label of a defense: numbers that differ from its own by more than chance are marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Beside which rows published numbers are shown: those whose protocol is the published one, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedRule>,
}

impl TableEntry {
    /// A table as it is unless an entry says more.
    pub(crate) fn new(name: TableName) -> Self {
        Self {
            name,
            networks: None,
            datasets: None,
            title: None,
            worst_of: Vec::new(),
            style: None,
            form: None,
            bold: None,
            against: None,
            published: None,
        }
    }
}

/// The tables of the paper, and some more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TableName {
    /// White-box robustness.
    WhiteBox,
    /// Robustness to transferred attacks.
    BlackBox,
    /// White-box robustness of wide networks, best and last checkpoint.
    WideNetwork,
    /// White-box robustness of networks trained with unlabeled data.
    Unlabeled,
    /// Every attack of the matrix side by side: white-box, by transfer and by queries.
    Summary,
    /// For every transferred attack a table of sources × targets.
    Transfer,
}
