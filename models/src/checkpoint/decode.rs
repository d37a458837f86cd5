//! Bytes as tensors.

use candle_core::{DType, Device, Tensor};

use super::pickle::View;

type Result<T> = std::result::Result<T, String>;

/// What a storage's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
}

impl Element {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }

    /// A tensor of exactly these bytes: half precision becomes f32, integers become i64.
    pub(super) fn tensor(self, bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
        let cpu = &Device::Cpu;
        // A dimension of none hides the others from every other check, and their product from the strides.
        let sizes = shape.iter().filter(|size| **size > 0);
        let all = sizes.copied().try_fold(8usize, usize::checked_mul);
        all.filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or_else(|| format!("its shape {shape:?} is none that memory could hold"))?;
        let half = |dtype| Tensor::from_raw_buffer(bytes, dtype, shape, cpu)?.to_dtype(DType::F32);
        let integers = |number: fn(&[u8]) -> i64| {
            let numbers: Vec<i64> = bytes.chunks_exact(self.size()).map(number).collect();
            Tensor::from_vec(numbers, shape, cpu)
        };
        let tensor = match self {
            Self::F64 => Tensor::from_vec(numbers(bytes, f64::from_le_bytes), shape, cpu),
            Self::F32 => Tensor::from_vec(numbers(bytes, f32::from_le_bytes), shape, cpu),
            Self::F16 => half(DType::F16),
            Self::BF16 => half(DType::BF16),
            Self::I64 => Tensor::from_vec(numbers(bytes, i64::from_le_bytes), shape, cpu),
            Self::I32 => integers(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()),
            Self::I16 => integers(|b| i16::from_le_bytes([b[0], b[1]]).into()),
            Self::I8 => integers(|b| i64::from(b[0] as i8)),
            Self::U8 => integers(|b| b[0].into()),
        };
        tensor.map_err(|error| error.to_string())
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}

impl View {
    /// How many numbers the tensor has, if its storage can hold so many: a tensor that repeats the numbers
    /// of its storage could ask for any amount of memory.
    pub(super) fn count(&self) -> Result<usize> {
        let count = self
            .shape
            .iter()
            .try_fold(1usize, |count, &size| count.checked_mul(size));
        count.filter(|count| *count <= self.storage.length).ok_or_else(|| {
            format!(
                "shape {:?} needs more than the {} numbers of its storage",
                self.shape, self.storage.length
            )
        })
    }

    /// The numbers in row-major order out of the bytes of the storage.
    pub(super) fn tensor(&self, bytes: &[u8]) -> Result<Tensor> {
        let size = self.storage.element.size();
        if self.storage.length.checked_mul(size) != Some(bytes.len()) {
            return Err(format!(
                "its storage has {} bytes instead of {} × {size}",
                bytes.len(),
                self.storage.length
            ));
        }
        let count = self.count()?;
        let last =
            |offset: usize, (&size, &stride): (&usize, &usize)| (size - 1).checked_mul(stride)?.checked_add(offset);
        let outside = || {
            format!(
                "offset {} and strides {:?} lead out of its storage",
                self.offset, self.strides
            )
        };
        if count > 0 {
            let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, last);
            last.filter(|last| *last < self.storage.length).ok_or_else(outside)?;
        }
        let mut packed = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..count {
            packed.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            // The next index in row-major order, and where it lies.
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= index[axis] * self.strides[axis];
                index[axis] = 0;
            }
        }
        self.storage.element.tensor(&packed, &self.shape)
    }
}
