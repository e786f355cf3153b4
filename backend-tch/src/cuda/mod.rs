//! Our CUDA kernels, for operations that would take libtorch many launches and passes over memory.
//!
//! Their sources are part of the program; NVRTC, which comes with PyTorch, compiles them for the present GPU
//! on first use. They run on libtorch's stream, in order with its own kernels, and use its memory.

mod attention;
mod embedding;
mod fused;
mod staging;
mod update;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUdevice_attribute, CUfunction, CUfunction_attribute, CUmodule};
use cudarc::driver::{CudaContext, CudaStream, result};
use cudarc::nvrtc;
use tch::{Device, Kind, Tensor};

pub use attention::{How, fits_tiles};
use staging::Staging;
pub use update::{Averages, Rule, Updated};

/// A source file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Activation,
    Adafactor,
    Adamw,
    Attention,
    CrossEntropy,
    Embedding,
    Norm,
}

impl Source {
    fn text(self) -> String {
        let own = match self {
            Source::Activation => include_str!("activation.cu"),
            Source::Adafactor => concat!(include_str!("update.cu"), "\n", include_str!("adafactor.cu")),
            Source::Adamw => concat!(include_str!("update.cu"), "\n", include_str!("adamw.cu")),
            Source::Attention => concat!(include_str!("tiles.cu"), "\n", include_str!("attention.cu")),
            Source::CrossEntropy => include_str!("cross_entropy.cu"),
            Source::Embedding => include_str!("embedding.cu"),
            Source::Norm => include_str!("norm.cu"),
        };
        format!("{}\n{own}", include_str!("common.cu"))
    }
}

/// A kernel, specialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kernel {
    source: Source,
    /// Activations are bf16, not f32.
    bf16: bool,
    /// The value of the macro `VARIANT`, if the source uses it.
    variant: i64,
    name: &'static str,
}

/// The kernels on a GPU.
pub struct Kernels {
    device: Device,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Such as `sm_90`.
    architecture: String,
    multiprocessors: i64,
    /// The maximum shared memory per block, in bytes.
    shared_memory: i64,
    /// Bytes on the device.
    memory: i64,
    modules: RefCell<HashMap<(Source, bool, i64), CUmodule>>,
    functions: RefCell<HashMap<Kernel, CUfunction>>,
    staging: RefCell<Staging>,
    /// Uploaded lists that every step reuses, such as the groups of norms.
    lists: RefCell<HashMap<Vec<i32>, Tensor>>,
}

/// The lowest compute capability with bf16, `cp.async` and the matrix instructions used here.
const OLDEST: (i32, i32) = (8, 0);
/// Hopper, including its architecture-specific instructions (wgmma).
const HOPPER: &str = "sm_90a";

impl Kernels {
    /// Prepares the kernels for a GPU, or says why it cannot run them.
    pub fn new(index: usize) -> Result<Self, String> {
        can_run(index)?;
        let failed = |error: result::DriverError| error.to_string();
        // The context and stream that libtorch also uses.
        let context = CudaContext::new(index).map_err(failed)?;
        let capability = context.compute_capability().map_err(failed)?;
        let attribute = |attribute| context.attribute(attribute).map(i64::from).map_err(failed);
        Ok(Kernels {
            device: Device::Cuda(index),
            stream: context.default_stream(),
            architecture: match capability {
                (9, 0) => HOPPER.into(),
                (major, minor) => format!("sm_{major}{minor}"),
            },
            multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_memory: attribute(
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            memory: context.total_mem().map_err(failed)? as i64,
            staging: RefCell::new(Staging::new(&context).map_err(failed)?),
            lists: RefCell::default(),
            context,
            modules: RefCell::default(),
            functions: RefCell::default(),
        })
    }

    /// Bytes on the device.
    pub fn memory(&self) -> i64 {
        self.memory
    }

    fn empty(&self, size: &[i64], kind: Kind) -> Tensor {
        Tensor::empty(size, (kind, self.device))
    }

    /// Copies numbers to the GPU, in stream order and without waiting.
    pub fn upload<T: tch::kind::Element + bytemuck::NoUninit>(&self, numbers: &[T]) -> Tensor {
        let tensor = self.empty(&[numbers.len() as i64], T::KIND);
        let mut staging = self.staging.borrow_mut();
        self.bind();
        match staging.send(bytemuck::cast_slice(numbers), at(&tensor), &self.stream) {
            Ok(true) => tensor,
            Ok(false) => Tensor::from_slice(numbers).to_device(self.device),
            Err(error) => panic!("nothing can be copied to the GPU: {error}"),
        }
    }

    /// As [`Kernels::upload`], cached for reuse.
    fn list(&self, numbers: &[i32]) -> Tensor {
        let mut lists = self.lists.borrow_mut();
        lists.entry(numbers.to_vec()).or_insert_with(|| self.upload(numbers)).shallow_clone()
    }

    fn bind(&self) {
        // libtorch may have made another device's context current.
        self.context.bind_to_thread().unwrap_or_else(|error| panic!("the GPU's context is lost: {error}"));
    }

    /// Launches a kernel asynchronously.
    ///
    /// # Panics
    /// If the kernel cannot be compiled or started.
    fn launch(&self, kernel: Kernel, grid: [i64; 3], threads: u32, shared: i64, arguments: &[&dyn Argument]) {
        let function = self.function(kernel);
        let [x, y, z] = grid.map(|blocks| u32::try_from(blocks).expect("a grid within CUDA's limits"));
        let mut arguments: Vec<*mut c_void> = arguments.iter().map(|argument| argument.address()).collect();
        // SAFETY: callers pass the arguments that the kernel declares, and tensors as large as it reads and
        // writes. Their memory returns to libtorch's allocator in stream order, so a kernel has ended before
        // the memory is reused.
        let launched = unsafe {
            if shared > 48 << 10 {
                let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                let _ = result::function::set_function_attribute(function, attribute, shared as i32);
            }
            let (grid, block, shared) = ((x, y, z), (threads, 1, 1), shared as u32);
            result::launch_kernel(function, grid, block, shared, self.stream.cu_stream(), &mut arguments)
        };
        launched.unwrap_or_else(|error| panic!("{} cannot be started: {error}", kernel.name));
    }

    fn function(&self, kernel: Kernel) -> CUfunction {
        let Kernel { source, bf16, variant, name } = kernel;
        self.bind();
        *self.functions.borrow_mut().entry(kernel).or_insert_with(|| {
            let mut modules = self.modules.borrow_mut();
            let module =
                *modules.entry((source, bf16, variant)).or_insert_with(|| self.load(source, bf16, variant));
            let name = CString::new(name).expect("a name without zeros");
            // SAFETY: the module is never unloaded.
            let function = unsafe { result::module::get_function(module, name) };
            function.unwrap_or_else(|error| panic!("{source:?} lacks a kernel: {error}"))
        })
    }

    fn load(&self, source: Source, bf16: bool, variant: i64) -> CUmodule {
        let cubin = compiled(source, bf16, variant, &self.architecture)
            .unwrap_or_else(|error| panic!("{source:?}: {error}"));
        // SAFETY: a whole cubin.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) };
        module.unwrap_or_else(|error| panic!("{source:?} cannot be loaded: {error}"))
    }
}

/// Machine code compiled by this process.
type Cubins = HashMap<(Source, bool, i64, String), Arc<Vec<u8>>>;

/// Calls [`compile`], which takes seconds, only once per process: each session has its own [`Kernels`].
fn compiled(source: Source, bf16: bool, variant: i64, architecture: &str) -> Result<Arc<Vec<u8>>, String> {
    static CUBINS: Mutex<Option<Cubins>> = Mutex::new(None);
    let mut cubins = CUBINS.lock().unwrap_or_else(PoisonError::into_inner);
    let cubins = cubins.get_or_insert_default();
    let key = (source, bf16, variant, architecture.to_owned());
    if let Some(cubin) = cubins.get(&key) {
        return Ok(cubin.clone());
    }
    let cubin = Arc::new(compile(source, bf16, variant, architecture)?);
    cubins.insert(key, cubin.clone());
    Ok(cubin)
}

/// Compiles a source to machine code (a cubin) for an architecture.
fn compile(source: Source, bf16: bool, variant: i64, architecture: &str) -> Result<Vec<u8>, String> {
    let text = CString::new(source.text()).map_err(|error| error.to_string())?;
    let program = nvrtc::result::create_program(&text, None).map_err(|error| error.to_string())?;
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()];
    options.push(format!("-DVARIANT={variant}"));
    options.extend(bf16.then(|| "-DBF16".into()));
    options.extend((architecture == HOPPER).then(|| "-DHOPPER".into()));
    // SAFETY: the program lives until the end of this function.
    unsafe {
        let compiled = nvrtc::result::compile_program(program, &options).map_err(|error| {
            let log = nvrtc::result::get_program_log(program).unwrap_or_default();
            let log = CStr::from_ptr(log.as_ptr()).to_string_lossy().into_owned();
            format!("{error}\n{log}")
        });
        let cubin = compiled.and_then(|()| {
            let mut size = 0;
            nvrtc::sys::nvrtcGetCUBINSize(program, &mut size).result().map_err(|error| error.to_string())?;
            let mut cubin = vec![0u8; size];
            let got = nvrtc::sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast());
            got.result().map_err(|error| error.to_string())?;
            Ok(cubin)
        });
        let _ = nvrtc::result::destroy_program(program);
        cubin
    }
}

/// A kernel argument that is passed by value.
trait Argument {
    fn address(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

impl Argument for u64 {}
impl Argument for u32 {}
impl Argument for i64 {}
impl Argument for i32 {}
impl Argument for f32 {}

/// What the driver reports about a GPU, without creating a context.
struct Gpu {
    capability: (i32, i32),
    /// Bytes.
    memory: u64,
}

impl Gpu {
    fn of(index: usize) -> Result<Self, String> {
        let ask = || {
            result::init()?;
            let device = result::device::get(index as i32)?;
            use CUdevice_attribute::{
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
            };
            // SAFETY: the driver has just returned this device.
            unsafe {
                let capability = (
                    result::device::get_attribute(device, MAJOR)?,
                    result::device::get_attribute(device, MINOR)?,
                );
                Ok(Gpu { capability, memory: result::device::total_mem(device)? as u64 })
            }
        };
        // cudarc panics if the driver is missing.
        let found = catch_unwind(ask).map_err(|_| "CUDA's driver cannot be loaded".to_owned())?;
        found.map_err(|error: result::DriverError| error.to_string())
    }
}

/// Whether a GPU can run the kernels, or why not.
pub fn can_run(index: usize) -> Result<(), String> {
    let (major, minor) = Gpu::of(index)?.capability;
    if (major, minor) < OLDEST {
        return Err(format!("its compute capability is {major}.{minor}"));
    }
    // SAFETY: this is NVIDIA's library, whose initialisers may run.
    match unsafe { nvrtc::sys::is_culib_present() } {
        true => Ok(()),
        false => Err("NVRTC (libnvrtc.so, a part of CUDA and of PyTorch) is not found".into()),
    }
}

/// Bytes of a GPU's memory.
pub fn memory_of(index: usize) -> Option<u64> {
    Gpu::of(index).ok().map(|gpu| gpu.memory)
}

/// The device address of a tensor's first element.
fn at(tensor: &Tensor) -> u64 {
    tensor.data_ptr() as u64
}

/// The same, or null.
fn at_option(tensor: Option<&Tensor>) -> u64 {
    tensor.map_or(0, at)
}

fn is_bf16(kind: Kind) -> bool {
    kind == Kind::BFloat16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles every kernel for every architecture it supports, where NVRTC is available; no GPU is needed.
    #[test]
    fn all_kernels_compile() {
        // SAFETY: as in `can_run`.
        if !unsafe { nvrtc::sys::is_culib_present() } {
            return;
        }
        let architectures = ["sm_80", HOPPER, "sm_120"];
        for architecture in architectures {
            for (source, variant) in [
                (Source::Activation, 0),
                (Source::Adafactor, 0),
                (Source::Adamw, 0),
                (Source::Embedding, 0),
                (Source::CrossEntropy, 0),
                (Source::CrossEntropy, 1),
                (Source::Norm, 1),
                (Source::Norm, 16),
            ] {
                for bf16 in [false, true] {
                    compiled(source, bf16, variant, architecture).unwrap();
                }
            }
            let attention = || compiled(Source::Attention, true, 0, architecture).unwrap();
            compiled(Source::Attention, true, 1, architecture).unwrap();
            assert!(Arc::ptr_eq(&attention(), &attention()), "compiled twice");
        }
        println!("compiled for {}", architectures.join(", "));
    }
}
