//! The program's commands, and how arguments become one of them.

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use super::args::{
    AttackArgs, CompletionsArgs, FetchArgs, LsArgs, ManArgs, MatrixArgs, PlanArgs, RunArgs, StatusArgs, SubmitArgs,
    VerifyExamplesArgs, WatchArgs,
};
use super::finished_args::{CheckArgs, CleanArgs, CompareArgs, ExportArgs, ReportArgs, TablesArgs, VerifyArgs};

/// Benchmark of adversarial training: trains every network of a matrix, attacks it, stores every
/// outcome and typesets the tables.
#[derive(Debug, Parser)]
#[command(
    name = "rampart",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    override_usage = "rampart MATRIX.yaml [OPTIONS]\n       rampart COMMAND",
    after_help = "Exit codes: 0 success · 1 a write failed, or an unexpected error · 2 mistake in the command, matrix or data · \
                  3 some cells failed or are not finished · 4 no cell selected · 5 regression · 6 integrity · \
                  130 interrupted, run again to continue"
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
            let subcommand = program.get_subcommands().any(|command| command.get_name() == first);
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
    /// Train, attack, store and typeset everything a matrix asks for. A bare path means this.
    Run(RunArgs),
    /// List the cells of a matrix, the state of each, and the work that is left.
    Plan(PlanArgs),
    /// Show the progress of a run: which process computes which cell, what failed, and the time left.
    Status(StatusArgs),
    /// Follow the progress of a run in the terminal.
    Watch(WatchArgs),
    /// Submit the unfinished cells to a cluster's scheduler.
    Submit(SubmitArgs),
    /// Check a matrix without reading data or computing anything.
    Validate(MatrixArgs),
    /// List what a matrix can name, or describe one of them in full: fields, defaults, the authors' recipe.
    Ls(LsArgs),
    /// Print the JSON Schema of matrices, for editors.
    Schema,
    /// Typeset the tables of a run again.
    Tables(TablesArgs),
    /// Write a run as one HTML page: tables, flags, curves, images, every cell, and its origin.
    Report(ReportArgs),
    /// Compare results with a baseline: did they change by more than chance? If so, the exit code is 5.
    Compare(CompareArgs),
    /// Check that a run is complete, unmodified and consistent. Computes nothing and needs no data.
    Check(CheckArgs),
    /// List the cells in a run's folder that its plan does not need, and remove them.
    Clean(CleanArgs),
    /// Compute some cells of a run again, from the matrix, and compare every byte.
    Verify(VerifyArgs),
    /// Write a trained network as safetensors under the authors' parameter names, for PyTorch.
    Export(ExportArgs),
    /// Attack a network from a file: safetensors or a PyTorch checkpoint.
    Attack(AttackArgs),
    /// Evaluate saved adversarial images again, and check that they keep the threat model.
    VerifyExamples(VerifyExamplesArgs),
    /// Download data sets from their official mirrors and verify them.
    Fetch(FetchArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Write manual pages for the program and every command into a folder.
    Man(ManArgs),
}
