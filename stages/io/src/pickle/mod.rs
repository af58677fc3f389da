//! Python's pickles as data: what nnU-Net's checkpoints and postprocessing files are written in.
//!
//! A pickle is a program for a small stack machine, and Python runs whatever function it names. The machine here runs
//! nothing: a name is looked up in a fixed list (`globals`), each entry of which stands for one harmless kind of value
//! (an ordered dictionary, a tensor, a number of NumPy's), and any other name is an error that tells it. The result is an
//! arena of plain nodes, in which values may be shared or even contain themselves, as they may in Python; so readers
//! ask for what they expect ([`Value::get`]) and never walk all of it.
//!
//! Every node costs the file at least one byte, and what calls copy is counted, so a file cannot make the machine allocate
//! more than a fixed multiple of its own size.
//!
//! Protocols 2 to 5, without out-of-band buffers. Reference: CPython 3.11 `Lib/pickletools.py`.

mod globals;
mod machine;
#[cfg(test)]
mod tests;
mod write;

pub use globals::Element;
pub use write::{Pickled, to_vec};

/// The largest pickle that is read; those of checkpoints have some 100 kB, because tensors lie beside them.
pub const LARGEST: u64 = 64 << 20;

/// A pickle that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {position} of the pickle: {problem}")]
pub struct PickleError {
    /// Where in the pickle, in bytes from its start.
    pub position: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a pickle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The pickle has more bytes than [`LARGEST`].
    #[error("it has {found} bytes, expected at most {LARGEST}")]
    Size {
        /// Bytes found.
        found: u64,
    },
    /// The pickle ends within an instruction, or without the last one.
    #[error("it ends too early")]
    Truncated,
    /// A name that is not on the list.
    #[error("it wants to use `{name}` of Python, which is none of the names that a checkpoint needs; nothing was run")]
    Forbidden {
        /// Module and name.
        name: String,
    },
    /// A name on the list, used for what it is not for.
    #[error("`{name}` is not used as checkpoints use it: expected {expected}")]
    Misuse {
        /// The name.
        name: &'static str,
        /// What its arguments have to be.
        expected: &'static str,
    },
    /// An instruction that checkpoints do not have.
    #[error("instruction `{code:#04x}` is none of those that checkpoints have")]
    Instruction {
        /// The byte.
        code: u8,
    },
    /// An instruction that finds nothing, or something else, on the stack or in the memo.
    #[error("an instruction finds {found} where it expects {expected}")]
    Operand {
        /// What it needs.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The same long values are copied over and over.
    #[error("it copies its values more often than any checkpoint does")]
    Copies,
    /// A text that is not UTF-8.
    #[error("a text is not valid UTF-8")]
    Text,
}

/// Index of a node in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(u32);

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Tuple(Vec<Id>),
    /// Also a set, whose order does not matter.
    List(Vec<Id>),
    /// In the order of insertion; a later entry of the same key counts.
    Dict(Vec<(Id, Id)>),
    Global(globals::Global),
    /// A type of NumPy's.
    NumpyType(globals::NumpyType),
    Storage(Storage),
    Tensor(Box<Tensor>),
    /// A value that nothing here needs: a device, an array, a whole number beyond 64 bits.
    Other(&'static str),
}

/// A piece of memory that tensors lie in; its bytes are beside the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Name of the file with the bytes.
    pub key: Box<str>,
    /// Type of the elements.
    pub element: Element,
    /// Number of elements.
    pub len: u64,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// What it is a view of.
    pub storage: Storage,
    /// Index of its first element in the storage.
    pub offset: u64,
    /// Extents.
    pub shape: Vec<u64>,
    /// Distance of neighbours along each axis, in elements of the storage.
    pub strides: Vec<u64>,
}

/// What a pickle holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    nodes: Vec<Node>,
    root: Id,
}

/// A value in a document.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document,
    id: Id,
}

impl Document {
    /// Reads a pickle. Nothing in it is run.
    ///
    /// # Errors
    /// [`PickleError`] with the place of the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, PickleError> {
        machine::run(bytes)
    }

    /// The value that the pickle holds.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        Value { document: self, id: self.root }
    }

    fn node(&self, id: Id) -> &Node {
        // Ids are made by the machine alone, each for a node that it has pushed.
        &self.nodes[id.0 as usize]
    }
}

impl<'a> Value<'a> {
    fn node(self) -> &'a Node {
        self.document.node(self.id)
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// The entry of a dictionary under a text.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Self> {
        let Node::Dict(entries) = self.node() else { return None };
        let found = entries.iter().rev().find(|(name, _)| self.at(*name).as_str() == Some(key))?;
        Some(self.at(found.1))
    }

    /// The entries of a dictionary whose keys are texts, in their order.
    #[must_use]
    pub fn entries(self) -> Option<impl Iterator<Item = (&'a str, Self)>> {
        let Node::Dict(entries) = self.node() else { return None };
        Some(entries.iter().filter_map(move |(name, value)| Some((self.at(*name).as_str()?, self.at(*value)))))
    }

    /// The members of a list, tuple or set.
    #[must_use]
    pub fn items(self) -> Option<impl DoubleEndedIterator<Item = Self> + ExactSizeIterator> {
        match self.node() {
            Node::List(items) | Node::Tuple(items) => Some(items.iter().map(move |id| self.at(*id))),
            _ => None,
        }
    }

    /// A text.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self.node() {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, Python's or NumPy's.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self.node() {
            Node::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// A number, Python's or NumPy's.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self.node() {
            Node::Int(number) => Some(*number as f64),
            Node::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A tensor or parameter.
    #[must_use]
    pub fn as_tensor(self) -> Option<&'a Tensor> {
        match self.node() {
            Node::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Whether it is `None`.
    #[must_use]
    pub fn is_none(self) -> bool {
        *self.node() == Node::None
    }

    /// Python's name of the function or class that is named here, such as `OrderedDict`.
    #[must_use]
    pub fn as_name(self) -> Option<&'static str> {
        match self.node() {
            Node::Global(global) => Some(global.name()),
            _ => None,
        }
    }

    /// What kind of value it is, for an error.
    #[must_use]
    pub fn kind(self) -> &'static str {
        self.node().kind()
    }
}

impl Node {
    /// How much a copy of it takes, about in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Tuple(items) | Self::List(items) => size_of::<Id>() * items.len(),
            Self::Dict(entries) => 2 * size_of::<Id>() * entries.len(),
            Self::Storage(storage) => storage.key.len(),
            _ => 1,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a function or class",
            Self::NumpyType(_) => "a type of NumPy's",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Other(kind) => kind,
        }
    }
}
