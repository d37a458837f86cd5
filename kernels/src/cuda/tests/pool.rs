//! Pooling.

use proptest::prelude::*;

use super::*;
use crate::cuda::machine::{Target, Windows};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pooling(
        batch in 1usize..4,
        channels in 1usize..5,
        rows in 3usize..9,
        columns in 3usize..9,
        size in 1usize..4,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let shape = [batch, channels, rows, columns];
        let n: usize = shape.iter().product();
        // Few different numbers, so that maxima tie.
        let x: Vec<f32> = numbers(seed, n).iter().map(|x| (x * 3.0).round()).collect();
        let windows = Windows::square(shape, size);
        let m: usize = windows.out().iter().product();
        let g = numbers(seed + 1, m);
        let (extent, out_extent) = (Extent::new(&shape).unwrap(), Extent::new(&windows.out()).unwrap());
        for form in SINGLE {
            let (images, gradient) = (enter(&gpu, form, &x, extent), enter(&gpu, form, &g, out_extent));
            let (out, places, to) = (gpu.room(m), gpu.alloc(m), gpu.room(n));
            let on_cpu = [tensor(&x, &shape)];
            let (expected, gradients) = with_gradients(&on_cpu, &g, |t| crate::max_pool2d(&t[0], size).unwrap());
            machine::max_pool(&gpu, form, [out, places], images, windows).unwrap();
            assert_same("maxima", &leave(&gpu, form, out, out_extent), &flat(&expected));
            machine::max_pool_gradient(&gpu, form, Target::new(to), [places, gradient], windows).unwrap();
            assert_same("gradient of maxima", &leave(&gpu, form, to, extent), &flat(&gradients[0]));
            machine::max_pool_gradient(&gpu, form, Target { at: to, accumulate: true }, [places, gradient], windows).unwrap();
            let twice: Vec<f32> = flat(&gradients[0]).iter().map(|g| 2.0 * g).collect();
            assert_same("added gradient of maxima", &leave(&gpu, form, to, extent), &twice);

            let (expected, gradients) = with_gradients(&on_cpu, &g, |t| crate::avg_pool2d(&t[0], size).unwrap());
            machine::mean_pool(&gpu, form, out, images, windows).unwrap();
            assert_near("means", &leave(&gpu, form, out, out_extent), &flat(&expected), 1e-6);
            machine::mean_pool_gradient(&gpu, form, Target::new(to), gradient, windows).unwrap();
            assert_near("gradient of means", &leave(&gpu, form, to, extent), &flat(&gradients[0]), 1e-6);
        }
    }
}
