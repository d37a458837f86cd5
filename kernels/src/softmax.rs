//! Logarithm of the softmax, and cross entropy per example. Both subtract the row's maximum first, so
//! values and gradients stay finite for logits far apart.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::check::check_dtypes;
use crate::element::{Element, dispatch, values};

/// log softmax over the classes of `logits` `[B, K]`.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    check_dtypes("log_softmax", &[("logits", logits)])?;
    check_logits("log_softmax", logits)?;
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("log_softmax", logits)? {
        return crate::cuda::operations::log_softmax(logits);
    }
    logits.contiguous()?.apply_op1(LogSoftmax)
}

/// −log softmax(z)_y of every example: `logits` `[B, K]`, `labels` `[B]` (u32), result `[B]` in nats.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    check_dtypes("cross_entropy", &[("logits", logits)])?;
    let classes = check_logits("cross_entropy", logits)?;
    if labels.dims() != &logits.dims()[..1] || labels.dtype() != DType::U32 {
        bail!(
            "cross_entropy: labels {:?} {:?} do not fit logits {:?}; they must be [B] u32",
            labels.dims(),
            labels.dtype(),
            logits.dims()
        );
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("cross_entropy", logits)? {
        return crate::cuda::operations::cross_entropy(logits, labels);
    }
    if let Some(label) = labels
        .to_vec1::<u32>()?
        .iter()
        .find(|&&label| label as usize >= classes)
    {
        bail!("cross_entropy: label {label} but only {classes} classes");
    }
    logits.contiguous()?.apply_op2(&labels.contiguous()?, CrossEntropy)
}

fn check_logits(op: &str, logits: &Tensor) -> Result<usize> {
    match *logits.dims() {
        [_, classes] if classes > 0 => Ok(classes),
        _ => bail!("{op}: logits must be [B, K], not {:?}", logits.dims()),
    }
}

struct LogSoftmax;

impl CustomOp1 for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }

    fn cpu_fwd(&self, z: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(z, "log_softmax", log_softmax_forward(z, layout))
    }

    fn bwd(&self, logits: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if !logits.track_op() {
            return Ok(None);
        }
        Ok(Some(
            result.apply_op2_no_bwd(&gradient.contiguous()?, &LogSoftmaxGradient)?,
        ))
    }
}

struct LogSoftmaxGradient;

impl CustomOp2 for LogSoftmaxGradient {
    fn name(&self) -> &'static str {
        "log_softmax-gradient"
    }

    fn cpu_fwd(&self, y: &CpuStorage, ly: &Layout, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(y, "log_softmax", log_softmax_backward(y, ly, g, lg))
    }
}

struct CrossEntropy;

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, z: &CpuStorage, lz: &Layout, y: &CpuStorage, ly: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(z, "cross_entropy", cross_entropy_forward(z, lz, y, ly))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !logits.track_op() {
            return Ok((None, None));
        }
        // g · (softmax(z) − onehot(y)), the result's gradient carried inside the operation.
        let op = CrossEntropyGradient {
            gradient: gradient.to_dtype(DType::F64)?.to_vec1()?,
        };
        Ok((Some(logits.apply_op2_no_bwd(labels, &op)?), None))
    }
}

struct CrossEntropyGradient {
    gradient: Vec<f64>,
}

impl CustomOp2 for CrossEntropyGradient {
    fn name(&self) -> &'static str {
        "cross_entropy-gradient"
    }

    fn cpu_fwd(&self, z: &CpuStorage, lz: &Layout, y: &CpuStorage, ly: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(z, "cross_entropy", cross_entropy_backward(&self.gradient, z, lz, y, ly))
    }
}

/// log Σ exp z, by way of the maximum.
fn log_sum_exp<T: Element>(row: &[T]) -> f64 {
    let maximum = row.iter().fold(f64::NEG_INFINITY, |m, z| m.max(z.to_f64()));
    let sum: f64 = row.iter().map(|z| (z.to_f64() - maximum).exp()).sum();
    maximum + sum.ln()
}

fn log_softmax_forward<T: Element>(z: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let logits = values::<T>(z, layout)?;
    let (_, classes) = layout.shape().dims2()?;
    let mut out = Vec::with_capacity(logits.len());
    for row in logits.chunks(classes) {
        let total = log_sum_exp(row);
        out.extend(row.iter().map(|z| T::from_f64(z.to_f64() - total)));
    }
    Ok((T::to_cpu_storage_owned(out), layout.shape().clone()))
}

/// g − softmax · Σ g.
fn log_softmax_backward<T: Element>(
    y: &CpuStorage,
    ly: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (logs, gradient) = (values::<T>(y, ly)?, values::<T>(g, lg)?);
    let (_, classes) = ly.shape().dims2()?;
    let mut out = Vec::with_capacity(logs.len());
    for (logs, gradient) in logs.chunks(classes).zip(gradient.chunks(classes)) {
        let sum: f64 = gradient.iter().map(|g| g.to_f64()).sum();
        let row = logs.iter().zip(gradient);
        out.extend(row.map(|(log, g)| T::from_f64(g.to_f64() - log.to_f64().exp() * sum)));
    }
    Ok((T::to_cpu_storage_owned(out), ly.shape().clone()))
}

fn cross_entropy_forward<T: Element>(
    z: &CpuStorage,
    lz: &Layout,
    y: &CpuStorage,
    ly: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (logits, labels) = (values::<T>(z, lz)?, labels(y, ly)?);
    let (batch, classes) = lz.shape().dims2()?;
    let rows = logits.chunks(classes).zip(labels);
    let out = rows.map(|(row, &label)| T::from_f64(log_sum_exp(row) - row[label as usize].to_f64()));
    Ok((T::to_cpu_storage_owned(out.collect()), batch.into()))
}

fn cross_entropy_backward<T: Element>(
    gradient: &[f64],
    z: &CpuStorage,
    lz: &Layout,
    y: &CpuStorage,
    ly: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (logits, labels) = (values::<T>(z, lz)?, labels(y, ly)?);
    let (_, classes) = lz.shape().dims2()?;
    let mut out = Vec::with_capacity(logits.len());
    for ((row, &label), gradient) in logits.chunks(classes).zip(labels).zip(gradient) {
        let total = log_sum_exp(row);
        for (class, z) in row.iter().enumerate() {
            let probability = (z.to_f64() - total).exp();
            let target = if class == label as usize { 1.0 } else { 0.0 };
            out.push(T::from_f64(gradient * (probability - target)));
        }
    }
    Ok((T::to_cpu_storage_owned(out), lz.shape().clone()))
}

fn labels<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [u32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("cross_entropy: labels are not contiguous");
    };
    Ok(&storage.as_slice::<u32>()?[start..end])
}
