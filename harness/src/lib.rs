//! Rampart's program: one YAML matrix of data sets × networks × defenses × attacks × seeds, trained,
//! attacked, stored and typeset by one command. [`Harness`] is the program, with methods of your own if you like.

mod cli;
mod commands;

mod cost;
mod data;
mod evaluation;
mod lessons;
mod run;
mod training;

mod examples;
mod external;

mod checkpoint;
mod claims;
mod compare;
mod figures;
mod files;
mod folder;
mod galleries;
mod manifest;
mod tables;

#[doc(hidden)]
pub mod fuzzing;

mod device;
mod exit;
mod failure;
mod host;
mod program;
mod progress;

use std::io::Write;
use std::process::ExitCode;

use ::plan::Methods;
use ::plan::matrix::MatrixError;

use crate::cli::{Cli, Command};
pub use crate::exit::Exit;
use crate::exit::Stop;
pub use crate::program::Harness;

/// Results go to stdout, everything else to stderr.
fn main(methods: &Methods) -> ExitCode {
    kernels::keep_candle_on_one_thread();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, the rest is a mistake; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    let mut out = std::io::stdout().lock();
    let exit = match dispatch(&cli, methods, &mut out).and_then(|exit| Ok((out.flush()?, exit).1)) {
        Ok(exit) => exit,
        // The reader of our output has seen enough.
        Err(error) if is_broken_pipe(&error) => Exit::Success,
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_of(&error)
        }
    };
    ExitCode::from(exit as u8)
}

fn dispatch(cli: &Cli, methods: &Methods, out: &mut dyn Write) -> anyhow::Result<Exit> {
    match &cli.command {
        Command::Run(args) => commands::run::main(args, methods, out),
        Command::Plan(args) => commands::plan::main(args, methods, out),
        Command::Status(args) => commands::status::main(args, out),
        Command::Watch(args) => commands::watch::main(args, out),
        Command::Submit(args) => commands::submit::main(args, methods, out),
        Command::Validate(args) => commands::validate::main(args, methods, out),
        Command::Ls { kind, name, json } => commands::ls::main(*kind, name.as_deref(), *json, methods, out),
        Command::Schema => commands::schema::main(methods, out),
        Command::Report(args) => commands::report::main(args, out),
        Command::Tables(args) => commands::tables::main(args, out),
        Command::Compare(args) => commands::compare::main(args, out),
        Command::Check(args) => commands::check::main(args, methods, out),
        Command::Verify(args) => commands::verify::main(args, methods, out),
        Command::Export(args) => commands::export::main(args, out),
        Command::Attack(args) => commands::attack::main(args, methods, out),
        Command::VerifyExamples(args) => commands::verify_examples::main(args, methods, out),
        Command::Fetch { names, data } => commands::fetch::main(names, data, out),
        Command::Completions(args) => commands::completions::main(args, out),
        Command::Man(args) => commands::man::main(args, out),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(stop) = cause.downcast_ref::<Stop>() {
            return stop.exit;
        }
        if cause.is::<MatrixError>() {
            return Exit::Usage;
        }
    }
    Exit::Unexpected
}
