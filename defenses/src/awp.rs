//! AWP, adversarial weight perturbation of any defense: Wu, Xia and Wang 2020, arXiv:2004.05884.
//!
//! v = γ · ‖w‖ / (‖d‖ + 10⁻²⁰) · d, d = ∇_w loss(w)
//! w ← w + v − rate · step(∇ loss(w + v)) − v
//!
//! The defense's inner attack sees the network as it is. Then every parameter with more than one dimension, a weight
//! but no bias and not batch norm, moves by v, uphill, and the objective is evaluated again on the same perturbed images. As in the authors' code (csdongxian/AWP, a7acf5d), the optimizer steps from the moved weights, so
//! that its weight decay sees them, and v is taken away afterwards; ‖·‖ is the Euclidean norm of one parameter. Their
//! d is the step of a copy of the network under plain gradient descent, whose rate cancels: ours is the gradient itself.
//! Batch norm's running statistics see the second evaluation only, as the copy keeps those of the first to itself.
//! Dropout is drawn again.
//!
//! Cost: one more forward and backward pass of the objective. The authors take γ = 0.01 for adversarial training from
//! the first epoch on (`train_cifar10.py`), and for TRADES γ = 0.005 after 9 epochs (`train_trades_cifar.py`).
//! What MMA finds of each example (direction, ε and who was correct) counts as its inner attack.

use attacks::Invalid;
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};
use models::{Network, Parameter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Step;

/// Adversarial weight perturbation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Awp {
    /// γ, how far weights move, as a share of their norm; 0.005.
    #[serde(default = "default_gamma")]
    pub gamma: f64,
    /// Epochs at the beginning in which nothing moves; 0.
    #[serde(default)]
    pub warmup: u64,
}

fn default_gamma() -> f64 {
    0.005
}

impl Awp {
    /// Refuses a γ that is not above 0.
    pub(crate) fn check(&self) -> std::result::Result<(), Invalid> {
        if self.gamma.is_finite() && self.gamma > 0.0 {
            return Ok(());
        }
        let message = format!(
            "gamma is {}; it must be above 0, such as 0.005, or leave `awp` out",
            self.gamma
        );
        Err(Invalid::new("awp.gamma", message))
    }

    /// Whether weights move in this epoch, counted from 0.
    pub fn moves_in(&self, epoch: u64) -> bool {
        epoch >= self.warmup
    }

    /// The objective of a step at perturbed weights. They stay perturbed until [`Moved::back`] is called after the
    /// optimizer's step.
    pub fn objective(
        &self,
        mut objective: impl FnMut(&mut Step<'_>) -> Result<Tensor>,
        step: &mut Step<'_>,
        network: &Network,
    ) -> Result<(Tensor, Moved)> {
        let moved = {
            let before = network.state()?;
            let gradients = objective(step)?.backward()?;
            step.cost.backwards += step.batch.ids.len() as u64;
            network.load_state(&before).map_err(candle_core::Error::wrap)?;
            self.ascend(network.parameters(), &gradients)?
        };
        step.again();
        Ok((objective(step)?, moved))
    }

    /// Moves every parameter with more than one dimension by v.
    pub fn ascend(&self, parameters: &[Parameter], gradients: &GradStore) -> Result<Moved> {
        let mut moved = Moved(Vec::new());
        for Parameter { var, .. } in parameters.iter().filter(|parameter| parameter.var.rank() > 1) {
            let Some(gradient) = gradients.get(var) else { continue };
            let gradient = gradient.detach();
            let scale = self.gamma * norm(var.as_tensor())? / (norm(&gradient)? + 1e-20);
            let by = (gradient * scale)?;
            var.set(&(var.as_detached_tensor() + &by)?)?;
            moved.0.push((var.clone(), by));
        }
        Ok(moved)
    }
}

/// The change of each weight.
#[must_use = "weights are to be moved back after the optimizer's step"]
#[derive(Debug)]
pub struct Moved(Vec<(Var, Tensor)>);

impl Moved {
    /// Subtracts v again.
    pub fn back(self) -> Result<()> {
        for (var, by) in self.0 {
            var.set(&(var.as_detached_tensor() - by)?)?;
        }
        Ok(())
    }
}

/// The Euclidean norm of all numbers of a tensor, summed in double precision.
fn norm(tensor: &Tensor) -> Result<f64> {
    let squares = tensor.detach().to_dtype(DType::F64)?.sqr()?.sum_all()?;
    Ok(squares.to_scalar::<f64>()?.sqrt())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Defense, Memory, Optimizer, builtin};
    use attacks::{Batch, Threat};
    use candle_core::Device;
    use models::{Classifier, Mode, Role};
    use random::Stream;
    use testing::{assert_near, settings, tensor, waves};

    const AWP: Awp = Awp { gamma: 0.1, warmup: 0 };

    fn parameter(name: &str, values: &[f64], shape: &[usize]) -> Parameter {
        Parameter {
            name: name.to_string(),
            var: Var::from_tensor(&tensor(values, shape)).unwrap(),
            role: Role::Weight,
        }
    }

    #[test]
    fn the_move_worked_by_hand() {
        // Gradients of Σ c·w are c.
        let parameters = [
            parameter("w", &[3.0, 0.0, 0.0, 4.0], &[2, 2]),
            parameter("b", &[1.0, 1.0], &[2]),
            parameter("flat", &[2.0, 0.0], &[1, 2]),
            parameter("unused", &[1.0], &[1, 1]),
        ];
        let slope = |index: usize, values: &[f64]| {
            let var = &parameters[index].var;
            (var.as_tensor() * tensor(values, var.dims()))
                .unwrap()
                .sum_all()
                .unwrap()
        };
        let sum = (slope(0, &[0.0, 6.0, 8.0, 0.0]) + slope(1, &[5.0, 5.0])).unwrap();
        let gradients = (sum + slope(2, &[0.0, 0.0])).unwrap().backward().unwrap();
        let moved = AWP.ascend(&parameters, &gradients).unwrap();
        let check = |expected: [&[f64]; 4]| {
            for (parameter, expected) in parameters.iter().zip(expected) {
                let expected = tensor(expected, parameter.var.dims());
                assert_near(&parameter.name, &parameter.var, &expected, 1e-12);
            }
        };
        // 0.1 · 5/10 · d; neither what has one dimension, nor where the gradient is zero or missing.
        check([&[3.0, 0.3, 0.4, 4.0], &[1.0, 1.0], &[2.0, 0.0], &[1.0]]);
        moved.back().unwrap();
        check([&[3.0, 0.0, 0.0, 4.0], &[1.0, 1.0], &[2.0, 0.0], &[1.0]]);
    }

    /// Three steps of softmax regression, weights `[K, P]` and no bias, against plain loops over numbers in the order
    /// of the authors' code: perturb, gradient, momentum and decay at the perturbed weights, restore.
    #[test]
    fn training_steps_are_those_of_plain_loops() {
        const K: usize = 3;
        const P: usize = 2;
        let images = [[0.9, 0.1], [0.2, 0.7], [0.5, 0.4]];
        let labels = [0usize, 2, 1];
        let start = [0.3, -0.2, 0.1, 0.5, -0.4, 0.2];
        let (rate, momentum, decay) = (0.5, 0.9, 0.1);

        let gradient = |w: &[f64; K * P]| {
            let mut gradient = [0.0; K * P];
            for (x, &y) in images.iter().zip(&labels) {
                let z: Vec<f64> = (0..K).map(|k| (0..P).map(|p| w[k * P + p] * x[p]).sum()).collect();
                let sum: f64 = z.iter().map(|z: &f64| z.exp()).sum();
                for k in 0..K {
                    let error = z[k].exp() / sum - f64::from(u8::from(k == y));
                    for p in 0..P {
                        gradient[k * P + p] += error * x[p] / images.len() as f64;
                    }
                }
            }
            gradient
        };
        let length = |v: &[f64; K * P]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut expected = start;
        let mut buffer: Option<[f64; K * P]> = None;
        for _ in 0..3 {
            let d = gradient(&expected);
            let v = d.map(|x| 0.1 * length(&expected) / length(&d) * x);
            let moved: [f64; K * P] = std::array::from_fn(|i| expected[i] + v[i]);
            let g = gradient(&moved);
            let g: [f64; K * P] = std::array::from_fn(|i| g[i] + decay * moved[i]);
            let b = buffer.map_or(g, |b| std::array::from_fn(|i| momentum * b[i] + g[i]));
            buffer = Some(b);
            expected = std::array::from_fn(|i| moved[i] - rate * b[i] - v[i]);
        }

        let parameters = [parameter("w", &start, &[K, P])];
        let x = tensor(&images.concat(), &[3, P]);
        let y = Tensor::new(labels.map(|label| label as u32).as_slice(), &Device::Cpu).unwrap();
        let loss = || {
            let logits = x.matmul(&parameters[0].var.t().unwrap()).unwrap();
            attacks::losses::cross_entropy(&logits, &y).unwrap().mean_all().unwrap()
        };
        let optimizer = Optimizer::Sgd {
            rate,
            momentum,
            nesterov: false,
            weight_decay: decay,
            decay: crate::Decay::All,
        };
        let mut descent = optimizer.over(&parameters);
        for _ in 0..3 {
            let moved = AWP.ascend(&parameters, &loss().backward().unwrap()).unwrap();
            descent.step(&loss().backward().unwrap(), rate).unwrap();
            moved.back().unwrap();
        }
        assert_near("weights", &parameters[0].var, &tensor(&expected, &[K, P]), 1e-12);
    }

    /// Every defense: the second evaluation sees the images of the first, moved weights, and batch norm as it was;
    /// and it is the defense's own objective on a copy of the network with those weights.
    #[test]
    fn every_defense_is_evaluated_again_on_the_same_images() {
        for entry in builtin().entries() {
            let setting = &settings()[0];
            let quick = match entry.name {
                "natural" => serde_json::json!({}),
                "mma" => serde_json::json!({"steps": 2, "search_steps": 2}),
                _ => serde_json::json!({"attack": {"steps": 2}}),
            };
            let defense = builtin().parse(entry.name, quick, setting).unwrap().method;
            let network = confident();
            let batch = batch(&network);
            let fresh = network.state().unwrap();
            let mut memory = defense.memory(1000);

            // What the defense does without AWP.
            let mut plain_memory = memory.clone();
            let mut plain = step(&network, &batch, &setting.threat, &mut plain_memory);
            let first = defense.objective(&mut plain).unwrap();
            let (images, cost) = (plain.perturbed.take(), plain.cost);
            let gradients = first.backward().unwrap();
            network.load_state(&fresh).unwrap();

            let mut moved_step = step(&network, &batch, &setting.threat, &mut memory);
            let (objective, moved) = AWP
                .objective(|step| defense.objective(step), &mut moved_step, &network)
                .unwrap();
            let what = entry.name;
            let (again, total) = (moved_step.perturbed.take(), moved_step.cost);
            assert_eq!(images.map(numbers), again.map(numbers), "{what}: the same images");
            assert_eq!(*moved_step.memory, plain_memory, "{what}: remembered once");
            assert_eq!(total.backwards, cost.backwards + 6, "{what}");
            assert!(total.forwards > cost.forwards, "{what}");

            // Weights moved by γ of their norms, uphill; everything else is as it was.
            for parameter in network.parameters() {
                let old = &fresh[&parameter.name];
                let by = (parameter.var.as_detached_tensor() - old).unwrap();
                if old.rank() == 1 {
                    assert_eq!(norm(&by).unwrap(), 0.0, "{what}: {}", parameter.name);
                    continue;
                }
                let share = norm(&by).unwrap() / norm(old).unwrap();
                assert!((share - 0.1).abs() < 1e-5, "{what}: {} {share}", parameter.name);
                let slope = (by * gradients.get(&parameter.var).unwrap())
                    .unwrap()
                    .sum_all()
                    .unwrap();
                assert!(slope.to_scalar::<f32>().unwrap() > 0.0, "{what}: {}", parameter.name);
            }
            assert!(value(&objective) > value(&first), "{what}: uphill");
            assert!(
                what != "mma" || numbers(moved_step.crafted[0][1].clone()).contains(&1.0),
                "nothing was searched"
            );
            check_gradients(
                defense.as_ref(),
                &network,
                &fresh,
                &batch,
                &setting.threat,
                &objective,
                &moved_step,
            );

            moved.back().unwrap();
            for parameter in network.parameters() {
                let off = (parameter.var.as_detached_tensor() - &fresh[&parameter.name]).unwrap();
                assert!(norm(&off).unwrap() < 1e-5, "{what}: {}", parameter.name);
            }
        }
    }

    /// The objective and its gradients are those of a copy with the moved weights and fresh statistics, and these end
    /// alike.
    fn check_gradients(
        defense: &dyn Defense,
        network: &Network,
        fresh: &BTreeMap<String, Tensor>,
        batch: &Batch,
        threat: &Threat,
        objective: &Tensor,
        done: &Step<'_>,
    ) {
        let copy = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(3)).unwrap();
        let mut state = fresh.clone();
        for parameter in network.parameters() {
            state.insert(parameter.name.clone(), parameter.var.as_detached_tensor());
        }
        copy.load_state(&state).unwrap();
        let mut memory = Memory::default();
        let mut other = step(&copy, batch, threat, &mut memory);
        other.crafted.clone_from(&done.crafted);
        other.again();
        let expected = defense.objective(&mut other).unwrap();
        assert_eq!(value(objective), value(&expected));
        let (ours, theirs) = (objective.backward().unwrap(), expected.backward().unwrap());
        for (one, two) in network.parameters().iter().zip(copy.parameters()) {
            let of = |store: &GradStore, parameter: &Parameter| numbers(store.get(&parameter.var).unwrap().clone());
            assert_eq!(of(&ours, one), of(&theirs, two), "{}", one.name);
        }
        for (one, two) in network.buffers().into_iter().zip(copy.buffers()) {
            assert_eq!(
                numbers(one.var.as_detached_tensor()),
                numbers(two.var.as_detached_tensor())
            );
        }
        let counts = |network: &Network| numbers(network.state().unwrap()["bn1.num_batches_tracked"].clone());
        assert_eq!(counts(network), counts(&copy));
    }

    /// A network whose predictions are sure enough that MMA has something to search.
    fn confident() -> Network {
        let network = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(3)).unwrap();
        let mut state = network.state().unwrap();
        let sharper = (&state["fc.weight"] * 4.0).unwrap();
        state.insert("fc.weight".into(), sharper);
        network.load_state(&state).unwrap();
        network
    }

    /// Six images with the labels that the network gives them, but for one.
    fn batch(network: &Network) -> Batch {
        let images = waves(6, [1, 8, 8], 10).images.to_dtype(DType::F32).unwrap();
        let logits = network.logits(&images, Mode::BatchStatistics).unwrap();
        let mut labels = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
        labels[2] = (labels[2] + 1) % 10;
        Batch {
            images,
            labels: Tensor::new(labels, &Device::Cpu).unwrap(),
            ids: (0..6).collect(),
        }
    }

    fn step<'a>(network: &'a Network, batch: &'a Batch, threat: &'a Threat, memory: &'a mut Memory) -> Step<'a> {
        Step::new(network, batch, threat, Stream::new(1), 0, memory)
    }

    fn numbers(tensor: Tensor) -> Vec<f64> {
        reference::doubles(&tensor)
    }

    fn value(scalar: &Tensor) -> f64 {
        reference::doubles(scalar)[0]
    }
}
