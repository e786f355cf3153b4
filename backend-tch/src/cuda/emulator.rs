//! Runs the kernels on the CPU, through a C++ compiler and `emulator.h`. This checks what they compute, how
//! their threads depend on each other, and how much shared memory they use; not how fast they are.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_void};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tch::Device;

use super::{HOPPER, Kernel, Kernels, Limits, Machine, Unit, VARIANTS};

const INSTRUCTIONS: &str = include_str!("emulator.h");

/// The architectures whose kernels differ.
pub const ARCHITECTURES: [&str; 2] = ["sm_80", HOPPER];

/// How often each kernel was launched so far, by architecture.
static LAUNCHED: Mutex<BTreeMap<&str, HashMap<Kernel, usize>>> = Mutex::new(BTreeMap::new());

fn launched(architecture: &str) -> HashMap<Kernel, usize> {
    let launched = LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner);
    launched.get(architecture).cloned().unwrap_or_default()
}

/// How many kernels this process has launched on an emulated GPU.
pub fn launches(architecture: &str) -> usize {
    launched(architecture).values().sum()
}

/// The kernels of which this process has launched no variant on an emulated GPU, and the variants of which it has
/// launched no kernel.
pub fn not_launched(architecture: &str) -> Vec<String> {
    let launched = launched(architecture);
    let mut missing = vec![];
    for (source, variants) in VARIANTS {
        let of_source = || launched.keys().filter(|kernel| kernel.unit.source == *source);
        for name in kernels(&source.after("")) {
            if !of_source().any(|kernel| kernel.name == name) {
                missing.push(format!("{source:?}, {name}"));
            }
        }
        for variant in *variants {
            if !of_source().any(|kernel| kernel.unit.variant == *variant) {
                missing.push(format!("{source:?}, variant {variant}"));
            }
        }
    }
    missing
}

struct Emulator {
    architecture: &'static str,
    functions: RefCell<HashMap<Kernel, Function>>,
}

/// Returns what went wrong, or null.
type Function = unsafe extern "C" fn(*const u32, u32, u32, *mut *mut c_void) -> *const c_char;

impl Kernels {
    /// The kernels for one of the [`ARCHITECTURES`], on tensors in the host's memory.
    pub fn emulated(architecture: &'static str) -> Self {
        Self::on(Device::Cpu, Box::new(Emulator { architecture, functions: RefCell::default() }))
    }
}

impl Machine for Emulator {
    /// Small ones, so that small inputs are divided.
    fn limits(&self) -> Limits {
        let shared_memory = if self.architecture == HOPPER { 227 } else { 163 } << 10;
        Limits { multiprocessors: 1, shared_memory, memory: 64 << 10 }
    }

    fn send(&self, bytes: &[u8], to: u64) -> Result<bool, String> {
        // SAFETY: `to` is a tensor of as many bytes in the host's memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(true)
    }

    unsafe fn launch(
        &self,
        kernel: Kernel,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), String> {
        let known = self.functions.borrow().get(&kernel).copied();
        let function = match known {
            Some(function) => function,
            None => {
                let library = loaded(kernel.unit, self.architecture)?;
                let function = library.function(kernel.name)?;
                self.functions.borrow_mut().insert(kernel, function);
                function
            }
        };
        let mut launched = LAUNCHED.lock().unwrap_or_else(PoisonError::into_inner);
        *launched.entry(self.architecture).or_default().entry(kernel).or_default() += 1;
        drop(launched);
        // SAFETY: the caller passes what the kernel declares.
        let problem = unsafe { function(grid.as_ptr(), threads, shared, arguments.as_mut_ptr()) };
        if problem.is_null() {
            return Ok(());
        }
        // SAFETY: a string that lives until the next launch.
        Err(unsafe { CStr::from_ptr(problem) }.to_string_lossy().into_owned())
    }
}

/// A loaded library; never unloaded.
#[derive(Clone, Copy)]
struct Library(*mut c_void);

// SAFETY: handles are for all threads.
unsafe impl Send for Library {}

impl Library {
    fn function(self, kernel: &str) -> Result<Function, String> {
        let name = CString::new(format!("launch_{kernel}")).map_err(|error| error.to_string())?;
        // SAFETY: the macro `EMULATED` defines functions of this type by these names.
        unsafe {
            let function = libc::dlsym(self.0, name.as_ptr());
            if function.is_null() {
                return Err(format!("there is no kernel {kernel}"));
            }
            Ok(std::mem::transmute::<*mut c_void, Function>(function))
        }
    }
}

/// Calls [`load`] only once per process.
fn loaded(unit: Unit, architecture: &'static str) -> Result<Library, String> {
    static LIBRARIES: Mutex<Option<HashMap<(Unit, &str), Library>>> = Mutex::new(None);
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let libraries = libraries.get_or_insert_default();
    if let Some(library) = libraries.get(&(unit, architecture)) {
        return Ok(*library);
    }
    let library = load(unit, architecture)?;
    libraries.insert((unit, architecture), library);
    Ok(library)
}

/// Compiles a unit for the CPU, and loads it.
fn load(unit: Unit, architecture: &str) -> Result<Library, String> {
    let mut text = unit.source.after(INSTRUCTIONS);
    let launches: String = kernels(&text).map(|name| format!("EMULATED({name})\n")).collect();
    text.push_str(&launches);

    let failed = |error: std::io::Error| format!("the C++ compiler cannot be used: {error}");
    let folder = tempfile::tempdir().map_err(failed)?;
    let library = folder.path().join("kernels.so");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut child = Command::new(compiler)
        .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-gnu-unique", "-w"])
        .args(unit.macros(architecture))
        .args(["-x", "c++", "-", "-o"])
        .arg(&library)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // If the compiler ends before it has read everything, it says why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(format!("{:?}: {}", unit.source, String::from_utf8_lossy(&output.stderr)));
    }
    let path =
        CString::new(library.into_os_string().into_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the library's initialisers do nothing of note.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    match handle.is_null() {
        true => Err(format!("{:?}: what was compiled cannot be loaded", unit.source)),
        false => Ok(Library(handle)),
    }
}

/// The names of the kernels in a source: `extern "C" __global__ void __launch_bounds__(…) name(…`.
fn kernels(text: &str) -> impl Iterator<Item = &str> {
    let definitions = text.split("extern \"C\" __global__ ").skip(1);
    definitions.filter_map(|definition| Some(definition.split_once(") ")?.1.split_once('(')?.0))
}
