//! Parameters and images that both sides of a comparison compute from a formula.
//!
//! f(i, j) = 2·((h ≫ 11)·2⁻⁵³) − 1 ∈ [−1, 1), h = splitmix64(i + j·2⁴⁰), for number i of array j.
//! Arrays are the entries of the state dictionary in their order, `num_batches_tracked` left out; the images
//! are the array after the last. Computed in f64 and rounded to f32:
//!
//! - weights of convolutions and linear layers: √(2 / fan_in)·f
//! - batch-norm scales: 1 + 0.1 f, running variances: 1 + 0.2 f
//! - biases, batch-norm shifts and running means: 0.05 f
//! - pixels: (1 + f) / 2
//! - the label of image b: 3b + 1 modulo the classes

use std::collections::BTreeMap;

use anyhow::Result;
use attacks::Batch;
use candle_core::{Device, Tensor};
use models::{Classifier, Network};

/// f(i, j).
fn number(index: u64, array: u64) -> f64 {
    let mut z = index.wrapping_add(array << 40).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    2.0 * ((z >> 11) as f64 * 0.5f64.powi(53)) - 1.0
}

fn array(shape: &[usize], array: u64, offset: f64, scale: f64) -> candle_core::Result<Tensor> {
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len as u64)
        .map(|index| (offset + scale * number(index, array)) as f32)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

fn tracked(network: &Network) -> impl Iterator<Item = (String, Vec<usize>)> {
    let shapes = network.state_shapes().into_iter();
    shapes.filter(|(name, _)| !name.ends_with("num_batches_tracked"))
}

/// Gives the network the formula's parameters and running statistics.
pub fn fill(network: &Network) -> Result<()> {
    let mut state = BTreeMap::new();
    for (index, (name, shape)) in tracked(network).enumerate() {
        let (offset, scale) = match shape[..] {
            [_] if name.ends_with(".running_var") => (1.0, 0.2),
            [_] if name.ends_with(".weight") => (1.0, 0.1),
            [_] => (0.0, 0.05),
            _ => (0.0, (2.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
        };
        state.insert(name, array(&shape, index as u64, offset, scale)?);
    }
    Ok(network.load_state(&state)?)
}

/// The formula's images and labels for this network.
pub fn batch(network: &Network, examples: usize, device: &Device) -> Result<Batch> {
    let [channels, height, width] = network.image();
    let after_last = tracked(network).count() as u64;
    let classes = network.classes() as u32;
    let labels: Vec<u32> = (0..examples as u32).map(|row| (3 * row + 1) % classes).collect();
    Ok(Batch {
        images: array(&[examples, channels, height, width], after_last, 0.5, 0.5)?.to_device(device)?,
        labels: Tensor::from_vec(labels, examples, device)?,
        ids: (0..examples as u64).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        // The first output of the published generator from state 0 is 0xE220A8397B1DCDAF.
        let first = 2.0 * ((0xE220_A839_7B1D_CDAFu64 >> 11) as f64 / (1u64 << 53) as f64) - 1.0;
        assert_eq!(number(0, 0), first);
        assert_ne!(number(0, 1), first);
        let numbers: Vec<f64> = (0..10_000).map(|index| number(index, 3)).collect();
        let mean = numbers.iter().sum::<f64>() / 1e4;
        let variance = numbers.iter().map(|number| number * number).sum::<f64>() / 1e4;
        // Uniform on [−1, 1): mean 0 ± 0.006, variance 1/3 ± 0.003.
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0 / 3.0).abs() < 0.015, "{variance}");
    }

    #[test]
    fn arrays_are_scaled_by_what_they_are() {
        let network = models::build("resnet18", [3, 32, 32], 10, &random::Stream::new(0)).unwrap();
        fill(&network).unwrap();
        let state = network.state().unwrap();
        let check = |name: &str, low: f32, high: f32| {
            let values = state[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let least = values.iter().copied().fold(f32::INFINITY, f32::min);
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(low <= least && largest <= high, "{name}: {least} to {largest}");
            // The range is made use of.
            assert!(largest - least > 0.8 * (high - low), "{name}: {least} to {largest}");
        };
        let bound = (2.0f32 / 576.0).sqrt();
        check("layer1.0.conv1.weight", -bound, bound);
        check("layer1.0.bn1.weight", 0.9, 1.1);
        check("layer1.0.bn1.bias", -0.05, 0.05);
        check("layer1.0.bn1.running_mean", -0.05, 0.05);
        check("layer1.0.bn1.running_var", 0.8, 1.2);
        let batch = batch(&network, 12, &Device::Cpu).unwrap();
        assert_eq!(batch.labels.to_vec1::<u32>().unwrap()[..5], [1, 4, 7, 0, 3]);
    }
}
