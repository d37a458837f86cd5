use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::args::AttackArgs;
use crate::compute::data::Data;
use crate::compute::external::{self, AttackRequest};
use crate::exit::{Exit, Stop};
use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::stderr::say;
use crate::{audit, device, publish};

/// Attacks a network from a file. Mistakes are found before anything is computed, and nothing is written before that.
pub(super) fn main(args: &AttackArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    args.check()?;
    device::set_threads(args.threads)?;
    let (device, device_name) = device::parse(&args.device)?;
    let entry = datasets::entry(&args.dataset).map_err(|error| Stop::usage(error.to_string()))?;
    let threat = args.threat.as_deref().map(external::threat).transpose()?;
    let setting = external::setting(entry, &args.network.model, threat);
    let attacks = external::named_attacks(&args.attack, methods, &setting)?;
    let load = |file: external::NetworkFile| file.load(&methods.networks, entry.image, entry.classes.len());
    let network = load(args.network.file())?;
    let source = args.source_file().map(load).transpose()?;
    let root = datasets::root(args.data.data_dir.as_deref()).map_err(|error| Stop::usage(error.to_string()))?;
    let data = Data::load_test(&args.dataset, args.limit, !args.no_verify, &root)?;
    for remark in &network.remarks {
        say(format_args!("{}: {remark}", args.network.checkpoint.display()));
    }
    let request = AttackRequest {
        network: &network,
        source: source.as_ref(),
        dataset: &args.dataset,
        data: &data,
        limit: args.limit,
        seed: args.seed,
        device: &device,
        device_name: &device_name,
    };
    let progress = Progress::new(attacks.len(), progress::stop_on_signal());
    let done = external::attack_all(&request, attacks, &progress);
    progress.finish();
    let done = match done {
        Err(Failure::Interrupted) => {
            say("interrupted; nothing was written");
            return Ok(Exit::Interrupted);
        }
        done => done.map_err(Failure::into_stop)?,
    };
    let rows: Vec<_> = done.iter().map(|done| request.row(done)).collect();
    publish::attack::print(&request, &setting, &done, &rows, out)?;
    if let Some(folder) = &args.out {
        publish::attack::store(folder, &args.dataset, &rows, &done)?;
        writeln!(out, "rows: {0}/results.parquet, {0}/results.csv", folder.display())?;
    }
    if let Some(file) = &args.save_examples {
        let last = done.last().expect("the attack that was asked for");
        request.examples(last)?.write(file)?;
        audit::check_saved(file, &network, last.evaluated.correct())?;
        writeln!(out, "examples: {} of {}", file.display(), last.attack.label)?;
    }
    Ok(Exit::Success)
}
