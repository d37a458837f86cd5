use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::finished_args::CheckArgs;
use crate::audit::Audit;
use crate::exit::Exit;

/// Checks that a run is complete, unmodified and consistent.
pub(super) fn main(args: &CheckArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let audit = Audit::of(&args.run, methods)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&audit.json())?)?;
    } else {
        audit.print(out)?;
    }
    Ok(audit.exit())
}
