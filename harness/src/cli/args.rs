//! Every flag of every command.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;
use kernels::device::Precision;
use storage::leases::STALE_AFTER;

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
    /// Use this seed instead of the matrix's.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DataArgs {
    /// The folder of data sets. Default: the environment variable RAMPART_DATA_DIR, else the cache folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SelectArgs {
    /// Only cells whose `dataset`, `network`, `defense`, `attack`, `checkpoint` or `seed` has this
    /// value, as in `defense=mart`. Several values of one key widen the selection, several keys narrow it.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// The folder of all runs; this run goes into the subfolder named after the matrix.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReplaceArgs {
    /// Replace the tables and results of another plan in the run's folder. Its finished cells stay, and those that both
    /// plans have are used.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// Where tensors are computed: `cpu`, `cuda`, `cuda:N`, or `auto`, a GPU if there is one.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// The arithmetic of convolutions on a GPU: `tf32`, as in PyTorch, `f32` or `bf16`.
    #[arg(long, default_value = "tf32")]
    pub(crate) precision: Precision,
    /// On a GPU, give the same bits every time on the same card; slower. A CPU always does.
    #[arg(long)]
    pub(crate) deterministic: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) matrix: MatrixArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Cells computed at the same time. Default: one, or one per thread if every network is small.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Threads in total. Default: one per core.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Examples attacked together in an evaluation: fewer need less memory. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub(crate) evaluation_batch: Option<usize>,
    /// Seconds between checkpoints; a kill loses at most this much work.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub(crate) checkpoint_every: f64,
    /// Stop at the first failed cell.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Recompute the selected cells and the trainings they need.
    #[arg(long)]
    pub(crate) force: bool,
    /// Several processes may work on one run. A process on another host that shows no sign of life for this long
    /// counts as dead, and others take over its cells.
    #[arg(long, value_name = "SECONDS", default_value_t = STALE_AFTER)]
    pub(crate) stale_after: f64,
    /// Compute only the cells whose keys are in a line of this file, and typeset nothing. For `rampart submit`.
    #[arg(long, value_name = "FILE", hide = true, requires = "line")]
    pub(crate) cells: Option<PathBuf>,
    /// The line, counted from 0.
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) line: Option<usize>,
    /// Compute nothing; store and typeset what is finished. For `rampart submit`.
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
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    /// The folder of a run, such as `runs/digits`, or its matrix.
    pub(crate) run: PathBuf,
    /// The folder of all runs, for a matrix.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Ends with exit code 0 when every cell is done, 3 when no cell is left and some failed. Ctrl-C ends watching and \
                  does not affect the run. If stdout is not a terminal, prints plain lines whenever a cell finishes."
)]
pub(crate) struct WatchArgs {
    /// The folder of a run, such as `runs/digits`, or its matrix.
    pub(crate) run: PathBuf,
    /// The folder of all runs, for a matrix.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) out: PathBuf,
    /// Print the progress once, as plain text, and exit.
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds between two updates.
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    pub(crate) every: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) matrix: MatrixArgs,
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Submit to Slurm: a job array for the trainings of each network, one for each attack, and a job for the tables.
    #[arg(long)]
    pub(crate) slurm: bool,
    /// Write the scripts and show the commands, but submit nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// As for sbatch.
    #[arg(long, value_name = "NAME")]
    pub(crate) partition: Option<String>,
    /// Time limit of a task, as for sbatch. An interrupted training continues when submitted again.
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
    /// Any other option of sbatch, as in `--mem=8G`; for some jobs only, as in `train:--mem=8G` or `resnet18:--mem=16G`.
    #[arg(long, value_name = "[WHAT:]OPTION", allow_hyphen_values = true)]
    pub(crate) sbatch: Vec<String>,
    /// Where the tasks compute tensors, as for `run`.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// As for `run`.
    #[arg(long)]
    pub(crate) precision: Option<Precision>,
    /// As for `run`.
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// As for `run`.
    #[arg(long, value_name = "SECONDS", default_value_t = STALE_AFTER)]
    pub(crate) stale_after: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LsArgs {
    /// What to list.
    pub(crate) kind: Listing,
    /// Describe one of them, as in `rampart ls defenses mart`.
    pub(crate) name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    Attacks,
    Defenses,
    Models,
    Datasets,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// The network's parameters: safetensors or PyTorch's `.pt` and `.pth`, from this program or any other.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: PathBuf,
    /// The network's architecture, as `rampart ls models` names it.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Ignore an entry of the checkpoint that the architecture does not have; `mu*` is every entry that begins like that.
    /// May be repeated.
    #[arg(long, value_name = "ENTRY")]
    pub(crate) ignore: Vec<String>,
    /// Where the checkpoint holds the network more than once, the one to take: a dictionary's key, such as `ema`, or the
    /// start of its names, such as `module.model`.
    #[arg(long, value_name = "KEY")]
    pub(crate) entry: Option<String>,
    /// What to subtract from each channel of an image before the network sees it, as in
    /// `0.4914,0.4822,0.4465`. Images and threat model stay in [0, 1].
    #[arg(long, value_name = "M,M,M", value_delimiter = ',', requires = "std")]
    pub(crate) mean: Vec<f64>,
    /// What to divide each channel by after that.
    #[arg(long, value_name = "S,S,S", value_delimiter = ',', requires = "mean")]
    pub(crate) std: Vec<f64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AttackArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The data set whose test images are attacked.
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: String,
    /// An attack: a name as `rampart ls attacks` shows it, or an entry of a matrix such as
    /// `{ name: pgd, steps: 40 }`. May be repeated. Default: FGSM and PGD. Clean images are always evaluated.
    #[arg(long, value_name = "ATTACK")]
    pub(crate) attack: Vec<String>,
    /// The threat model, such as `linf:8/255` or `l2:0.5`. Default: linf:8/255 in colour,
    /// linf:0.3 on grey digits.
    #[arg(long, value_name = "NORM:RADIUS")]
    pub(crate) threat: Option<String>,
    /// Attack only this many test images, with the same share of each class.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Seed of the attacks' random starts.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Accept data whose checksums are not the official ones. Rows then record it.
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Write rows and outcomes per image into this folder, as Parquet and CSV.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// A transfer attack: make the images on this network and evaluate them on the other.
    #[arg(long, value_name = "FILE")]
    pub(crate) source: Option<PathBuf>,
    /// The source's architecture. Default: that of the other network.
    #[arg(long, value_name = "NAME", requires = "source")]
    pub(crate) source_model: Option<String>,
    /// As `--entry`, for the source.
    #[arg(long, value_name = "KEY", requires = "source")]
    pub(crate) source_entry: Option<String>,
    /// Keep the adversarial images of the one attack in this file, as safetensors.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_examples: Option<PathBuf>,
    /// Where tensors are computed, as for `run`.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Threads in total. Default: one per core.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyExamplesArgs {
    /// The examples: safetensors, `.npz`, or what `torch.save` makes of a dictionary or tuple, with `adversarial` (or
    /// `x_adv`, `adv_complete`, `adv_inputs`), `labels` (or `y`), and `clean` (or `x`, `inputs`) or `ids`.
    pub(crate) examples: PathBuf,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The data set they were made from. Its images and labels are compared with the file's by `ids`, if it has them.
    /// In a file without labels, or without both `clean` and `ids`, its test images are found by the images. Default: the
    /// one the file names, and then only for the number of classes if the file has `clean`.
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// The threat model, such as `linf:8/255`. Default: the one the file names.
    #[arg(long, value_name = "NORM:RADIUS")]
    pub(crate) threat: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Accept data whose checksums are not the official ones.
    #[arg(long)]
    pub(crate) no_verify: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct FetchArgs {
    /// Data sets, as `rampart ls datasets` names them.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ManArgs {
    /// The folder, such as `~/.local/share/man/man1`. It is created if needed.
    pub(crate) folder: PathBuf,
}
