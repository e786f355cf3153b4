//! NVIDIA's GPUs: what the driver says of them, and how they compile and start kernels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUdevice_attribute, CUfunction, CUfunction_attribute, CUmodule};
use cudarc::driver::{CudaContext, CudaStream, result};
use cudarc::nvrtc;

use super::staging::Staging;
use super::{Kernel, Limits, Machine, Unit};

/// Instructions of GPUs, which precede every source.
const INSTRUCTIONS: &str = include_str!("ptx.cu");

/// A GPU.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Such as `sm_90`.
    architecture: String,
    limits: Limits,
    modules: RefCell<HashMap<Unit, CUmodule>>,
    functions: RefCell<HashMap<Kernel, CUfunction>>,
    staging: RefCell<Staging>,
}

/// The lowest compute capability with bf16, `cp.async` and the matrix instructions used here.
const OLDEST: (i32, i32) = (8, 0);
/// Hopper, including its architecture-specific instructions (wgmma).
pub const HOPPER: &str = "sm_90a";

impl Gpu {
    /// Prepares a GPU, or says why it cannot run the kernels.
    pub fn new(index: usize) -> Result<Self, String> {
        can_run(index)?;
        let failed = |error: result::DriverError| error.to_string();
        // The context and stream that libtorch also uses.
        let context = CudaContext::new(index).map_err(failed)?;
        let capability = context.compute_capability().map_err(failed)?;
        let attribute = |attribute| context.attribute(attribute).map(i64::from).map_err(failed);
        use CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED_MEMORY,
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
        };
        let limits = Limits {
            multiprocessors: attribute(MULTIPROCESSORS)?,
            shared_memory: attribute(SHARED_MEMORY)?,
            memory: context.total_mem().map_err(failed)? as i64,
        };
        Ok(Gpu {
            stream: context.default_stream(),
            architecture: match capability {
                (9, 0) => HOPPER.into(),
                (major, minor) => format!("sm_{major}{minor}"),
            },
            limits,
            staging: RefCell::new(Staging::new(&context).map_err(failed)?),
            context,
            modules: RefCell::default(),
            functions: RefCell::default(),
        })
    }

    fn bind(&self) {
        // libtorch may have made another device's context current.
        self.context.bind_to_thread().unwrap_or_else(|error| panic!("the GPU's context is lost: {error}"));
    }

    fn function(&self, kernel: Kernel) -> Result<CUfunction, String> {
        if let Some(function) = self.functions.borrow().get(&kernel) {
            return Ok(*function);
        }
        let Kernel { unit, name } = kernel;
        let known = self.modules.borrow().get(&unit).copied();
        let module = match known {
            Some(module) => module,
            None => self.load(unit)?,
        };
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: the module is never unloaded.
        let function =
            unsafe { result::module::get_function(module, name) }.map_err(|error| error.to_string())?;
        self.functions.borrow_mut().insert(kernel, function);
        Ok(function)
    }

    fn load(&self, unit: Unit) -> Result<CUmodule, String> {
        let cubin = compiled(unit, &self.architecture)?;
        // SAFETY: a whole cubin.
        let module =
            unsafe { result::module::load_data(cubin.as_ptr().cast()) }.map_err(|error| error.to_string())?;
        self.modules.borrow_mut().insert(unit, module);
        Ok(module)
    }
}

impl Machine for Gpu {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn send(&self, bytes: &[u8], to: u64) -> Result<bool, String> {
        self.bind();
        self.staging.borrow_mut().send(bytes, to, &self.stream).map_err(|error| error.to_string())
    }

    unsafe fn launch(
        &self,
        kernel: Kernel,
        [x, y, z]: [u32; 3],
        threads: u32,
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), String> {
        self.bind();
        let function = self.function(kernel)?;
        if shared > 48 << 10 {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of this context. If it is refused, so is the launch.
            let _ = unsafe { result::function::set_function_attribute(function, attribute, shared as i32) };
        }
        let stream = self.stream.cu_stream();
        // SAFETY: the caller passes what the kernel declares.
        let launched =
            unsafe { result::launch_kernel(function, (x, y, z), (threads, 1, 1), shared, stream, arguments) };
        launched.map_err(|error| error.to_string())
    }
}

/// Machine code compiled by this process.
type Cubins = HashMap<(Unit, String), Arc<Vec<u8>>>;

/// Calls [`compile`], which takes seconds, only once per process: each session has its own [`Gpu`].
fn compiled(unit: Unit, architecture: &str) -> Result<Arc<Vec<u8>>, String> {
    static CUBINS: Mutex<Option<Cubins>> = Mutex::new(None);
    let mut cubins = CUBINS.lock().unwrap_or_else(PoisonError::into_inner);
    let cubins = cubins.get_or_insert_default();
    let key = (unit, architecture.to_owned());
    if let Some(cubin) = cubins.get(&key) {
        return Ok(cubin.clone());
    }
    let cubin = Arc::new(compile(unit, architecture)?);
    cubins.insert(key, cubin.clone());
    Ok(cubin)
}

/// Compiles a source to machine code (a cubin) for an architecture.
fn compile(unit: Unit, architecture: &str) -> Result<Vec<u8>, String> {
    let text = CString::new(unit.source.after(INSTRUCTIONS)).map_err(|error| error.to_string())?;
    let program = nvrtc::result::create_program(&text, None).map_err(|error| error.to_string())?;
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()];
    options.extend(unit.macros(architecture));
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

/// What the driver reports about a GPU, without creating a context.
pub struct Report {
    capability: (i32, i32),
    /// Bytes.
    pub memory: u64,
    /// The maximum shared memory per block, in bytes.
    pub shared_memory: i64,
}

impl Report {
    pub fn of(index: usize) -> Result<Self, String> {
        let ask = || {
            result::init()?;
            let device = result::device::get(index as i32)?;
            use CUdevice_attribute::{
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
                CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED_MEMORY,
            };
            // SAFETY: the driver has just returned this device.
            unsafe {
                let attribute = |attribute| result::device::get_attribute(device, attribute);
                Ok(Report {
                    capability: (attribute(MAJOR)?, attribute(MINOR)?),
                    memory: result::device::total_mem(device)? as u64,
                    shared_memory: attribute(SHARED_MEMORY)?.into(),
                })
            }
        };
        // cudarc panics if the driver is missing.
        let found = catch_unwind(ask).map_err(|_| "CUDA's driver cannot be loaded".to_owned())?;
        found.map_err(|error: result::DriverError| error.to_string())
    }
}

/// Whether a GPU can run the kernels, or why not.
pub fn can_run(index: usize) -> Result<(), String> {
    let (major, minor) = Report::of(index)?.capability;
    if (major, minor) < OLDEST {
        return Err(format!("its compute capability is {major}.{minor}"));
    }
    // SAFETY: this is NVIDIA's library, whose initialisers may run.
    match unsafe { nvrtc::sys::is_culib_present() } {
        true => Ok(()),
        false => Err("NVRTC (libnvrtc.so, a part of CUDA and of PyTorch) is not found".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, VARIANTS};
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
            for (source, variants) in VARIANTS {
                // Attention is in bf16 only.
                let kinds: &[bool] = if *source == Source::Attention { &[true] } else { &[false, true] };
                for (variant, bf16) in
                    variants.iter().flat_map(|variant| kinds.iter().map(|bf16| (*variant, *bf16)))
                {
                    let cubin = || compiled(Unit { source: *source, bf16, variant }, architecture).unwrap();
                    assert!(Arc::ptr_eq(&cubin(), &cubin()), "compiled twice");
                }
            }
        }
        println!("compiled for {}", architectures.join(", "));
    }
}
