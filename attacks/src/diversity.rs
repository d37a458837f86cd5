//! Input diversity, T: a random shrinking and shifting of images, for attacks that transfer.

use candle_core::{Device, Result, Tensor};
use random::Stream;

use crate::Invalid;
use crate::host::placed;

/// Refuses a probability or rate outside its range.
pub(crate) fn check(probability: f64, rate: f64) -> std::result::Result<(), Invalid> {
    if !(0.0..=1.0).contains(&probability) {
        let message = format!("probability is {probability}; it must be between 0 and 1, usually 0.5");
        return Err(Invalid::new("probability", message));
    }
    if rate > 0.0 && rate <= 1.0 {
        return Ok(());
    }
    let message = format!("rate is {rate}; it must be above 0 and at most 1, usually 0.9");
    Err(Invalid::new("rate", message))
}

/// T, of every image in a batch: each pixel of the result is one of the image's or black.
#[derive(Debug)]
pub(crate) struct Diversity {
    /// Where each pixel of T(x) comes from, and 1, or 0 where it is black: `[B, C, H·W]`.
    forward: (Tensor, Tensor),
    /// Where each pixel of x goes, and 1, or 0 if it is dropped.
    backward: (Tensor, Tensor),
}

impl Diversity {
    /// `random`: of this step.
    pub(crate) fn draw(probability: f64, rate: f64, images: &Tensor, ids: &[u64], random: &Stream) -> Result<Self> {
        let (examples, channels, height, width) = images.dims4()?;
        let plane = height * width;
        let mut there = Maps::new(examples, plane);
        let mut back = Maps::new(examples, plane);
        // Whether to transform, the size, and the position.
        for (row, draws) in random.uniform(ids, 4).chunks(4).enumerate() {
            let places = place(probability, rate, draws, height, width);
            for (from, to) in places {
                there.set(row, to, from);
                back.set(row, from, to);
            }
        }
        Ok(Self {
            forward: there.tensors(channels, images)?,
            backward: back.tensors(channels, images)?,
        })
    }

    /// T(x).
    pub(crate) fn apply(&self, images: &Tensor) -> Result<Tensor> {
        carry(images, &self.forward)
    }

    /// The gradient at x from that at T(x): every pixel of x goes to one place at most.
    pub(crate) fn pull_back(&self, gradient: &Tensor) -> Result<Tensor> {
        carry(gradient, &self.backward)
    }
}

/// Pairs of (pixel of x, pixel of T(x)), indices in a plane.
fn place(probability: f64, rate: f64, draws: &[f32], height: usize, width: usize) -> Vec<(usize, usize)> {
    let plane = height * width;
    if f64::from(draws[0]) >= probability {
        return (0..plane).map(|pixel| (pixel, pixel)).collect();
    }
    let least = ((rate * height as f64) as usize).max(1);
    let pick = |draw: f32, choices: usize| ((draw * choices as f32) as usize).min(choices.saturating_sub(1));
    // The full size is never drawn, unless it is the only one.
    let tall = least + pick(draws[1], (height - least).max(1));
    let wide = (tall * width / height).max(1);
    let top = pick(draws[2], height - tall + 1);
    let left = pick(draws[3], width - wide + 1);
    let mut pairs = Vec::with_capacity(tall * wide);
    for y in 0..tall {
        for x in 0..wide {
            let from = (y * height / tall) * width + x * width / wide;
            pairs.push((from, (top + y) * width + left + x));
        }
    }
    pairs
}

/// For each image of a batch, which pixel of another plane each pixel takes.
struct Maps {
    plane: usize,
    sources: Vec<u32>,
    weights: Vec<f32>,
}

impl Maps {
    fn new(examples: usize, plane: usize) -> Self {
        Self {
            plane,
            sources: vec![0; examples * plane],
            weights: vec![0.0; examples * plane],
        }
    }

    fn set(&mut self, row: usize, pixel: usize, source: usize) {
        self.sources[row * self.plane + pixel] = source as u32;
        self.weights[row * self.plane + pixel] = 1.0;
    }

    fn tensors(self, channels: usize, images: &Tensor) -> Result<(Tensor, Tensor)> {
        let examples = self.sources.len() / self.plane;
        let spread = |map: Tensor| map.broadcast_as((examples, channels, self.plane))?.contiguous();
        let shape = (examples, 1, self.plane);
        let sources = Tensor::from_vec(self.sources, shape, &Device::Cpu)?.to_device(images.device())?;
        let weights = placed(self.weights, shape, images)?;
        Ok((spread(sources)?, spread(weights)?))
    }
}

fn carry(images: &Tensor, (sources, weights): &(Tensor, Tensor)) -> Result<Tensor> {
    let planes = images.flatten_from(2)?.contiguous()?;
    (planes.gather(sources, 2)? * weights)?.reshape(images.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::waves;
    use proptest::prelude::*;
    use reference::doubles;
    use testing::{assert_near, tensor};

    #[test]
    fn a_placement_worked_by_hand() {
        // 4 × 4 shrunk to 2 × 2 and laid in the lower right corner: every other pixel.
        let pairs = place(1.0, 0.5, &[0.0, 0.0, 0.99, 0.99], 4, 4);
        assert_eq!(pairs, [(0, 10), (2, 11), (8, 14), (10, 15)]);
        let whole = place(0.5, 0.5, &[0.5, 0.0, 0.0, 0.0], 2, 2);
        assert_eq!(whole, [(0, 0), (1, 1), (2, 2), (3, 3)]);
    }

    proptest! {
        #[test]
        fn the_gradient_is_the_adjoint(seed: u64, rate in 0.05f64..=1.0, probability in 0f64..=1.0) {
            let images = waves(3, [2, 5, 4], 3).images;
            let stream = Stream::new(seed);
            let change = Diversity::draw(probability, rate, &images, &[1, 2, 3], &stream).unwrap();
            let other: Vec<f64> = (0..120).map(|i| (1.3 * i as f64).sin()).collect();
            let other = tensor(&other, &[3, 2, 5, 4]);
            let dot = |a: &Tensor, b: &Tensor| doubles(&(a * b).unwrap()).iter().sum::<f64>();
            let there = dot(&change.apply(&images).unwrap(), &other);
            let back = dot(&images, &change.pull_back(&other).unwrap());
            prop_assert!((there - back).abs() < 1e-12, "{there} {back}");
        }

        #[test]
        fn changed_images_hold_only_their_own_pixels(seed: u64, rate in 0.05f64..=1.0) {
            let images = waves(2, [1, 6, 6], 3).images;
            let changed = Diversity::draw(1.0, rate, &images, &[4, 9], &Stream::new(seed)).unwrap().apply(&images).unwrap();
            for row in 0..2 {
                let own = doubles(&images.get(row).unwrap());
                let values = doubles(&changed.get(row).unwrap());
                prop_assert!(values.iter().all(|value| *value == 0.0 || own.contains(value)));
            }
            let alone = Diversity::draw(1.0, rate, &images.narrow(0, 1, 1).unwrap(), &[9], &Stream::new(seed)).unwrap();
            let alone = alone.apply(&images.narrow(0, 1, 1).unwrap()).unwrap();
            assert_near("alone", &alone, &changed.narrow(0, 1, 1).unwrap(), 0.0);
        }
    }
}
