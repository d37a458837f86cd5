//! One GPU: the driver, the compiled kernels, cuDNN and cuBLAS.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::backend::BackendDevice;
use candle_core::cuda::cudarc::cublas::{result as blas, sys::cublasOperation_t as Transpose};
use candle_core::cuda::cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError, LaunchConfig,
    PushKernelArg, result as driver, sys,
};
use candle_core::cuda::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::cuda::cudarc::{cudnn, nvrtc};
use candle_core::cuda::{CudaDevice, DeviceId};
use candle_core::{Device, Result, bail};

use super::machine::{Address, Arg, Convolve, Grid, Machine, Pass};
use super::source::{KERNELS, kernel_names};
use super::{dnn::Dnn, faults};
use crate::device::{Gpu, settings};

/// A GPU with one stream, on which everything happens in the order of the calls.
pub(crate) struct Card {
    pub(crate) device: CudaDevice,
    stream: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
    dnn: Mutex<Dnn>,
}

/// Opens a GPU, or says what is missing.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    driver::init().map_err(explain)?;
    let cuda = toolkit()?;
    faults::check_driver(driver_version()?, cuda)?;
    faults::check_ordinal(ordinal, CudaContext::device_count().map_err(explain)? as usize)?;
    let context = CudaContext::new(ordinal).map_err(explain)?;
    // The compute capability that Candle's kernels were compiled for, if the build set it.
    let built_for = option_env!("CUDA_COMPUTE_CAP");
    faults::check_capability(&context.name()?, context.compute_capability()?, built_for)?;
    faults::check_cudnn(cudnn::result::get_version(), cuda)?;
    keep_memory(&context)?;
    let device = Device::new_cuda_with_stream(ordinal).map_err(|error| {
        error.context("cuBLAS and cuRAND must be installed (packages nvidia-cublas, nvidia-curand)")
    })?;
    // Compiles the kernels, so that what can fail fails here.
    Card::of(device.as_cuda_device()?)?;
    Ok(device)
}

/// What a device is.
pub(crate) fn describe(device: &CudaDevice) -> Result<Gpu> {
    let stream = device.cuda_stream();
    let context = stream.context();
    Ok(Gpu {
        name: context.name()?,
        capability: context.compute_capability()?,
        memory: context.mem_get_info()?,
        driver: driver_version()?,
        cudnn: cudnn::result::get_version(),
    })
}

fn explain(error: DriverError) -> candle_core::Error {
    candle_core::Error::msg(faults::driver(error.0 as u32, &error.to_string()))
}

#[allow(unsafe_code, reason = "the driver is a C library")]
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

/// The CUDA version of the run-time compiler, and so of the libraries beside it.
#[allow(unsafe_code, reason = "NVRTC is a C library")]
fn toolkit() -> Result<i32> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two integers.
    let status = unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
    if status.result().is_err() {
        bail!("CUDA's run-time compiler is missing (libnvrtc.so); install the package nvidia-cuda-nvrtc or cuda-nvrtc");
    }
    Ok(1000 * major + 10 * minor)
}

/// Lets the driver keep freed memory for the next allocation instead of giving it back at every
/// synchronisation.
#[allow(unsafe_code, reason = "the driver is a C library")]
fn keep_memory(context: &CudaContext) -> Result<()> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    // SAFETY: the context is alive; the attribute is a 64-bit number.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()?;
    }
    Ok(())
}

impl Card {
    /// The card that a device is, made when it is first asked for.
    #[allow(unsafe_code, reason = "waiting between streams must be turned off")]
    pub(crate) fn of(device: &CudaDevice) -> Result<Arc<Self>> {
        static CARDS: OnceLock<Mutex<HashMap<DeviceId, Arc<Card>>>> = OnceLock::new();
        let mut cards = CARDS
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(card) = cards.get(&device.id()) {
            return Ok(card.clone());
        }
        // SAFETY: every tensor is used on the one stream of its device and nowhere else, so no stream has to wait for
        // events; a capture would not survive them.
        unsafe { device.disable_event_tracking() };
        let stream = device.cuda_stream();
        let card = Arc::new(Self {
            functions: load(&stream)?,
            dnn: Mutex::new(Dnn::new(&stream)?),
            device: device.clone(),
            stream,
        });
        cards.insert(device.id(), card.clone());
        Ok(card)
    }

    /// Uninitialised room for numbers.
    #[allow(unsafe_code, reason = "what is not initialised must not be read")]
    pub(crate) fn room<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every caller writes all of it before anything reads it.
        unsafe { self.device.alloc(len.max(1)) }
    }

    /// Where a piece of memory starts.
    pub(crate) fn address<T>(&self, slice: &CudaSlice<T>) -> Address {
        slice.device_ptr(&self.stream).0
    }

    /// Copies `bytes` of the card's memory.
    #[allow(unsafe_code, reason = "the driver is a C library")]
    pub(crate) fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.stream.context().bind_to_thread()?;
        // SAFETY: both places hold that many bytes, by the callers' contracts, and stay alive until the stream is done.
        unsafe { driver::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }?;
        Ok(())
    }

    /// Fills memory with zeros.
    #[allow(unsafe_code, reason = "the driver is a C library")]
    pub(crate) fn zero(&self, at: Address, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.stream.context().bind_to_thread()?;
        // SAFETY: the place holds that many bytes, by the callers' contracts.
        unsafe { driver::memset_d8_async(at, 0, bytes, self.stream.cu_stream()) }?;
        Ok(())
    }

    /// Numbers of the computer's memory, on the card.
    pub(crate) fn upload<T: DeviceRepr + 'static>(&self, values: &[T]) -> Result<CudaSlice<T>> {
        self.device.clone_htod(values)
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        self.device.synchronize()
    }

    /// c `[rows, columns]` = a · b in f32, all row-major; `transpose` says which operand is stored transposed.
    #[allow(unsafe_code, reason = "cuBLAS is a C library")]
    pub(crate) fn multiply(
        &self,
        c: Address,
        [a, b]: [Address; 2],
        [rows, columns, depth]: [usize; 3],
        transpose: [bool; 2],
    ) -> Result<()> {
        if rows * columns == 0 {
            return Ok(());
        }
        if depth == 0 {
            return self.zero(c, 4 * rows * columns);
        }
        let op = |transposed: bool| {
            if transposed {
                Transpose::CUBLAS_OP_T
            } else {
                Transpose::CUBLAS_OP_N
            }
        };
        let handle = self.device.cublas_handle();
        let [rows, columns, depth] = [rows, columns, depth].map(|size| size as i32);
        let lda = if transpose[0] { rows } else { depth };
        let ldb = if transpose[1] { depth } else { columns };
        let (one, zero) = (1.0f32, 0.0f32);
        self.stream.context().bind_to_thread()?;
        // cuBLAS counts by columns, so it computes cᵀ = bᵀ · aᵀ.
        // SAFETY: operands hold as many numbers as the sizes say.
        let done = unsafe {
            blas::sgemm(
                *handle.handle(),
                op(transpose[1]),
                op(transpose[0]),
                columns,
                rows,
                depth,
                &one,
                b as *const f32,
                ldb,
                a as *const f32,
                lda,
                &zero,
                c as *mut f32,
                columns,
            )
        };
        done.map_err(candle_core::Error::wrap)
    }

    /// What `work` launches, as a graph that can be replayed. Nothing runs yet.
    pub(crate) fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Capture> {
        use sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as OF_THIS_THREAD;
        self.stream.begin_capture(OF_THIS_THREAD)?;
        let recorded = work();
        // The capture must end in any case.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        recorded?;
        match graph? {
            Some(graph) => Ok(Capture(graph)),
            None => bail!("nothing was captured"),
        }
    }
}

/// A captured sequence of launches.
pub(crate) struct Capture(CudaGraph);

#[allow(unsafe_code, reason = "a graph may move between threads")]
// SAFETY: a graph may be used by any thread as long as one does at a time; it is behind a lock.
unsafe impl Send for Capture {}

impl Capture {
    pub(crate) fn replay(&self) -> Result<()> {
        Ok(self.0.launch()?)
    }
}

impl Machine for Card {
    #[allow(unsafe_code, reason = "a launch takes addresses")]
    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let Some(function) = self.functions.get(kernel) else {
            bail!("there is no kernel {kernel}");
        };
        let mut builder = self.stream.launch_builder(function);
        for arg in args {
            match arg {
                Arg::At(value) | Arg::U64(value) => builder.arg(value),
                Arg::U32(value) => builder.arg(value),
                Arg::I32(value) => builder.arg(value),
                Arg::F32(value) => builder.arg(value),
                Arg::F64(value) => builder.arg(value),
            };
        }
        let [x, y] = grid.blocks;
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (grid.threads, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: `machine` passes what each kernel takes, which the tests check kernel by kernel; the addresses are
        // those of live memory of this device.
        unsafe { builder.launch(config) }?;
        Ok(())
    }

    fn convolve(&self, convolution: &Convolve, pass: Pass, at: [Address; 3], accumulate: bool) -> Result<()> {
        self.stream.context().bind_to_thread()?;
        let mut dnn = self.dnn.lock().unwrap_or_else(PoisonError::into_inner);
        dnn.convolve(convolution, pass, at, accumulate, settings())
    }
}

/// All kernels, compiled for the card, or as they were compiled before.
fn load(stream: &Arc<CudaStream>) -> Result<HashMap<&'static str, CudaFunction>> {
    let context = stream.context();
    // Newer cards run what was compiled for Hopper.
    let (major, minor) = context.compute_capability()?.min((9, 0));
    let architecture = format!("compute_{major}{minor}");
    let file = cache_file(&architecture);
    let cached = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    // A file that the driver refuses is damaged, and is written again.
    let loaded = cached.and_then(|text| context.load_module(Ptx::from_src(text)).ok());
    let module = match loaded {
        Some(module) => module,
        None => {
            let options = CompileOptions {
                fmad: Some(false),
                name: Some("kernels.cu".into()),
                options: vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()],
                ..CompileOptions::default()
            };
            let ptx = compile_ptx_with_opts(KERNELS, options).map_err(candle_core::Error::wrap)?;
            if let Some(file) = &file {
                store(file, &ptx.to_src());
            }
            context
                .load_module(ptx)
                .map_err(|error| candle_core::Error::msg(faults::module(error.0 as u32, &error.to_string())))?
        }
    };
    let mut functions = HashMap::new();
    for name in kernel_names() {
        functions.insert(name, module.load_function(name)?);
    }
    Ok(functions)
}

/// Where compiled kernels are kept: named by their source, the architecture and the compiler.
fn cache_file(architecture: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let mut hasher = DefaultHasher::new();
    (KERNELS, toolkit().ok()).hash(&mut hasher);
    let name = format!("kernels-{:016x}-{architecture}.ptx", hasher.finish());
    Some(folder.join("rampart").join("cuda").join(name))
}

/// Keeps compiled kernels. Where that fails they are compiled again next time, which takes a second.
fn store(file: &std::path::Path, text: &str) {
    let Some(folder) = file.parent() else { return };
    let part = folder.join(format!(".{}.part", std::process::id()));
    let _ = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&part, text))
        .and_then(|()| std::fs::rename(&part, file));
}
