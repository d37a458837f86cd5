//! A comparison of two sets of results: its rules, its lines and their verdicts.

use std::collections::BTreeMap;

use serde::Serialize;

/// How far a mean may change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rules {
    /// In points, for every attack not in `by_attack`. `None`: what chance explains.
    pub(crate) points: Option<f64>,
    /// In points, by the attack's label in lower case.
    pub(crate) by_attack: BTreeMap<String, f64>,
    /// α: the probability that an unchanged run is flagged by chance anywhere in the comparison.
    pub(crate) false_alarms: f64,
    /// Improvements and new cells count as failures too.
    pub(crate) strict: bool,
}

/// What a line compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scope {
    /// One defense under one attack.
    Cell,
    /// One attack, averaged over defenses.
    Attack,
    /// One defense, averaged over attacks.
    Defense,
}

/// The verdict of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Lower than the tolerance allows.
    Regressed,
    /// Mean accuracy under an attack, over all defenses, rose above the tolerance: the attack has become weaker.
    WeakerAttack,
    /// In the baseline, and not in the run.
    Missing,
    /// The run failed where the baseline has a number.
    Failed,
    /// Higher than the tolerance allows.
    Improved,
    /// In the run, and without a number in the baseline.
    New,
    /// Changed by less than the tolerance.
    Within,
    /// The same count of images for every seed.
    Same,
}

/// The accuracies of one side, in points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Side {
    pub(crate) mean: f64,
    /// Over seeds; absent for one.
    pub(crate) deviation: Option<f64>,
    pub(crate) seeds: usize,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) scope: Scope,
    pub(crate) dataset: String,
    pub(crate) network: String,
    /// The label, or how many were averaged.
    pub(crate) defense: String,
    pub(crate) checkpoint: String,
    /// The label, or how many were averaged.
    pub(crate) attack: String,
    pub(crate) before: Option<Side>,
    pub(crate) after: Option<Side>,
    /// after − before, in points.
    pub(crate) difference: Option<f64>,
    /// In points.
    pub(crate) tolerance: Option<f64>,
    pub(crate) verdict: Verdict,
    /// The error of a failed cell.
    pub(crate) error: Option<String>,
}

/// A comparison of two sets of results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    pub(crate) rules: Rules,
    /// Cells, then attacks, then defenses.
    pub(crate) lines: Vec<Line>,
    /// What the tolerances are too wide to notice.
    pub(crate) warnings: Vec<String>,
    /// Versions, data and seeds that differ.
    pub(crate) notes: Vec<String>,
}

impl Comparison {
    /// The lines that make the comparison fail, worst first.
    pub(crate) fn failures(&self) -> Vec<&Line> {
        let mut failures: Vec<&Line> = self.lines.iter().filter(|line| self.fails(line)).collect();
        failures.sort_by_key(|line| line.verdict);
        failures
    }

    pub(crate) fn fails(&self, line: &Line) -> bool {
        match line.verdict {
            Verdict::Regressed | Verdict::WeakerAttack | Verdict::Missing | Verdict::Failed => true,
            Verdict::Improved | Verdict::New => self.rules.strict,
            Verdict::Within | Verdict::Same => false,
        }
    }

    /// How many lines got this verdict.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }
}
