//! Convolutions by cuDNN: an algorithm is chosen once for every shape, and all share one workspace.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::Arc;

use candle_core::cuda::cudarc::cudnn::{result, sys};
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{Result, bail};

use super::choice::{Math, Offer, Wish, choose};
use super::machine::{Address, Convolve, Pass};
use crate::device::{Precision, Settings};

/// Bytes of workspace. Fixed, because captured graphs remember where it is; no algorithm that needs more is taken.
const WORKSPACE: usize = 512 << 20;

/// cuDNN on one stream.
pub(super) struct Dnn {
    handle: Handle,
    stream: Arc<CudaStream>,
    workspace: Option<CudaSlice<u8>>,
    plans: HashMap<Key, Plan>,
}

#[allow(unsafe_code, reason = "cuDNN's handles may move between threads")]
// SAFETY: handles and descriptors may be used by any thread as long as one does at a time; this is behind a lock.
unsafe impl Send for Dnn {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    convolve: Convolve,
    pass: Pass,
    /// Whether f32 is multiplied as such, and not as TF32.
    exact: bool,
    deterministic: bool,
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
            exact: is_linear || settings.precision == Precision::F32,
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
        let Convolve { geometry: g, form } = key.convolve;
        let format = if form.last {
            sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC
        } else {
            sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW
        };
        let numbers = if form.half {
            sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16
        } else {
            sys::cudnnDataType_t::CUDNN_DATA_FLOAT
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
            let math = match (form.half, key.exact) {
                (true, _) => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
                (false, false) => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
                (false, true) => sys::cudnnMathType_t::CUDNN_FMA_MATH,
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
        let wish = Wish {
            workspace: WORKSPACE,
            deterministic: key.deterministic,
            exact: !form.half && key.exact,
        };
        let Some(offer) = choose(&self.offers(&plan, key.pass, at, key.deterministic)?, wish) else {
            bail!(
                "cuDNN has no algorithm for {:?} of {g:?} within {WORKSPACE} bytes",
                key.pass
            );
        };
        let (algorithm, math) = offer.algorithm;
        if !wish.exact {
            // SAFETY: the descriptor is alive.
            unsafe { result::set_convolution_math_type(plan.convolution.0, math) }?;
        }
        (plan.algorithm, plan.workspace) = (algorithm, offer.workspace);
        Ok(plan)
    }

    /// What cuDNN offers for a pass, best first: measured on the card, or, where the choice must always be the same, as
    /// its rules rank them.
    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn offers(
        &self,
        plan: &Plan,
        pass: Pass,
        [x, w, y]: [Address; 3],
        deterministic: bool,
    ) -> Result<Vec<Offer<(Algorithm, sys::cudnnMathType_t)>>> {
        let (h, images, weights, result) = (self.handle.0, plan.images.0, plan.weights.0, plan.result.0);
        let convolution = plan.convolution.0;
        let bytes = match pass {
            Pass::Forward => tensor_bytes(&plan.result)?,
            Pass::ToImages => tensor_bytes(&plan.images)?,
            Pass::ToWeights => filter_bytes(&plan.weights)?,
        };
        // Measuring writes results.
        let room = (!deterministic).then(|| self.room(bytes)).transpose()?;
        let to = room.as_ref().map_or(0, |slice| self.address(slice)) as *mut _;
        let space = self.workspace.as_ref().map_or(0, |slice| self.address(slice)) as *mut _;
        let (x, w, y) = (x as *const _, w as *const _, y as *const _);
        // What differs between the passes is the names and the order in which cuDNN takes operands.
        macro_rules! ask {
            ($perf:ty, $most:literal, $wrap:path, $find:path [$($operand:expr),*], $rank:path [$($descriptor:expr),*]) => {{
                let mut count = 0;
                // SAFETY: plain numbers, of which zero is a value.
                let mut offers = [unsafe { std::mem::zeroed::<$perf>() }; $most];
                // SAFETY: descriptors are alive; as many offers as there is room for are written; operands are as
                // described, results go to room of their own.
                let measured = !deterministic && unsafe {
                    let done = $find(h, $($operand),*, $most as c_int, &mut count, offers.as_mut_ptr(), space, WORKSPACE);
                    done.result().is_ok() && count > 0
                };
                // Where measuring fails, the rules may still know an algorithm.
                if !measured {
                    // SAFETY: as above.
                    unsafe { $rank(h, $($descriptor),*, $most as c_int, &mut count, offers.as_mut_ptr()) }?;
                }
                let offers = offers[..count as usize].iter().map(|offer| Offer {
                    algorithm: ($wrap(offer.algo), offer.mathType),
                    works: offer.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS,
                    workspace: offer.memory,
                    repeats: offer.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                    math: math_of(offer.mathType),
                });
                Ok(offers.collect())
            }};
        }
        match pass {
            Pass::Forward => ask!(
                sys::cudnnConvolutionFwdAlgoPerf_t,
                8,
                Algorithm::Forward,
                sys::cudnnFindConvolutionForwardAlgorithmEx[images, x, weights, w, convolution, result, to],
                result::get_convolution_forward_algorithm[images, weights, convolution, result]
            ),
            Pass::ToImages => ask!(
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                6,
                Algorithm::ToImages,
                sys::cudnnFindConvolutionBackwardDataAlgorithmEx[weights, w, result, y, convolution, images, to],
                result::get_convolution_backward_data_algorithm[weights, result, convolution, images]
            ),
            Pass::ToWeights => ask!(
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                7,
                Algorithm::ToWeights,
                sys::cudnnFindConvolutionBackwardFilterAlgorithmEx[images, x, result, y, convolution, weights, to],
                result::get_convolution_backward_filter_algorithm[images, result, convolution, weights]
            ),
        }
    }

    #[allow(unsafe_code, reason = "cuDNN is a C library")]
    fn run(&self, plan: &Plan, [x, w, y]: [Address; 3], accumulate: bool) -> Result<()> {
        let one = 1.0f32;
        let keep = if accumulate { 1.0f32 } else { 0.0 };
        let (one, keep) = ((&raw const one).cast(), (&raw const keep).cast());
        let workspace = self.workspace.as_ref().map_or(0, |slice| self.address(slice)) as *mut _;
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

fn math_of(math: sys::cudnnMathType_t) -> Math {
    match math {
        sys::cudnnMathType_t::CUDNN_FMA_MATH | sys::cudnnMathType_t::CUDNN_DEFAULT_MATH => Math::Exact,
        sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH => Math::TensorCores,
        sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION => Math::Converted,
    }
}

/// Bytes of images or a result.
#[allow(unsafe_code, reason = "cuDNN is a C library")]
fn tensor_bytes(tensor: &Tensor) -> Result<usize> {
    let mut bytes = 0;
    // SAFETY: the descriptor is alive; writes one number.
    unsafe { sys::cudnnGetTensorSizeInBytes(tensor.0, &mut bytes) }.result()?;
    Ok(bytes)
}

/// Bytes of the weights.
#[allow(unsafe_code, reason = "cuDNN is a C library")]
fn filter_bytes(weights: &Filter) -> Result<usize> {
    let mut bytes = 0;
    // SAFETY: the descriptor is alive; writes one number.
    unsafe { sys::cudnnGetFilterSizeInBytes(weights.0, &mut bytes) }.result()?;
    Ok(bytes)
}
