use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use super::args::WatchArgs;
use crate::exit::{Exit, Stop};
use crate::schedule::{RunProgress, run_folder, watch};

/// Follows the progress of a run in the terminal.
pub(super) fn main(args: &WatchArgs, out: &mut dyn Write) -> Result<Exit> {
    let every = Duration::try_from_secs_f64(args.every).ok();
    let every = every.filter(|every| *every >= Duration::from_millis(100));
    let every = every.ok_or_else(|| Stop::usage(format!("--every {}: must be at least 0.1 seconds", args.every)))?;
    watch(
        RunProgress::open(&run_folder(&args.run, &args.out)?)?,
        args.once,
        every,
        out,
    )
}
