//! The graph as a drawing, laid out in columns: a column for each step away from what needs nothing.
//!
//! Drawn by stages rather than by nodes, since a workflow with five folds of three configurations has a hundred nodes and
//! no more to tell than its twenty stages.

use std::collections::{BTreeMap, BTreeSet};

use super::draw::add;
use super::{Graph, Producer};

const BOX_HEIGHT: usize = 40;
const ROW_GAP: usize = 20;
const COLUMN_GAP: usize = 70;
const MARGIN: usize = 20;

/// The width of a letter at the font size of the drawing.
const LETTER_WIDTH: usize = 8;

/// A box of the drawing.
struct Shape<'g> {
    name: &'g str,
    detail: String,
    column: usize,
    row: usize,
    source: bool,
}

impl Graph {
    /// The graph as an SVG drawing, one box for each stage with how many nodes it has.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let shapes = self.shapes();
        let (lefts, widths) = columns(&shapes);
        let width = lefts.iter().zip(&widths).map(|(left, width)| left + width).max().unwrap_or(0) + MARGIN;
        let rows = shapes.iter().map(|shape| shape.row + 1).max().unwrap_or(0);
        let height = rows * (BOX_HEIGHT + ROW_GAP) + 2 * MARGIN;
        let mut text = String::new();
        add(
            &mut text,
            format_args!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
                 viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">"
            ),
        );
        add(&mut text, format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>"));
        let places: BTreeMap<&str, (usize, usize)> =
            shapes.iter().map(|shape| (shape.name, (shape.column, shape.row))).collect();
        for (from, to) in self.stage_arrows() {
            if let (Some(from), Some(to)) = (places.get(from), places.get(to)) {
                draw_arrow(&mut text, (lefts[from.0] + widths[from.0], from.1), (lefts[to.0], to.1));
            }
        }
        for shape in &shapes {
            draw_box(&mut text, shape, lefts[shape.column], widths[shape.column]);
        }
        text.push_str("</svg>\n");
        text
    }

    /// Sources first, then stages in the order of their first nodes.
    fn shapes(&self) -> Vec<Shape<'_>> {
        let layers = self.layers();
        let mut columns: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let mut names = Vec::new();
        for index in &self.order {
            let name = self.nodes[*index].stage.as_str();
            let (column, count) = columns.entry(name).or_insert_with(|| {
                names.push(name);
                (0, 0)
            });
            *column = layers[index.index()].max(*column);
            *count += 1;
        }
        let sources = self.sources().into_iter().map(|name| (name, 0, String::new(), true));
        let stages = names.into_iter().map(|name| {
            let (column, count) = columns[name];
            let over = self.over.get(name).map(|over| over.join(" × ")).unwrap_or_default();
            let detail = if over.is_empty() { String::new() } else { format!("{over}: {count}") };
            (name, column + 1, detail, false)
        });
        let placed: Vec<_> = sources.chain(stages).collect();
        // Columns that no stage stands in are left out.
        let used: BTreeSet<usize> = placed.iter().map(|(_, column, _, _)| *column).collect();
        let mut next_row: BTreeMap<usize, usize> = BTreeMap::new();
        let shapes = placed.into_iter().map(|(name, layer, detail, source)| {
            let column = used.range(..layer).count();
            let row = next_row.entry(column).or_default();
            *row += 1;
            Shape { name, detail, column, row: *row - 1, source }
        });
        shapes.collect()
    }

    fn stage_arrows(&self) -> BTreeSet<(&str, &str)> {
        let mut arrows = BTreeSet::new();
        for node in self.nodes.node_weights() {
            for source in node.inputs.iter().flat_map(|input| &input.sources) {
                let from = match &source.producer {
                    Producer::Node(producer) => self.nodes[*producer].stage.as_str(),
                    Producer::Source(name) => name,
                };
                if from != node.stage {
                    arrows.insert((from, node.stage.as_str()));
                }
            }
        }
        arrows
    }
}

/// The left edge and the width of each column.
fn columns(shapes: &[Shape<'_>]) -> (Vec<usize>, Vec<usize>) {
    let count = shapes.iter().map(|shape| shape.column + 1).max().unwrap_or(0);
    let mut widths = vec![0; count];
    for shape in shapes {
        let letters = shape.name.chars().count().max(shape.detail.chars().count());
        widths[shape.column] = widths[shape.column].max((letters + 3) * LETTER_WIDTH);
    }
    let mut left = MARGIN;
    let lefts = widths.iter().map(|width| {
        let own = left;
        left += width + COLUMN_GAP;
        own
    });
    (lefts.collect(), widths)
}

fn top(row: usize) -> usize {
    MARGIN + row * (BOX_HEIGHT + ROW_GAP)
}

/// An arrow from the right edge of a box to the left edge of another. Where boxes may stand between, it runs in the gap
/// below the row that it comes from.
fn draw_arrow(text: &mut String, (x1, from_row): (usize, usize), (x2, to_row): (usize, usize)) {
    let (y1, y2) = (top(from_row) + BOX_HEIGHT / 2, top(to_row) + BOX_HEIGHT / 2);
    let bend = COLUMN_GAP / 2;
    let curve = if x2 > x1 && x2 - x1 <= COLUMN_GAP {
        format!("M{x1},{y1} C{},{y1} {},{y2} {x2},{y2}", x1 + bend, x2 - bend)
    } else {
        let lane = top(from_row) + BOX_HEIGHT + ROW_GAP / 2;
        let (leave, arrive) = (x1 + bend, x2.saturating_sub(bend));
        format!("M{x1},{y1} Q{leave},{y1} {leave},{lane} L{arrive},{lane} Q{arrive},{y2} {x2},{y2}")
    };
    add(
        text,
        format_args!(
            "<path d=\"{curve}\" fill=\"none\" stroke=\"#8a94a6\"/>\
             <path d=\"M{x2},{y2} l-7,-4 l0,8 z\" fill=\"#8a94a6\"/>"
        ),
    );
}

fn draw_box(text: &mut String, shape: &Shape<'_>, left: usize, width: usize) {
    let top = top(shape.row);
    let fill = if shape.source { "#fdf3dc" } else { "#e8eefc" };
    let middle = left + width / 2;
    add(
        text,
        format_args!(
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"5\" fill=\"{fill}\" \
             stroke=\"#5b6780\"/>"
        ),
    );
    let baseline = if shape.detail.is_empty() { top + 25 } else { top + 17 };
    add(text, format_args!("<text x=\"{middle}\" y=\"{baseline}\" text-anchor=\"middle\">{}</text>", shape.name));
    if !shape.detail.is_empty() {
        add(
            text,
            format_args!(
                "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"10\" fill=\"#5b6780\">{}</text>",
                top + 32,
                shape.detail
            ),
        );
    }
}
