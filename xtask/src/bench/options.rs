//! What `cargo xtask bench` is asked for.

use std::path::PathBuf;

use crate::error::Error;

/// Pairs of runs where nothing is said: enough for a median and a spread.
const PAIRS: usize = 3;

/// The arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Folder of datasets in nnU-Net's raw layout.
    pub(crate) data: Option<PathBuf>,
    /// How often each program runs each step.
    pub(crate) pairs: usize,
    /// Parts of names of groups or datasets that are measured; all where there is none.
    pub(crate) only: Vec<String>,
    /// A Python that has nnU-Net, instead of one that is set up in the checkout.
    pub(crate) nnunet: Option<PathBuf>,
    /// Whether the kernels are measured, and nothing else.
    pub(crate) kernels: bool,
    /// Whether networks are measured, and nothing else.
    pub(crate) networks: bool,
}

impl Options {
    /// Reads the arguments after `bench`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Error> {
        let mut options =
            Self { data: None, pairs: PAIRS, only: Vec::new(), nnunet: None, kernels: false, networks: false };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            if let Some(switch) = options.switch(flag) {
                *switch = true;
                continue;
            }
            let value = rest.next().ok_or_else(|| Error::Usage(format!("`bench {flag}` needs a value")));
            match flag.as_str() {
                "--data" => options.data = Some(PathBuf::from(value?)),
                "--nnunet" => options.nnunet = Some(PathBuf::from(value?)),
                "--only" => options.only.push(value?.clone()),
                "--pairs" => options.pairs = pairs(value?)?,
                _ => return Err(Error::Usage(format!("`bench` does not know `{flag}`"))),
            }
        }
        Ok(options)
    }

    fn switch(&mut self, flag: &str) -> Option<&mut bool> {
        match flag {
            "--kernels" => Some(&mut self.kernels),
            "--networks" => Some(&mut self.networks),
            _ => None,
        }
    }

    /// Whether a group is measured on a dataset.
    pub(crate) fn wants(&self, group: &str, dataset: &str) -> bool {
        let asked = |name: &str| self.only.iter().any(|part| name.contains(part.as_str()));
        self.only.is_empty() || asked(group) || asked(dataset)
    }
}

fn pairs(text: &str) -> Result<usize, Error> {
    let wrong = || Error::Usage(format!("`--pairs` is a whole number from 1 on, not `{text}`"));
    text.parse().ok().filter(|pairs| *pairs > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Error> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_said_means_everything_three_times() {
        let options = parse("").expect("no argument is needed");
        assert_eq!(options.pairs, 3);
        assert!(options.wants("export", "any"));
    }

    #[test]
    fn only_picks_groups_and_datasets() {
        let options = parse("--only evaluate --only Dataset004").expect("the arguments are right");
        assert!(options.wants("evaluate", "Dataset113") && options.wants("export", "Dataset004_Hippocampus"));
        assert!(!options.wants("export", "Dataset113"));
    }

    #[test]
    fn mistakes_are_told() {
        for line in ["--pairs 0", "--pairs many", "--pairs", "--fast 1"] {
            assert!(matches!(parse(line), Err(Error::Usage(_))), "{line}");
        }
    }
}
