use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::finished_args::VerifyArgs;
use crate::audit::{RecomputeRequest, recompute};
use crate::exit::Exit;

/// Computes cells again and compares them with the run's.
pub(super) fn main(args: &VerifyArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let (device, device_name) = args.device.open()?;
    let request = RecomputeRequest {
        run: &args.run,
        cells: &args.cells,
        filter: &args.filter,
        keep_trainings: args.keep_trainings,
        data_dir: args.data.data_dir.as_deref(),
        device,
        device_name,
        jobs: args.jobs,
    };
    let Some(recomputed) = recompute(request, methods)? else {
        return Ok(Exit::Interrupted);
    };
    let differ = recomputed.compare(out)?;
    Ok(if differ == 0 { Exit::Success } else { Exit::Integrity })
}
