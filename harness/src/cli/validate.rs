use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::args::MatrixArgs;
use crate::exit::Exit;

/// Checks everything that can be checked without reading data.
pub(super) fn main(args: &MatrixArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let matrix = args.request().read()?;
    let plan = plan::resolve(&matrix, methods, args.seed, None)?;
    writeln!(
        out,
        "{}: {} trainings and {} evaluations, no mistake found",
        args.matrix.display(),
        plan.trainings.len(),
        plan.evaluations.len(),
    )?;
    Ok(Exit::Success)
}
