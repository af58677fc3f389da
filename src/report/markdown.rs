//! The end of a run as Markdown, for the summary of a CI job.

use super::failure::render_failure;
use super::text::{duration, size};
use crate::engine::drive::Failure;
use crate::engine::usage::Usage;

/// A number of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricLine {
    /// The node and the path of the number in what it made.
    pub name: String,
    /// The number, with its interval where there is one.
    pub value: String,
    /// What is expected of it, and whether it is met.
    pub expected: Option<(String, bool)>,
}

/// A node of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// How it ended: `cached`, `skipped: …`.
    pub standing: String,
    /// What it took, where it ran.
    pub usage: Option<Usage>,
}

/// The end of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Closing {
    /// The workflow.
    pub workflow: String,
    /// One line on how it ended.
    pub verdict: String,
    /// Its numbers.
    pub metrics: Vec<MetricLine>,
    /// Its nodes.
    pub nodes: Vec<NodeLine>,
    /// What failed.
    pub failures: Vec<Failure>,
}

impl Closing {
    /// The page: a heading, the numbers, what failed, and what each node took.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n", escaped(&self.workflow), escaped(&self.verdict));
        if !self.metrics.is_empty() {
            text.push_str("\n| number | value | expected | |\n| --- | --- | --- | --- |\n");
            self.metrics.iter().for_each(|metric| text.push_str(&metric.row()));
        }
        for failure in &self.failures {
            text.push_str(&format!("\n```text\n{}\n```\n", render_failure(failure).trim_end()));
        }
        if !self.nodes.is_empty() {
            text.push_str("\n<details><summary>Nodes</summary>\n\n");
            text.push_str(
                "| node | | time | processors | memory | GPU memory |\n| --- | --- | --: | --: | --: | --: |\n",
            );
            self.nodes.iter().for_each(|node| text.push_str(&node.row()));
            text.push_str("\n</details>\n");
        }
        text
    }
}

impl MetricLine {
    fn row(&self) -> String {
        let (expected, verdict) = match &self.expected {
            Some((expected, met)) => (expected.as_str(), if *met { "met" } else { "**not met**" }),
            None => ("", ""),
        };
        format!("| `{}` | {} | {} | {verdict} |\n", self.name, escaped(&self.value), escaped(expected))
    }
}

impl NodeLine {
    fn row(&self) -> String {
        let usage = self.usage.unwrap_or_default();
        let shown = |text: Option<String>| text.unwrap_or_default();
        let processors = usage.cpu_seconds.filter(|_| usage.wall_seconds > 0.0).map(|cpu| cpu / usage.wall_seconds);
        format!(
            "| `{}` | {} | {} | {} | {} | {} |\n",
            self.name,
            escaped(&self.standing),
            shown(self.usage.map(|usage| duration(usage.wall_seconds))),
            shown(processors.map(|processors| format!("{processors:.1}"))),
            shown(usage.peak_memory_bytes.map(size)),
            shown(usage.gpu_peak_memory_bytes.map(size)),
        )
    }
}

/// Text that Markdown leaves as it is, in a cell of a table as well.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '*' | '_' | '<' | '>' | '[' | ']' | '`' | '\\' | '#' => escaped.extend(['\\', character]),
            '\n' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use nnflow_stage::{ErrorKind, ErrorReport};

    use super::*;

    #[test]
    fn a_page_has_numbers_failures_and_nodes() {
        let usage =
            Usage { wall_seconds: 2.0, cpu_seconds: Some(3.0), peak_memory_bytes: Some(1 << 30), ..Usage::default() };
        let node = |name: &str, standing: &str, usage| NodeLine {
            name: name.to_owned(),
            standing: standing.to_owned(),
            usage,
        };
        let closing = Closing {
            workflow: "spleen".to_owned(),
            verdict: "ended after 2.0 s: 1 run, 1 not done".to_owned(),
            metrics: vec![MetricLine {
                name: "evaluate.foreground_mean.dice".to_owned(),
                value: "0.8702 [0.8610, 0.8790]".to_owned(),
                expected: Some((">= 0.88".to_owned(), false)),
            }],
            nodes: vec![node("crop", "ran", Some(usage)), node("train[2d,0]", "skipped: no 2d | here", None)],
            failures: vec![Failure {
                node: "crop".to_owned(),
                case: Some("a".to_owned()),
                report: ErrorReport::new(ErrorKind::Input, "the image is empty"),
            }],
        };
        insta::assert_snapshot!(closing.to_markdown(), @r#"
## spleen

ended after 2.0 s: 1 run, 1 not done

| number | value | expected | |
| --- | --- | --- | --- |
| `evaluate.foreground_mean.dice` | 0.8702 \[0.8610, 0.8790\] | \>= 0.88 | **not met** |

```text
error: crop, case `a`: the image is empty
```

<details><summary>Nodes</summary>

| node | | time | processors | memory | GPU memory |
| --- | --- | --: | --: | --: | --: |
| `crop` | ran | 2.0 s | 1.5 | 1.0 GiB |  |
| `train[2d,0]` | skipped: no 2d \| here |  |  |  |  |

</details>
"#);
    }
}
