//! Rows for tests.

use crate::{Checkpoint, Kind, Outcome, Row, Selection, Status, Timing, TimingKind};

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
        evaluation_config: Some("{}".to_string()),
        training_config: None,
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
