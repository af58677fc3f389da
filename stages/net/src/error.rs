//! What libtorch reports, as an error of ours.

use tch::{TchError, Tensor};

/// An operation that libtorch refused or could not finish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The device has no memory left for a tensor.
    #[error("the device ran out of memory: {message}")]
    OutOfMemory {
        /// The first line of what libtorch says.
        message: String,
    },
    /// Any other failure.
    #[error("libtorch failed: {message}")]
    Operation {
        /// The first line of what libtorch says.
        message: String,
    },
}

impl From<TchError> for TorchError {
    fn from(error: TchError) -> Self {
        Self::of_text(&error.to_string())
    }
}

impl TorchError {
    /// The error that libtorch tells in these words.
    pub(crate) fn of_text(text: &str) -> Self {
        // libtorch appends the C++ stack of the exception, which helps nobody who trains a network.
        let head = text.split("Exception raised from").next().unwrap_or(text);
        let message = head.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message").to_owned();
        // The kind of the exception does not cross tch's boundary, only its text does.
        let out_of_memory = head.contains("out of memory") || head.contains("can't allocate memory");
        if out_of_memory { Self::OutOfMemory { message } } else { Self::Operation { message } }
    }
}

/// The outcome of an operation in place, whose tensor the caller already holds.
pub(crate) fn done(outcome: Result<Tensor, TchError>) -> Result<(), TorchError> {
    outcome.map(drop).map_err(TorchError::from)
}

/// What the dynamic loader says: which step failed, and its own words.
pub(crate) fn of_loader(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torch_error(text: &str) -> TorchError {
        TchError::Torch(text.to_owned()).into()
    }

    #[test]
    fn a_full_gpu_is_told_apart() {
        let error = torch_error("CUDA out of memory. Tried to allocate 20.00 MiB.\nException raised from malloc");
        assert!(matches!(error, TorchError::OutOfMemory { .. }), "{error}");
    }

    #[test]
    fn the_stack_of_the_exception_is_left_out() {
        let error = torch_error("sizes differ\nException raised from check at x.cpp:7 (most recent call first):\n#0");
        assert_eq!(error.to_string(), "libtorch failed: Internal torch error: sizes differ");
    }
}
