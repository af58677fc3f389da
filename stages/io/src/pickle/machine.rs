//! The stack machine.

use std::collections::HashMap;

use super::globals::{self, Called, Global};
use super::{Document, Id, LARGEST, Node, PickleError, Problem};

/// How many times its own size a pickle may copy; a checkpoint copies a few times its shapes.
const COPIES: usize = 64;

/// Runs a pickle to its end; nothing of Python is run.
pub(super) fn run(bytes: &[u8]) -> Result<Document, PickleError> {
    let mut machine = Machine {
        bytes,
        position: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    if bytes.len() as u64 > LARGEST {
        return Err(PickleError { position: 0, problem: Problem::Size { found: bytes.len() as u64 } });
    }
    loop {
        let position = machine.position;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok(Document { nodes: machine.nodes, root }),
            Err(problem) => return Err(PickleError { position, problem }),
        }
    }
}

/// What the machine works on.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack that `MARK` has set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// How much calls have copied of their arguments, about in bytes.
    copied: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// One instruction; the root at the last one.
    fn step(&mut self) -> Result<Option<Id>, Problem> {
        let code = self.byte()?;
        match code {
            b'.' => return self.pop().map(Some),
            // The version, and how long the next frame is: neither changes what is read.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' | b'M' | b'J' | 0x8A | 0x8B | b'G' => self.number(code)?,
            b'X' | 0x8C | 0x8D | b'U' | b'T' => self.text(code)?,
            b'C' | b'B' | 0x8E | 0x96 => self.raw(code)?,
            b')' => self.push(Node::Tuple(Vec::new())),
            b']' | 0x8F => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(code - 0x84))?;
                self.push(Node::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(in_pairs(&items)?));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.insert(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.drop_top()?,
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'h' | b'j' | b'q' | b'r' | 0x94 => self.memo(code)?,
            b'c' | 0x93 => self.global(code)?,
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            code => return Err(Problem::Instruction { code }),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let taken = self.bytes.get(self.position..).and_then(|rest| rest.get(..count)).ok_or(Problem::Truncated)?;
        self.position += count;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), Problem> {
        self.take(count).map(drop)
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        Ok(self.take(1)?[0])
    }

    /// A number of up to 8 bytes, little endian.
    fn unsigned(&mut self, count: usize) -> Result<u64, Problem> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// As many bytes as a number of `width` bytes in front of them says.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], Problem> {
        let count = usize::try_from(self.unsigned(width)?).map_err(|_| Problem::Truncated)?;
        self.take(count)
    }

    fn line(&mut self) -> Result<&'a str, Problem> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Problem::Truncated)?;
        let line = self.take(end)?;
        self.skip(1)?;
        std::str::from_utf8(line).map_err(|_| Problem::Text)
    }

    fn push(&mut self, node: Node) {
        // A pickle is far shorter than 2^32 bytes, and each node takes one of them.
        let id = Id(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node);
        self.stack.push(id);
    }

    /// How much of the stack belongs to the innermost mark, or to nobody.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, Problem> {
        let above = self.stack.get(self.floor()..).and_then(<[Id]>::last);
        above.copied().ok_or(Problem::Operand { expected: "a value", found: "nothing" })
    }

    fn pop(&mut self) -> Result<Id, Problem> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, Problem> {
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor());
        let start = start.ok_or(Problem::Operand { expected: "several values", found: "fewer" })?;
        Ok(self.stack.split_off(start))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Problem> {
        let start = self.marks.pop().ok_or(Problem::Operand { expected: "a mark", found: "none" })?;
        Ok(self.stack.split_off(start))
    }

    /// Drops the topmost value, or the mark where that is on top.
    fn drop_top(&mut self) -> Result<(), Problem> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn number(&mut self, code: u8) -> Result<(), Problem> {
        let node = match code {
            b'K' => Node::Int(i64::from(self.byte()?)),
            b'M' => Node::Int(self.unsigned(2)?.cast_signed()),
            b'J' => {
                let bytes = self.take(4)?;
                Node::Int(long(bytes).unwrap_or(0))
            }
            b'G' => {
                let bits = self.take(8)?.iter().fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte));
                Node::Float(f64::from_bits(bits))
            }
            _ => {
                let bytes = self.counted(if code == 0x8A { 1 } else { 4 })?;
                long(bytes).map_or(Node::Other("a whole number beyond 64 bits"), Node::Int)
            }
        };
        self.push(node);
        Ok(())
    }

    fn text(&mut self, code: u8) -> Result<(), Problem> {
        let bytes = self.counted(match code {
            0x8C | b'U' => 1,
            0x8D => 8,
            _ => 4,
        })?;
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::Text)?;
        self.push(Node::Text(text.into()));
        Ok(())
    }

    fn raw(&mut self, code: u8) -> Result<(), Problem> {
        let bytes = self.counted(match code {
            b'C' => 1,
            b'B' => 4,
            _ => 8,
        })?;
        self.push(Node::Bytes(bytes.into()));
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<(), Problem> {
        let list = self.top()?;
        match &mut self.nodes[list.0 as usize] {
            Node::List(members) => {
                members.extend_from_slice(items);
                Ok(())
            }
            other => Err(Problem::Operand { expected: "a list", found: other.kind() }),
        }
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), Problem> {
        let (dict, pairs) = (self.top()?, in_pairs(items)?);
        match &mut self.nodes[dict.0 as usize] {
            Node::Dict(entries) => {
                entries.extend(pairs);
                Ok(())
            }
            other => Err(Problem::Operand { expected: "a dictionary", found: other.kind() }),
        }
    }

    fn memo(&mut self, code: u8) -> Result<(), Problem> {
        let index = match code {
            b'h' | b'q' => u32::from(self.byte()?),
            0x94 => u32::try_from(self.memo.len()).map_err(|_| Problem::Truncated)?,
            _ => u32::try_from(self.unsigned(4)?).map_err(|_| Problem::Truncated)?,
        };
        if matches!(code, b'h' | b'j') {
            let id = self.memo.get(&index).copied();
            self.stack.push(id.ok_or(Problem::Operand { expected: "a value in the memo", found: "nothing" })?);
        } else {
            self.memo.insert(index, self.top()?);
        }
        Ok(())
    }

    fn global(&mut self, code: u8) -> Result<(), Problem> {
        let (module, name) = if code == b'c' {
            (self.line()?.to_owned(), self.line()?.to_owned())
        } else {
            let names = self.pop_many(2)?;
            match (self.node(names[0]), self.node(names[1])) {
                (Node::Text(module), Node::Text(name)) => (module.to_string(), name.to_string()),
                (other, _) => return Err(Problem::Operand { expected: "a module and a name", found: other.kind() }),
            }
        };
        match Global::find(&module, &name) {
            Some(global) => {
                self.push(Node::Global(global));
                Ok(())
            }
            None => Err(Problem::Forbidden { name: format!("{module}.{name}") }),
        }
    }

    fn call(&mut self) -> Result<(), Problem> {
        let operands = self.pop_many(2)?;
        let (function, arguments) = (self.node(operands[0]), self.node(operands[1]));
        let Node::Global(global) = function else {
            return Err(Problem::Operand { expected: "a function", found: function.kind() });
        };
        let Node::Tuple(arguments) = arguments else {
            return Err(Problem::Operand { expected: "a tuple of arguments", found: arguments.kind() });
        };
        let sizes: usize = arguments.iter().map(|id| self.node(*id).size()).sum();
        let called = global.call(arguments, self)?;
        self.copy(sizes)?;
        match called {
            Called::Made(node) => self.push(node),
            Called::Argument(id) => self.stack.push(id),
        }
        Ok(())
    }

    /// Keeps a short file that copies a long value over and over from taking all memory.
    fn copy(&mut self, size: usize) -> Result<(), Problem> {
        self.copied = self.copied.saturating_add(size);
        if self.copied / COPIES > self.bytes.len() {
            return Err(Problem::Copies);
        }
        Ok(())
    }

    /// The state of a value: attributes that nothing here reads, apart from the byte order of a type of NumPy's.
    fn build(&mut self) -> Result<(), Problem> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.node(target) {
            Node::NumpyType(of) => {
                let changed = globals::with_byte_order(*of, self.node(state), self);
                self.nodes[target.0 as usize] = Node::NumpyType(changed);
                Ok(())
            }
            Node::Dict(_) | Node::Tensor(_) | Node::Other(_) => Ok(()),
            other => Err(Problem::Operand { expected: "a value with a state", found: other.kind() }),
        }
    }

    fn persistent(&mut self) -> Result<(), Problem> {
        let id = self.pop()?;
        let found = self.node(id).kind();
        let storage = globals::storage(self.node(id), self);
        let storage = storage.ok_or(Problem::Operand { expected: "the name of a storage", found })?;
        self.copy(storage.key.len())?;
        self.push(Node::Storage(storage));
        Ok(())
    }
}

fn in_pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, Problem> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => Err(Problem::Operand { expected: "pairs", found: "a key without a value" }),
    }
}

/// A whole number in two's complement, little endian; none where it needs more than 64 bits.
fn long(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|last| last >> 7 == 1);
    let mut all = [if negative { 0xFF } else { 0 }; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}
