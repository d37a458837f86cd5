//! Writes a trained network as PyTorch users expect it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use storage::{cell_folder, checkpoint, files};

use super::find::find;
use crate::compute::training::CheckpointInfo;
use crate::exit::{Exit, Stop};

/// What was exported.
pub(crate) struct Exported {
    /// The checkpoint it was read from.
    pub(crate) from: PathBuf,
    pub(crate) about: CheckpointInfo,
}

/// Writes the one checkpoint in `source` that passes the filters to a file.
pub(crate) fn export(source: &Path, filters: &[String], file: &Path) -> Result<Exported> {
    let found = find(source, filters)?;
    check(&found.file)?;
    let (tensors, about): (_, CheckpointInfo) =
        checkpoint::load(&found.file, &Device::Cpu).map_err(|error| Stop::usage(format!("{error:#}")))?;
    let tensors = checkpoint::part(&tensors, "model.");
    let mut buffers = Vec::new();
    for (name, tensor) in &tensors {
        let (dtype, bytes) = bytes(name, tensor)?;
        buffers.push((name, dtype, tensor.dims().to_vec(), bytes));
    }
    let views = buffers.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as the shape needs");
        (name.as_str(), view)
    });
    // One entry, so that equal content is equal bytes.
    let metadata = json!({
        "network": about.network, "image": about.image, "classes": about.classes, "epoch": about.epoch,
        "training": about.key, "cell": found.slug,
    });
    let bytes = safetensors::serialize(views, Some([("rampart".to_string(), metadata.to_string())].into()))?;
    files::write(&std::path::absolute(file)?, &bytes)?;
    Ok(Exported {
        from: found.file,
        about,
    })
}

/// Refuses a checkpoint of a finished cell that is not what the cell wrote.
fn check(file: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    // A file without a cell around it has no record.
    if !matches!(cell_folder::status(folder), Ok(Some(_))) {
        return Ok(());
    }
    cell_folder::read_file(folder, name).map_err(|error| Stop {
        exit: Exit::Integrity,
        message: format!("{error:#}"),
    })?;
    Ok(())
}

/// A tensor's bytes as PyTorch keeps them: counts of updates are integers.
fn bytes(name: &str, tensor: &Tensor) -> Result<(Dtype, Vec<u8>)> {
    let flat = tensor.flatten_all()?;
    Ok(if name.ends_with("num_batches_tracked") {
        let counts: Vec<i64> = flat.to_dtype(DType::I64)?.to_vec1()?;
        (
            Dtype::I64,
            counts.iter().flat_map(|count| count.to_le_bytes()).collect(),
        )
    } else {
        let values: Vec<f32> = flat.to_vec1()?;
        (
            Dtype::F32,
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )
    })
}
