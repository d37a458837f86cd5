use std::io::Write;

use anyhow::Result;

use super::args::CompletionsArgs;
use super::parse::Cli;
use crate::exit::Exit;

/// Prints a completion script for a shell.
pub(super) fn main(args: &CompletionsArgs, out: &mut dyn Write) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::program(), "rampart", &mut script);
    out.write_all(&script)?;
    Ok(Exit::Success)
}
