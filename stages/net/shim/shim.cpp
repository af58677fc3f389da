// What libtorch can do and tch has no call for.
//
// Only headers that come with libtorch for processors are included, and only symbols of libtorch_cpu and libc10 are used:
// the same object serves machines with and without CUDA. No exception leaves a function: each says by its result whether
// it succeeded, and keeps what went wrong for `nnflow_shim_error` of the same thread.

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <utility>

namespace {

// Of a fixed size, so that telling of a lack of memory needs none.
thread_local char message[1024] = "";

template <class Function>
int guarded(Function&& function) noexcept {
  try {
    std::forward<Function>(function)();
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(message, sizeof message, "%s", error.what());
  } catch (...) {
    std::snprintf(message, sizeof message, "an exception that says nothing of itself");
  }
  return 1;
}

at::DeviceType device_type(int cuda) {
  return cuda ? at::kCUDA : at::kCPU;
}

}  // namespace

extern "C" {

const char* nnflow_shim_error() {
  return message;
}

// Switches autocast on in this thread; `before` takes what there was: enabled or not, and the type.
int nnflow_shim_autocast_enter(int cuda, int scalar_type, int before[2]) {
  return guarded([&] {
    const auto device = device_type(cuda);
    before[0] = at::autocast::is_autocast_enabled(device);
    before[1] = static_cast<int>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(scalar_type));
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

int nnflow_shim_autocast_leave(int cuda, const int before[2]) {
  return guarded([&] {
    const auto device = device_type(cuda);
    // The outermost one to leave gives back the weights that were cast.
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(device, before[0] != 0);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(before[1]));
  });
}

// Whether this thread casts operations on processors.
int nnflow_shim_autocast_on_cpu(int* enabled) {
  return guarded([&] { *enabled = at::autocast::is_autocast_enabled(at::kCPU); });
}

// The same bits from run to run, where there are algorithms for that.
int nnflow_shim_set_deterministic(int enabled) {
  return guarded([&] {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(enabled != 0, /*warn_only=*/true);
    context.setDeterministicCuDNN(enabled != 0);
    context.setBenchmarkCuDNN(enabled == 0);
  });
}

// Whether convolutions and products of matrices of 32 bits may be rounded to TF32.
int nnflow_shim_set_tf32(int enabled) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuDNN(enabled != 0);
    at::globalContext().setAllowTF32CuBLAS(enabled != 0);
  });
}

// A tensor with its channels last in memory; what was there stays.
int nnflow_shim_channels_last(const at::Tensor* tensor, at::Tensor** result) {
  return guarded([&] {
    const auto format = tensor->dim() == 5 ? at::MemoryFormat::ChannelsLast3d : at::MemoryFormat::ChannelsLast;
    *result = new at::Tensor(tensor->contiguous(format));
  });
}

// Values of the host as a tensor of a GPU, over pinned memory: the host need not wait for the copy, and has its values back
// at once.
int nnflow_shim_upload(const void* values, int scalar_type, const int64_t* shape, int axes, int index, at::Tensor** result) {
  return guarded([&] {
    const auto type = static_cast<at::ScalarType>(scalar_type);
    const auto options = at::TensorOptions().dtype(type);
    // It is only read.
    const auto borrowed = at::from_blob(const_cast<void*>(values), at::IntArrayRef(shape, axes), options);
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    *result = new at::Tensor(borrowed.pin_memory().to(device, type, /*non_blocking=*/true));
  });
}

// Bytes of a GPU: the most that tensors took since the last reset, what is free, and what there is.
int nnflow_shim_memory(int index, uint64_t result[3]) {
  return guarded([&] {
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto statistics = at::accelerator::getDeviceStats(device);
    const auto [free, total] = at::accelerator::getMemoryInfo(device);
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    result[0] = static_cast<uint64_t>(statistics.allocated_bytes[all].peak);
    result[1] = free;
    result[2] = total;
  });
}

// Before the first tensor on a GPU its allocator knows no device, and would refuse to be asked about one.
int nnflow_shim_reset_peak(int index) {
  return guarded([&] {
    if (at::getDeviceAllocator(at::kCUDA)->initialized()) {
      at::accelerator::resetPeakStats(static_cast<c10::DeviceIndex>(index));
    }
  });
}

int nnflow_shim_empty_cache() {
  return guarded([] {
    if (at::getDeviceAllocator(at::kCUDA)->initialized()) {
      at::accelerator::emptyCache();
    }
  });
}

// Makes a GPU the one that this thread's calls of CUDA go to.
int nnflow_shim_use_gpu(int index) {
  return guarded([&] { at::accelerator::setDeviceIndex(static_cast<c10::DeviceIndex>(index)); });
}

// The stream of a GPU that this thread's operations go to, as CUDA and NCCL take it.
int nnflow_shim_stream(int index, void** stream) {
  return guarded([&] {
    *stream = at::accelerator::getCurrentStream(static_cast<c10::DeviceIndex>(index)).native_handle();
  });
}

}  // extern "C"
