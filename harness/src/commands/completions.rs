use std::io::Write;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;

/// For which shell.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Prints a script with which a shell completes commands and options.
pub(crate) fn main(args: &CompletionsArgs, out: &mut dyn Write) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::program(), "harness", &mut script);
    out.write_all(&script)?;
    Ok(Exit::Success)
}
