//! Convolutions by cuDNN: an algorithm is chosen once for every shape, and all share one workspace.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::Arc;

use candle_core::cuda::cudarc::cudnn::{result, sys};
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{Result, bail};

use super::machine::{Address, Convolve, Pass};
use crate::device::{Precision, Settings};

/// Bytes of workspace. Fixed, because captured graphs remember where it lies; no algorithm that needs more is taken.
const WORKSPACE: usize = 512 << 20;

/// cuDNN on one stream.
pub(super) struct Dnn {
    handle: Handle,
    stream: Arc<CudaStream>,
    workspace: Option<CudaSlice<u8>>,
    plans: HashMap<Key, Plan>,
}

#[allow(unsafe_code, reason = "cuDNN's handles may move between threads")]
// SAFETY: handles and descriptors may be used by any thread as long as one does at a time; this lies behind a lock.
unsafe impl Send for Dnn {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    convolve: Convolve,
    pass: Pass,
    math: Math,
    deterministic: bool,
}

/// How f32 numbers are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Math {
    Exact,
    Tf32,
}

struct Handle(sys::cudnnHandle_t);

#[allow(unsafe_code, reason = "cuDNN is a C library")]
impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create_handle` and destroyed once.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// Descriptors of one convolution and the algorithm it takes.
struct Plan {
    images: Tensor,
    weights: Filter,
    result: Tensor,
    convolution: Convolution,
    algorithm: Algorithm,
    workspace: usize,
}

#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    ToImages(sys::cudnnConvolutionBwdDataAlgo_t),
    ToWeights(sys::cudnnConvolutionBwdFilterAlgo_t),
}

macro_rules! descriptor {
    ($name:ident, $type:ty, $destroy:path) => {
        struct $name($type);

        #[allow(unsafe_code, reason = "cuDNN is a C library")]
        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: made by the matching function and destroyed once.
                let _ = unsafe { $destroy(self.0) };
            }
        }
    };
}
descriptor!(Tensor, sys::cudnnTensorDescriptor_t, result::destroy_tensor_descriptor);
descriptor!(Filter, sys::cudnnFilterDescriptor_t, result::destroy_filter_descriptor);
descriptor!(
    Convolution,
    sys::cudnnConvolutionDescriptor_t,
    result::destroy_convolution_descriptor
);

/// One algorithm that cuDNN offers, best first.
struct Offer<A> {
    algorithm: A,
    workspace: usize,
    math: sys::cudnnMathType_t,
}

/// The first of cuDNN's offers that may be taken.
macro_rules! first_offer {
    ($offers:expr, $deterministic:expr, $exact:expr) => {
        $offers
            .iter()
            .find(|it| {
                let repeats = it.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC;
                // Numbers must not be converted to half precision behind our back.
                let faithful = it.mathType != sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION;
                let exact = it.mathType == sys::cudnnMathType_t::CUDNN_FMA_MATH
                    || it.mathType == sys::cudnnMathType_t::CUDNN_DEFAULT_MATH;
                it.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                    && it.memory <= WORKSPACE
                    && (repeats || !$deterministic)
                    && faithful
                    && (exact || !$exact)
            })
            .map(|it| Offer {
                algorithm: it.algo,
                workspace: it.memory,
                math: it.mathType,
            })
    };
}

impl Dnn {
    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        stream.context().bind_to_thread()?;
        let handle = Handle(result::create_handle()?);
        // SAFETY: handle and stream are alive, and the stream stays so as long as the handle.
        unsafe { result::set_stream(handle.0, stream.cu_stream() as *mut _) }?;
        Ok(Self {
            handle,
            stream: stream.clone(),
            workspace: None,
            plans: HashMap::new(),
        })
    }

    /// Computes one product. What is read and what is written depends on the pass.
    pub(super) fn convolve(
        &mut self,
        convolve: &Convolve,
        pass: Pass,
        at: [Address; 3],
        accumulate: bool,
        settings: Settings,
    ) -> Result<()> {
        let g = &convolve.geometry;
        if g.batch == 0 {
            bail!("conv2d: a batch of no images on a GPU");
        }
        // A fully connected layer: PyTorch multiplies its matrices exactly as well.
        let is_linear = (g.height, g.width, g.padding) == (g.kernel_height, g.kernel_width, 0);
        let key = Key {
            convolve: *convolve,
            pass,
            math: match settings.precision {
                Precision::F32 => Math::Exact,
                _ if is_linear => Math::Exact,
                Precision::Tf32 | Precision::Bf16 => Math::Tf32,
            },
            deterministic: settings.deterministic,
        };
        if self.workspace.is_none() {
            self.workspace = Some(self.room(WORKSPACE)?);
        }
        if !self.plans.contains_key(&key) {
            let plan = self.plan(&key, at)?;
            self.plans.insert(key, plan);
        }
        self.run(&self.plans[&key], at, accumulate)
    }

    #[allow(unsafe_code, reason = "what is not initialised must not be read")]
    fn room(&self, bytes: usize) -> Result<CudaSlice<u8>> {
        // SAFETY: cuDNN writes its workspace, and results, before it reads them.
        Ok(unsafe { self.stream.alloc(bytes.max(1)) }?)
    }

    fn address(&self, slice: &CudaSlice<u8>) -> Address {
        slice.device_ptr(&self.stream).0
    }

    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn plan(&self, key: &Key, at: [Address; 3]) -> Result<Plan> {
        let Convolve {
            geometry: g,
            half,
            last,
        } = key.convolve;
        let format = match last {
            true => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
            false => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
        };
        let numbers = match half {
            true => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            false => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        let sizes = |shape: Vec<usize>| -> [c_int; 4] { std::array::from_fn(|i| shape[i] as c_int) };
        let images = Tensor(result::create_tensor_descriptor()?);
        let weights = Filter(result::create_filter_descriptor()?);
        let outputs = Tensor(result::create_tensor_descriptor()?);
        let convolution = Convolution(result::create_convolution_descriptor()?);
        let [padding, stride] = [g.padding as c_int, g.stride as c_int];
        // SAFETY: all descriptors have just been made.
        unsafe {
            result::set_tensor4d_descriptor(images.0, format, numbers, sizes(g.input_shape()))?;
            result::set_filter4d_descriptor(weights.0, numbers, format, sizes(g.weight_shape()))?;
            result::set_tensor4d_descriptor(outputs.0, format, numbers, sizes(g.output_shape()))?;
            result::set_convolution2d_descriptor(
                convolution.0,
                padding,
                padding,
                stride,
                stride,
                1,
                1,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )?;
            let math = match (half, key.math) {
                (true, _) => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
                (false, Math::Tf32) => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
                (false, Math::Exact) => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            };
            result::set_convolution_math_type(convolution.0, math)?;
        }
        let mut plan = Plan {
            images,
            weights,
            result: outputs,
            convolution,
            algorithm: Algorithm::Forward(sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
            workspace: 0,
        };
        let exact = !half && key.math == Math::Exact;
        let offer = match key.pass {
            Pass::Forward => {
                let offer = self.forward_offer(&plan, at, key.deterministic, exact)?;
                offer.map(|it| (Algorithm::Forward(it.algorithm), it.workspace, it.math))
            }
            Pass::ToImages => {
                let offer = self.image_offer(&plan, at, key.deterministic, exact)?;
                offer.map(|it| (Algorithm::ToImages(it.algorithm), it.workspace, it.math))
            }
            Pass::ToWeights => {
                let offer = self.weight_offer(&plan, at, key.deterministic, exact)?;
                offer.map(|it| (Algorithm::ToWeights(it.algorithm), it.workspace, it.math))
            }
        };
        let Some((algorithm, workspace, math)) = offer else {
            bail!(
                "cuDNN has no algorithm for {:?} of {g:?} within {WORKSPACE} bytes",
                key.pass
            );
        };
        if !exact {
            // SAFETY: the descriptor is alive.
            unsafe { result::set_convolution_math_type(plan.convolution.0, math) }?;
        }
        (plan.algorithm, plan.workspace) = (algorithm, workspace);
        Ok(plan)
    }

    /// Measured on the card, or, where the choice must always be the same, as cuDNN's rules rank them.
    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn forward_offer(
        &self,
        plan: &Plan,
        [x, w, _]: [Address; 3],
        deterministic: bool,
        exact: bool,
    ) -> Result<Option<Offer<sys::cudnnConvolutionFwdAlgo_t>>> {
        const MOST: usize = 8;
        let mut count = 0;
        // SAFETY: plain numbers, of which zero is a value.
        let mut offers = [unsafe { std::mem::zeroed::<sys::cudnnConvolutionFwdAlgoPerf_t>() }; MOST];
        // SAFETY: descriptors are alive; as many offers as there is room for are written; operands are as described,
        // the result goes to room of its own.
        unsafe {
            let mut measured = false;
            if !deterministic {
                let to = self.room(self.tensor_bytes(&plan.result)?)?;
                let workspace = self.workspace.as_ref().map_or(0, |it| self.address(it));
                let status = sys::cudnnFindConvolutionForwardAlgorithmEx(
                    self.handle.0,
                    plan.images.0,
                    x as *const _,
                    plan.weights.0,
                    w as *const _,
                    plan.convolution.0,
                    plan.result.0,
                    self.address(&to) as *mut _,
                    MOST as c_int,
                    &mut count,
                    offers.as_mut_ptr(),
                    workspace as *mut _,
                    WORKSPACE,
                );
                // Where measuring fails, the rules may still know an algorithm.
                measured = status.result().is_ok() && count > 0;
            }
            if !measured {
                result::get_convolution_forward_algorithm(
                    self.handle.0,
                    plan.images.0,
                    plan.weights.0,
                    plan.convolution.0,
                    plan.result.0,
                    MOST as c_int,
                    &mut count,
                    offers.as_mut_ptr(),
                )?;
            }
        }
        Ok(first_offer!(offers[..count as usize], deterministic, exact))
    }

    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn image_offer(
        &self,
        plan: &Plan,
        [_, w, y]: [Address; 3],
        deterministic: bool,
        exact: bool,
    ) -> Result<Option<Offer<sys::cudnnConvolutionBwdDataAlgo_t>>> {
        const MOST: usize = 6;
        let mut count = 0;
        // SAFETY: plain numbers, of which zero is a value.
        let mut offers = [unsafe { std::mem::zeroed::<sys::cudnnConvolutionBwdDataAlgoPerf_t>() }; MOST];
        // SAFETY: as in `forward_offer`.
        unsafe {
            let mut measured = false;
            if !deterministic {
                let to = self.room(self.tensor_bytes(&plan.images)?)?;
                let workspace = self.workspace.as_ref().map_or(0, |it| self.address(it));
                let status = sys::cudnnFindConvolutionBackwardDataAlgorithmEx(
                    self.handle.0,
                    plan.weights.0,
                    w as *const _,
                    plan.result.0,
                    y as *const _,
                    plan.convolution.0,
                    plan.images.0,
                    self.address(&to) as *mut _,
                    MOST as c_int,
                    &mut count,
                    offers.as_mut_ptr(),
                    workspace as *mut _,
                    WORKSPACE,
                );
                // Where measuring fails, the rules may still know an algorithm.
                measured = status.result().is_ok() && count > 0;
            }
            if !measured {
                result::get_convolution_backward_data_algorithm(
                    self.handle.0,
                    plan.weights.0,
                    plan.result.0,
                    plan.convolution.0,
                    plan.images.0,
                    MOST as c_int,
                    &mut count,
                    offers.as_mut_ptr(),
                )?;
            }
        }
        Ok(first_offer!(offers[..count as usize], deterministic, exact))
    }

    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn weight_offer(
        &self,
        plan: &Plan,
        [x, _, y]: [Address; 3],
        deterministic: bool,
        exact: bool,
    ) -> Result<Option<Offer<sys::cudnnConvolutionBwdFilterAlgo_t>>> {
        const MOST: usize = 7;
        let mut count = 0;
        // SAFETY: plain numbers, of which zero is a value.
        let mut offers = [unsafe { std::mem::zeroed::<sys::cudnnConvolutionBwdFilterAlgoPerf_t>() }; MOST];
        // SAFETY: as in `forward_offer`.
        unsafe {
            let mut measured = false;
            if !deterministic {
                let bytes = filter_bytes(&plan.weights)?;
                let to = self.room(bytes)?;
                let workspace = self.workspace.as_ref().map_or(0, |it| self.address(it));
                let status = sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                    self.handle.0,
                    plan.images.0,
                    x as *const _,
                    plan.result.0,
                    y as *const _,
                    plan.convolution.0,
                    plan.weights.0,
                    self.address(&to) as *mut _,
                    MOST as c_int,
                    &mut count,
                    offers.as_mut_ptr(),
                    workspace as *mut _,
                    WORKSPACE,
                );
                // Where measuring fails, the rules may still know an algorithm.
                measured = status.result().is_ok() && count > 0;
            }
            if !measured {
                result::get_convolution_backward_filter_algorithm(
                    self.handle.0,
                    plan.images.0,
                    plan.result.0,
                    plan.convolution.0,
                    plan.weights.0,
                    MOST as c_int,
                    &mut count,
                    offers.as_mut_ptr(),
                )?;
            }
        }
        Ok(first_offer!(offers[..count as usize], deterministic, exact))
    }

    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn tensor_bytes(&self, tensor: &Tensor) -> Result<usize> {
        let mut bytes = 0;
        // SAFETY: the descriptor is alive; writes one number.
        unsafe { sys::cudnnGetTensorSizeInBytes(tensor.0, &mut bytes) }.result()?;
        Ok(bytes)
    }

    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn run(&self, plan: &Plan, [x, w, y]: [Address; 3], accumulate: bool) -> Result<()> {
        let one = 1.0f32;
        let keep = if accumulate { 1.0f32 } else { 0.0 };
        let (one, keep) = ((&raw const one).cast(), (&raw const keep).cast());
        let workspace = self.workspace.as_ref().map_or(0, |it| self.address(it)) as *mut _;
        let handle = self.handle.0;
        // SAFETY: operands are as the descriptors say, by the caller's contract, and alive until the stream is done; the
        // workspace is large enough for every plan.
        unsafe {
            match plan.algorithm {
                Algorithm::Forward(algorithm) => result::convolution_forward(
                    handle,
                    one,
                    plan.images.0,
                    x as *const _,
                    plan.weights.0,
                    w as *const _,
                    plan.convolution.0,
                    algorithm,
                    workspace,
                    plan.workspace,
                    keep,
                    plan.result.0,
                    y as *mut _,
                )?,
                Algorithm::ToImages(algorithm) => result::convolution_backward_data(
                    handle,
                    one,
                    plan.weights.0,
                    w as *const _,
                    plan.result.0,
                    y as *const _,
                    plan.convolution.0,
                    algorithm,
                    workspace,
                    plan.workspace,
                    keep,
                    plan.images.0,
                    x as *mut _,
                )?,
                Algorithm::ToWeights(algorithm) => result::convolution_backward_filter(
                    handle,
                    one,
                    plan.images.0,
                    x as *const _,
                    plan.result.0,
                    y as *const _,
                    plan.convolution.0,
                    algorithm,
                    workspace,
                    plan.workspace,
                    keep,
                    plan.weights.0,
                    w as *mut _,
                )?,
            }
        }
        Ok(())
    }
}

/// Bytes of the weights.
#[allow(unsafe_code, reason = "cuDNN is a C library")]
fn filter_bytes(weights: &Filter) -> Result<usize> {
    let mut bytes = 0;
    // SAFETY: the descriptor is alive; writes one number.
    unsafe { sys::cudnnGetFilterSizeInBytes(weights.0, &mut bytes) }.result()?;
    Ok(bytes)
}
