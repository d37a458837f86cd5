//! Loops over images whose channels lie side by side.

use crate::frame::Frame;
use crate::wide::wide;

/// Channels that are worked on together.
pub(crate) const LANES: usize = 16;

wide! {
    /// Adds values to sums.
    pub(crate) fn add[](sums: &mut [f32], values: &[f32]) {
        sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
    }
}

wide! {
    /// Zero where a mark is.
    pub(crate) fn mask[](gradient: &mut [f32], marks: &[u8]) {
        for (gradient, &mark) in gradient.iter_mut().zip(marks) {
            *gradient = if mark == 0 { 0.0 } else { *gradient };
        }
    }
}

wide! {
    /// Zero where a ReLU's result is: where it was off.
    pub(crate) fn mask_by_result[](gradient: &mut [f32], result: &[f32]) {
        for (gradient, &result) in gradient.iter_mut().zip(result) {
            *gradient = if result <= 0.0 { 0.0 } else { *gradient };
        }
    }
}

wide! {
    /// The maxima of all windows of one image, and their places: row by row, the first of equal ones. A NaN
    /// counts as the maximum.
    pub(crate) fn max_pool[](input: &[f32], frame: &Frame, size: usize, out: &mut [f32], out_frame: &Frame, places: &mut [u8]) {
        let channels = frame.channels;
        for i in 0..out_frame.height {
            for j in 0..out_frame.width {
                let corner = frame.at(i * size, j * size);
                let steps = [frame.row_step(), channels];
                let start = out_frame.at(i, j);
                let out = &mut out[start..start + channels];
                let places = &mut places[(i * out_frame.width + j) * channels..][..channels];
                let (blocks, rest) = out.as_chunks_mut::<LANES>();
                let (place_blocks, place_rest) = places.as_chunks_mut::<LANES>();
                for (block, (out, places)) in blocks.iter_mut().zip(place_blocks).enumerate() {
                    window_maxima(&input[corner + block * LANES..], steps, size, out, places);
                }
                let done = channels - rest.len();
                for (c, (out, place)) in rest.iter_mut().zip(place_rest).enumerate() {
                    let (mut value, mut at) = ([0.0], [0]);
                    window_maxima(&input[corner + done + c..], steps, size, &mut value, &mut at);
                    (*out, *place) = (value[0], at[0]);
                }
            }
        }
    }
}

/// The maxima of one window for channels side by side.
#[inline(always)]
fn window_maxima<const N: usize>(
    input: &[f32],
    [down, right]: [usize; 2],
    size: usize,
    out: &mut [f32; N],
    places: &mut [u8; N],
) {
    let pixel = |place: usize| -> &[f32; N] {
        let at = place / size * down + place % size * right;
        input[at..].first_chunk().expect("a window inside its frame")
    };
    let (mut best, mut at) = (*pixel(0), [0u32; N]);
    for place in 1..size * size {
        let next = pixel(place);
        // Without branches, so that lanes go side by side. Only a NaN is unequal to itself.
        #[allow(clippy::eq_op)]
        let larger: [bool; N] =
            std::array::from_fn(|i| (next[i] > best[i]) | ((next[i] != next[i]) & (best[i] == best[i])));
        best = std::array::from_fn(|i| if larger[i] { next[i] } else { best[i] });
        at = std::array::from_fn(|i| if larger[i] { place as u32 } else { at[i] });
    }
    *out = best;
    *places = at.map(|at| at as u8);
}

wide! {
    /// Adds every window's gradient where its maximum was.
    pub(crate) fn max_pool_gradient[](from: &[f32], frame: &Frame, places: &[u8], size: usize, to: &mut [f32], to_frame: &Frame) {
        let channels = frame.channels;
        for i in 0..frame.height {
            for j in 0..frame.width {
                let start = frame.at(i, j);
                let gradient = &from[start..start + channels];
                let places = &places[(i * frame.width + j) * channels..][..channels];
                for place in 0..size * size {
                    let start = to_frame.at(i * size + place / size, j * size + place % size);
                    let to = &mut to[start..start + channels];
                    for ((to, &gradient), &at) in to.iter_mut().zip(gradient).zip(places) {
                        *to += if usize::from(at) == place { gradient } else { 0.0 };
                    }
                }
            }
        }
    }
}
