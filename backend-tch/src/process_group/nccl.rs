//! NCCL, with which GPUs of several processes add up tensors. It is loaded when it is first needed: libtorch
//! for CUDA comes with it.

use cudarc::nccl::{result, sys};
use tch::{Kind, Tensor};

/// This process's GPU among those of a group.
pub struct Nccl(sys::ncclComm_t);

// SAFETY: a communicator may be used from any thread, by one at a time; its owner holds a lock.
unsafe impl Send for Nccl {}

impl Nccl {
    /// What rank 0 tells the others to meet by, as numbers.
    pub fn meeting() -> Result<Vec<i8>, String> {
        // SAFETY: it only looks for the library's file.
        if !unsafe { sys::is_culib_present() } {
            return Err("there is no NCCL (libnccl.so.2), which comes with PyTorch for CUDA".into());
        }
        Ok(result::get_uniqueid().map_err(said)?.internal.to_vec())
    }

    /// Meets the others. The GPU is the one that the calling thread uses.
    pub fn join(meeting: &[i8], rank: usize, world_size: usize) -> Result<Self, String> {
        let internal = meeting.try_into().map_err(|_| "the ranks have different versions of NCCL")?;
        let mut communicator = std::ptr::null_mut();
        // SAFETY: the place for the communicator lives during the call.
        let joined = unsafe {
            let id = sys::ncclUniqueId { internal };
            result::comm_init_rank(&raw mut communicator, world_size as i32, id, rank as i32)
        };
        joined.map(|_| Nccl(communicator)).map_err(said)
    }

    /// Adds up a contiguous tensor over all ranks, in place, in order with what libtorch computes.
    pub fn all_reduce(&mut self, tensor: &Tensor) -> Result<(), String> {
        let kind = match tensor.kind() {
            Kind::BFloat16 => sys::ncclDataType_t::ncclBfloat16,
            _ => sys::ncclDataType_t::ncclFloat32,
        };
        let sum = sys::ncclRedOp_t::ncclSum;
        let (place, size) = (tensor.data_ptr(), tensor.numel());
        // SAFETY: the memory is the tensor's, and libtorch's allocator returns it in the order of the default
        // stream, on which libtorch computes.
        let reduced =
            unsafe { result::all_reduce(place, place, size, kind, sum, self.0, std::ptr::null_mut()) };
        reduced.map(drop).map_err(said)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // SAFETY: nobody else has it. Waiting for ranks that have ended would not end.
        let _ = unsafe { result::comm_abort(self.0) };
    }
}

fn said(error: result::NcclError) -> String {
    format!("NCCL: {:?}", error.0)
}
