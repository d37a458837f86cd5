//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use paper_tables::{Form, SpreadStyle};

use crate::commands::attack::AttackArgs;
use crate::commands::check::CheckArgs;
use crate::commands::compare::CompareArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::export::ExportArgs;
use crate::commands::man::ManArgs;
use crate::commands::verify::VerifyRunArgs;
use crate::commands::verify_examples::VerifyArgs;
use crate::commands::watch::WatchArgs;

/// Benchmark of adversarial training: trains every network of a matrix, attacks it, stores every
/// outcome and typesets the tables.
#[derive(Debug, Parser)]
#[command(
    name = "harness",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    override_usage = "harness MATRIX.yaml [OPTIONS]\n       harness COMMAND",
    after_help = "Exit codes: 0 all there · 1 the disk refused, or unexpected · 2 mistake in the command, matrix or data · 3 some cells \
                  failed · 4 nothing selected · 5 regression · 6 integrity · 130 interrupted, run again to go on"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The program with every command, as help, manual pages and shells see it.
    pub(crate) fn program() -> clap::Command {
        let mut program = Self::command();
        program.build();
        program
    }

    /// Reads arguments. What does not begin with a subcommand means `run`.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let program = Self::command();
        let known = |first: &str| {
            let subcommand = program.get_subcommands().any(|it| it.get_name() == first);
            subcommand || ["help", "-h", "--help", "-V", "--version"].contains(&first)
        };
        if arguments.get(1).is_some_and(|first| !first.to_str().is_some_and(known)) {
            arguments.insert(1, "run".into());
        }
        Self::try_parse_from(arguments)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train, attack, store and typeset what a matrix asks for. A bare path means this.
    Run(RunArgs),
    /// List the cells of a matrix, how each stands, and what is left to compute.
    Plan(PlanArgs),
    /// How a run gets on: what is done, who works at what, what failed, and the time left.
    Status(StatusArgs),
    /// Follow a run in the terminal while it is at work, here or elsewhere.
    Watch(WatchArgs),
    /// Hand what is not finished to a cluster's scheduler.
    Submit(SubmitArgs),
    /// Check a matrix without reading data or computing anything.
    Validate(MatrixArgs),
    /// List what a matrix can name, or tell one of them in full: fields, defaults, the authors' recipe.
    Ls {
        /// Of which kind.
        kind: Listing,
        /// One of them, as in `harness ls defenses mart`.
        name: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of matrices, for editors.
    Schema,
    /// Typeset the tables of a run again.
    Tables(TablesArgs),
    /// Write a run as one HTML page: tables, flags, curves, images, every cell, and where it comes from.
    Report(ReportArgs),
    /// Compare results with earlier ones; exit code 5 if they moved further than they may.
    Compare(CompareArgs),
    /// Check that a run is whole, unchanged and honest. Computes nothing and needs no data.
    Check(CheckArgs),
    /// Compute some cells of a run again, from the matrix, and compare every byte.
    Verify(VerifyRunArgs),
    /// Write a trained network as safetensors under the authors' parameter names, for PyTorch.
    Export(ExportArgs),
    /// Attack somebody's network: safetensors or a PyTorch checkpoint.
    Attack(AttackArgs),
    /// Evaluate saved adversarial images again, and check every rule they must keep.
    VerifyExamples(VerifyArgs),
    /// Download a data set from its official mirrors and check it.
    Fetch {
        /// Data sets, as `harness ls datasets` names them.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Print a script with which a shell completes commands and options.
    Completions(CompletionsArgs),
    /// Write manual pages of the program and every command into a folder.
    Man(ManArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MatrixArgs {
    /// The matrix, a YAML file.
    pub(crate) matrix: PathBuf,
    /// Set a field of the matrix, as in `recipe.epochs=2` or `attacks[0].steps=40`. May be repeated.
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Keep only this many training and test examples of every data set.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Use this seed in place of the matrix's.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DataArgs {
    /// Where data sets lie. Else the environment variable RAMPART_DATA_DIR, else the cache folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SelectArgs {
    /// Only cells where `dataset`, `network`, `defense`, `attack`, `checkpoint` or `seed` has this
    /// value, as in `defense=mart`. Several values of one key widen, several keys narrow.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Where runs are kept; this run goes into the folder named as the matrix.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) matrix: MatrixArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Where tensors live: `cpu`, `cuda`, `cuda:N`, or `auto`, a GPU if there is one.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// How a GPU multiplies in convolutions: `tf32`, as PyTorch does, `f32` or `bf16`.
    #[arg(long, default_value = "tf32")]
    pub(crate) precision: kernels::device::Precision,
    /// On a GPU, the same bits whenever the same is computed on the same card; slower. On the CPU it is always so.
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Cells at work at once. Unless given: one, or one per thread where every network is small.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Threads in all; every core unless given.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Examples attacked together in an evaluation: fewer need less memory. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub(crate) evaluation_batch: Option<usize>,
    /// Save so often where a cell stands. Whoever kills the program loses no more work than that.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub(crate) checkpoint_every: f64,
    /// Stop at the first failed cell.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Recompute the selected cells and the trainings they need.
    #[arg(long)]
    pub(crate) force: bool,
    /// Several processes may work on one run. On another host, one that gives no sign of life for so long is taken
    /// for dead, and its cells are taken over.
    #[arg(long, value_name = "SECONDS", default_value_t = crate::claims::STALE_AFTER)]
    pub(crate) stale_after: f64,
    /// Only the cells that a line of this file names by their keys; nothing is typeset. For `harness submit`.
    #[arg(long, value_name = "FILE", hide = true, requires = "line")]
    pub(crate) cells: Option<PathBuf>,
    /// The line, from 0.
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) line: Option<usize>,
    /// Compute nothing; store and typeset what is there. For `harness submit`.
    #[arg(long, hide = true, conflicts_with = "cells")]
    pub(crate) gather: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) matrix: MatrixArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// The file to write, instead of `report.html` in the run's folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    /// The folder of a run, such as `runs/digits`, or its matrix.
    pub(crate) run: PathBuf,
    /// Where runs are kept, for a matrix.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) out: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) matrix: MatrixArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// To Slurm: a job array for the trainings of each network, one for each attack, and a job for the tables.
    #[arg(long)]
    pub(crate) slurm: bool,
    /// Write the scripts and show the commands, but submit nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// As for sbatch.
    #[arg(long, value_name = "NAME")]
    pub(crate) partition: Option<String>,
    /// Longest time of a task, as for sbatch. A training that is cut off goes on when submitted again.
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// Processors of a task, and so its threads.
    #[arg(long, value_name = "N")]
    pub(crate) cpus_per_task: Option<u32>,
    /// As for sbatch, for example `gpu:1`.
    #[arg(long, value_name = "LIST")]
    pub(crate) gres: Option<String>,
    /// Tasks of one array that run at the same time, at most.
    #[arg(long, value_name = "N")]
    pub(crate) array_limit: Option<u32>,
    /// Any other option of sbatch, as in `--mem=8G`; only for some jobs as in `train:--mem=8G` or `resnet18:--mem=16G`.
    #[arg(long, value_name = "[WHAT:]OPTION", allow_hyphen_values = true)]
    pub(crate) sbatch: Vec<String>,
    /// Where tensors live in the tasks, as for `run`.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// As for `run`.
    #[arg(long)]
    pub(crate) precision: Option<kernels::device::Precision>,
    /// As for `run`.
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// As for `run`.
    #[arg(long, value_name = "SECONDS", default_value_t = crate::claims::STALE_AFTER)]
    pub(crate) stale_after: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TablesArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// What to print. All formats are written to the run's folder in any case, with the looks that other options ask
    /// for; they stay until the matrix is run again.
    #[arg(long, default_value = "markdown")]
    pub(crate) format: Format,
    /// Add a column with the worst case of each image over these attacks, such as `pgd-20,cw`; a transferred one is
    /// written `transfer/pgd-20`. Nothing runs again. May be repeated.
    #[arg(long, value_name = "ATTACK,ATTACK…")]
    pub(crate) worst_of: Vec<String>,
    /// What stands beside a mean.
    #[arg(long)]
    pub(crate) style: Option<SpreadStyle>,
    /// A line for each defense, or for each defense and attack. Unless given: the first, and in CSV the second.
    #[arg(long)]
    pub(crate) form: Option<Form>,
    /// Whether the highest number of a column is bold, and those that are tied with it are marked.
    #[arg(long)]
    pub(crate) bold: Option<Switch>,
    /// Mark the numbers that differ from this defense's by more than chance, such as `--against standard`.
    #[arg(long, value_name = "DEFENSE")]
    pub(crate) against: Option<String>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    Attacks,
    Defenses,
    Models,
    Datasets,
}
