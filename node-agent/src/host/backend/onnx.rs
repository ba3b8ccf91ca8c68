//! Looks through an ONNX file before an engine sees it.
//!
//! Reads only the protobuf's structure, in place, without allocating for what the file claims.
//! Refuses data outside the file, tensors that claim more than the file holds, dimensions without
//! end, graphs that are too deep, too large or not in order (so: cyclic), and what an engine is known
//! to compute wrongly.

use std::collections::{BTreeSet, HashSet};

/// Graphs within graphs (`If`, `Loop`).
const DEPTH_MAX: usize = 8;
/// Nodes in all graphs together.
const NODES_MAX: usize = 200_000;
/// Elements that any declared shape may ask for.
const ELEMENTS_MAX: u64 = 1 << 31;
/// Dimensions of one tensor.
const RANK_MAX: usize = 16;

/// What the file shows of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Names of the operators used.
    pub(super) operators: BTreeSet<String>,
    /// A `ConvInteger` that pads.
    pub(super) padded_conv_integer: bool,
}

/// Why the file is refused; in words that name the place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("model is not an ONNX file: {0}")]
    Malformed(&'static str),
    #[error("model has no graph")]
    NoGraph,
    #[error("tensor {0} keeps its data in another file, which a package's model may not")]
    ExternalData(String),
    #[error("tensor {name} claims {claimed} elements, {what}")]
    Oversized {
        name: String,
        claimed: String,
        what: &'static str,
    },
    #[error("graphs are nested deeper than {DEPTH_MAX}")]
    Depth,
    #[error("graphs have more than {NODES_MAX} nodes")]
    Nodes,
    #[error(
        "node {node} takes {input} before anything made it: the graph is cyclic or out of order"
    )]
    Order { node: String, input: String },
}

/// Looks through a whole file.
pub(super) fn inspect(file: &[u8]) -> Result<Summary, Refusal> {
    let mut walk = Walk {
        summary: Summary::default(),
        nodes: 0,
    };
    let mut graph = None;
    for field in Fields(file) {
        match field? {
            (7, Value::Bytes(bytes)) => graph = Some(bytes),
            // Functions of the model's own: few exporters write them, and no engine here reads them.
            (25, _) => return Err(Refusal::Malformed("it defines functions of its own")),
            _ => {}
        }
    }
    walk.graph(graph.ok_or(Refusal::NoGraph)?, &Scope::default(), 0)?;
    Ok(walk.summary)
}

/// Names that are made by now, in this graph and those around it.
#[derive(Default)]
struct Scope<'a> {
    outer: Option<&'a Scope<'a>>,
    names: HashSet<&'a [u8]>,
}

impl Scope<'_> {
    fn knows(&self, name: &[u8]) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.knows(name))
    }
}

struct Walk {
    summary: Summary,
    nodes: usize,
}

impl Walk {
    fn graph<'a>(
        &mut self,
        graph: &'a [u8],
        outer: &'a Scope<'a>,
        depth: usize,
    ) -> Result<(), Refusal> {
        if depth > DEPTH_MAX {
            return Err(Refusal::Depth);
        }
        let mut scope = Scope {
            outer: Some(outer),
            names: HashSet::new(),
        };
        // Inputs and initializers may stand behind the nodes in the file.
        for field in Fields(graph) {
            match field? {
                (5, Value::Bytes(tensor)) => {
                    scope.names.insert(self.tensor(tensor)?);
                }
                (15, _) => return Err(Refusal::Malformed("it has sparse initializers")),
                (11, Value::Bytes(info)) => {
                    scope.names.insert(value_info(info)?);
                }
                (12 | 13, Value::Bytes(info)) => {
                    value_info(info)?;
                }
                _ => {}
            }
        }
        for field in Fields(graph) {
            if let (1, Value::Bytes(node)) = field? {
                let outputs = self.node(node, &scope, depth)?;
                scope.names.extend(outputs);
            }
        }
        Ok(())
    }

    /// Gives the names that the node makes.
    fn node<'a>(
        &mut self,
        node: &'a [u8],
        scope: &Scope<'_>,
        depth: usize,
    ) -> Result<Vec<&'a [u8]>, Refusal> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Refusal::Nodes);
        }
        let (mut inputs, mut outputs, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut name, mut operator): (&[u8], &[u8]) = (b"", b"");
        for field in Fields(node) {
            match field? {
                (1, Value::Bytes(input)) => inputs.push(input),
                (2, Value::Bytes(output)) => outputs.push(output),
                (3, Value::Bytes(text)) => name = text,
                (4, Value::Bytes(text)) => operator = text,
                (5, Value::Bytes(attribute)) => attributes.push(attribute),
                _ => {}
            }
        }
        // An empty name is an optional input that is left out.
        if let Some(input) = inputs
            .iter()
            .find(|input| !input.is_empty() && !scope.knows(input))
        {
            let node = if name.is_empty() { operator } else { name };
            return Err(Refusal::Order {
                node: words(node),
                input: words(input),
            });
        }
        for attribute in attributes {
            self.attribute(attribute, operator, scope, depth)?;
        }
        let operator = words(operator);
        self.summary.operators.insert(operator);
        Ok(outputs)
    }

    fn attribute(
        &mut self,
        attribute: &[u8],
        operator: &[u8],
        scope: &Scope<'_>,
        depth: usize,
    ) -> Result<(), Refusal> {
        let (mut name, mut pads, mut text): (&[u8], bool, &[u8]) = (b"", false, b"");
        for field in Fields(attribute) {
            match field? {
                (1, Value::Bytes(bytes)) => name = bytes,
                (4, Value::Bytes(bytes)) => text = bytes,
                (5 | 10, Value::Bytes(tensor)) => {
                    self.tensor(tensor)?;
                }
                (6 | 11, Value::Bytes(graph)) => self.graph(graph, scope, depth + 1)?,
                (8, Value::Varint(number)) => pads |= number != 0,
                (8, Value::Bytes(packed)) => pads |= packed.iter().any(|byte| *byte != 0),
                _ => {}
            }
        }
        let pads = name == b"pads" && pads || name == b"auto_pad" && text.starts_with(b"SAME");
        self.summary.padded_conv_integer |= operator == b"ConvInteger" && pads;
        Ok(())
    }

    /// Checks a tensor in the file, and gives its name.
    fn tensor<'a>(&mut self, tensor: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let mut name: &[u8] = b"";
        let (mut dimensions, mut external) = (Vec::new(), false);
        for field in Fields(tensor) {
            match field? {
                (1, value) => numbers(value, &mut dimensions)?,
                (8, Value::Bytes(bytes)) => name = bytes,
                (13, _) => external = true,
                (14, Value::Varint(location)) => external |= location != 0,
                _ => {}
            }
        }
        if external {
            return Err(Refusal::ExternalData(words(name)));
        }
        // Half a byte each is the least that any type takes; strings take two.
        let elements = elements(name, &dimensions)?;
        if elements / 2 > tensor.len() as u64 {
            return Err(Refusal::Oversized {
                name: words(name),
                claimed: elements.to_string(),
                what: "more than its data has bytes for",
            });
        }
        Ok(name)
    }
}

/// Checks the shape that a graph declares for a value, and gives its name.
fn value_info(info: &[u8]) -> Result<&[u8], Refusal> {
    let mut name: &[u8] = b"";
    let mut dimensions = Vec::new();
    for field in Fields(info) {
        match field? {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(ty)) => shape_of_type(ty, &mut dimensions)?,
            _ => {}
        }
    }
    elements(name, &dimensions)?;
    Ok(name)
}

/// `TypeProto.tensor_type.shape.dim[].dim_value`; a symbolic dimension counts as one.
fn shape_of_type(ty: &[u8], dimensions: &mut Vec<u64>) -> Result<(), Refusal> {
    for tensor_type in messages(ty, 1) {
        for shape in messages(tensor_type?, 2) {
            for dimension in messages(shape?, 1) {
                for field in Fields(dimension?) {
                    if let (1, Value::Varint(size)) = field? {
                        dimensions.push(size);
                    }
                }
                if dimensions.len() > RANK_MAX {
                    return Err(Refusal::Malformed("a shape has too many dimensions"));
                }
            }
        }
    }
    Ok(())
}

fn elements(name: &[u8], dimensions: &[u64]) -> Result<u64, Refusal> {
    let product = dimensions
        .iter()
        .try_fold(1u64, |product, size| product.checked_mul(*size));
    match product {
        Some(elements) if elements <= ELEMENTS_MAX && dimensions.len() <= RANK_MAX => Ok(elements),
        _ => Err(Refusal::Oversized {
            name: words(name),
            claimed: dimensions
                .iter()
                .take(RANK_MAX)
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(" x "),
            what: "more than any model here may",
        }),
    }
}

fn numbers(value: Value<'_>, into: &mut Vec<u64>) -> Result<(), Refusal> {
    match value {
        Value::Varint(number) => into.push(number),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() && into.len() <= RANK_MAX {
                into.push(varint(&mut packed)?);
            }
        }
        Value::Fixed => return Err(Refusal::Malformed("a dimension is no integer")),
    }
    if into.len() > RANK_MAX {
        return Err(Refusal::Malformed("a tensor has too many dimensions"));
    }
    Ok(())
}

/// A name for a message: short and printable.
fn words(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(64)])
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// The payload of one protobuf field.
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of one protobuf message, in place.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Value<'a>), Refusal> {
    let key = varint(rest)?;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => skip(rest, 8)?,
        2 => {
            let length = varint(rest)?;
            Value::Bytes(take(rest, usize::try_from(length).unwrap_or(usize::MAX))?)
        }
        5 => skip(rest, 4)?,
        _ => return Err(Refusal::Malformed("a field is of no known wire type")),
    };
    Ok((key >> 3, value))
}

fn skip<'a>(rest: &mut &'a [u8], length: usize) -> Result<Value<'a>, Refusal> {
    take(rest, length)?;
    Ok(Value::Fixed)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Refusal> {
    let (taken, after) = rest
        .split_at_checked(length)
        .ok_or(Refusal::Malformed("it ends within a field"))?;
    *rest = after;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Refusal> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest
            .split_first()
            .ok_or(Refusal::Malformed("it ends within a number"))?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Refusal::Malformed("a number is too long"))
}

/// The sub-messages of one field.
fn messages(message: &[u8], number: u64) -> impl Iterator<Item = Result<&[u8], Refusal>> {
    Fields(message).filter_map(move |field| match field {
        Ok((found, Value::Bytes(bytes))) if found == number => Some(Ok(bytes)),
        Ok(_) => None,
        Err(refusal) => Some(Err(refusal)),
    })
}

#[cfg(test)]
mod tests;
