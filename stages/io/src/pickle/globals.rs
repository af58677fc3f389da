//! The names that a pickle may use, and what a call of each of them gives.
//!
//! The list is what nnU-Net 2.0 to 2.8 and PyTorch 2 write into checkpoints, and nnU-Net into `postprocessing.pkl`.

use super::machine::Machine;
use super::{Id, Node, Problem, Storage, Tensor};

/// Types of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// The upper half of a 32-bit float.
    BF16,
    /// Whole numbers of this many bytes, or truth values.
    Whole(u8),
}

impl Element {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Whole(bytes) => usize::from(bytes),
        }
    }
}

/// A type of NumPy's, as the code `f8` or `i4` tells it; other types have no numbers that are read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumpyType {
    kind: u8,
    bytes: u8,
    big_endian: bool,
}

/// A name on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    DefaultDict,
    Dict,
    List,
    Set,
    Tuple,
    Encode,
    Storage(Element),
    RebuildTensor,
    RebuildParameter,
    Size,
    Device,
    /// A type of tensors, such as `torch.float32`.
    TensorType,
    Scalar,
    Array,
    ReconstructArray,
    NumpyType,
    Path,
    KeepLargestComponent,
}

impl Global {
    /// The entry of the list, if the name is on it.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("collections", "defaultdict") => Self::DefaultDict,
            ("builtins" | "__builtin__", "dict") => Self::Dict,
            ("builtins" | "__builtin__", "list") => Self::List,
            ("builtins" | "__builtin__", "set" | "frozenset") => Self::Set,
            ("builtins" | "__builtin__", "tuple") => Self::Tuple,
            ("_codecs", "encode") => Self::Encode,
            ("torch", "DoubleStorage") => Self::Storage(Element::F64),
            ("torch", "FloatStorage") => Self::Storage(Element::F32),
            ("torch", "HalfStorage") => Self::Storage(Element::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Element::BF16),
            ("torch", "LongStorage") => Self::Storage(Element::Whole(8)),
            ("torch", "IntStorage") => Self::Storage(Element::Whole(4)),
            ("torch", "ShortStorage") => Self::Storage(Element::Whole(2)),
            ("torch", "CharStorage" | "ByteStorage" | "BoolStorage") => Self::Storage(Element::Whole(1)),
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
            ("torch", "float64" | "float32" | "float16" | "bfloat16" | "int64" | "int32" | "uint8" | "bool") => {
                Self::TensorType
            }
            ("numpy._core.multiarray" | "numpy.core.multiarray", "scalar") => Self::Scalar,
            ("numpy._core.multiarray" | "numpy.core.multiarray", "_reconstruct") => Self::ReconstructArray,
            ("numpy", "ndarray") => Self::Array,
            ("numpy", "dtype") => Self::NumpyType,
            ("pathlib", "PosixPath" | "PurePosixPath" | "WindowsPath" | "PureWindowsPath") => Self::Path,
            (
                "nnunetv2.postprocessing.remove_connected_components",
                "remove_all_but_largest_component_from_segmentation",
            ) => Self::KeepLargestComponent,
            _ => return None,
        })
    }

    /// The name without its module.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OrderedDict => "OrderedDict",
            Self::DefaultDict => "defaultdict",
            Self::Dict => "dict",
            Self::List => "list",
            Self::Set => "set",
            Self::Tuple => "tuple",
            Self::Encode => "encode",
            Self::Storage(_) => "Storage",
            Self::RebuildTensor => "_rebuild_tensor_v2",
            Self::RebuildParameter => "_rebuild_parameter",
            Self::Size => "Size",
            Self::Device => "device",
            Self::TensorType => "dtype",
            Self::Scalar => "scalar",
            Self::Array => "ndarray",
            Self::ReconstructArray => "_reconstruct",
            Self::NumpyType => "numpy.dtype",
            Self::Path => "Path",
            Self::KeepLargestComponent => "remove_all_but_largest_component_from_segmentation",
        }
    }

    /// What a call with these arguments gives: a new node, or one of the arguments.
    pub(super) fn call(self, arguments: &[Id], machine: &Machine<'_>) -> Result<Called, Problem> {
        let misuse = |expected| Problem::Misuse { name: self.name(), expected };
        let made = match self {
            Self::OrderedDict | Self::Dict => Node::Dict(pairs(arguments, machine).ok_or(misuse("a list of pairs"))?),
            Self::DefaultDict => Node::Dict(Vec::new()),
            Self::List | Self::Set => Node::List(members(arguments, machine).ok_or(misuse("a list"))?),
            Self::Tuple | Self::Size => Node::Tuple(members(arguments, machine).ok_or(misuse("a tuple"))?),
            Self::Encode => Node::Bytes(latin1(arguments, machine).ok_or(misuse("a text in Latin-1"))?),
            Self::RebuildTensor => {
                let expected = "a storage, an offset, a shape and strides";
                Node::Tensor(Box::new(tensor(arguments, machine).ok_or(misuse(expected))?))
            }
            Self::RebuildParameter => {
                let tensor = arguments.first().filter(|id| matches!(machine.node(**id), Node::Tensor(_)));
                return Ok(Called::Argument(*tensor.ok_or(misuse("a tensor"))?));
            }
            Self::Device => Node::Other("a device"),
            Self::Scalar => scalar(arguments, machine).ok_or(misuse("a type of NumPy's and its bytes"))?,
            Self::ReconstructArray => Node::Other("an array of NumPy's"),
            Self::NumpyType => numpy_type(arguments, machine).ok_or(misuse("the code of a type"))?,
            Self::Path => Node::Other("a path"),
            Self::Storage(_) | Self::TensorType | Self::Array | Self::KeepLargestComponent => {
                return Err(misuse("a value, not a call"));
            }
        };
        Ok(Called::Made(made))
    }
}

/// The result of a call.
pub(super) enum Called {
    Made(Node),
    Argument(Id),
}

/// The storage that a persistent id names: `('storage', class, key, location, length)`.
pub(super) fn storage(id: &Node, machine: &Machine<'_>) -> Option<Storage> {
    let Node::Tuple(parts) = id else { return None };
    let [tag, class, key, _, len] = parts.get(..5)?.first_chunk::<5>()?.map(|id| machine.node(id));
    let (Node::Text(tag), Node::Global(Global::Storage(element))) = (tag, class) else { return None };
    let (Node::Text(key), Node::Int(len)) = (key, len) else { return None };
    (**tag == *"storage").then_some(())?;
    Some(Storage { key: key.clone(), element: *element, len: u64::try_from(*len).ok()? })
}

fn tensor(arguments: &[Id], machine: &Machine<'_>) -> Option<Tensor> {
    let [storage, offset, shape, strides] = arguments.get(..4)?.first_chunk::<4>()?.map(|id| machine.node(id));
    let Node::Storage(storage) = storage else { return None };
    let (shape, strides) = (counts(shape, machine)?, counts(strides, machine)?);
    (shape.len() == strides.len()).then_some(())?;
    Some(Tensor { storage: storage.clone(), offset: count(offset)?, shape, strides })
}

fn counts(node: &Node, machine: &Machine<'_>) -> Option<Vec<u64>> {
    let (Node::Tuple(items) | Node::List(items)) = node else { return None };
    items.iter().map(|id| count(machine.node(*id))).collect()
}

fn count(node: &Node) -> Option<u64> {
    match node {
        Node::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// No argument, or one that lists pairs.
fn pairs(arguments: &[Id], machine: &Machine<'_>) -> Option<Vec<(Id, Id)>> {
    let [list] = arguments else { return arguments.is_empty().then(Vec::new) };
    match machine.node(*list) {
        Node::Dict(entries) => Some(entries.clone()),
        Node::List(items) => items.iter().map(|id| pair(machine.node(*id))).collect(),
        _ => None,
    }
}

fn pair(node: &Node) -> Option<(Id, Id)> {
    match node {
        Node::Tuple(items) | Node::List(items) => match items.as_slice() {
            [key, value] => Some((*key, *value)),
            _ => None,
        },
        _ => None,
    }
}

/// No argument, or one that lists members.
fn members(arguments: &[Id], machine: &Machine<'_>) -> Option<Vec<Id>> {
    let [list] = arguments else { return arguments.is_empty().then(Vec::new) };
    match machine.node(*list) {
        Node::List(items) | Node::Tuple(items) => Some(items.clone()),
        _ => None,
    }
}

/// How protocol 2 writes bytes: as the text with these code points.
fn latin1(arguments: &[Id], machine: &Machine<'_>) -> Option<Box<[u8]>> {
    let Node::Text(text) = machine.node(*arguments.first()?) else { return None };
    text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect()
}

fn numpy_type(arguments: &[Id], machine: &Machine<'_>) -> Option<Node> {
    let Node::Text(code) = machine.node(*arguments.first()?) else { return None };
    let code = code.trim_start_matches(['<', '|', '=']);
    let known = matches!(code, "f8" | "f4" | "f2" | "i8" | "i4" | "i2" | "i1" | "u8" | "u4" | "u2" | "u1" | "b1");
    Some(match code.as_bytes() {
        [kind, digit] if known => Node::NumpyType(NumpyType { kind: *kind, bytes: digit - b'0', big_endian: false }),
        _ => Node::Other("a type of NumPy's"),
    })
}

/// The type as its state (`(3, '<', …)`) changes it.
pub(super) fn with_byte_order(of: NumpyType, state: &Node, machine: &Machine<'_>) -> NumpyType {
    let order = match state {
        Node::Tuple(parts) => parts.get(1).map(|id| machine.node(*id)),
        _ => None,
    };
    let big_endian = matches!(order, Some(Node::Text(order)) if **order == *">");
    NumpyType { big_endian, ..of }
}

fn scalar(arguments: &[Id], machine: &Machine<'_>) -> Option<Node> {
    let [of, bytes] = arguments.get(..2)?.first_chunk::<2>()?.map(|id| machine.node(id));
    let (Node::NumpyType(of), Node::Bytes(bytes)) = (of, bytes) else {
        return matches!(of, Node::Other(_)).then_some(Node::Other("a value of NumPy's"));
    };
    let mut bytes = bytes.to_vec();
    (bytes.len() == usize::from(of.bytes)).then_some(())?;
    if of.big_endian {
        bytes.reverse();
    }
    number(of.kind, &bytes)
}

/// A number of 1, 2, 4 or 8 bytes, little endian.
fn number(kind: u8, bytes: &[u8]) -> Option<Node> {
    let mut whole = [if kind == b'i' && bytes.last()? >> 7 == 1 { 0xFF } else { 0 }; 8];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let whole = u64::from_le_bytes(whole);
    Some(match (kind, bytes.len()) {
        (b'f', 8) => Node::Float(f64::from_bits(whole)),
        (b'f', 4) => Node::Float(f64::from(f32::from_bits(u32::try_from(whole).ok()?))),
        (b'f', 2) => Node::Float(half::f16::from_bits(u16::try_from(whole).ok()?).to_f64()),
        (b'i', _) => Node::Int(whole.cast_signed()),
        (b'u', _) => i64::try_from(whole).map_or(Node::Other("a whole number beyond 64 bits"), Node::Int),
        (b'b', 1) => Node::Bool(whole != 0),
        _ => return None,
    })
}
