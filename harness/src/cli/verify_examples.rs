use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::args::VerifyExamplesArgs;
use crate::audit::{ExamplesRequest, verify_examples};
use crate::exit::Exit;

/// Evaluates saved adversarial images again, and checks every rule they must keep.
pub(super) fn main(args: &VerifyExamplesArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let request = ExamplesRequest {
        file: &args.examples,
        network: args.network.file(),
        dataset: args.dataset.as_deref(),
        threat: args.threat.as_deref(),
        data_dir: args.data.data_dir.as_deref(),
        verify: !args.no_verify,
    };
    verify_examples(&request, &methods.networks, out)?;
    Ok(Exit::Success)
}
