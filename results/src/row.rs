//! The tables: what one row of each says. This file is the only list of their columns.

use serde::{Deserialize, Serialize};

use crate::table::table;
use crate::words::{Checkpoint, Kind, Selection, Status, TimingKind};

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
        /// Images passed forward through the network by the attack itself; classifying the result is not counted.
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
        /// The resolved configuration of the evaluation as JSON, every default filled: attack, threat model, and the keys of the trainings. The BLAKE3 of this text begins with `config_hash`.
        pub evaluation_config: Option<String>,
        /// The resolved configuration of the attacked network's training as JSON: data, network, defense with its inner attack, recipe, selection, seed. The BLAKE3 of this text begins with the training's key.
        pub training_config: Option<String>,
        /// Version of the program.
        pub code_version: String,
        /// `done` or `failed`.
        pub status: Status,
        /// Why the evaluation failed.
        pub error: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns_markdown;

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
