//! Our CUDA kernels, for operations that would take libtorch many launches and passes over memory.
//!
//! Their sources are part of the program; NVRTC, which comes with PyTorch, compiles them for the present GPU
//! on first use. They run on libtorch's stream, in order with its own kernels, and use its memory. The
//! `emulator` feature runs them on the CPU, to check them without a GPU.

mod attention;
mod embedding;
#[cfg(feature = "emulator")]
pub mod emulator;
mod fused;
mod gpu;
mod staging;
mod update;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

use tch::{Device, Kind, Tensor};

pub use attention::{How, fits_tiles, most_positions};
use gpu::{Gpu, HOPPER};
pub use gpu::{Report, can_run};
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
    /// The text, after `instructions` that are not part of the language.
    fn after(self, instructions: &str) -> String {
        let own = match self {
            Source::Activation => include_str!("activation.cu"),
            Source::Adafactor => concat!(include_str!("update.cu"), "\n", include_str!("adafactor.cu")),
            Source::Adamw => concat!(include_str!("update.cu"), "\n", include_str!("adamw.cu")),
            Source::Attention => concat!(include_str!("tiles.cu"), "\n", include_str!("attention.cu")),
            Source::CrossEntropy => include_str!("cross_entropy.cu"),
            Source::Embedding => include_str!("embedding.cu"),
            Source::Norm => include_str!("norm.cu"),
        };
        [instructions, include_str!("common.cu"), own].join("\n")
    }
}

/// The variants that tests check; of norms, there is one for every 128 features up to the widest.
#[cfg(any(test, feature = "emulator"))]
const VARIANTS: &[(Source, &[i64])] = &[
    (Source::Activation, &[0]),
    (Source::Adafactor, &[0]),
    (Source::Adamw, &[0]),
    // With dropout, with wide heads, with both.
    (Source::Attention, &[0, 1, 2, 3]),
    // Vocabularies that are multiples of four.
    (Source::CrossEntropy, &[0, 1]),
    (Source::Embedding, &[0]),
    (Source::Norm, &[1, 16]),
];

/// A source, specialised: what is compiled at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Unit {
    source: Source,
    /// Activations are bf16, not f32.
    bf16: bool,
    /// The value of the macro `VARIANT`, if the source uses it.
    variant: i64,
}

impl Unit {
    /// The compiler's options that specialise the source.
    fn macros(self, architecture: &str) -> Vec<String> {
        let mut options = vec![format!("-DVARIANT={}", self.variant)];
        options.extend(self.bf16.then(|| "-DBF16".into()));
        options.extend((architecture == HOPPER).then(|| "-DHOPPER".into()));
        options
    }
}

/// A kernel of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kernel {
    unit: Unit,
    name: &'static str,
}

/// What kernels are adapted to.
#[derive(Clone, Copy, Debug)]
struct Limits {
    multiprocessors: i64,
    /// The maximum shared memory per block, in bytes.
    shared_memory: i64,
    /// Bytes on the device.
    memory: i64,
}

/// What runs kernels, in the order in which they are launched: a GPU, or the emulator of one.
trait Machine {
    fn limits(&self) -> Limits;

    /// Copies bytes to the device's memory, without waiting. Returns false if there are too many for that.
    fn send(&self, bytes: &[u8], to: u64) -> Result<bool, String>;

    /// Starts a kernel in a grid of blocks of `threads`, which have `shared` bytes of memory each.
    ///
    /// # Safety
    /// `arguments` are the addresses of what the kernel declares. Tensors are as large as it reads and writes.
    unsafe fn launch(
        &self,
        kernel: Kernel,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), String>;
}

/// The kernels on a device.
pub struct Kernels {
    device: Device,
    machine: Box<dyn Machine>,
    limits: Limits,
    /// Uploaded lists that every step reuses, such as the groups of norms.
    lists: RefCell<HashMap<Vec<i32>, Tensor>>,
}

impl Kernels {
    /// Prepares the kernels for a GPU, or says why it cannot run them.
    pub fn new(index: usize) -> Result<Self, String> {
        Ok(Self::on(Device::Cuda(index), Box::new(Gpu::new(index)?)))
    }

    fn on(device: Device, machine: Box<dyn Machine>) -> Self {
        Kernels { device, limits: machine.limits(), machine, lists: RefCell::default() }
    }

    /// Bytes on the device.
    pub fn memory(&self) -> i64 {
        self.limits.memory
    }

    fn empty(&self, size: &[i64], kind: Kind) -> Tensor {
        Tensor::empty(size, (kind, self.device))
    }

    /// Copies numbers to the GPU, in stream order and without waiting.
    ///
    /// # Panics
    /// If the GPU takes nothing any more.
    pub fn upload<T: tch::kind::Element + bytemuck::NoUninit>(&self, numbers: &[T]) -> Tensor {
        let tensor = self.empty(&[numbers.len() as i64], T::KIND);
        match self.machine.send(bytemuck::cast_slice(numbers), at(&tensor)) {
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

    /// Launches a kernel asynchronously.
    ///
    /// # Panics
    /// If the kernel cannot be compiled or started.
    fn launch(&self, kernel: Kernel, grid: [i64; 3], threads: u32, shared: i64, arguments: &[&dyn Argument]) {
        let grid = grid.map(|blocks| u32::try_from(blocks).expect("a grid within CUDA's limits"));
        let mut arguments: Vec<*mut c_void> = arguments.iter().map(|argument| argument.address()).collect();
        // SAFETY: callers pass the arguments that the kernel declares, and tensors as large as it reads and
        // writes. Their memory returns to libtorch's allocator in stream order, so a kernel has ended before
        // the memory is reused.
        let launched = unsafe { self.machine.launch(kernel, grid, threads, shared as u32, &mut arguments) };
        launched.unwrap_or_else(|error| panic!("{} cannot be started: {error}", kernel.name));
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
