use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use attacks::{AutoAttack, Description, Member, Norm, Pgd, Pixels, Square, Threat, Version};
use candle_core::{Result as TensorResult, Tensor};
use datasets::Split;
use models::{FromModule, Mode};
use random::Stream;

use super::super::checks::untouched;
use super::super::logits::predictions;
use super::super::task::Saves;
use super::*;
use crate::progress::Bar;

/// Adds the same to every pixel.
#[derive(Debug)]
struct Shift(f64);

impl Attack for Shift {
    fn perturb(&self, _: &dyn Classifier, batch: &Batch, _: &Threat, _: &Stream) -> TensorResult<Perturbed> {
        Ok(Perturbed {
            images: (&batch.images + self.0)?,
            cost: Cost::default(),
            zero_gradients: 0,
            queries: None,
        })
    }

    fn describe(&self) -> Description {
        Description::default()
    }
}

struct Func<F>(F);

impl<F: Fn(&Tensor) -> TensorResult<Tensor>> candle_core::Module for Func<F> {
    fn forward(&self, images: &Tensor) -> TensorResult<Tensor> {
        (self.0)(images)
    }
}

fn network(forward: impl Fn(&Tensor) -> TensorResult<Tensor> + Send + Sync) -> impl Classifier {
    FromModule {
        module: Func(forward),
        classes: 2,
    }
}

/// Two logits of which the second is larger where the first pixel is above ½.
fn threshold(images: &Tensor) -> TensorResult<Tensor> {
    let pixel = images.flatten_from(1)?.narrow(1, 0, 1)?;
    Tensor::cat(&[pixel.affine(0.0, 0.5)?, pixel], 1)
}

/// Two images of two pixels, 0.4 and 0.6.
fn two() -> Split {
    Split::new([1, 1, 2], 5, vec![2, 2, 3, 3], vec![0, 1]).unwrap()
}

fn linf(epsilon: Pixels) -> Threat {
    Threat {
        norm: Norm::Linf,
        epsilon,
    }
}

/// Evaluates every image of a split.
fn evaluate_all(
    network: &dyn Classifier,
    attack: &dyn Attack,
    threat: &Threat,
    split: &Split,
    scrutiny: Scrutiny,
) -> Result<Evaluated, Failure> {
    let indices: Vec<usize> = (0..split.len()).collect();
    evaluate(&Task {
        source: None,
        target: network,
        attack,
        threat,
        split,
        indices: &indices,
        random: &Stream::new(0),
        device: &Device::Cpu,
        bar: &Bar::hidden(),
        scrutiny,
        saves: None,
        keep_images: 0,
    })
}

fn shifted_by(shift: f64, epsilon: Pixels, slope: f64) -> Result<Evaluated, Failure> {
    let network = network(move |images| threshold(images)? * slope);
    evaluate_all(&network, &Shift(shift), &linf(epsilon), &two(), Scrutiny::Again)
}

#[track_caller]
fn refused(result: Result<Evaluated, Failure>, part: &str) {
    match result {
        Err(Failure::Integrity(message)) => assert!(message.contains(part), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_left_is_counted() {
    let evaluated = shifted_by(0.2, Pixels::new(1, 4), 1.0).unwrap();
    assert_eq!((evaluated.clean_accuracy(), evaluated.accuracy()), (1.0, 0.5));
    assert!((evaluated.max_delta - 0.2).abs() < 1e-6, "{}", evaluated.max_delta);
}

#[test]
fn what_breaks_the_rules_is_refused() {
    refused(shifted_by(0.2, Pixels::new(1, 10), 1.0), "further than 0.1");
    refused(shifted_by(0.5, Pixels::new(1, 1), 1.0), "outside [0, 1]");
    refused(shifted_by(f64::NAN, Pixels::new(1, 1), 1.0), "NaN");
    refused(shifted_by(0.0, Pixels::new(1, 1), f64::INFINITY), "a logit is");
}

/// A network that asks its neighbours: the class is the batch's majority.
#[test]
fn a_prediction_that_depends_on_the_company_is_refused() {
    let company = network(|images| {
        let logits = threshold(images)?;
        let others = logits.mean_keepdim(0)?.broadcast_as(logits.shape())?;
        logits + (others * 10.0)?
    });
    let split = Split::new([1, 1, 1], 5, vec![4, 4, 4, 4, 0, 0, 0], vec![1; 7]).unwrap();
    let evaluated = evaluate_all(&company, &Shift(0.0), &linf(Pixels::ZERO), &split, Scrutiny::Again);
    refused(evaluated, "in its batch and class");
    evaluate_all(&company, &Shift(0.0), &linf(Pixels::ZERO), &split, Scrutiny::Count).unwrap();
}

/// A network that changes its mind after two calls.
fn wavering() -> impl Classifier {
    let calls = AtomicU64::new(0);
    network(move |images| {
        let sign = if calls.fetch_add(1, Ordering::Relaxed) < 2 {
            1.0
        } else {
            -1.0
        };
        threshold(images)? * sign
    })
}

#[test]
fn a_network_that_answers_at_random_is_counted_and_not_refused() {
    // Clean and attacked images, then the latter again, which contradicts; then the same batch, which differs as well.
    for scrutiny in [Scrutiny::Again, Scrutiny::Network] {
        let found = evaluate_all(&wavering(), &Shift(0.0), &linf(Pixels::ZERO), &two(), scrutiny).unwrap();
        assert_eq!(found.warnings.random_outputs, Some(2), "{found:?}");
    }
    let steady = network(threshold);
    let found = evaluate_all(&steady, &Shift(0.0), &linf(Pixels::ZERO), &two(), Scrutiny::Network).unwrap();
    assert_eq!(found.warnings.random_outputs, Some(0));
}

#[test]
fn networks_are_examined_on_clean_images() {
    let natural = Shift(0.0);
    let threat = linf(Pixels::new(1, 100));
    let examine = |network: &dyn Classifier| {
        let found = evaluate_all(network, &natural, &threat, &two(), Scrutiny::Network).unwrap();
        let Warnings {
            vanishing_gradients,
            random_outputs,
            softmax_outputs,
        } = found.warnings;
        [
            Some(found.zero_gradients),
            vanishing_gradients,
            random_outputs,
            softmax_outputs,
        ]
        .map(Option::unwrap)
    };
    assert_eq!(examine(&network(threshold)), [0, 0, 0, 0]);
    let softmax = network(|images| candle_nn_softmax(&(threshold(images)? * 30.0)?));
    assert_eq!(examine(&softmax), [0, 0, 0, 2]);
    // p_y = 1 − e⁻¹⁵ at a margin of 15: the gradient of cross entropy is 150·e⁻¹⁵ = 4.6e-5, over the ball 4.6e-7.
    assert_eq!(examine(&network(|images| threshold(images)? * 150.0)), [0, 2, 0, 0]);
    assert_eq!(examine(&network(|images| threshold(images)? * 1e4)), [2, 2, 0, 0]);
    // Of a quantised input no gradient comes back: that of the second term is below any f32.
    let quantised = network(|images| {
        threshold(&((images.detach() * 10.0)?.round()? / 10.0)?)? + ((threshold(images)? * 1e-30)? * 1e-30)?
    });
    assert_eq!(examine(&quantised), [2, 2, 0, 0]);
}

fn candle_nn_softmax(logits: &Tensor) -> TensorResult<Tensor> {
    let exponentials = logits.broadcast_sub(&logits.max_keepdim(1)?)?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)
}

#[test]
fn parameters_must_not_change() {
    let tiny = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(0)).unwrap();
    assert_eq!(untouched(&[&tiny], || Ok(7)).unwrap(), 7);
    let spoil = || {
        let var = &tiny.parameters()[0].var;
        var.set(&(var.as_tensor() + 1e-3)?)?;
        Ok(())
    };
    match untouched(&[&tiny], spoil) {
        Err(Failure::Integrity(message)) => assert!(message.contains("parameters"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn images_are_not_transferred_between_other_numbers_of_classes() {
    let (three, two_classes) = (
        FromModule {
            module: Func(|images: &Tensor| threshold(images)),
            classes: 3,
        },
        network(threshold),
    );
    let split = two();
    let failed = evaluate(&Task {
        source: Some(&three),
        target: &two_classes,
        attack: &Shift(0.0),
        threat: &linf(Pixels::ZERO),
        split: &split,
        indices: &[0, 1],
        random: &Stream::new(0),
        device: &Device::Cpu,
        bar: &Bar::hidden(),
        scrutiny: Scrutiny::Again,
        saves: None,
        keep_images: 0,
    });
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("3 classes and the target 2"), "{message}");
}

/// A network that stops the evaluation when it has been asked this many times.
struct Stopping {
    inner: models::Network,
    calls: AtomicU64,
    stop_at: u64,
    stop: Arc<AtomicBool>,
}

impl Classifier for Stopping {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> TensorResult<Tensor> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.stop_at {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.inner.logits(images, mode)
    }

    fn classes(&self) -> usize {
        self.inner.classes()
    }
}

/// 230 images in three batches, with the network's own predictions as labels, so that every one has to be broken.
fn waves() -> Split {
    let bytes: Vec<u8> = (0..230 * 64u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let unlabelled = Split::new([1, 8, 8], 255, bytes.clone(), vec![0; 230]).unwrap();
    let all: Vec<usize> = (0..230).collect();
    let batch = plain_batch(&unlabelled, &all, &Device::Cpu).unwrap();
    let tiny = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(0)).unwrap();
    let labels = predictions(&tiny, &batch.images).unwrap();
    Split::new([1, 8, 8], 255, bytes, labels).unwrap()
}

/// Stops after a fixed number of network calls and restarts, until it finishes. Returns how often it was stopped.
fn in_pieces(attack: &dyn Attack, split: &Split, calls: u64, every: Duration) -> (Evaluated, usize) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resume.safetensors");
    let indices: Vec<usize> = (0..split.len()).collect();
    for stops in 0.. {
        assert!(stops < 200, "it never ends");
        let stop = Arc::new(AtomicBool::new(false));
        let network = Stopping {
            inner: models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(0)).unwrap(),
            calls: AtomicU64::new(0),
            stop_at: calls,
            stop: stop.clone(),
        };
        let evaluated = evaluate(&Task {
            source: None,
            target: &network,
            attack,
            threat: &linf(Pixels::new(1, 50)),
            split,
            indices: &indices,
            random: &Stream::new(5),
            device: &Device::Cpu,
            bar: &Bar::stopped_by(stop),
            scrutiny: Scrutiny::Again,
            saves: Some(Saves {
                file: &file,
                key: "k",
                every,
            }),
            keep_images: 3,
        });
        match evaluated {
            Err(Failure::Interrupted) => assert!(file.exists()),
            evaluated => return (evaluated.unwrap(), stops),
        }
    }
    unreachable!()
}

/// Saved when interrupted, and at no other time.
const NEVER: Duration = Duration::MAX;

fn same(a: &Evaluated, b: &Evaluated) {
    assert_eq!(a.outcomes, b.outcomes);
    assert_eq!((a.cost, a.max_delta), (b.cost, b.max_delta));
    assert_eq!((a.zero_gradients, a.warnings), (b.zero_gradients, b.warnings));
    let pixels = |evaluated: &Evaluated| {
        let images = Tensor::cat(&evaluated.images, 0).unwrap();
        assert_eq!(images.dims()[0], 3.min(evaluated.outcomes.len()));
        images.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(pixels(a), pixels(b));
}

#[test]
fn an_interrupted_evaluation_goes_on_to_the_same_bytes() {
    let split = waves();
    let auto = AutoAttack {
        version: Version::Custom,
        attacks: Some(vec![Member::ApgdCe, Member::FabT, Member::Square]),
        steps: 4,
        restarts: Some(1),
        targets: Some(2),
        queries: 12,
    };
    let pgd = Pgd {
        steps: Some(3),
        step_size: Some(Pixels::new(1, 100)),
        ..Pgd::default()
    };
    let square = Square {
        queries: 12,
        ..Square::default()
    };
    let attacks: [&dyn Attack; 3] = [&auto, &pgd, &square];
    for attack in attacks {
        let (whole, never) = in_pieces(attack, &split, u64::MAX, NEVER);
        assert_eq!((never, whole.outcomes.len()), (0, 230));
        let left = whole.correct();
        assert!(left > 0 && left < 230, "{left} of 230 are left: the case shows nothing");
        let (pieces, stops) = in_pieces(attack, &split, 3, NEVER);
        // AutoAttack can stop between its attacks, the others between batches.
        let least = if attack.in_parts().is_some() { 5 } else { 2 };
        assert!(stops >= least, "stopped {stops} times");
        same(&whole, &pieces);
        // Saved at every opportunity.
        same(&whole, &in_pieces(attack, &split, 40, Duration::ZERO).0);
        assert_eq!(
            whole.outcomes.iter().all(|outcome| outcome.queries.is_some()),
            attack.by_queries()
        );
    }
}

#[test]
fn a_killed_evaluation_goes_on_from_its_last_save() {
    // Killed without a chance to save: the file of the save before is what remains.
    let split = waves();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resume.safetensors");
    let indices: Vec<usize> = (0..split.len()).collect();
    let tiny = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(0)).unwrap();
    #[derive(Debug)]
    struct Failing(Pgd, AtomicU64);
    impl Attack for Failing {
        fn perturb(&self, c: &dyn Classifier, b: &Batch, t: &Threat, r: &Stream) -> TensorResult<Perturbed> {
            match self.1.fetch_add(1, Ordering::Relaxed) {
                2 => candle_core::bail!("pulled the plug"),
                _ => self.0.perturb(c, b, t, r),
            }
        }

        fn describe(&self) -> Description {
            self.0.describe()
        }
    }
    let pgd = || Pgd {
        steps: Some(2),
        step_size: Some(Pixels::new(1, 100)),
        ..Pgd::default()
    };
    let run = |attack: &dyn Attack, key: &str, saves: bool| {
        evaluate(&Task {
            source: None,
            target: &tiny,
            attack,
            threat: &linf(Pixels::new(1, 50)),
            split: &split,
            indices: &indices,
            random: &Stream::new(5),
            device: &Device::Cpu,
            bar: &Bar::hidden(),
            scrutiny: Scrutiny::Again,
            saves: saves.then_some(Saves {
                file: &file,
                key,
                every: Duration::ZERO,
            }),
            keep_images: 3,
        })
    };
    let failing = Failing(pgd(), AtomicU64::new(0));
    run(&failing, "k", true).unwrap_err();
    let resumed = run(&failing, "k", true).unwrap();
    // Two batches, the plug, and the third alone.
    assert_eq!(failing.1.load(Ordering::Relaxed), 4);
    let whole = run(&pgd(), "k", false).unwrap();
    same(&resumed, &whole);
    // What is another evaluation's, or damaged, is not gone on from.
    same(&run(&failing, "other", true).unwrap(), &whole);
    assert_eq!(failing.1.load(Ordering::Relaxed), 7);
    std::fs::write(&file, b"half").unwrap();
    same(&run(&failing, "other", true).unwrap(), &whole);
    assert_eq!(failing.1.load(Ordering::Relaxed), 10);
}

/// A network behind a step function, through which no gradient flows.
struct Quantised(models::Network);

impl Classifier for Quantised {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> TensorResult<Tensor> {
        let steps = ((images.detach() * 16.0)?.round()? / 16.0)?;
        // Nothing of the image is left but its place in the graph.
        self.0.logits(&(steps + ((images * 1e-30)? * 1e-30)?)?, mode)
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }
}

#[test]
fn a_network_behind_a_step_function_trips_the_flags() {
    use results::Flag;

    let split = waves();
    let tiny = || models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(0)).unwrap();
    let threat = linf(Pixels::new(1, 20));
    let flags = |network: &dyn Classifier| {
        let pgd = Pgd {
            steps: Some(10),
            step_size: Some(Pixels::new(1, 100)),
            ..Pgd::default()
        };
        let square = Square {
            queries: 150,
            ..Square::default()
        };
        let natural = attacks::Natural {};
        let attacks: [(&str, results::Kind, &dyn Attack); 3] = [
            ("natural", results::Kind::Natural, &natural),
            ("pgd", results::Kind::WhiteBox, &pgd),
            ("square", results::Kind::Query, &square),
        ];
        let rows = attacks.map(|(name, kind, attack)| {
            let scrutiny = if name == "natural" {
                Scrutiny::Network
            } else {
                Scrutiny::Again
            };
            let evaluated = evaluate_all(network, attack, &threat, &split, scrutiny).unwrap();
            let row = results::Row {
                cell: name.to_string(),
                attack: name.to_string(),
                attack_name: name.to_string(),
                kind,
                norm: Some("linf".to_string()),
                epsilon_value: Some(threat.epsilon.value()),
                steps: attack.describe().steps,
                loss: attack.describe().loss,
                ..results::Row::default()
            };
            evaluated.complete(row, query_budget(attack, 10))
        });
        let found: Vec<(String, Flag)> = results::flags(&rows)
            .into_iter()
            .map(|raised| (raised.cell, raised.flag))
            .collect();
        found
    };
    assert_eq!(flags(&tiny()), []);
    let masked = [
        ("natural", Flag::ZeroGradients),
        ("natural", Flag::VanishingGradients),
        ("pgd", Flag::ZeroGradients),
        ("pgd", Flag::BlackBoxBelowWhiteBox),
    ];
    assert_eq!(
        flags(&Quantised(tiny())),
        masked.map(|(cell, flag)| (cell.to_string(), flag))
    );
}
