//! NCCL: sums over GPUs. It is opened when a training goes over several of them, and is not needed otherwise.
//!
//! The functions are those of `nccl.h`, which NCCL has kept since version 2.0. They put work onto the stream of libtorch's
//! own operations: NCCL reads what those before it have written, those after it read what NCCL has written, and the host
//! waits for nothing.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Kind, Tensor};

use super::{CollectiveError, Exchange, first_of};
use crate::error::{TorchError, of_loader};
use crate::shim;

/// The name that NCCL has in NVIDIA's packages, those of PyPI among them. `libtorch_cuda.so` needs it and has its folder in
/// its search path, so that it is in memory and found by name when the device is there.
const LIBRARY: &str = "libnccl.so.2";

/// `ncclSuccess`, `ncclInProgress`, `ncclSum`, and of `ncclDataType_t` what goes between processes.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
const SUM: c_int = 0;
const INT64: c_int = 4;
const FLOAT32: c_int = 7;

/// `ncclUniqueId`: where the processes meet.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; 128]);

/// `ncclComm_t`.
type Communicator = *mut c_void;

/// `cudaStream_t`.
type Stream = *mut c_void;

type GetUniqueId = unsafe extern "C" fn(*mut UniqueId) -> c_int;
type InitRank = unsafe extern "C" fn(*mut Communicator, c_int, UniqueId, c_int) -> c_int;
type AllReduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Communicator, Stream) -> c_int;
type Broadcast = AllReduce;
type GetAsyncError = unsafe extern "C" fn(Communicator, *mut c_int) -> c_int;
type Destroy = unsafe extern "C" fn(Communicator) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// The functions of NCCL that are used.
#[derive(Debug, Clone, Copy)]
struct Functions {
    get_unique_id: GetUniqueId,
    init_rank: InitRank,
    all_reduce: AllReduce,
    broadcast: Broadcast,
    get_async_error: GetAsyncError,
    destroy: Destroy,
    get_error_string: GetErrorString,
}

/// One process' place among those that sum over their GPUs.
///
/// It is not taken down when it is dropped: that waits for the others, who may be gone. [`Nccl::part`] does it.
#[derive(Debug)]
pub(super) struct Nccl {
    functions: Functions,
    communicator: Communicator,
    gpu: usize,
}

impl Nccl {
    /// Meets the other processes; the tensors of this one are on the GPU of the index `gpu`.
    pub(super) fn join(exchange: &dyn Exchange, gpu: usize) -> Result<Self, CollectiveError> {
        let functions = Functions::load(LIBRARY)?;
        // NCCL takes the GPU that is this thread's current one.
        shim::use_gpu(gpu)?;
        let id = functions.meeting_place(exchange)?;
        let communicator = functions.meet(id, exchange.rank(), exchange.ranks())?;
        Ok(Self { functions, communicator, gpu })
    }

    /// The sum over all processes; `tensor` takes it if it is contiguous.
    pub(super) fn sum(&self, tensor: Tensor) -> Result<Tensor, CollectiveError> {
        let tensor = tensor.f_contiguous().map_err(TorchError::from)?;
        let (data, count, kind, stream) = self.described(&tensor)?;
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: `data` is the memory of `count` numbers of that kind on the communicator's GPU, which is nobody else's:
        // the tensor was given up by the caller, and libtorch gives its memory to later work of the same stream only. The
        // communicator was made by NCCL and not destroyed; NCCL may sum in place.
        let status = unsafe { (self.functions.all_reduce)(data, data, count, kind, SUM, self.communicator, stream) };
        self.checked("ncclAllReduce", status)?;
        Ok(tensor)
    }

    /// Makes a contiguous tensor the one that the first process has.
    pub(super) fn spread(&self, tensor: &mut Tensor) -> Result<(), CollectiveError> {
        let (data, count, kind, stream) = self.described(tensor)?;
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: as in `sum`; the tensor is borrowed mutably, and the process of number 0 is the one that gives.
        let status = unsafe { (self.functions.broadcast)(data, data, count, kind, 0, self.communicator, stream) };
        self.checked("ncclBroadcast", status)
    }

    /// Waits for all work, and takes the communicator down. All processes have to come here.
    pub(super) fn part(self) -> Result<(), CollectiveError> {
        crate::device::Device::Cuda(self.gpu).synchronize();
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: the communicator was made by NCCL and is used no more, since `self` ends here.
        let status = unsafe { (self.functions.destroy)(self.communicator) };
        self.functions.checked("ncclCommDestroy", status)
    }

    /// A tensor as NCCL takes it, and the stream that it belongs to.
    fn described(&self, tensor: &Tensor) -> Result<(*mut c_void, usize, c_int, Stream), CollectiveError> {
        let kind = match tensor.kind() {
            Kind::Float => FLOAT32,
            Kind::Int64 => INT64,
            other => return Err(CollectiveError::Kind { found: format!("{other:?}") }),
        };
        let on_gpu = tensor.device() == tch::Device::Cuda(self.gpu);
        if !on_gpu || !tensor.is_contiguous() {
            let found = format!("{:?} on {:?}, contiguous: {}", tensor.kind(), tensor.device(), tensor.is_contiguous());
            return Err(CollectiveError::Kind { found });
        }
        Ok((tensor.data_ptr(), tensor.numel(), kind, shim::stream(self.gpu)?))
    }

    /// The error of a call, or one that an earlier call has run into meanwhile.
    fn checked(&self, function: &'static str, status: c_int) -> Result<(), CollectiveError> {
        self.functions.checked(function, status)?;
        let mut meanwhile = SUCCESS;
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: the communicator is NCCL's and not destroyed; `meanwhile` is there to be written.
        let status = unsafe { (self.functions.get_async_error)(self.communicator, &raw mut meanwhile) };
        self.functions.checked("ncclCommGetAsyncError", status)?;
        self.functions.checked(function, meanwhile)
    }
}

impl Functions {
    /// A place to meet, which the first process chooses.
    fn meeting_place(&self, exchange: &dyn Exchange) -> Result<UniqueId, CollectiveError> {
        let mut id = UniqueId([0; 128]);
        if exchange.rank() == 0 {
            #[expect(unsafe_code, reason = "a function of another language")]
            // SAFETY: `id` is there to be written, and of the length that NCCL writes.
            let status = unsafe { (self.get_unique_id)(&raw mut id) };
            self.checked("ncclGetUniqueId", status)?;
        }
        let given = first_of(exchange, &id.0)?;
        let wrong = |_| CollectiveError::OutOfStep { rank: 0, expected: id.0.len(), found: given.len() };
        Ok(UniqueId(given.as_slice().try_into().map_err(wrong)?))
    }

    /// Waits until all processes have come to the place.
    fn meet(&self, id: UniqueId, rank: usize, ranks: usize) -> Result<Communicator, CollectiveError> {
        let number = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
        let mut communicator = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: `communicator` is there to be written, the place is one that NCCL chose, and no two processes have the
        // same number.
        let status = unsafe { (self.init_rank)(&raw mut communicator, number(ranks), id, number(rank)) };
        self.checked("ncclCommInitRank", status)?;
        Ok(communicator)
    }

    fn checked(&self, function: &'static str, status: c_int) -> Result<(), CollectiveError> {
        if matches!(status, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "a function of another language")]
        // SAFETY: NCCL has a text for every number, which ends with a zero and stays for as long as the library.
        let message = unsafe { CStr::from_ptr((self.get_error_string)(status)) };
        Err(CollectiveError::Nccl { function, message: message.to_string_lossy().into_owned() })
    }
}

#[cfg(unix)]
impl Functions {
    fn load(name: &str) -> Result<Self, CollectiveError> {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        let failed = |error| CollectiveError::Library { library: name.to_owned(), reason: of_loader(&error) };
        #[expect(unsafe_code, reason = "opening a library runs its initialisers")]
        // SAFETY: NCCL's initialisers read its settings and nothing else, and libtorch's CUDA part runs them as well.
        let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) }.map_err(failed)?;
        #[expect(unsafe_code, reason = "functions of another language")]
        // SAFETY: the types are those of `nccl.h`, and the library is not closed (below), so that the addresses stay.
        let functions = unsafe {
            Self {
                get_unique_id: *library.get::<GetUniqueId>(c"ncclGetUniqueId").map_err(failed)?,
                init_rank: *library.get::<InitRank>(c"ncclCommInitRank").map_err(failed)?,
                all_reduce: *library.get::<AllReduce>(c"ncclAllReduce").map_err(failed)?,
                broadcast: *library.get::<Broadcast>(c"ncclBroadcast").map_err(failed)?,
                get_async_error: *library.get::<GetAsyncError>(c"ncclCommGetAsyncError").map_err(failed)?,
                destroy: *library.get::<Destroy>(c"ncclCommDestroy").map_err(failed)?,
                get_error_string: *library.get::<GetErrorString>(c"ncclGetErrorString").map_err(failed)?,
            }
        };
        std::mem::forget(library);
        Ok(functions)
    }
}

#[cfg(not(unix))]
impl Functions {
    fn load(name: &str) -> Result<Self, CollectiveError> {
        let reason = "CUDA is supported on Linux only".to_owned();
        Err(CollectiveError::Library { library: name.to_owned(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named_with_what_to_do() {
        let error = Functions::load("libnccl.so.none").expect_err("there is no such library");
        let message = error.to_string();
        assert!(message.contains("needs `libnccl.so.none`, which cannot be used: "), "{message}");
        assert!(message.contains("No such file or directory"), "{message}");
        assert!(error.hint().is_some_and(|hint| hint.contains("gpu = 1")));
    }

    #[test]
    fn a_library_without_the_functions_is_not_nccl() {
        // libtorch's own core is in memory already, and has none of them.
        let error = Functions::load("libc10.so").expect_err("it is not NCCL");
        assert!(error.to_string().contains("ncclGetUniqueId"), "{error}");
    }
}
