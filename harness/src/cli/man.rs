use std::io::Write;
use std::path::Path;

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use storage::files;

use super::args::ManArgs;
use super::parse::Cli;
use crate::exit::Exit;

/// Writes a manual page for the program and one for each command.
pub(super) fn main(args: &ManArgs, out: &mut dyn Write) -> Result<Exit> {
    files::make_folder(&args.folder)?;
    let program = Cli::program();
    write(&args.folder, "rampart", program.clone(), out)?;
    for command in program
        .get_subcommands()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set())
    {
        write(
            &args.folder,
            &format!("rampart-{}", command.get_name()),
            command.clone(),
            out,
        )?;
    }
    Ok(Exit::Success)
}

fn write(folder: &Path, title: &str, command: Command, out: &mut dyn Write) -> Result<()> {
    let file = folder.join(format!("{title}.1"));
    let mut page = Vec::new();
    let command = command.version(env!("CARGO_PKG_VERSION"));
    Man::new(command).title(title).render(&mut page)?;
    files::write(&std::path::absolute(&file)?, &page)?;
    writeln!(out, "{}", file.display())?;
    Ok(())
}
