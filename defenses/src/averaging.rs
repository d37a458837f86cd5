//! Averaged weights: an exponential moving average of a network in training, which is evaluated and kept in its place.
//!
//! a ← τ · a + (1 − τ) · w after every optimizer step, for parameters and for batch norm's running statistics alike;
//! until the epoch `start`, a = w.
//!
//! Training goes on with w: the average never flows back. Weight averaging in adversarial training: Gowal et al. 2020,
//! arXiv:2010.03593, and Rebuffi et al. 2021, arXiv:2103.01946. Deviations: their code
//! (google-deepmind/deepmind-research, 41e2d45, τ = 0.995) takes the running statistics of w, which belong to other
//! weights than a, and begins with the smaller τ (1 + t)/(10 + t) at step t; `start` does the like.

use candle_core::Result;
use models::Network;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use attacks::Invalid;

/// An exponential moving average of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Averaging {
    /// τ, the share of the old average in the new one; 0.995.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// The epoch, counted from 0, in which averaging begins; 0.
    #[serde(default)]
    pub start: u64,
}

fn default_decay() -> f64 {
    0.995
}

impl Averaging {
    /// Refuses a τ outside `[0, 1)`.
    pub(crate) fn check(&self) -> std::result::Result<(), Invalid> {
        if (0.0..1.0).contains(&self.decay) {
            return Ok(());
        }
        let message = format!("decay is {}; it must be in [0, 1), such as 0.995", self.decay);
        Err(Invalid::new("averaging.decay", message))
    }

    /// Moves `average`, a network like `network`, after an optimizer step in this epoch, counted from 0. The counts of
    /// batch norm's updates are copied.
    pub fn update(&self, average: &Network, network: &Network, epoch: u64) -> Result<()> {
        let mut state = network.state()?;
        if epoch >= self.start {
            let old = average.state()?;
            for (name, tensor) in state.iter_mut().filter(|(_, tensor)| !tensor.dtype().is_int()) {
                *tensor = ((&old[name] * self.decay)? + (&*tensor * (1.0 - self.decay))?)?;
            }
        }
        average.load_state(&state).map_err(candle_core::Error::wrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use random::Stream;

    /// Two networks of one number in each tensor.
    fn networks() -> [Network; 2] {
        [1, 2].map(|seed| models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(seed)).unwrap())
    }

    fn set(network: &Network, value: f32, updates: i64) {
        let mut state = network.state().unwrap();
        for tensor in state.values_mut() {
            *tensor = match tensor.dtype() {
                DType::I64 => Tensor::new(updates, &Device::Cpu).unwrap(),
                _ => Tensor::full(value, tensor.shape(), &Device::Cpu).unwrap(),
            };
        }
        network.load_state(&state).unwrap();
    }

    #[track_caller]
    fn check(network: &Network, value: f64, updates: f64) {
        for (name, tensor) in network.state().unwrap() {
            let expected = if tensor.dtype() == DType::I64 { updates } else { value };
            let all = reference::doubles(&tensor);
            assert!(
                all.iter().all(|number| (number - expected).abs() < 1e-6),
                "{name}: {all:?}"
            );
        }
    }

    #[test]
    fn three_steps_worked_by_hand() {
        let [average, network] = networks();
        let averaging = Averaging { decay: 0.75, start: 2 };
        set(&average, 9.0, 0);
        set(&network, 4.0, 5);
        // Before the start it is the network itself.
        averaging.update(&average, &network, 1).unwrap();
        check(&average, 4.0, 5.0);
        set(&network, 8.0, 6);
        averaging.update(&average, &network, 2).unwrap();
        check(&average, 5.0, 6.0); // 0.75 · 4 + 0.25 · 8
        set(&network, 1.0, 7);
        averaging.update(&average, &network, 3).unwrap();
        check(&average, 4.0, 7.0); // 0.75 · 5 + 0.25 · 1
        check(&network, 1.0, 7.0);
    }
}
