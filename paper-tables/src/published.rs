//! The numbers of the MART paper (Wang, Zou, Yi, Bailey, Ma and Gu, ICLR 2020), Tables 2 to 5.
//!
//! All of them are in `published.json`, each with its source; ALP and CLP have none, for the paper
//! does not evaluate them. Of Table 5 only MART's row is known, at second hand.

use std::sync::OnceLock;

use results::Checkpoint;
use serde::Deserialize;

use crate::protocol::Protocol;
use crate::spec::TableKind;

/// Published numbers and where they were read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Where the numbers were read.
    pub citations: Vec<Citation>,
    /// How they were measured.
    pub protocols: Vec<Protocol>,
    /// The numbers.
    pub numbers: Vec<Number>,
}

/// Where a number was read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Citation {
    /// What a number refers to.
    pub id: String,
    /// Identity of the protocol of its numbers.
    pub protocol: String,
    /// How it was read.
    pub tag: Tag,
    /// The source as shown.
    pub text: String,
    /// What to keep in mind when comparing.
    pub note: String,
}

/// How a number was read from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Tag {
    /// From the published table itself.
    #[serde(rename = "IMG")]
    Table,
    /// From a public repository.
    #[serde(rename = "CODE")]
    Code,
    /// Quoted by a third party.
    #[serde(rename = "2ND")]
    SecondHand,
}

/// A published accuracy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// Identity of its citation.
    pub citation: String,
    /// The kind of table it is from.
    pub table: TableKind,
    /// The data set.
    pub dataset: String,
    /// The network, where it is known.
    pub network: Option<String>,
    /// The defense: `standard`, `mma`, `dynamic`, `trades` or `mart`.
    pub method: String,
    /// The attack: `natural`, `fgsm`, `pgd10`, `pgd20`, `pgd100`, `cw` or `autoattack`.
    pub column: String,
    /// The checkpoint, where it is stated.
    pub checkpoint: Option<Checkpoint>,
    /// In percent.
    pub value: f64,
}

/// Which published number a cell is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The kind of table.
    pub table: TableKind,
    /// Our data set.
    pub dataset: &'a str,
    /// Our network.
    pub network: &'a str,
    /// The paper's defense.
    pub method: &'a str,
    /// The paper's attack.
    pub column: &'a str,
    /// Our checkpoint.
    pub checkpoint: Checkpoint,
}

impl Published {
    /// The numbers that come with this crate.
    pub fn embedded() -> &'static Self {
        static EMBEDDED: OnceLock<Published> = OnceLock::new();
        EMBEDDED.get_or_init(|| {
            serde_json::from_str(include_str!("../published.json")).expect("published.json is well-formed")
        })
    }

    /// No numbers, for tables without a comparison.
    pub const fn none() -> Self {
        Self {
            citations: Vec::new(),
            protocols: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// How the numbers of a citation were measured.
    pub fn protocol(&self, citation: &Citation) -> Option<&Protocol> {
        self.protocols.iter().find(|protocol| protocol.id == citation.protocol)
    }

    /// The number to compare with, and its citation. A number whose network or checkpoint is not
    /// stated matches any; its citation's note mentions that.
    pub fn find(&self, query: Query<'_>) -> Option<(&Number, &Citation)> {
        let number = self.numbers.iter().find(|number| {
            number.table == query.table
                && number.dataset == query.dataset
                && number.network.as_deref().is_none_or(|network| network == query.network)
                && number.method == query.method
                && number.column == query.column
                && number
                    .checkpoint
                    .is_none_or(|checkpoint| checkpoint == query.checkpoint)
        })?;
        let citation = self.citations.iter().find(|citation| citation.id == number.citation)?;
        Some((number, citation))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_has_one_place_and_a_source() {
        let published = Published::embedded();
        let mut places = HashSet::new();
        for number in &published.numbers {
            let place = (
                number.table,
                &number.dataset,
                &number.network,
                &number.method,
                &number.column,
                number.checkpoint,
            );
            assert!(places.insert(place), "{number:?} twice");
            assert!((0.0..=100.0).contains(&number.value), "{number:?}");
            let cited = published
                .citations
                .iter()
                .find(|citation| citation.id == number.citation);
            assert!(cited.is_some_and(|citation| !citation.text.is_empty()), "{number:?}");
            let protocol = cited.and_then(|citation| published.protocol(citation));
            let protocol = protocol.unwrap_or_else(|| panic!("{number:?} has no protocol"));
            let known = number.column == "natural" || protocol.attacks.contains_key(&number.column);
            assert!(known, "{number:?}: {} does not know this attack", protocol.id);
            assert!(["standard", "mma", "dynamic", "trades", "mart"].contains(&number.method.as_str()));
        }
        // Tables 2 and 3: 5 methods × 8 columns each; Table 4: 4 methods × (1 + 2 · 4); Table 5: MART alone.
        assert_eq!(published.numbers.len(), 40 + 40 + 36 + 3);
    }

    #[track_caller]
    fn check(table: TableKind, place: [&str; 4], checkpoint: Checkpoint, value: Option<f64>) {
        let [dataset, network, method, column] = place;
        let query = Query {
            table,
            dataset,
            network,
            method,
            column,
            checkpoint,
        };
        assert_eq!(Published::embedded().find(query).map(|(number, _)| number.value), value);
    }

    #[test]
    fn numbers_are_found_where_the_paper_has_them() {
        use Checkpoint::{Best, Last};
        use TableKind::{BlackBox, Unlabeled, WhiteBox, WideNetwork};
        check(WhiteBox, ["cifar10", "resnet18", "mart", "pgd20"], Best, Some(55.57));
        check(WhiteBox, ["mnist", "lenet", "trades", "natural"], Last, Some(99.25));
        check(BlackBox, ["cifar10", "resnet18", "mma", "pgd10"], Best, Some(80.52));
        check(WideNetwork, ["cifar10", "wrn-34-10", "mart", "cw"], Best, Some(54.58));
        check(WideNetwork, ["cifar10", "wrn-34-10", "mart", "cw"], Last, Some(54.53));
        check(
            WideNetwork,
            ["cifar10", "wrn-34-10", "mart", "natural"],
            Last,
            Some(84.17),
        );
        check(WideNetwork, ["cifar10", "wrn-34-10", "mma", "natural"], Last, None);
        check(Unlabeled, ["cifar10", "wrn-28-10", "mart", "pgd20"], Best, Some(65.04));
        check(Unlabeled, ["cifar10", "wrn-28-10", "trades", "pgd20"], Best, None);
        check(WhiteBox, ["cifar10", "wrn-34-10", "mart", "pgd20"], Best, None);
        check(WhiteBox, ["cifar10", "resnet18", "alp", "pgd20"], Best, None);
        check(WhiteBox, ["digits", "small-cnn", "mart", "pgd20"], Best, None);
    }
}
