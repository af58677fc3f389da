//! The graph as text for the drawing tools that people have.

use std::collections::BTreeSet;
use std::fmt::Write;

use petgraph::visit::EdgeRef;

use super::{Graph, Producer};

impl Graph {
    /// The graph in the language of Graphviz.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut text =
            String::from("digraph workflow {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
        for source in self.sources() {
            add(&mut text, format_args!("  \"{source}\" [shape=cylinder];"));
        }
        for node in &self.order {
            add(&mut text, format_args!("  \"{}\";", self.nodes[*node].name));
        }
        for (from, to) in self.arrows() {
            add(&mut text, format_args!("  \"{from}\" -> \"{to}\";"));
        }
        text.push_str("}\n");
        text
    }

    /// The graph in the language of Mermaid.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for source in self.sources() {
            add(&mut text, format_args!("  {}[(\"{source}\")]", identifier(source)));
        }
        for node in &self.order {
            let name = &self.nodes[*node].name;
            add(&mut text, format_args!("  {}[\"{name}\"]", identifier(name)));
        }
        for (from, to) in self.arrows() {
            add(&mut text, format_args!("  {} --> {}", identifier(from), identifier(to)));
        }
        text
    }

    /// The sources that any node reads, in the order of their names.
    pub(super) fn sources(&self) -> BTreeSet<&str> {
        let inputs = self.nodes.node_weights().flat_map(|node| &node.inputs);
        let producers = inputs.flat_map(|input| &input.sources).map(|source| &source.producer);
        producers
            .filter_map(|producer| if let Producer::Source(name) = producer { Some(name.as_str()) } else { None })
            .collect()
    }

    /// Who feeds whom, by name, each pair once; in the order of the consumers.
    pub(super) fn arrows(&self) -> Vec<(&str, &str)> {
        let mut arrows = Vec::new();
        for index in &self.order {
            let node = &self.nodes[*index];
            let inputs = node.inputs.iter().flat_map(|input| &input.sources);
            let names: BTreeSet<&str> = inputs
                .map(|source| match &source.producer {
                    Producer::Node(producer) => self.nodes[*producer].name.as_str(),
                    Producer::Source(name) => name,
                })
                .collect();
            arrows.extend(names.into_iter().map(|name| (name, node.name.as_str())));
        }
        arrows
    }

    /// How many steps each node is away from those that need nothing, by the index of the node.
    pub(super) fn layers(&self) -> Vec<usize> {
        let mut layers = vec![0; self.nodes.node_count()];
        for node in &self.order {
            let next = layers[node.index()] + 1;
            for edge in self.nodes.edges(*node) {
                let layer = &mut layers[edge.target().index()];
                *layer = next.max(*layer);
            }
        }
        layers
    }
}

pub(super) fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a text cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

/// A name with only letters, digits and `_`, as Mermaid wants it; different names stay different.
fn identifier(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, character| {
        if character.is_ascii_alphanumeric() {
            text.push(character);
        } else {
            text.push_str(&format!("_{:x}_", u32::from(character)));
        }
        text
    })
}
