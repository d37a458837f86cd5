use std::io::Write;

use anyhow::Result;
use datasets::{Mirrors, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use super::args::FetchArgs;
use crate::exit::{Exit, Stop};
use crate::stderr::say;

/// Downloads data sets.
pub(super) fn main(args: &FetchArgs, out: &mut dyn Write) -> Result<Exit> {
    let root = datasets::root(args.data.data_dir.as_deref()).map_err(|error| Stop::usage(error.to_string()))?;
    for name in &args.names {
        datasets::entry(name).map_err(|error| Stop::usage(error.to_string()))?;
    }
    for name in &args.names {
        let bar = ProgressBar::new(0);
        let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
        datasets::fetch(name, &root, &Mirrors::from_env(), &mut |progress| show(&bar, progress))
            .map_err(|error| Stop::usage(error.to_string()))?;
        bar.finish_and_clear();
        writeln!(out, "{name}: complete and verified in {}", root.display())?;
    }
    Ok(Exit::Success)
}

fn show(bar: &ProgressBar, progress: Progress<'_>) {
    match progress {
        Progress::Waiting => bar.set_message("waiting for another download of the same data set"),
        Progress::Bytes { file, done, total } => {
            bar.set_message(file.to_string());
            bar.set_length(total);
            bar.set_position(done);
        }
        Progress::Failed { url, reason } => bar.suspend(|| say(format_args!("warning: {url}: {reason}"))),
        Progress::Unpacking { file } => bar.set_message(format!("unpacking {file}")),
        Progress::Present { file } | Progress::Asking { file, .. } | Progress::Done { file } => {
            bar.set_message(file.to_string());
        }
    }
}
