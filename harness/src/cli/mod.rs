//! The command line: its flags in `args` and `finished_args`, one file per command, and here dispatch and exit codes.

mod args;
mod finished_args;
mod parse;

mod attack;
mod check;
mod clean;
mod compare;
mod completions;
mod export;
mod fetch;
mod ls;
mod man;
mod plan;
mod report;
mod run;
mod schema;
mod status;
mod submit;
mod tables;
mod validate;
mod verify;
mod verify_examples;
mod watch;

mod convert;
mod output;

use std::io::Write;
use std::process::ExitCode;

use ::plan::Methods;
use ::plan::matrix::MatrixError;

use self::output::Output;
use self::parse::{Cli, Command};
use crate::exit::{Exit, Stop};
use crate::stderr::say;

/// Runs the command of this process's arguments. Results go to stdout, everything else to stderr.
pub(crate) fn main(methods: &Methods) -> ExitCode {
    kernels::keep_candle_on_one_thread();
    if let Err(message) = check_surroundings() {
        say(format_args!("error: {message}"));
        return ExitCode::from(Exit::Usage as u8);
    }
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version were requested; anything else is a mistake. clap knows which is which.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    let mut out = Output::new(std::io::stdout().lock());
    let exit = match dispatch(&cli.command, methods, &mut out).and_then(|exit| Ok((out.finish()?, exit).1)) {
        Ok(exit) => exit,
        // A reader that follows this program's output has closed it.
        Err(error) if is_broken_pipe(&error) => Exit::Success,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            exit_of(&error)
        }
    };
    ExitCode::from(exit as u8)
}

/// Fails for arguments that cannot be recorded in a manifest, and for an invalid environment variable.
fn check_surroundings() -> Result<(), String> {
    kernels::check_instructions()?;
    match std::env::args_os().find(|argument| argument.to_str().is_none()) {
        None => Ok(()),
        Some(argument) => Err(format!(
            "the argument `{}` is not text in UTF-8, and a run records its arguments as text; rename the file or folder",
            argument.to_string_lossy()
        )),
    }
}

fn dispatch(command: &Command, methods: &Methods, out: &mut dyn Write) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => run::main(args, methods, out),
        Command::Plan(args) => plan::main(args, methods, out),
        Command::Status(args) => status::main(args, out),
        Command::Watch(args) => watch::main(args, out),
        Command::Submit(args) => submit::main(args, methods, out),
        Command::Validate(args) => validate::main(args, methods, out),
        Command::Ls(args) => ls::main(args, methods, out),
        Command::Schema => schema::main(methods, out),
        Command::Report(args) => report::main(args, out),
        Command::Tables(args) => tables::main(args, out),
        Command::Compare(args) => compare::main(args, out),
        Command::Check(args) => check::main(args, methods, out),
        Command::Clean(args) => clean::main(args, out),
        Command::Verify(args) => verify::main(args, methods, out),
        Command::Export(args) => export::main(args, out),
        Command::Attack(args) => attack::main(args, methods, out),
        Command::VerifyExamples(args) => verify_examples::main(args, methods, out),
        Command::Fetch(args) => fetch::main(args, out),
        Command::Completions(args) => completions::main(args, out),
        Command::Man(args) => man::main(args, out),
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
        if cause.is::<MatrixError>() || cause.is::<storage::UserError>() {
            return Exit::Usage;
        }
    }
    Exit::Unexpected
}
