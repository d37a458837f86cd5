use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::args::PlanArgs;
use crate::exit::Exit;
use crate::schedule::{Forecast, select};

/// Lists cells, the state of each, and what is left to compute.
pub(super) fn main(args: &PlanArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let request = args.matrix.request();
    let (plan, data) = request.resolve(&request.read()?, methods, args.data.data_dir.as_deref())?;
    let cells = plan.needed(&select(&plan, &args.select.filter)?);
    let forecast = Forecast::of(&plan, cells, &data, &args.select.out.join(&plan.name))?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&forecast.json())?)?;
    } else {
        forecast.print(out)?;
    }
    Ok(Exit::Success)
}
