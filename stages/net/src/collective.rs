//! Several processes that train one network together: each works on its part of every batch, and sums go over all parts.
//!
//! On CPUs the processes give each other bytes, and each adds up what all have given, in the order of the processes: all
//! of them get the same bits, and the same as one process that does everything. On GPUs NCCL adds up, in an order of its
//! own, and no process waits for its GPU.

mod nccl;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::AddAssign;
use std::sync::Arc;

use bytemuck::Pod;
use tch::kind::Element;
use tch::{Kind, Tensor};

use crate::device::Device;
use crate::error::{TorchError, done};
use nccl::Nccl;

/// Numbers of a tensor that are given to others at a time; it bounds the memory that an exchange takes.
const NUMBERS_AT_A_TIME: usize = 1 << 22;

/// The way for bytes between the processes.
pub trait Exchange: Debug + Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn ranks(&self) -> usize;

    /// Gives `mine` to all processes and returns what each of them has given, in their order. Waits until all have come
    /// here.
    ///
    /// # Errors
    /// [`CollectiveError::Lost`] where the others are gone.
    fn exchange(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;
}

/// Why processes cannot work together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// The others cannot be reached any more.
    #[error("the other processes of the training are gone: {reason}")]
    Lost {
        /// What was tried, and what the system says.
        reason: String,
    },
    /// The processes do not do the same at the same time, which is a defect.
    #[error("process {rank} of the training gave {found} bytes, expected a multiple of {expected}")]
    OutOfStep {
        /// The process, counted from 0.
        rank: usize,
        /// The length of a term.
        expected: usize,
        /// The length of what it gave.
        found: usize,
    },
    /// No sums of such tensors are taken over processes, which is a defect.
    #[error("tensors of the kind `{found}` do not go from one process to another")]
    Kind {
        /// The kind.
        found: String,
    },
    /// There is no NCCL, or another version of it.
    #[error("training on several GPUs needs `{library}`, which cannot be used: {reason}")]
    Library {
        /// The library.
        library: String,
        /// What the dynamic loader says.
        reason: String,
    },
    /// NCCL failed.
    #[error("NCCL failed in `{function}`: {message}")]
    Nccl {
        /// The function of NCCL's.
        function: &'static str,
        /// What NCCL says.
        message: String,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl CollectiveError {
    /// What a user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Library { .. } => {
                Some("run: cargo xtask setup --cuda, or train on one GPU (`gpu = 1` in the stage's `resources`)")
            }
            Self::Nccl { .. } => {
                Some("set NCCL_DEBUG=INFO and look into the node's log, which then has NCCL's own words")
            }
            _ => None,
        }
    }
}

/// What a process has in common with the others of a training.
#[derive(Debug)]
pub struct Collective(Way);

/// How sums are taken.
#[derive(Debug)]
enum Way {
    Alone,
    Bytes(Arc<dyn Exchange>),
    Gpus(Arc<dyn Exchange>, Nccl),
}

impl Collective {
    /// A process that has no others.
    #[must_use]
    pub fn alone() -> Self {
        Self(Way::Alone)
    }

    /// One of several processes, whose tensors are on `device`. All of them have to come here.
    ///
    /// # Errors
    /// [`CollectiveError`] where NCCL is missing or fails, or the others are gone.
    pub fn among(exchange: Arc<dyn Exchange>, device: Device) -> Result<Self, CollectiveError> {
        match device {
            Device::Cpu { .. } => Ok(Self(Way::Bytes(exchange))),
            Device::Cuda(index) => {
                let nccl = Nccl::join(&*exchange, index)?;
                Ok(Self(Way::Gpus(exchange, nccl)))
            }
        }
    }

    /// The number of this process, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.exchange().map_or(0, |exchange| exchange.rank())
    }

    /// How many processes there are.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.exchange().map_or(1, |exchange| exchange.ranks())
    }

    /// Whether this is the process that speaks for all: it writes what is to be written.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Waits until all processes have come here.
    ///
    /// # Errors
    /// [`CollectiveError`] where the others are gone.
    pub fn meet(&self) -> Result<(), CollectiveError> {
        self.exchange().map_or(Ok(()), |exchange| exchange.exchange(&[]).map(drop))
    }

    /// What the first process says, on all of them.
    ///
    /// # Errors
    /// [`CollectiveError`] where the others are gone.
    pub fn tell(&self, text: &str) -> Result<String, CollectiveError> {
        let Some(exchange) = self.exchange() else { return Ok(text.to_owned()) };
        let told = first_of(exchange, text.as_bytes())?;
        Ok(String::from_utf8_lossy(&told).into_owned())
    }

    /// Parts from the others in good order. After an error it is left out: they may not be there to answer.
    ///
    /// # Errors
    /// [`CollectiveError`] where NCCL fails.
    pub fn part(self) -> Result<(), CollectiveError> {
        match self.0 {
            Way::Gpus(exchange, nccl) => {
                exchange.exchange(&[])?;
                nccl.part()
            }
            Way::Alone | Way::Bytes(_) => Ok(()),
        }
    }

    /// The sum of the terms of all processes, of one shape; each process has one at least, which is used up.
    pub(crate) fn sum(&self, terms: Vec<Tensor>) -> Result<Tensor, CollectiveError> {
        match &self.0 {
            Way::Alone => Ok(added(terms)?),
            Way::Gpus(_, nccl) => nccl.sum(added(terms)?),
            Way::Bytes(exchange) => match kind(&terms) {
                Kind::Float => sum_of_bytes::<f32>(&**exchange, &terms),
                Kind::Int64 => sum_of_bytes::<i64>(&**exchange, &terms),
                other => Err(CollectiveError::Kind { found: format!("{other:?}") }),
            },
        }
    }

    /// The rows of all processes, `rows` in all; those of this one are to stand from `first` on.
    pub(crate) fn rows(&self, mine: &Tensor, first: usize, rows: usize) -> Result<Tensor, CollectiveError> {
        let mut shape = mine.size();
        let own = std::mem::replace(&mut shape[0], rows as i64);
        let all = mine.f_new_zeros(&*shape, (mine.kind(), mine.device())).map_err(TorchError::from)?;
        let mut place = all.f_narrow(0, first as i64, own).map_err(TorchError::from)?;
        place.f_copy_(mine).map_err(TorchError::from)?;
        self.sum(vec![all])
    }

    /// Makes a tensor the one that the first process has.
    pub(crate) fn spread(&self, tensor: &mut Tensor) -> Result<(), CollectiveError> {
        match &self.0 {
            Way::Alone => Ok(()),
            Way::Gpus(_, nccl) => nccl.spread(tensor),
            Way::Bytes(exchange) => match tensor.kind() {
                Kind::Float => spread_bytes::<f32>(&**exchange, tensor),
                Kind::Int64 => spread_bytes::<i64>(&**exchange, tensor),
                other => Err(CollectiveError::Kind { found: format!("{other:?}") }),
            },
        }
    }

    fn exchange(&self) -> Option<&dyn Exchange> {
        match &self.0 {
            Way::Alone => None,
            Way::Bytes(exchange) | Way::Gpus(exchange, _) => Some(&**exchange),
        }
    }
}

/// What the first process gives.
fn first_of(exchange: &dyn Exchange, mine: &[u8]) -> Result<Vec<u8>, CollectiveError> {
    let mine = if exchange.rank() == 0 { mine } else { &[] };
    let nobody = || CollectiveError::Lost { reason: "no process gave anything".to_owned() };
    exchange.exchange(mine)?.into_iter().next().ok_or_else(nobody)
}

fn kind(terms: &[Tensor]) -> Kind {
    terms.first().map_or(Kind::Float, Tensor::kind)
}

/// The sum of tensors in their order; the first one takes it.
fn added(terms: Vec<Tensor>) -> Result<Tensor, TorchError> {
    let mut terms = terms.into_iter();
    let nothing = || TorchError::Operation { message: "there is nothing to add up".to_owned() };
    let mut sum = terms.next().ok_or_else(nothing)?;
    terms.try_for_each(|term| done(sum.f_add_(&term)))?;
    Ok(sum)
}

fn sum_of_bytes<T: Element + Pod + AddAssign>(
    exchange: &dyn Exchange,
    terms: &[Tensor],
) -> Result<Tensor, CollectiveError> {
    let shape = terms.first().map(Tensor::size).unwrap_or_default();
    let terms = terms.iter().map(numbers::<T>).collect::<Result<Vec<_>, _>>()?;
    let length = terms.first().map_or(0, Vec::len);
    let mut total: Vec<T> = Vec::with_capacity(length);
    for start in (0..length).step_by(NUMBERS_AT_A_TIME) {
        let end = length.min(start + NUMBERS_AT_A_TIME);
        let mine: Vec<&[u8]> = terms.iter().map(|term| bytemuck::cast_slice(&term[start..end])).collect();
        add_in_order(&mut total, &exchange.exchange(&mine.concat())?, end - start)?;
    }
    Ok(Tensor::f_from_slice(&total).and_then(|total| total.f_view(&*shape)).map_err(TorchError::from)?)
}

/// Adds up the terms that the processes gave, `count` numbers each, and appends the sum to `total`.
fn add_in_order<T: Pod + AddAssign>(
    total: &mut Vec<T>,
    given: &[Vec<u8>],
    count: usize,
) -> Result<(), CollectiveError> {
    let (start, length) = (total.len(), count * size_of::<T>());
    for (rank, terms) in given.iter().enumerate() {
        if terms.is_empty() || terms.len() % length != 0 {
            return Err(CollectiveError::OutOfStep { rank, expected: length, found: terms.len() });
        }
        for term in terms.chunks_exact(length) {
            let term = read_numbers::<T>(term);
            if total.len() == start {
                total.extend(term);
            } else {
                total[start..].iter_mut().zip(term).for_each(|(sum, term)| *sum += term);
            }
        }
    }
    Ok(())
}

fn spread_bytes<T: Element + Pod>(exchange: &dyn Exchange, tensor: &mut Tensor) -> Result<(), CollectiveError> {
    let mut values = numbers::<T>(tensor)?;
    for chunk in values.chunks_mut(NUMBERS_AT_A_TIME) {
        let given = first_of(exchange, bytemuck::cast_slice(chunk))?;
        let expected = size_of_val(chunk);
        if given.len() != expected {
            return Err(CollectiveError::OutOfStep { rank: 0, expected, found: given.len() });
        }
        chunk.iter_mut().zip(read_numbers::<T>(&given)).for_each(|(value, given)| *value = given);
    }
    let shape = tensor.size();
    let values = Tensor::f_from_slice(&values).and_then(|values| values.f_view(&*shape)).map_err(TorchError::from)?;
    let _guard = tch::no_grad_guard();
    Ok(tensor.f_copy_(&values).map_err(TorchError::from)?)
}

/// The numbers that bytes stand for, wherever these lie.
fn read_numbers<T: Pod>(bytes: &[u8]) -> impl Iterator<Item = T> + '_ {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

fn numbers<T: Element + Copy>(tensor: &Tensor) -> Result<Vec<T>, TorchError> {
    Ok(Vec::try_from(tensor.f_detach()?.f_flatten(0, -1)?)?)
}
