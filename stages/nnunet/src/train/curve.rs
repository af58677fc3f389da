//! The learning curve: a row an epoch, as a table and as a picture.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// How many epochs [`Curve::recent`] shows, and with what.
const RECENT: usize = 16;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is known of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u32,
    /// The learning rate.
    pub learning_rate: f64,
    /// Mean loss of the training batches.
    pub training_loss: f64,
    /// Mean loss of the validation batches.
    pub validation_loss: f64,
    /// Dice of each foreground class over all validation batches; none where it is neither there nor found.
    pub dice: Vec<Option<f64>>,
    /// Mean of `dice`: nnU-Net's pseudo Dice.
    pub mean_dice: Option<f64>,
    /// Moving average of `mean_dice`.
    pub average_dice: Option<f64>,
}

/// How long an epoch took; this is not part of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// From its first batch to its last.
    pub seconds: f64,
    /// Of these, spent waiting for batches.
    pub waited: f64,
}

/// The epochs so far; belongs into checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// The epochs.
    pub epochs: Vec<Epoch>,
    /// How long each took.
    pub timings: Vec<Timing>,
}

impl Curve {
    /// Adds an epoch, with the moving average of its pseudo Dice; tells whether that is the best so far.
    pub fn add(&mut self, mut epoch: Epoch, timing: Timing, smoothing: f64) -> bool {
        let before = self.epochs.iter().rev().find_map(|epoch| epoch.average_dice);
        epoch.average_dice = match (before, epoch.mean_dice) {
            (Some(before), Some(dice)) => Some(smoothing * before + (1.0 - smoothing) * dice),
            (before, dice) => dice.or(before),
        };
        let best = self.epochs.iter().filter_map(|epoch| epoch.average_dice).fold(f64::NEG_INFINITY, f64::max);
        let is_best = epoch.average_dice.is_some_and(|average| average > best);
        self.epochs.push(epoch);
        self.timings.push(timing);
        is_best
    }

    /// The moving average of the pseudo Dice over the last epochs, as a line of bars from its smallest to its largest value.
    #[must_use]
    pub fn recent(&self) -> String {
        let all: Vec<f64> = self.epochs.iter().filter_map(|epoch| epoch.average_dice).collect();
        let last = &all[all.len().saturating_sub(RECENT)..];
        let (least, most) =
            last.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &one| (least.min(one), most.max(one)));
        let highest = (BARS.len() - 1) as f64;
        let height = |&dice: &f64| if most > least { (highest * (dice - least) / (most - least)).round() } else { 0.0 };
        last.iter().filter_map(|dice| BARS.get(height(dice) as usize)).collect()
    }

    /// The curve as a table; `classes` names the foreground classes.
    #[must_use]
    pub fn to_csv(&self, classes: &[String]) -> String {
        let mut text = String::from("epoch,learning_rate,training_loss,validation_loss,mean_dice,average_dice");
        for class in classes {
            let class = class.replace('"', "'");
            text.push_str(&format!(",\"dice {class}\""));
        }
        text.push_str(",seconds,waited\n");
        let cell = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
        for (epoch, timing) in self.epochs.iter().zip(&self.timings) {
            let mut cells = vec![
                epoch.epoch.to_string(),
                format!("{:e}", epoch.learning_rate),
                cell(Some(epoch.training_loss)),
                cell(Some(epoch.validation_loss)),
                cell(epoch.mean_dice),
                cell(epoch.average_dice),
            ];
            cells.extend(epoch.dice.iter().map(|dice| cell(*dice)));
            cells.extend([format!("{:.3}", timing.seconds), format!("{:.3}", timing.waited)]);
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }

    /// The curve as an SVG picture: losses above, Dice below.
    #[must_use]
    pub fn to_svg(&self, title: &str) -> String {
        let losses = [
            Line { name: "training loss", colour: "#2563eb", values: self.column(|epoch| Some(epoch.training_loss)) },
            Line {
                name: "validation loss",
                colour: "#dc2626",
                values: self.column(|epoch| Some(epoch.validation_loss)),
            },
        ];
        let dice = [
            Line { name: "pseudo Dice", colour: "#86efac", values: self.column(|epoch| epoch.mean_dice) },
            Line { name: "moving average", colour: "#15803d", values: self.column(|epoch| epoch.average_dice) },
        ];
        let mut svg = String::from(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 520\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"720\" height=\"520\" fill=\"white\"/>\n",
        );
        let title = title.replace('&', "&amp;").replace('<', "&lt;");
        push(&mut svg, format_args!("<text x=\"60\" y=\"20\" font-size=\"14\">{title}</text>\n"));
        draw(&mut svg, &losses, 40.0, None);
        draw(&mut svg, &dice, 290.0, Some((0.0, 1.0)));
        svg.push_str("</svg>\n");
        svg
    }

    fn column(&self, value: impl Fn(&Epoch) -> Option<f64>) -> Vec<(f64, f64)> {
        let points = self.epochs.iter().filter_map(|epoch| Some((f64::from(epoch.epoch), value(epoch)?)));
        points.filter(|(_, value)| value.is_finite()).collect()
    }
}

struct Line {
    name: &'static str,
    colour: &'static str,
    values: Vec<(f64, f64)>,
}

const LEFT: f64 = 60.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 190.0;

/// Draws lines into a panel whose upper edge is at `top`.
fn draw(svg: &mut String, lines: &[Line], top: f64, range: Option<(f64, f64)>) {
    let points = || lines.iter().flat_map(|line| &line.values);
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let (low, high) = range.unwrap_or_else(|| {
        let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        if low < high { (low, high) } else { (low.min(0.0) - 1.0, high.max(0.0) + 1.0) }
    });
    let (low, high) = if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) };
    let x = |epoch: f64| LEFT + WIDTH * if last > 1.0 { (epoch - 1.0) / (last - 1.0) } else { 0.5 };
    let y = |value: f64| top + HEIGHT * (1.0 - (value - low) / (high - low));
    for step in 0..=4 {
        let value = low + (high - low) * f64::from(step) / 4.0;
        push(
            svg,
            format_args!(
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#e5e7eb\"/>\n",
                LEFT + WIDTH,
                y(value),
                y(value)
            ),
        );
        push(
            svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#6b7280\">{value:.2}</text>\n",
                LEFT - 6.0,
                y(value) + 4.0
            ),
        );
    }
    push(
        svg,
        format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#6b7280\">epoch {last:.0}</text>\n",
            LEFT + WIDTH,
            top + HEIGHT + 16.0
        ),
    );
    for (index, line) in lines.iter().enumerate() {
        let places: Vec<String> =
            line.values.iter().map(|(epoch, value)| format!("{:.1},{:.1}", x(*epoch), y(*value))).collect();
        push(
            svg,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"{}\"/>\n",
                line.colour,
                places.join(" ")
            ),
        );
        push(
            svg,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\" fill=\"{}\">{}</text>\n",
                70 + 140 * index,
                top + HEIGHT + 16.0,
                line.colour,
                line.name
            ),
        );
    }
}

fn push(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("invariant: a string takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u32, dice: Option<f64>) -> Epoch {
        Epoch {
            epoch: number,
            learning_rate: 0.01,
            training_loss: 0.5,
            validation_loss: 0.25,
            dice: vec![dice],
            mean_dice: dice,
            average_dice: None,
        }
    }

    fn curve(dice: &[Option<f64>]) -> (Curve, Vec<bool>) {
        let mut curve = Curve::default();
        let best = (1..).zip(dice).map(|(number, dice)| curve.add(epoch(number, *dice), Timing::default(), 0.9));
        let best = best.collect();
        (curve, best)
    }

    #[test]
    fn the_first_dice_is_the_average() {
        assert_eq!(curve(&[Some(0.5)]).0.epochs[0].average_dice, Some(0.5));
    }

    /// 0.9 * 0.5 + 0.1 * 1.0
    #[test]
    fn the_average_keeps_nine_tenths_of_what_it_was() {
        let average = curve(&[Some(0.5), Some(1.0)]).0.epochs[1].average_dice.expect("two values");
        assert!((average - 0.55).abs() < 1e-12);
    }

    /// Averages 0.1, then 0.9 * 0.1 + 0.1 * 0.8 = 0.17 and 0.153 + 0.08 = 0.233, which are 0, 0.526 and 1 of the way: bars 0,
    /// 4 (of 3.7) and 7.
    #[test]
    fn bars_go_from_the_smallest_to_the_largest_recent_average() {
        assert_eq!(curve(&[Some(0.1), Some(0.8), Some(0.8)]).0.recent(), "▁▅█");
    }

    #[test]
    fn a_curve_without_change_is_flat() {
        assert_eq!(curve(&[Some(0.5), None, Some(0.5)]).0.recent(), "▁▁▁");
    }

    #[test]
    fn only_a_strictly_higher_average_is_the_best() {
        assert_eq!(curve(&[Some(0.5), Some(0.5), Some(0.9), Some(0.1)]).1, [true, false, true, false]);
    }

    #[test]
    fn an_epoch_without_dice_leaves_the_average() {
        assert_eq!(curve(&[Some(0.5), None]).0.epochs[1].average_dice, Some(0.5));
    }

    #[test]
    fn the_table_has_a_column_a_class() {
        let table = curve(&[Some(0.5)]).0.to_csv(&["(1, 2)".to_owned()]);
        assert_eq!(
            table,
            "epoch,learning_rate,training_loss,validation_loss,mean_dice,average_dice,\"dice (1, 2)\",seconds,waited\n\
             1,1e-2,0.500000,0.250000,0.500000,0.500000,0.500000,0.000,0.000\n"
        );
    }
}
