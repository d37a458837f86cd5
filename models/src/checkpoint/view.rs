//! Tensors as views of storages.

use candle_core::Tensor;

use super::element::Element;

type Result<T> = std::result::Result<T, String>;

/// Numbers in a row, kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) element: Element,
    /// How many numbers.
    pub(super) length: usize,
}

/// A tensor: numbers of a storage, by offset and strides counted in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl View {
    /// The tensor's number of elements, if its storage holds that many: a tensor that repeats the elements
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
        // One step beyond the last index of every axis, also of an axis of one element, whose stride is free.
        let beyond = |offset: usize, (&size, &stride): (&usize, &usize)| size.checked_mul(stride)?.checked_add(offset);
        if self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, beyond)
            .is_none()
        {
            return Err(format!(
                "offset {} and strides {:?} lead beyond any memory",
                self.offset, self.strides
            ));
        }
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
            // The next index in row-major order, and its place.
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
