use std::io::Write;

use anyhow::Result;

use super::finished_args::ExportArgs;
use crate::exit::Exit;
use crate::publish::export;

/// Writes a trained network as PyTorch users expect it.
pub(super) fn main(args: &ExportArgs, out: &mut dyn Write) -> Result<Exit> {
    let exported = export(&args.source, &args.filter, &args.out)?;
    let about = exported.about;
    let [channels, height, width] = about.image;
    writeln!(
        out,
        "{}: {} for images {channels}×{height}×{width} and {} classes, epoch {}, out of {}",
        args.out.display(),
        about.network,
        about.classes,
        about.epoch,
        exported.from.display(),
    )?;
    Ok(Exit::Success)
}
