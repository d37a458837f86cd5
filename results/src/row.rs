//! The tables: what one row of each says. This file is the only list of their columns.

use serde::{Deserialize, Serialize};

use crate::flags;
use crate::statistics::{mean, median, wilson};
use crate::table::{table, words};

table! {
    /// One evaluation: what one attack left of one checkpoint's accuracy.
    ///
    /// The tables are computed from these rows alone, so a row holds nothing that depends on the
    /// machine: no times, no host. Missing is null, never zero. The default row has nothing but nulls and empty names,
    /// to be filled in.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    pub struct Row {
        /// Key of the evaluation cell, hexadecimal.
        pub cell: String,
        /// Name of the matrix.
        pub run: String,
        /// Name of the data set.
        pub dataset: String,
        /// Digest of the images and labels that were read.
        pub dataset_digest: String,
        /// Whether the digest is that of the published data set.
        pub verified: bool,
        /// Name of the network.
        pub network: String,
        /// Label of the defense in tables.
        pub defense: String,
        /// Name of the defense's method.
        pub defense_name: String,
        /// Version of the defense's method, which grows whenever its numbers change.
        pub defense_version: u32,
        /// Label of the training recipe.
        pub recipe: String,
        /// Seed of the training.
        pub seed: u64,
        /// Which checkpoint of the training was attacked: `best` or `last`.
        pub checkpoint: Checkpoint,
        /// What chose the best checkpoint: accuracy on `validation` or `test` images, or `none`.
        pub selection: Selection,
        /// Epoch of the checkpoint, from 1.
        pub epoch: Option<u64>,
        /// Label of the attack in tables.
        pub attack: String,
        /// Name of the attack's method.
        pub attack_name: String,
        /// Version of the attack's method, which grows whenever its numbers change.
        pub attack_version: Option<u32>,
        /// `natural` (no attack), `white-box`, `query` (an attack that sees logits alone), or `transfer` from a source.
        pub kind: Kind,
        /// Label of the network on which a transfer attack was crafted, such as `natural/resnet18`.
        pub source: Option<String>,
        /// Which checkpoint of the source was used.
        pub source_checkpoint: Option<Checkpoint>,
        /// Seed of the source's training.
        pub source_seed: Option<u64>,
        /// Norm of the threat model.
        pub norm: Option<String>,
        /// Radius of the threat model in pixel units, as written: `8/255`.
        pub epsilon: Option<String>,
        /// The same radius as a number.
        pub epsilon_value: Option<f64>,
        /// Gradient steps of one restart.
        pub steps: Option<u64>,
        /// Length of a step in pixel units, as written.
        pub step_size: Option<String>,
        /// The same length as a number.
        pub step_size_value: Option<f64>,
        /// Independent tries per image, of which the worst for the network counts.
        pub restarts: Option<u64>,
        /// Loss that the attack ascends.
        pub loss: Option<String>,
        /// Where the attack starts.
        pub start: Option<String>,
        /// Batch-norm mode in which the network was attacked.
        pub batch_norm: Option<String>,
        /// Images evaluated.
        pub n: Option<u64>,
        /// Images still classified correctly.
        pub n_correct: Option<u64>,
        /// `n_correct / n`, a fraction.
        pub accuracy: Option<f64>,
        /// Lower end of the 95 % Wilson interval of the accuracy, over images.
        pub accuracy_low: Option<f64>,
        /// Upper end of the same interval.
        pub accuracy_high: Option<f64>,
        /// Images passed forward through the network by the attack itself; judging what it found is not counted.
        pub forwards: Option<u64>,
        /// Images passed backward through the network by the attack itself.
        pub backwards: Option<u64>,
        /// `forwards / n`
        pub forwards_per_image: Option<f64>,
        /// `backwards / n`
        pub backwards_per_image: Option<f64>,
        /// Queries that a query attack asked, over all images.
        pub queries: Option<u64>,
        /// Queries that it may ask about one image.
        pub query_budget: Option<u64>,
        /// Median of the queries until success over the images that the attack broke; those that the network gets wrong anyway are left out.
        pub queries_median: Option<f64>,
        /// Mean of the same.
        pub queries_mean: Option<f64>,
        /// Largest norm of a perturbation that was found.
        pub max_delta: Option<f64>,
        /// Images that ever met a loss gradient that was zero in every pixel. In a natural row: of cross entropy at the clean image.
        pub zero_gradients: Option<u64>,
        /// Images at which the gradient of cross entropy is so small that the whole ball hardly changes the loss: ε·‖∇‖* ≤ 1e-6. Measured in natural rows.
        pub vanishing_gradients: Option<u64>,
        /// Images whose logits differ between two passes of the same batch. Measured in natural rows.
        pub random_outputs: Option<u64>,
        /// Images whose logits are a probability distribution. Measured in natural rows.
        pub softmax_outputs: Option<u64>,
        /// What this evaluation alone gives reason to doubt, as words with commas between; see `docs/evaluation.md`.
        pub flags: Option<String>,
        /// Hash of the cell's resolved configuration.
        pub config_hash: String,
        /// Version of the program.
        pub code_version: String,
        /// `done` or `failed`.
        pub status: Status,
        /// Why the evaluation failed.
        pub error: Option<String>,
    }
}

impl Row {
    /// This row with the count of a finished evaluation: accuracy and interval follow from it.
    /// Panics if more images are correct than there are.
    #[must_use]
    pub fn with_count(self, n: u64, n_correct: u64) -> Self {
        let interval = wilson(n_correct, n);
        let per_image = |passes: Option<u64>| Some(passes? as f64 / n as f64).filter(|_| n > 0);
        let counted = Self {
            n: Some(n),
            n_correct: Some(n_correct),
            accuracy: (n > 0).then(|| n_correct as f64 / n as f64),
            accuracy_low: interval.map(|it| it.low),
            accuracy_high: interval.map(|it| it.high),
            forwards_per_image: per_image(self.forwards),
            backwards_per_image: per_image(self.backwards),
            status: Status::Done,
            error: None,
            ..self
        };
        let words: Vec<&str> = flags::of_row(&counted).into_iter().map(flags::Flag::as_str).collect();
        Self {
            flags: (!words.is_empty()).then(|| words.join(",")),
            ..counted
        }
    }

    /// This row with what a query attack asked: in all, at most about one image, and until each success.
    /// A success after 0 queries is no success of the attack.
    #[must_use]
    pub fn with_queries(self, asked: u64, budget: Option<u64>, until_success: &[u64]) -> Self {
        let successes: Vec<f64> = until_success
            .iter()
            .filter(|&&it| it > 0)
            .map(|&it| it as f64)
            .collect();
        Self {
            queries: Some(asked),
            query_budget: budget,
            queries_median: median(&successes),
            queries_mean: mean(&successes),
            ..self
        }
    }

    /// This row for an evaluation that failed: whatever was measured is null.
    #[must_use]
    pub fn with_failure(self, error: impl Into<String>) -> Self {
        Self {
            n: None,
            n_correct: None,
            accuracy: None,
            accuracy_low: None,
            accuracy_high: None,
            forwards: None,
            backwards: None,
            forwards_per_image: None,
            backwards_per_image: None,
            queries: None,
            query_budget: None,
            queries_median: None,
            queries_mean: None,
            max_delta: None,
            zero_gradients: None,
            vanishing_gradients: None,
            random_outputs: None,
            softmax_outputs: None,
            flags: None,
            status: Status::Failed,
            error: Some(error.into()),
            ..self
        }
    }
}

table! {
    /// How long a cell took, and where. Kept beside the rows, which must not depend on it.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Timing {
        /// Key of the cell, hexadecimal.
        pub cell: String,
        /// `train` or `evaluate`.
        pub kind: TimingKind,
        /// Wall-clock seconds.
        pub seconds: f64,
        /// Images per second: trained on, or attacked.
        pub images_per_second: Option<f64>,
        /// Threads used.
        pub threads: u64,
        /// Name of the machine.
        pub host: String,
        /// Model of its processor.
        pub cpu: String,
        /// Device of the tensors, such as `cpu` or `cuda:0 NVIDIA H200`.
        pub device: String,
        /// When it started, in seconds since 1970-01-01T00:00:00Z.
        pub started: u64,
        /// Largest resident memory of the process, in bytes.
        pub peak_memory: Option<u64>,
    }
}

table! {
    /// What became of one image in one evaluation.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Outcome {
        /// Key of the evaluation cell, hexadecimal.
        pub cell: String,
        /// Index of the image in its data set's test split.
        pub example: u64,
        /// True class.
        pub label: u32,
        /// Class predicted for the clean image, where that was computed.
        pub predicted_clean: Option<u32>,
        /// Class predicted for the attacked image.
        pub predicted: u32,
        /// Whether the attacked image is still classified correctly.
        pub correct: bool,
        /// Norm of the perturbation, in pixel units.
        pub delta: f32,
        /// Queries that a query attack asked about the image.
        pub queries: Option<u64>,
        /// After how many of them an image was misclassified; 0: the clean one is. Null: none was, or no query attack.
        pub queries_until_success: Option<u64>,
    }
}

words! {
    /// A checkpoint of a training.
    pub enum Checkpoint {
        /// The epoch with the highest robust accuracy on the images that select.
        Best = "best",
        /// The last epoch.
        Last = "last",
    }
}

words! {
    /// Which images chose the best checkpoint.
    pub enum Selection {
        /// Images held out of the training set.
        Validation = "validation",
        /// The test images themselves, which flatters the result.
        Test = "test",
        /// Nothing was chosen.
        None = "none",
    }
}

words! {
    /// What an evaluation did to the images.
    pub enum Kind {
        /// Nothing.
        Natural = "natural",
        /// An attack with access to the network's gradients.
        WhiteBox = "white-box",
        /// An attack that asks for logits and sees nothing else.
        Query = "query",
        /// An attack crafted on another network.
        Transfer = "transfer",
    }
}

words! {
    /// How an evaluation ended.
    pub enum Status {
        /// With a count.
        Done = "done",
        /// With an error.
        Failed = "failed",
    }
}

words! {
    /// What was timed.
    pub enum TimingKind {
        /// The training of a network.
        Train = "train",
        /// The attack on a checkpoint.
        Evaluate = "evaluate",
    }
}

/// A word that stands for nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}`, none of `{}`", known.join("`, `"))]
pub struct Unknown {
    /// The word.
    pub word: String,
    /// The words that would do.
    pub known: &'static [&'static str],
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::columns_markdown;

    pub(crate) fn row(cell: &str) -> Row {
        Row {
            cell: cell.to_string(),
            run: "default".to_string(),
            dataset: "digits".to_string(),
            dataset_digest: "d1ce".to_string(),
            verified: true,
            network: "small-cnn".to_string(),
            defense: "TRADES".to_string(),
            defense_name: "trades".to_string(),
            defense_version: 1,
            recipe: "default".to_string(),
            seed: 0,
            checkpoint: Checkpoint::Best,
            selection: Selection::Validation,
            epoch: Some(7),
            attack: "PGD-20".to_string(),
            attack_name: "pgd".to_string(),
            attack_version: Some(1),
            kind: Kind::WhiteBox,
            source: None,
            source_checkpoint: None,
            source_seed: None,
            norm: Some("linf".to_string()),
            epsilon: Some("8/255".to_string()),
            epsilon_value: Some(8.0 / 255.0),
            steps: Some(20),
            step_size: Some("0.8/255".to_string()),
            step_size_value: Some(0.8 / 255.0),
            restarts: Some(1),
            loss: Some("cross-entropy".to_string()),
            start: Some("uniform".to_string()),
            batch_norm: Some("eval".to_string()),
            n: None,
            n_correct: None,
            accuracy: None,
            accuracy_low: None,
            accuracy_high: None,
            forwards: Some(2100),
            backwards: Some(2000),
            forwards_per_image: None,
            backwards_per_image: None,
            queries: None,
            query_budget: None,
            queries_median: None,
            queries_mean: None,
            max_delta: Some(0.0313),
            zero_gradients: Some(0),
            vanishing_gradients: None,
            random_outputs: None,
            softmax_outputs: None,
            flags: None,
            config_hash: "config".to_string(),
            code_version: "0.1.0".to_string(),
            status: Status::Done,
            error: None,
        }
    }

    pub(crate) fn timing(cell: &str) -> Timing {
        Timing {
            cell: cell.to_string(),
            kind: TimingKind::Evaluate,
            seconds: 1.25,
            images_per_second: Some(160.0),
            threads: 2,
            host: "node-1".to_string(),
            cpu: "a processor".to_string(),
            device: "cpu".to_string(),
            started: 1_700_000_000,
            peak_memory: Some(1 << 30),
        }
    }

    pub(crate) fn outcome(cell: &str, example: u64) -> Outcome {
        Outcome {
            cell: cell.to_string(),
            example,
            label: 3,
            predicted_clean: example.is_multiple_of(2).then_some(3),
            predicted: 5,
            correct: false,
            delta: 0.0313,
            queries: None,
            queries_until_success: None,
        }
    }

    #[test]
    fn a_count_fills_what_follows_from_it_and_a_failure_empties_it() {
        let done = row("a").with_count(10, 8);
        assert_eq!((done.accuracy, done.n, done.n_correct), (Some(0.8), Some(10), Some(8)));
        assert!((done.accuracy_low.unwrap() - 0.490162).abs() < 1e-6);
        assert_eq!(
            (done.forwards_per_image, done.backwards_per_image),
            (Some(210.0), Some(200.0))
        );
        let failed = done.with_failure("diverged");
        assert_eq!((failed.accuracy, failed.n, failed.forwards), (None, None, None));
        assert_eq!((failed.forwards_per_image, failed.flags), (None, None));
        assert_eq!(failed.error.as_deref(), Some("diverged"));
        assert_eq!(row("a").with_count(0, 0).accuracy, None);
    }

    /// Of 0, 4, 1 and 10 queries the first is no success of the attack; the rest have the median 4 and the mean 5.
    #[test]
    fn queries_are_summed_up_over_what_the_attack_broke() {
        let asked = row("a").with_queries(99, Some(40), &[0, 4, 1, 10]);
        assert_eq!((asked.queries, asked.query_budget), (Some(99), Some(40)));
        assert_eq!((asked.queries_median, asked.queries_mean), (Some(4.0), Some(5.0)));
        let none = row("a").with_queries(99, Some(40), &[0]);
        assert_eq!((none.queries_median, none.queries_mean), (None, None));
    }

    #[test]
    fn words_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        assert_eq!(
            "both".parse::<Checkpoint>().unwrap_err().to_string(),
            "`both`, none of `best`, `last`"
        );
    }

    /// `COLUMNS.md` is generated from the declarations above; set `UPDATE_COLUMNS=1` to renew it.
    #[test]
    fn the_documented_columns_are_the_columns() {
        let text = format!(
            "# Columns\n\nGenerated from `src/row.rs`.\n\n## Results\n\nOne row per evaluation: `results.parquet`, \
             `results.csv`, `rows.json` of its cell.\n\n{}\n## Times\n\nOne row per cell and kind: `timings.parquet`, \
             `timings.json` of the cell.\n\n{}\n## Outcomes\n\n\
             One row per image and evaluation: `per_example.parquet`, `outcomes.parquet` of its cell.\n\n{}",
            columns_markdown(Row::COLUMNS),
            columns_markdown(Timing::COLUMNS),
            columns_markdown(Outcome::COLUMNS),
        );
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/COLUMNS.md");
        if std::env::var_os("UPDATE_COLUMNS").is_some() {
            std::fs::write(file, &text).unwrap();
        }
        let found = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            found == text,
            "COLUMNS.md is stale: run this test with UPDATE_COLUMNS=1"
        );
    }
}
