//! Filling in a row: the count of an evaluation, its queries, or its failure, with everything that follows from them.

use crate::flags::{Flag, of_row};
use crate::row::Row;
use crate::statistics::{mean, median, wilson};
use crate::words::Status;

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
            accuracy_low: interval.map(|wilson| wilson.low),
            accuracy_high: interval.map(|wilson| wilson.high),
            forwards_per_image: per_image(self.forwards),
            backwards_per_image: per_image(self.backwards),
            status: Status::Done,
            error: None,
            ..self
        };
        let words: Vec<&str> = of_row(&counted).into_iter().map(Flag::as_str).collect();
        Self {
            flags: (!words.is_empty()).then(|| words.join(",")),
            ..counted
        }
    }

    /// This row with the queries of an attack: in total, the budget per image, and until each success.
    /// A success after 0 queries does not count as a success of the attack.
    #[must_use]
    pub fn with_queries(self, asked: u64, budget: Option<u64>, until_success: &[u64]) -> Self {
        let successes: Vec<f64> = until_success
            .iter()
            .filter(|&&queries| queries > 0)
            .map(|&queries| queries as f64)
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

#[cfg(test)]
mod tests {
    use crate::fixtures::row;

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

    /// Of 0, 4, 1 and 10 queries, the first is not a success of the attack; the others have median 4 and mean 5.
    #[test]
    fn queries_are_summed_up_over_what_the_attack_broke() {
        let asked = row("a").with_queries(99, Some(40), &[0, 4, 1, 10]);
        assert_eq!((asked.queries, asked.query_budget), (Some(99), Some(40)));
        assert_eq!((asked.queries_median, asked.queries_mean), (Some(4.0), Some(5.0)));
        let none = row("a").with_queries(99, Some(40), &[0]);
        assert_eq!((none.queries_median, none.queries_mean), (None, None));
    }
}
