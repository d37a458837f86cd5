//! The loops of a [`Kernel`](super::kernel::Kernel), written once for every vector type.

/// Defines a `Kernel` over vectors of some type. `$features` are those that its functions are
/// compiled for; `single` and `double` choose a kernel only after they have found them on this machine.
macro_rules! kernel {
    ($kernel:ident, $module:ident, $number:ty, $lanes:literal, $rows:literal, $vector:ty, [$($features:literal)?],
     $load:expr, $store:expr, $broadcast:expr, $fused:expr, $add:expr) => {
        pub(super) const $kernel: Kernel<$number> = Kernel {
            rows: $rows,
            lanes: $lanes,
            dots: $module::dots,
            outer: $module::outer,
            dot: $module::dot,
        };

        mod $module {
            #[allow(unused_imports, reason = "the portable kernels need none of it")]
            use super::*;

            const LANES: usize = $lanes;

            pub(super) fn dots(
                left: &Rows<'_, $number>,
                panel: &[$number],
                columns: usize,
                how: Store,
                tile: &mut [$number],
            ) {
                #[allow(unsafe_code, unused_unsafe, reason = "the functions may need CPU features")]
                // SAFETY: `single` and `double` have found the features on this machine.
                unsafe {
                    match (left.starts.len(), columns / LANES) {
                        ($rows, 2) => dots_of::<$rows, 2>(left, panel, how, tile),
                        #[allow(unreachable_patterns, reason = "where the tallest tile has 6 rows")]
                        (6, 2) => dots_of::<6, 2>(left, panel, how, tile),
                        (4, 2) => dots_of::<4, 2>(left, panel, how, tile),
                        (2, 2) => dots_of::<2, 2>(left, panel, how, tile),
                        (1, 2) => dots_of::<1, 2>(left, panel, how, tile),
                        ($rows, 1) => dots_of::<$rows, 1>(left, panel, how, tile),
                        #[allow(unreachable_patterns, reason = "as above")]
                        (6, 1) => dots_of::<6, 1>(left, panel, how, tile),
                        (4, 1) => dots_of::<4, 1>(left, panel, how, tile),
                        (2, 1) => dots_of::<2, 1>(left, panel, how, tile),
                        (1, 1) => dots_of::<1, 1>(left, panel, how, tile),
                        (rows, vectors) => unreachable!("no tile of {rows} rows and {vectors} vectors"),
                    }
                }
            }

            pub(super) fn outer(
                operands: &Columns<'_, $number>,
                rows: usize,
                columns: usize,
                tile: &mut [$number],
            ) {
                #[allow(unsafe_code, unused_unsafe, reason = "the functions may need CPU features")]
                // SAFETY: as in `dots`.
                unsafe {
                    match (rows, columns / LANES) {
                        ($rows, 2) => outer_of::<$rows, 2>(operands, tile),
                        #[allow(unreachable_patterns, reason = "as in `dots`")]
                        (6, 2) => outer_of::<6, 2>(operands, tile),
                        (4, 2) => outer_of::<4, 2>(operands, tile),
                        (2, 2) => outer_of::<2, 2>(operands, tile),
                        (1, 2) => outer_of::<1, 2>(operands, tile),
                        ($rows, 1) => outer_of::<$rows, 1>(operands, tile),
                        #[allow(unreachable_patterns, reason = "as in `dots`")]
                        (6, 1) => outer_of::<6, 1>(operands, tile),
                        (4, 1) => outer_of::<4, 1>(operands, tile),
                        (2, 1) => outer_of::<2, 1>(operands, tile),
                        (1, 1) => outer_of::<1, 1>(operands, tile),
                        (rows, vectors) => unreachable!("no tile of {rows} rows and {vectors} vectors"),
                    }
                }
            }

            pub(super) fn dot(values: &[$number], taps: &[usize], run: usize, weights: &[$number]) -> $number {
                #[allow(unsafe_code, unused_unsafe, reason = "the function may need CPU features")]
                // SAFETY: as in `dots`.
                unsafe {
                    dot_of(values, taps, run, weights)
                }
            }

            $(#[target_feature(enable = $features)])?
            fn dot_of(values: &[$number], taps: &[usize], run: usize, weights: &[$number]) -> $number {
                let mut sums = [$broadcast(0.0); 4];
                let mut rest = 0.0;
                for (&tap, weights) in taps.iter().zip(weights.chunks_exact(run)) {
                    let (values, values_rest) = values[tap..][..run].as_chunks::<LANES>();
                    let (weights, weights_rest) = weights.as_chunks::<LANES>();
                    let (values_of_four, last_values) = values.as_chunks::<4>();
                    let (weights_of_four, last_weights) = weights.as_chunks::<4>();
                    for (values, weights) in values_of_four.iter().zip(weights_of_four) {
                        for i in 0..4 {
                            sums[i] = $fused($load(&values[i]), $load(&weights[i]), sums[i]);
                        }
                    }
                    for (values, weights) in last_values.iter().zip(last_weights) {
                        sums[0] = $fused($load(values), $load(weights), sums[0]);
                    }
                    for (&value, &weight) in values_rest.iter().zip(weights_rest) {
                        rest += value * weight;
                    }
                }
                let sum: [$number; LANES] = $store($add($add(sums[0], sums[1]), $add(sums[2], sums[3])));
                sum.iter().sum::<$number>() + rest
            }

            // Loops over registers, which are unrolled.
            #[allow(clippy::needless_range_loop)]
            $(#[target_feature(enable = $features)])?
            fn dots_of<const ROWS: usize, const VECTORS: usize>(
                left: &Rows<'_, $number>,
                panel: &[$number],
                how: Store,
                tile: &mut [$number],
            ) {
                let starts: &[usize; ROWS] = left.starts.try_into().expect("as many rows as the tile has");
                let mut sums = [[$broadcast(0.0); VECTORS]; ROWS];
                let (panel, _) = panel.as_chunks::<LANES>();
                for (&tap, panel) in left.taps.iter().zip(panel.chunks_exact(left.run * VECTORS)) {
                    let mut rows: [&[$number]; ROWS] = [&[]; ROWS];
                    for i in 0..ROWS {
                        rows[i] = &left.values[starts[i] + tap..][..left.run];
                    }
                    let (panel, _) = panel.as_chunks::<VECTORS>();
                    for (k, vectors) in (0..left.run).zip(panel) {
                        let mut loaded = [$broadcast(0.0); VECTORS];
                        for v in 0..VECTORS {
                            loaded[v] = $load(&vectors[v]);
                        }
                        for i in 0..ROWS {
                            let number = $broadcast(rows[i][k]);
                            for v in 0..VECTORS {
                                sums[i][v] = $fused(number, loaded[v], sums[i][v]);
                            }
                        }
                    }
                }
                put(&sums, how, tile);
            }

            $(#[target_feature(enable = $features)])?
            fn outer_of<const ROWS: usize, const VECTORS: usize>(
                operands: &Columns<'_, $number>,
                tile: &mut [$number],
            ) {
                let mut sums = [[$broadcast(0.0); VECTORS]; ROWS];
                for &(left, right) in operands.starts {
                    let (left, right) = (&operands.left[left..], &operands.right[right..]);
                    for p in 0..operands.count {
                        let left: &[$number; ROWS] = left[p * operands.left_step..].first_chunk().expect("a row of the tile");
                        let right = &right[p * operands.right_step..][..LANES * VECTORS];
                        let (right, _) = right.as_chunks::<LANES>();
                        let vectors: [$vector; VECTORS] = std::array::from_fn(|v| $load(&right[v]));
                        for i in 0..ROWS {
                            let number = $broadcast(left[i]);
                            for v in 0..VECTORS {
                                sums[i][v] = $fused(number, vectors[v], sums[i][v]);
                            }
                        }
                    }
                }
                put(&sums, Store::Replace, tile);
            }

            $(#[target_feature(enable = $features)])?
            fn put<const ROWS: usize, const VECTORS: usize>(
                sums: &[[$vector; VECTORS]; ROWS],
                how: Store,
                tile: &mut [$number],
            ) {
                let (out, _) = tile.as_chunks_mut::<LANES>();
                for (out, &sum) in out.iter_mut().zip(sums.as_flattened()) {
                    *out = $store(match how {
                        Store::Replace => sum,
                        Store::Add => $add($load(out), sum),
                    });
                }
            }
        }
    };
}
pub(super) use kernel;
