//! Times one workload of one network: `workloads attack-step|train-step|forward NETWORK BATCH SECONDS`.

use std::io::Write;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use models::{Classifier, Mode, Network};
use random::Stream;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [workload, name, batch, seconds] = &arguments[..] else {
        return Err("usage: workloads attack-step|frozen-step|train-step|forward NETWORK BATCH SECONDS".into());
    };
    let (batch, seconds): (usize, f64) = (batch.parse()?, seconds.parse()?);
    let image = match name.as_str() {
        "tiny-cnn" => [1, 8, 8],
        "small-cnn" | "lenet5" => [1, 28, 28],
        _ => [3, 32, 32],
    };
    let network = models::build(name, image, 10, &Stream::new(0))?;
    let ids: Vec<u64> = (0..batch as u64).collect();
    let [c, h, w] = image;
    let images = Tensor::from_vec(Stream::new(1).uniform(&ids, c * h * w), (batch, c, h, w), &Device::Cpu)?;
    let labels: Vec<u32> = ids.iter().map(|id| (id % 10) as u32).collect();
    let labels = Tensor::new(labels, &Device::Cpu)?;
    let frozen = network.freeze()?.ok_or("cannot be frozen")?;
    let step = || match workload.as_str() {
        "attack-step" => attack_step(&network, &images, &labels),
        "frozen-step" => attack_step(frozen.as_ref(), &images, &labels),
        "train-step" => train_step(&network, &images, &labels),
        "forward" => frozen.logits(&images, Mode::Eval).map(drop),
        other => candle_core::bail!("no workload is called {other}"),
    };
    step()?;
    let before_all = processor_seconds();
    let (start, mut steps, mut best) = (Instant::now(), 0, f64::INFINITY);
    while steps < 3 || start.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        step()?;
        best = before.elapsed().as_secs_f64().min(best);
        steps += 1;
    }
    let mean = start.elapsed().as_secs_f64() / f64::from(steps);
    let rate = |seconds: f64| batch as f64 / seconds;
    let processor = (processor_seconds() - before_all) / f64::from(steps);
    writeln!(
        std::io::stdout(),
        "{workload} {name} {batch}: best {:.1} mean {:.1} per processor second {:.1} images/s",
        rate(best),
        rate(mean),
        rate(processor)
    )?;
    Ok(())
}

/// Forward pass and gradient with respect to the images.
fn attack_step(classifier: &dyn Classifier, images: &Tensor, labels: &Tensor) -> candle_core::Result<()> {
    let images = Var::from_tensor(images)?;
    let logits = classifier.logits(&images, Mode::Eval)?;
    let gradients = kernels::cross_entropy(&logits, labels)?.sum_all()?.backward()?;
    assert!(gradients.get(&images).is_some());
    Ok(())
}

/// Forward pass and gradients with respect to the parameters, and a plain step along them.
fn train_step(network: &Network, images: &Tensor, labels: &Tensor) -> candle_core::Result<()> {
    let logits = network.logits(images, Mode::Train(None))?;
    let gradients = kernels::cross_entropy(&logits, labels)?.mean_all()?.backward()?;
    for parameter in network.parameters() {
        if let Some(gradient) = gradients.get(&parameter.var) {
            parameter.var.set(&(parameter.var.as_tensor() - (gradient * 1e-6)?)?)?;
        }
    }
    Ok(())
}

/// Seconds that processors have spent on this program, where the system tells (Linux).
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|it| it.parse::<f64>().ok()).sum();
    ticks / 100.0
}
