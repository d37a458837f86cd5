use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::read_matrix;
use crate::cli::MatrixArgs;
use crate::exit::Exit;

/// Checks everything that can be checked without reading data.
pub(crate) fn main(args: &MatrixArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let matrix = read_matrix(args)?;
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
