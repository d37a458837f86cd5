//! Flags of the commands on what a run has left.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use paper_tables::{Form, PublishedRule, SpreadStyle};

use super::args::{DataArgs, DeviceArgs};

#[derive(Debug, Clone, Args)]
pub(crate) struct TablesArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// What to print.
    #[arg(long, default_value = "markdown")]
    pub(crate) format: Format,
    /// Add a column with the worst case of each image over these attacks, such as `pgd-20,cw`; a transferred attack is
    /// written `transfer/pgd-20`. Nothing is computed again. May be repeated.
    #[arg(long, value_name = "ATTACK,ATTACK…")]
    pub(crate) worst_of: Vec<String>,
    /// What to show beside a mean.
    #[arg(long)]
    pub(crate) style: Option<SpreadStyle>,
    /// One line per defense, or one per defense and attack. Default: the first, in CSV the second.
    #[arg(long)]
    pub(crate) form: Option<Form>,
    /// Whether to show the highest number of a column in bold, and to mark the numbers tied with it.
    #[arg(long)]
    pub(crate) bold: Option<Switch>,
    /// Mark the numbers that differ significantly from this defense's, such as `--against standard`.
    #[arg(long, value_name = "DEFENSE")]
    pub(crate) against: Option<String>,
    /// Beside which rows published numbers are shown. Default: `matching`.
    #[arg(long)]
    pub(crate) published: Option<PublishedRule>,
    /// Write results, tables and figures to this folder, as the other options ask, and nothing to the run's.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Markdown,
    Csv,
    Latex,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// The file to write. Default: `report.html` in the run's folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CleanArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// Remove them. Without it they are only listed.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// The folder of a run, such as `runs/ci`, or a results file (Parquet or CSV).
    pub(crate) run: PathBuf,
    /// What to compare it with, likewise.
    pub(crate) baseline: PathBuf,
    /// How much accuracies may change, in points: everywhere (`1.5`), or under one attack (`PGD-20=1`). May be
    /// repeated. Default: as much as chance changes them, estimated from the seeds of the baseline.
    #[arg(long, value_name = "[ATTACK=]POINTS")]
    pub(crate) tolerance: Vec<String>,
    /// The probability, at most, that a comparison without `--tolerance` is flagged although nothing has changed.
    #[arg(long, value_name = "P", default_value_t = 0.01)]
    pub(crate) false_alarms: f64,
    /// Fail on improvements too, and on cells that the baseline lacks.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Show every line, not only those that changed.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print Markdown, for the summary of a CI job.
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Write the comparison as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the comparison as JUnit XML, for CI services.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Make this run the new baseline: show what changed, then write BASELINE, a CSV file.
    #[arg(long)]
    pub(crate) update: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// How many evaluations to compute again, with the trainings they need: the same ones every time, or `all`.
    #[arg(long, value_name = "K", default_value = "3")]
    pub(crate) cells: String,
    /// Only cells whose `dataset`, `network`, `defense`, `attack`, `checkpoint` or `seed` has this value, as in
    /// `defense=mart`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Attack the run's own networks instead of training them again.
    #[arg(long)]
    pub(crate) keep_trainings: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Cells computed at the same time.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) jobs: usize,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// The folder of a run, such as `runs/digits`, a training's folder in it, or a checkpoint file.
    pub(crate) source: PathBuf,
    /// The file to write: safetensors under the authors' parameter names.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Which training of a run, and which checkpoint: `dataset`, `network`, `defense`, `seed` or
    /// `checkpoint`, as in `defense=mart`. Default checkpoint: the best if there is one, else the last.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}
