use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::args::SubmitArgs;
use crate::exit::{Exit, Stop};
use crate::schedule::slurm::{self, SubmitRequest};

/// Submits what is neither finished nor queued.
pub(super) fn main(args: &SubmitArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    if !args.slurm {
        return Err(Stop::usage(
            "say where to submit; the only scheduler is Slurm: `--slurm`",
        ));
    }
    let request = SubmitRequest {
        matrix: args.matrix.request(),
        filter: args.select.filter.clone(),
        out: args.select.out.clone(),
        data_dir: args.data.data_dir.clone(),
        replace: args.replace.replace,
        dry_run: args.dry_run,
        partition: args.partition.clone(),
        time: args.time.clone(),
        cpus_per_task: args.cpus_per_task,
        gres: args.gres.clone(),
        array_limit: args.array_limit,
        sbatch: args.sbatch.clone(),
        device: args.device.clone(),
        precision: args.precision,
        deterministic: args.deterministic,
        stale_after: args.stale_after,
    };
    slurm::submit(&request, methods, out)?;
    Ok(Exit::Success)
}
