use std::io::Write;

use anyhow::Result;

use super::read_matrix;
use crate::cli::MatrixArgs;
use crate::exit::Exit;
use crate::plan::{Methods, Plan};

/// Checks everything that can be checked without reading data.
pub(crate) fn main(args: &MatrixArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let matrix = read_matrix(args)?;
    let plan = Plan::resolve(&matrix, methods, args.seed, &mut |_| Ok(String::new()))?;
    writeln!(
        out,
        "{}: {} trainings and {} evaluations, no mistake found",
        args.matrix.display(),
        plan.trainings.len(),
        plan.evaluations.len(),
    )?;
    Ok(Exit::Success)
}
