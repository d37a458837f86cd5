//! An attack on a frozen network that never leaves the GPU.
//!
//! v ← min(max(v + step · sign ∇L(v), lower), upper), several times over: forward pass, gradient of the
//! loss, backward pass and step are one sequence of kernels, captured once as a CUDA graph and replayed.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

static REPLAYS: AtomicU64 = AtomicU64::new(0);

/// How many attack steps of this process were replayed from a captured graph.
pub fn replayed_steps() -> u64 {
    REPLAYS.load(Ordering::Relaxed)
}

#[cfg(feature = "cuda")]
pub(crate) fn count_replay() {
    REPLAYS.fetch_add(1, Ordering::Relaxed);
}

/// A loss of logits z that is ascended, one value per example; M = max over k ≠ y of z_k, the first on ties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// −log p_y.
    CrossEntropy,
    /// KL(p of the clean logits ‖ p).
    Kl,
    /// M − z_y.
    Margin,
    /// −max(z_y − M + κ, 0).
    Cw(f32),
    /// log Σ_{k≠y} exp z_k − z_y.
    SoftMargin,
    /// max(M − z_y + κ, 0).
    Hinge(f32),
}

impl Loss {
    /// As the kernel knows it.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn code(self) -> (i32, f32) {
        match self {
            Self::CrossEntropy => (0, 0.0),
            Self::Kl => (1, 0.0),
            Self::Margin => (2, 0.0),
            Self::Cw(kappa) => (3, kappa),
            Self::SoftMargin => (4, 0.0),
            Self::Hinge(kappa) => (5, kappa),
        }
    }
}

/// What is ascended, from where, and how far.
#[derive(Debug)]
pub struct Ascent<'a> {
    /// Where it starts, `[B, C, H, W]`.
    pub start: &'a Tensor,
    /// No pixel goes below.
    pub lower: &'a Tensor,
    /// No pixel goes above.
    pub upper: &'a Tensor,
    /// Class indices `[B]`, u32.
    pub labels: &'a Tensor,
    /// The unperturbed images' logits `[B, K]`, for [`Loss::Kl`].
    pub clean_logits: Option<&'a Tensor>,
    /// The loss.
    pub loss: Loss,
    /// The length of a step.
    pub step: f64,
    /// How many.
    pub steps: u64,
}

/// Where an ascent ended.
#[derive(Debug, Clone)]
pub struct Ascended {
    /// `[B, C, H, W]`.
    pub images: Tensor,
    /// 1 for an image that met a gradient of zeros on its way, else 0: `[B]`.
    pub stalled: Tensor,
}

#[cfg(any(feature = "cuda", test))]
impl Ascent<'_> {
    /// Fails unless every shape, type and place fits a network that takes such images, and every label is a class. A
    /// kernel would read or write past the end of what does not fit.
    pub(crate) fn check(&self, [channels, height, width]: [usize; 3], classes: usize) -> candle_core::Result<()> {
        use candle_core::{DType, bail};
        if classes < 2 {
            bail!("ascent: {classes} classes leave no wrong one");
        }
        let batch = self.start.dim(0)?;
        let images = [batch, channels, height, width];
        let fits = |name: &str, tensor: &Tensor, shape: &[usize], dtype: DType| {
            let same_place = tensor.device().same_device(self.start.device());
            if tensor.dims() != shape || tensor.dtype() != dtype || !tensor.is_contiguous() || !same_place {
                let dtype = dtype.as_str();
                bail!("ascent: {name} must be contiguous {shape:?} {dtype} on one device, not {tensor:?}");
            }
            Ok(())
        };
        fits("start", self.start, &images, DType::F32)?;
        fits("lower", self.lower, &images, DType::F32)?;
        fits("upper", self.upper, &images, DType::F32)?;
        fits("labels", self.labels, &[batch], DType::U32)?;
        match (self.loss, self.clean_logits) {
            (Loss::Kl, Some(logits)) => fits("clean logits", logits, &[batch, classes], DType::F32)?,
            (Loss::Kl, None) => bail!("ascent: the kl loss needs clean logits [{batch}, {classes}]"),
            _ => {}
        }
        // One copy for all steps of the ascent.
        let labels = self.labels.to_vec1::<u32>()?;
        match labels.iter().find(|&&label| label as usize >= classes) {
            Some(label) => bail!("ascent: label {label} is none of {classes} classes"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Result};

    /// Checks an ascent of two images [3, 4, 4] with 5 classes after a change.
    fn check(change: impl Fn(&str, Tensor) -> Tensor, loss: Loss) -> Result<()> {
        let zeros =
            |name: &str, shape: &[usize], dtype| change(name, Tensor::zeros(shape, dtype, &Device::Cpu).unwrap());
        let image = |name| zeros(name, &[2, 3, 4, 4], DType::F32);
        let (start, lower, upper) = (image("start"), image("lower"), image("upper"));
        let labels = zeros("labels", &[2], DType::U32);
        let clean = zeros("clean", &[2, 5], DType::F32);
        let ascent = Ascent {
            start: &start,
            lower: &lower,
            upper: &upper,
            labels: &labels,
            clean_logits: Some(&clean),
            loss,
            step: 0.1,
            steps: 1,
        };
        ascent.check([3, 4, 4], 5)
    }

    #[test]
    fn what_a_kernel_would_write_past_is_refused() {
        type Change = fn(Tensor) -> Tensor;
        check(|_, tensor| tensor, Loss::Kl).unwrap();
        let changes: [(&str, Change); 3] = [
            ("another type", |tensor| tensor.to_dtype(DType::F64).unwrap()),
            ("too few rows", |tensor| tensor.narrow(0, 0, 1).unwrap()),
            ("another rank", |tensor| tensor.unsqueeze(0).unwrap()),
        ];
        for name in ["start", "lower", "upper", "labels", "clean"] {
            for (what, change) in changes {
                let changed = |this: &str, tensor: Tensor| if this == name { change(tensor) } else { tensor };
                assert!(check(changed, Loss::Kl).is_err(), "{name}: {what}");
            }
        }
        let turned = |name: &str, tensor: Tensor| match name {
            "lower" => tensor.transpose(2, 3).unwrap(),
            _ => tensor,
        };
        assert!(check(turned, Loss::CrossEntropy).is_err());
        let far = |name: &str, tensor: Tensor| match name {
            "labels" => Tensor::new(&[0u32, 5], &Device::Cpu).unwrap(),
            _ => tensor,
        };
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Cw(0.0)] {
            let error = check(far, loss).unwrap_err().to_string();
            assert!(error.contains("label 5 is none of 5 classes"), "{error}");
        }
    }
}
