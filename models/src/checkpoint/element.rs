//! The types of numbers in a checkpoint.

use candle_core::{DType, Device, Tensor};

type Result<T> = std::result::Result<T, String>;

/// The type of a storage's numbers.
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
        // A dimension of 0 would hide the others from every other check, and from the strides their product.
        let sizes = shape.iter().filter(|size| **size > 0);
        let all = sizes.copied().try_fold(8usize, usize::checked_mul);
        all.filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or_else(|| format!("its shape {shape:?} does not fit into memory"))?;
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
