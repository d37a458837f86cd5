//! Batch normalisation.

use proptest::prelude::*;

use super::*;
use crate::cuda::machine::{GradientSums, Moments, Normalised, Target};
use crate::{Activation, BatchNorm, Statistics};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn batch_normalisation(
        batch in 1usize..5,
        channels in 1usize..7,
        rows in 2usize..9,
        columns in 1usize..9,
        mode in 0usize..3,
        relu: bool,
        last: bool,
        half: bool,
        residual: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let shape = [batch, channels, rows, columns];
        let n = shape.iter().product();
        let form = Form { half, last };
        // What a form can hold, so that only results are rounded.
        let hold = |values: Vec<f32>| -> Vec<f32> {
            let held = |value: f32| if half { half::bf16::from_f32(value).to_f32() } else { value };
            values.into_iter().map(held).collect()
        };
        let x = hold(numbers(seed, n).iter().map(|x| x * 3.0 + 1.5).collect());
        let (weight, bias) = (numbers(seed + 1, channels), numbers(seed + 2, channels));
        let running_mean = numbers(seed + 3, channels);
        let running_var: Vec<f32> = numbers(seed + 4, channels).iter().map(|v| v * 0.5 + 1.0).collect();
        let g = hold(numbers(seed + 5, n));
        let statistics = [Statistics::Running, Statistics::Batch, Statistics::BatchAndUpdate][mode];
        let activation = if relu { Activation::Relu } else { Activation::None };
        let norm = BatchNorm {
            weight: tensor(&weight, &[channels]),
            bias: tensor(&bias, &[channels]),
            running_mean: Var::from_tensor(&tensor(&running_mean, &[channels])).unwrap(),
            running_var: Var::from_tensor(&tensor(&running_var, &[channels])).unwrap(),
            epsilon: 1e-5,
            momentum: 0.1,
            updates: Default::default(),
        };
        let other = hold(numbers(seed + 6, n));
        let mut arguments = vec![tensor(&x, &shape), norm.weight.clone(), norm.bias.clone()];
        if residual {
            arguments.push(tensor(&other, &shape));
        }
        let (expected, gradients) = with_gradients(&arguments, &g, |t| {
            let norm = BatchNorm { weight: t[1].clone(), bias: t[2].clone(), ..norm.clone() };
            if !residual {
                return crate::batch_norm(&t[0], &norm, statistics, activation).unwrap();
            }
            let sum = (crate::batch_norm(&t[0], &norm, statistics, Activation::None).unwrap() + &t[3]).unwrap();
            if relu { crate::relu(&sum).unwrap() } else { sum }
        });

        let extent = Extent::new(&shape).unwrap();
        // Half a unit in the last place of 8 bits.
        let rounding = if half { 4e-3 } else { 2e-5 };
        let partial = gpu.alloc(extent.partial_bytes(form));
        let moments = Moments { mean: gpu.room(channels), factor: gpu.room(channels), scale: gpu.alloc(8 * channels) };
        let running = [gpu.floats(&running_mean), gpu.floats(&running_var)];
        let [weight, bias] = [&weight, &bias].map(|values| gpu.floats(values));
        let [x, other_at, g] = [&x, &other, &g].map(|values| enter(&gpu, form, values, extent));
        let other_at = if residual { other_at } else { 0 };
        let source = match statistics {
            Statistics::Running => machine::Source::Running(running),
            _ => machine::Source::Batch {
                partial,
                running: (statistics == Statistics::BatchAndUpdate).then_some(running),
                momentum: 0.1,
            },
        };
        let out = gpu.alloc(form.width() * n);
        machine::moments(&gpu, form, moments, x, weight, source, 1e-5, extent).unwrap();
        machine::normalise(&gpu, form, out, [x, bias, other_at], moments, extent, relu).unwrap();
        let result = leave(&gpu, form, out, extent);
        assert_near_sums("result", &result, &flat(&expected), rounding, 1.0);
        assert_near_sums("running mean", &gpu.get(running[0], channels), &flat(norm.running_mean.as_tensor()), 1e-6, 1.0);
        assert_near("running variance", &gpu.get(running[1], channels), &flat(norm.running_var.as_tensor()), 1e-5);

        let of = Normalised {
            x,
            y: if relu { out } else { 0 },
            moments,
            weight,
            of_batch: statistics != Statistics::Running,
            extent,
        };
        let sums = GradientSums {
            partial,
            to_weight: gpu.room(channels),
            to_bias: gpu.room(channels),
            slope: gpu.room(channels),
            offset: gpu.room(channels),
        };
        machine::norm_gradient_sums(&gpu, form, &of, g, sums).unwrap();
        let of_batch = of.of_batch.then_some(sums);
        let room = || gpu.alloc(form.width() * n);
        let (to, to_other) = (room(), if residual { room() } else { 0 });
        machine::norm_gradient(&gpu, form, [to, to_other].map(Target::new), &of, g, of_batch).unwrap();
        // A number at the ReLU's edge may fall to either side.
        if !relu || flat(&expected).iter().zip(&result).all(|(a, b)| (*a > 0.0) == (*b > 0.0)) {
            // Of two numbers per channel, the batch's statistics take all but ε away.
            let slope = gpu.get(moments.factor, channels).iter().fold(0f32, |largest, factor| largest.max(factor.abs()));
            let terms = ((n / channels) as f32).sqrt();
            let found = leave(&gpu, form, to, extent);
            assert_near_sums("gradient to images", &found, &flat(&gradients[0]), rounding, slope);
            assert_near_sums("gradient to weights", &gpu.get(sums.to_weight, channels), &flat(&gradients[1]), 2e-5, terms);
            assert_near_sums("gradient to biases", &gpu.get(sums.to_bias, channels), &flat(&gradients[2]), 2e-5, terms);
            if residual {
                let found = leave(&gpu, form, to_other, extent);
                assert_same("gradient to the other summand", &found, &flat(&gradients[3]));
            }
            // Added to what is there, the gradient's own place included.
            let more = |at| Target { at, accumulate: true };
            machine::norm_gradient(&gpu, form, [more(to), if residual { more(to_other) } else { Target::new(0) }], &of, g, of_batch).unwrap();
            let twice: Vec<f32> = found.iter().map(|value| 2.0 * value).collect();
            assert_near_sums("twice", &leave(&gpu, form, to, extent), &twice, rounding, slope);
            if residual {
                let twice: Vec<f32> = flat(&gradients[3]).iter().map(|value| 2.0 * value).collect();
                assert_same("twice the other", &leave(&gpu, form, to_other, extent), &twice);
            }
            machine::norm_gradient(&gpu, form, [Target::new(g), Target::new(0)], &of, g, of_batch).unwrap();
            assert_same("in place", &leave(&gpu, form, g, extent), &found);
        }
    }
}
