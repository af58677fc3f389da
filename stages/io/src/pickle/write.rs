//! Writing pickles: plain values and tensors, in protocol 2, as PyTorch writes its own.

use serde_json::Value;

/// A value to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Pickled {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Pickled>),
    /// A tuple.
    Tuple(Vec<Pickled>),
    /// A dictionary whose keys are texts, in this order.
    Dict(Vec<(String, Pickled)>),
    /// A contiguous tensor of 32-bit floats, alone in the storage of this name.
    Tensor {
        /// Name of the storage.
        storage: String,
        /// Extents.
        shape: Vec<usize>,
    },
    /// A function or class, by module and name.
    Name(&'static str, &'static str),
}

impl From<&str> for Pickled {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&Value> for Pickled {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::None,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                Self::Dict(entries.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect())
            }
        }
    }
}

/// The pickle of a value; the same value always gives the same bytes.
#[must_use]
pub fn to_vec(value: &Pickled) -> Vec<u8> {
    let mut bytes = vec![0x80, 2];
    write(value, &mut bytes);
    bytes.push(b'.');
    bytes
}

fn write(value: &Pickled, bytes: &mut Vec<u8>) {
    match value {
        Pickled::None => bytes.push(b'N'),
        Pickled::Bool(value) => bytes.push(if *value { 0x88 } else { 0x89 }),
        Pickled::Int(number) => whole(*number, bytes),
        Pickled::Float(number) => {
            bytes.push(b'G');
            bytes.extend(number.to_be_bytes());
        }
        Pickled::Text(value) => text(value, bytes),
        Pickled::List(items) => {
            bytes.extend(b"](");
            items.iter().for_each(|item| write(item, bytes));
            bytes.push(b'e');
        }
        Pickled::Tuple(items) => {
            bytes.push(b'(');
            items.iter().for_each(|item| write(item, bytes));
            bytes.push(b't');
        }
        Pickled::Dict(entries) => {
            bytes.extend(b"}(");
            for (key, value) in entries {
                text(key, bytes);
                write(value, bytes);
            }
            bytes.push(b'u');
        }
        Pickled::Tensor { storage, shape } => tensor(storage, shape, bytes),
        Pickled::Name(module, name) => bytes.extend(format!("c{module}\n{name}\n").as_bytes()),
    }
}

fn whole(number: i64, bytes: &mut Vec<u8>) {
    match i32::try_from(number) {
        Ok(number) => {
            bytes.push(b'J');
            bytes.extend(number.to_le_bytes());
        }
        Err(_) => {
            bytes.extend([0x8A, 8]);
            bytes.extend(number.to_le_bytes());
        }
    }
}

fn text(text: &str, bytes: &mut Vec<u8>) {
    // Protocol 2 counts in 32 bits; no name or label here comes near to that.
    let length = u32::try_from(text.len()).expect("invariant: a text is shorter than 4 GiB");
    bytes.push(b'X');
    bytes.extend(length.to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`, as `torch.Tensor.__reduce_ex__` gives it.
fn tensor(storage: &str, shape: &[usize], bytes: &mut Vec<u8>) {
    let counts = |extents: &[usize]| {
        Pickled::Tuple(extents.iter().map(|extent| Pickled::Int(i64::try_from(*extent).unwrap_or(i64::MAX))).collect())
    };
    bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
    let name = Pickled::Tuple(vec![
        "storage".into(),
        Pickled::Name("torch", "FloatStorage"),
        storage.into(),
        "cpu".into(),
        Pickled::Int(i64::try_from(shape.iter().product::<usize>()).unwrap_or(i64::MAX)),
    ]);
    write(&name, bytes);
    bytes.push(b'Q');
    whole(0, bytes);
    write(&counts(shape), bytes);
    write(&counts(&strides(shape)), bytes);
    bytes.push(0x89);
    bytes.extend(b"ccollections\nOrderedDict\n)RtR");
}

/// Distances of neighbours in C order.
fn strides(shape: &[usize]) -> Vec<usize> {
    (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect()
}
