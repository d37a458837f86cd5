//! What a table is to show.

use results::{Checkpoint, Kind, Row};
use serde::{Deserialize, Serialize};

use crate::style::TableStyle;

/// Which of the paper's tables a table mirrors. It decides what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// Table 2: the attacker sees the network.
    WhiteBox,
    /// Table 3: attacks crafted on another network.
    BlackBox,
    /// Table 4: a wide network, its best and its last checkpoint side by side.
    WideNetwork,
    /// Table 5: trained with unlabeled data.
    Unlabeled,
    /// Every attack of a matrix in one table; none of the paper's.
    Summary,
    /// One attack from every defense to every other; none of the paper's.
    Transfer,
}

impl TableKind {
    /// The name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WhiteBox => "white-box",
            Self::BlackBox => "black-box",
            Self::WideNetwork => "wide-network",
            Self::Unlabeled => "unlabeled",
            Self::Summary => "summary",
            Self::Transfer => "transfer",
        }
    }
}

/// What a table shows, and in which order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableSpec {
    /// The name in files and in references: letters, digits and hyphens.
    pub id: String,
    /// The title.
    pub title: String,
    /// Which table of the paper it mirrors.
    pub kind: TableKind,
    /// One part per data set and network.
    pub blocks: Vec<BlockSpec>,
    /// One row per defense.
    pub rows: Vec<RowSpec>,
    /// One column per attack.
    pub columns: Vec<ColumnSpec>,
    /// The checkpoints to show of every defense.
    pub checkpoints: Vec<Checkpoint>,
    /// How it is styled.
    #[serde(rename = "look", default, skip_serializing_if = "TableStyle::is_default")]
    pub style: TableStyle,
}

/// A part of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSpec {
    /// What is shown above it, such as `CIFAR-10, ResNet-18`.
    pub label: String,
    /// The data set's name, as in the rows.
    pub dataset: String,
    /// The network's name, as in the rows.
    pub network: String,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSpec {
    /// The defense's label, as in the rows; shown.
    pub defense: String,
    /// The recipe's label. `None`: any; needed if a defense was trained with several.
    pub recipe: Option<String>,
    /// The defense in the paper, such as `trades`.
    pub published: Option<String>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// What is shown above.
    pub label: String,
    /// The attack's label, as in the rows.
    pub attack: String,
    /// Natural, white-box or transfer.
    pub kind: Kind,
    /// The source's label. `None`: any; needed if an attack was transferred from several.
    pub source: Option<String>,
    /// The attack in the paper, such as `pgd20`.
    pub published: Option<String>,
}

/// An evaluation that the matrix asks for, whether it ran or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub network: String,
    /// Label of the defense.
    pub defense: String,
    /// Label of the recipe.
    pub recipe: String,
    /// Seed of the training.
    pub seed: u64,
    /// The checkpoint attacked.
    pub checkpoint: Checkpoint,
    /// Label of the attack.
    pub attack: String,
    /// Natural, white-box or transfer.
    pub kind: Kind,
    /// Label of the source of a transfer.
    pub source: Option<String>,
}

impl Planned {
    /// What distinguishes its training from the others of a run: data set, network, defense, recipe and seed.
    pub fn training(&self) -> (&str, &str, &str, &str, u64) {
        (&self.dataset, &self.network, &self.defense, &self.recipe, self.seed)
    }

    /// The evaluation that a row reports.
    pub fn of(row: &Row) -> Self {
        Self {
            dataset: row.dataset.clone(),
            network: row.network.clone(),
            defense: row.defense.clone(),
            recipe: row.recipe.clone(),
            seed: row.seed,
            checkpoint: row.checkpoint,
            attack: row.attack.clone(),
            kind: row.kind,
            source: row.source.clone(),
        }
    }
}
