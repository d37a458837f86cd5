//! Doors to the readers of files, for the fuzzer in `fuzz`. Not meant for anybody else.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use plan::Plan;
use plan::matrix::{Matrix, Source};
use plan::tables::RunTables;
use storage::{cell_folder, checkpoint, files, leases};

use crate::publish::compare;
use crate::{compute::training, table_specs};

/// What a matrix can name.
#[derive(Debug)]
pub struct Methods(plan::Methods);

impl Methods {
    /// What comes with the program.
    pub fn builtin() -> Self {
        Self(plan::Methods::builtin())
    }
}

/// Reads a matrix and resolves it without data. Returns every folder that the run would write to.
pub fn matrix(text: &str, methods: &Methods) -> Result<Vec<PathBuf>, String> {
    let plan = resolve(text, methods)?;
    let root = Path::new("runs").join(&plan.name);
    let cells = plan.cells().map(|cell| plan.folder(&root, cell));
    Ok(std::iter::once(root.clone()).chain(cells).collect())
}

/// Reads a training's checkpoint. Returns each tensor's name and shape.
pub fn checkpoint(bytes: &[u8]) -> Result<Vec<(String, Vec<usize>)>, String> {
    let (tensors, _) =
        checkpoint::parse::<training::CheckpointInfo>(bytes, &Device::Cpu).map_err(|error| format!("{error:#}"))?;
    Ok(tensors
        .into_iter()
        .map(|(name, tensor)| (name, tensor.dims().to_vec()))
        .collect())
}

/// The text of a sealed JSON file as if it had never been sealed.
pub fn unsealed(bytes: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).ok().and_then(results::seal::json::unseal);
    format!("{}\n}}", text.expect("a sealed file")).into_bytes()
}

/// Text with a seal that fits, as a forger would make it; what is no object stays as it is.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let body = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.trim_end().strip_suffix('}'));
    body.map_or_else(|| bytes.to_vec(), |body| results::seal::json::seal(body).into_bytes())
}

/// Whether a cell whose folder holds these bytes as its status is finished.
pub fn status(folder: &Path, key: &str) -> bool {
    cell_folder::state(folder, key) == cell_folder::State::Done
}

/// Reads the first lease on a key in a run's folder. Returns every path that a process may move or remove when it takes
/// the lease over.
pub fn lease(run: &Path, key: &str) -> Option<Vec<PathBuf>> {
    let seen = leases::watch(run).expect("a folder that can be read");
    let holder = leases::read_holder(run, key, 1)?;
    // A holder that never joined the run counts as dead.
    assert!(seen.is_empty());
    let files = [leases::process_file, leases::progress_file].map(|file| file(run, &holder.by));
    Some(files.into_iter().chain([holder.work.folder(run)]).collect())
}

/// Reads what a process reports about itself. Returns after how many seconds of silence it counts as dead.
pub fn process(run: &Path, token: &str) -> Option<f64> {
    let token = token.parse().expect("a token");
    leases::ProcessInfo::read(run, &token).map(|info| info.stale_after)
}

/// Reads what a run's tables show. Returns every file that it names, as a path from the run's folder.
pub fn tables(run: &Path) -> Result<Vec<PathBuf>, String> {
    table_specs::named_files(run).map_err(|error| format!("{error:#}"))
}

/// Reads a baseline, and writes it as one.
pub fn baseline(text: &str) -> Result<String, String> {
    compare::rewrite(text)
}

/// Whether a name is that of a file in a folder, and leads nowhere else.
pub fn is_plain(name: &str) -> bool {
    files::is_plain(name)
}

/// A checkpoint as a training writes it.
pub fn sample_checkpoint() -> Vec<u8> {
    let tensor = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).expect("a small tensor");
    let tensors = [
        ("model.w", tensor(&[2, 3])),
        ("model.bias", tensor(&[3])),
        ("optimizer.step", tensor(&[])),
    ];
    let tensors = tensors.map(|(name, tensor)| (name.to_string(), tensor)).into();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("it.safetensors");
    checkpoint::save(&file, &tensors, &training::CheckpointInfo::sample()).expect("a small file");
    std::fs::read(file).expect("the file that was written")
}

/// Marks a cell as finished.
pub fn finish(folder: &Path, key: &str, names: &[&str]) {
    cell_folder::finish(folder, key, "fuzz", names).expect("a small file");
}

/// Writes what the tables of a matrix show into a run's folder.
pub fn write_tables(text: &str, methods: &Methods, run: &Path) -> Result<(), String> {
    table_specs::write(run, &RunTables::of(&resolve(text, methods)?)).map_err(|error| format!("{error:#}"))
}

fn resolve(text: &str, methods: &Methods) -> Result<Plan, String> {
    let source = Source {
        file: "fuzzed.yaml".into(),
        text: text.to_string(),
    };
    let matrix = Matrix::parse(source, &[]).map_err(|error| error.to_string())?;
    plan::resolve(&matrix, &methods.0, None, None).map_err(|error| error.to_string())
}
