//! Which images of a test split a file of adversarial images was made from, where the file does not say so.

use attacks::{Norm, Threat};
use candle_core::{DType, Result, Tensor};
use storage::examples::Incomplete;

use crate::compute::evaluation::SLACK;

/// The places of the images: the first of the split, in order, if labels and distances allow that; else for each image
/// the nearest one in the threat model with the same label. Returns too how they were found; the error says what has none.
pub(super) fn find(
    file: &Incomplete<'_>,
    split: &Tensor,
    labels: &[u32],
    threat: &Threat,
) -> std::result::Result<(Vec<u64>, &'static str), String> {
    let rows = |images: &Tensor| -> Result<Vec<Vec<f32>>> { images.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2() };
    let unreadable = |error: candle_core::Error| format!("{error}: no images");
    let (images, split) = (
        rows(file.adversarial).map_err(unreadable)?,
        rows(split).map_err(unreadable)?,
    );
    let same_label = |at: usize, place: usize| file.labels.is_none_or(|of| of[at] == labels[place]);
    let most = threat.epsilon.value() + SLACK;
    let within = |at: usize, place: usize| distance(&images[at], &split[place], threat.norm, most);
    let in_order = images.len() <= split.len() && (0..images.len()).all(|at| same_label(at, at));
    // An attack may have left the ball here and there, which is for the rules to find.
    if in_order && (0..images.len()).filter(|&at| within(at, at).is_some()).count() * 2 > images.len() {
        let how = "the file has no `ids`: its images are the first of the test split, in order";
        return Ok(((0..images.len() as u64).collect(), how));
    }
    let nearest = |at: usize| {
        let candidates = (0..split.len()).filter(|&place| same_label(at, place));
        let distances = candidates.filter_map(|place| Some((within(at, place)?, place as u64)));
        distances.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, place)| place)
    };
    let places: Vec<Option<u64>> = (0..images.len()).map(nearest).collect();
    let lost = places.iter().filter(|place| place.is_none()).count();
    if lost > 0 {
        let label = if file.labels.is_some() { " with their label" } else { "" };
        return Err(format!(
            "it has no `ids`, and {lost} of {} images are within {} ≤ {} of no test image{label}",
            images.len(),
            threat.norm,
            threat.epsilon
        ));
    }
    let how = "the file has no `ids`: each image was found by the nearest one of the test split";
    Ok((places.into_iter().flatten().collect(), how))
}

/// The distance of two images, if it is at most `most`.
fn distance(a: &[f32], b: &[f32], norm: Norm, most: f64) -> Option<f64> {
    let changes = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    let mut far = 0.0f64;
    let bound = match norm {
        Norm::Linf => most,
        Norm::L2 => most * most,
    };
    for change in changes {
        match norm {
            Norm::Linf => far = far.max(change),
            Norm::L2 => far += change * change,
        }
        // Nearly every pair is told apart by its first pixels. What is not a number is in no ball.
        if !change.is_finite() || far > bound {
            return None;
        }
    }
    Some(far)
}
