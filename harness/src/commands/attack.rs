mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use clap::Args;
use models::Classifier;
use plan::Methods;
use plan::key_of;
use plan::matrix::{DatasetEntry, Limit};
use random::{Purpose, Stream};
use results::{Row, Timing, TimingKind};
use serde_json::json;

use self::report::{check_saved, examples, row, show, store};
use crate::cli::DataArgs;
use crate::data::Data;
use crate::device;
use crate::evaluation::{Judged, Scrutiny, Task, judge, untouched};
use crate::exit::{Exit, Stop};
use crate::external::{self, External, Judge, NetworkArgs};
use crate::failure::Failure;
use crate::host;
use crate::progress::Progress;

/// Raised whenever the same command starts to give other numbers.
const VERSION: u32 = 2;

/// What to attack, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct AttackArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The data set whose test split is attacked.
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: String,
    /// An attack: a name as `harness ls attacks` shows it, or an entry of a matrix such as
    /// `{ name: pgd, steps: 40 }`. May be repeated. Unless given: FGSM and PGD. Clean images always.
    #[arg(long, value_name = "ATTACK")]
    pub(crate) attack: Vec<String>,
    /// The threat model, such as `linf:8/255` or `l2:0.5`. Unless given: linf:8/255 in colour,
    /// linf:0.3 on grey digits.
    #[arg(long, value_name = "NORM:RADIUS")]
    pub(crate) threat: Option<String>,
    /// Attack only this many test images, with the classes' shares kept.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Seed of the attacks' random starts.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Accept data whose checksums are not the official ones. Rows then say so.
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Write rows and outcomes per image into this folder, as Parquet and CSV.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Make the images on this network and count them on the other: an attack by transfer.
    #[arg(long, value_name = "FILE")]
    pub(crate) source: Option<PathBuf>,
    /// Its architecture; that of the other unless given.
    #[arg(long, value_name = "NAME", requires = "source")]
    pub(crate) source_model: Option<String>,
    /// Keep the adversarial images of the one attack in this file, as safetensors.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_examples: Option<PathBuf>,
    /// Where tensors live.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Threads in all; every core unless given.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// An attack and what it left.
struct Done {
    judge: Judge,
    judged: Judged,
    adversarial: Tensor,
    timing: Timing,
    key: String,
}

/// Attacks somebody's network.
pub(crate) fn main(args: &AttackArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    // Every mistake is found before anything is computed, and nothing is written before all is computed.
    if args.limit == Some(0) {
        return Err(Stop::usage("--limit 0 leaves nothing to attack"));
    }
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|error| Stop::usage(format!("--threads {threads}: {error}")))?;
    }
    let (device, device_name) = device::parse(&args.device)?;
    let entry = datasets::entry(&args.dataset).map_err(|error| Stop::usage(error.to_string()))?;
    let threat = args.threat.as_deref().map(external::threat).transpose()?;
    let setting = external::setting(entry, &args.network.model, threat);
    let judges = judges(args, methods, &setting)?;
    for file in args.save_examples.iter().chain(&args.out) {
        check_place(file)?;
    }
    let network = args.network.load(&methods.networks, entry.image, entry.classes.len())?;
    let source = match &args.source {
        None => None,
        Some(checkpoint) => {
            let source = NetworkArgs {
                checkpoint: checkpoint.clone(),
                model: args.source_model.clone().unwrap_or_else(|| args.network.model.clone()),
                ..args.network.clone()
            };
            Some(source.load(&methods.networks, entry.image, entry.classes.len())?)
        }
    };
    let cut = DatasetEntry {
        name: args.dataset.clone(),
        validation: 0,
        labeled: None,
        extra: None,
        limit: Limit {
            train: None,
            test: args.limit,
        },
        verify: !args.no_verify,
    };
    let root = datasets::root(args.data.data_dir.as_deref()).map_err(|error| Stop::usage(error.to_string()))?;
    let data = Data::load(&cut, &root)?;

    for remark in &network.remarks {
        eprintln!("{}: {remark}", args.network.checkpoint.display());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Only the first handler counts; tests in one process may come here twice.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let progress = Progress::new(judges.len(), stop);
    let mut done = Vec::new();
    for judge in judges {
        let key = key(args, &network, source.as_ref(), &judge, &data);
        match attack(
            args.seed,
            &network,
            source.as_ref().filter(|_| judge.attack.name != "natural"),
            judge,
            &data,
            &device,
            &device_name,
            &key,
            &progress,
        ) {
            Ok(it) => done.push(it),
            Err(Failure::Interrupted) => {
                progress.finish();
                eprintln!("interrupted; nothing was written");
                return Ok(Exit::Interrupted);
            }
            Err(failure) => {
                progress.finish();
                return Err(stopped(failure));
            }
        }
        progress.ended();
    }
    progress.finish();
    let rows: Vec<Row> = done.iter().map(|it| row(args, &network, &data, it)).collect();
    show(args, &setting, &data, &done, &rows, out)?;
    if let Some(folder) = &args.out {
        store(folder, args, &rows, &done)?;
        writeln!(out, "rows: {0}/results.parquet, {0}/results.csv", folder.display())?;
    }
    if let Some(file) = &args.save_examples {
        let it = done.last().expect("the attack that was asked for");
        examples(args, &network, &data, it, &device)?.write(file)?;
        check_saved(file, &network, it.judged.correct())?;
        writeln!(out, "examples: {} of {}", file.display(), it.judge.label)?;
    }
    Ok(Exit::Success)
}

/// Clean images, then the attacks.
fn judges(args: &AttackArgs, methods: &Methods, setting: &attacks::Setting) -> Result<Vec<Judge>> {
    let asked: Vec<&str> = match &args.attack[..] {
        [] => vec!["fgsm", "pgd"],
        asked => asked.iter().map(String::as_str).collect(),
    };
    if args.save_examples.is_some() && asked.len() != 1 {
        return Err(Stop::usage(
            "--save-examples keeps the images of one attack; name it with one --attack",
        ));
    }
    let mut judges = vec![external::judge("natural", &methods.attacks, setting)?];
    judges[0].label = "Natural".into();
    for text in asked {
        let judge = external::judge(text, &methods.attacks, setting)?;
        if judges.iter().any(|other| other.label == judge.label) {
            let label = judge.label;
            return Err(Stop::usage(format!(
                "two attacks are called `{label}`; give one another `label`, as in `{{ name: pgd, label: mine }}`"
            )));
        }
        judges.push(judge);
    }
    Ok(judges)
}

/// A file that cannot be written should be known before hours of computing.
fn check_place(file: &Path) -> Result<()> {
    let whole = std::path::absolute(file)?;
    match whole.parent().is_some_and(Path::is_dir) {
        true => Ok(()),
        false => Err(Stop::usage(format!("{}: its folder does not exist", file.display()))),
    }
}

/// An integrity failure or anything else, with its exit code.
pub(super) fn stopped(failure: Failure) -> anyhow::Error {
    let exit = match &failure {
        Failure::Integrity(_) => Exit::Integrity,
        _ => Exit::Unexpected,
    };
    Stop {
        exit,
        message: failure.to_string(),
    }
    .into()
}

/// The hash of everything that decides a number.
fn key(args: &AttackArgs, network: &External, source: Option<&External>, judge: &Judge, data: &Data) -> String {
    key_of(&json!({
        "cell": "attack",
        "code": VERSION,
        "checkpoint": network.digest,
        "network": { "name": args.network.model, "version": network.network.version() },
        "source": source.map(|it| json!([it.digest, it.network.name(), it.network.version()])),
        "ignored": args.network.ignore,
        "normalisation": network.normalisation(),
        "dataset": data.dataset.digest,
        "test": args.limit,
        "attack": { "name": judge.attack.name, "version": judge.attack.version, "config": judge.attack.config },
        "threat": judge.threat,
        "seed": args.seed,
    }))
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing, and one caller does not make a struct"
)]
fn attack(
    seed: u64,
    network: &External,
    source: Option<&External>,
    it: Judge,
    data: &Data,
    device: &Device,
    device_name: &str,
    key: &str,
    progress: &Progress,
) -> Result<Done, Failure> {
    let (started, clock) = (host::now(), Instant::now());
    let bar = progress.cell("attack", &it.label);
    bar.start(data.test.len() as u64, 0, 1);
    // As a run does it, so that a run's network gives here what it gave there.
    let random = Stream::new(seed).of(Purpose::Evaluation);
    let task = Task {
        source: source.map(|it| it as &dyn Classifier),
        target: network,
        attack: it.attack.method.as_ref(),
        threat: &it.threat,
        split: &data.dataset.test,
        indices: &data.test,
        random: &random,
        device,
        bar: &bar,
        scrutiny: match it.attack.name {
            "natural" => Scrutiny::Network,
            _ => Scrutiny::Again,
        },
        saves: None,
        keep_images: usize::MAX,
    };
    let networks: Vec<_> = [network].into_iter().chain(source).map(|it| &it.network).collect();
    let judged = untouched(&networks, || judge(&task))?;
    let seconds = clock.elapsed().as_secs_f64();
    let timing = Timing {
        cell: key.to_string(),
        kind: TimingKind::Evaluate,
        seconds,
        images_per_second: (seconds > 0.0).then(|| judged.outcomes.len() as f64 / seconds),
        threads: rayon::current_num_threads() as u64,
        host: host::name(),
        cpu: host::processor(),
        device: device_name.to_string(),
        started,
        peak_memory: host::peak_memory(),
    };
    Ok(Done {
        judge: it,
        adversarial: Tensor::cat(&judged.images, 0)?,
        judged,
        timing,
        key: key.to_string(),
    })
}
