//! What a manifest records of the matrix, the data, the program and the machine.

use serde::{Deserialize, Serialize};

use crate::host;

/// A matrix with the command line's changes to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixFacts {
    /// The matrix's text.
    pub text: String,
    /// BLAKE3 of the text.
    pub blake3: String,
    /// Values of `--set`.
    pub set: Vec<String>,
    /// Value of `--limit`.
    pub limit: Option<usize>,
    /// Value of `--seed`.
    pub seed: Option<u64>,
}

/// The plan that a matrix resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFacts {
    /// BLAKE3 of the keys of all cells, which are hashes of their resolved configurations.
    pub blake3: String,
    /// How many trainings there are.
    pub trainings: usize,
    /// How many evaluations there are.
    pub evaluations: usize,
    /// The seeds of the trainings.
    pub seeds: Vec<u64>,
}

/// A data set as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetFacts {
    /// Digest of the images and labels.
    pub digest: String,
    /// Whether that is the published data set's.
    pub verified: bool,
}

/// One run of the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invocation {
    /// Start, process and machine.
    pub id: String,
    /// The command line.
    pub arguments: Vec<String>,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub started: u64,
    /// `null`: it was killed, or is still running.
    pub end: Option<End>,
    /// Hash of the plan it worked on.
    pub plan: String,
    /// Hash of the matrix's text.
    pub matrix: String,
    /// The program.
    pub program: Program,
    /// The machine.
    pub machine: Machine,
    /// How the program was run.
    pub settings: Settings,
}

/// How an invocation ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The exit code.
    pub exit: u8,
    /// Cells that ended, with a result or without.
    pub cells_ended: usize,
    /// How long it took.
    pub seconds: f64,
    /// What all threads together spent on writing, forcing to disk and hashing files.
    pub bookkeeping_seconds: f64,
}

/// What the program was built from. `null`: not known, as outside a git checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// The commit.
    pub commit: Option<String>,
    /// Whether files that are compiled differed from the commit's.
    pub dirty: Option<bool>,
    /// BLAKE3 of `Cargo.lock`.
    pub cargo_lock: String,
    /// The compiler's version.
    pub compiler: Option<String>,
    /// The platform.
    pub target: Option<String>,
    /// Cargo's profile.
    pub profile: Option<String>,
    /// The optimization level.
    pub opt_level: Option<String>,
    /// Flags of the compiler.
    pub flags: Option<String>,
    /// Features that were on.
    pub features: Vec<String>,
}

/// The machine that computed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The host's name.
    pub host: String,
    /// Operating system and architecture.
    pub system: String,
    /// Version of the operating system's kernel.
    pub kernel: Option<String>,
    /// The processor's model.
    pub processor: String,
    /// Vector instructions that the kernels use.
    pub instructions: String,
    /// Threads that the processor runs at once.
    pub cores: Option<usize>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Where tensors are: `cpu`, or a GPU with its name.
    pub device: String,
    /// Version of the NVIDIA driver.
    pub nvidia_driver: Option<String>,
}

/// Settings that no result depends on, except for a GPU's precision, which is part of `machine.device`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Threads that compute.
    pub threads: usize,
    /// Cells computed at once.
    pub jobs: usize,
    /// Images in a batch of an evaluation.
    pub evaluation_batch: usize,
    /// Seconds between two saves.
    pub checkpoint_every: f64,
}

impl MatrixFacts {
    /// From a matrix's text and the command line's changes.
    pub fn new(text: &str, set: &[String], limit: Option<usize>, seed: Option<u64>) -> Self {
        Self {
            text: text.to_string(),
            blake3: digest(text.as_bytes()),
            set: set.to_vec(),
            limit,
            seed,
        }
    }
}

impl PlanFacts {
    /// Of a plan with these cells and the seeds of these trainings, in any order.
    pub fn new<'a>(keys: impl Iterator<Item = &'a str>, training_seeds: &[u64]) -> Self {
        let mut keys: Vec<&str> = keys.collect();
        keys.sort_unstable();
        let mut seeds = training_seeds.to_vec();
        seeds.sort_unstable();
        seeds.dedup();
        Self {
            blake3: digest(keys.join("\n").as_bytes()),
            trainings: training_seeds.len(),
            evaluations: keys.len() - training_seeds.len(),
            seeds,
        }
    }
}

impl Machine {
    /// This machine, computing with these vector instructions on this device.
    pub fn this(instructions: &str, device: &str) -> Self {
        Self {
            host: host::name(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            kernel: host::kernel(),
            processor: host::processor(),
            instructions: instructions.to_string(),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory: host::memory(),
            device: device.to_string(),
            nvidia_driver: host::nvidia_driver(),
        }
    }
}

/// BLAKE3 in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
