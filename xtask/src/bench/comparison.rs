//! What comparing the results of both programs has found.

use std::fmt;

/// The largest deviation of one thing that was compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deviation {
    /// What deviates.
    pub(crate) name: String,
    /// By how much at most.
    pub(crate) largest: f64,
    /// How much is right.
    pub(crate) limit: f64,
}

impl Deviation {
    /// Whether the results count as the same.
    pub(crate) fn is_within(&self) -> bool {
        self.largest <= self.limit
    }
}

/// All that was compared of one step's results.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Agreement(pub(crate) Vec<Deviation>);

impl Agreement {
    /// Reads what `benches/nnunet/compare.py` prints: name, largest deviation and limit, tab-separated.
    ///
    /// Returns `None` for anything else, and for a comparison that compared nothing.
    pub(crate) fn parse(printed: &str) -> Option<Self> {
        let deviations: Option<Vec<_>> = printed.lines().map(deviation).collect();
        deviations.filter(|deviations| !deviations.is_empty()).map(Self)
    }

    /// Whether nothing deviates by more than is right.
    pub(crate) fn holds(&self) -> bool {
        self.0.iter().all(Deviation::is_within)
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differing: Vec<_> = self.0.iter().filter(|deviation| deviation.largest > 0.0).map(told).collect();
        match differing.as_slice() {
            [] if self.0.is_empty() => formatter.write_str("not compared"),
            [] => formatter.write_str("equal"),
            some => formatter.write_str(&some.join("; ")),
        }
    }
}

fn told(deviation: &Deviation) -> String {
    let Deviation { name, largest, limit } = deviation;
    let told = format!("{name} {largest:.1e}");
    if deviation.is_within() { told } else { format!("**{told}, more than {limit:.0e}**") }
}

fn deviation(line: &str) -> Option<Deviation> {
    let mut parts = line.split('\t');
    let (name, largest, limit) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Deviation { name: name.to_owned(), largest: largest.parse().ok()?, limit: limit.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_not_listed() {
        let agreement = Agreement::parse("shapes\t0\t0\nimages\t3.6e-07\t0.0001\n").expect("two lines of three parts");
        assert!(agreement.holds());
        assert_eq!(agreement.to_string(), "images 3.6e-7");
    }

    #[test]
    fn what_deviates_too_much_stands_out() {
        let agreement = Agreement::parse("plan\t1\t0\nlabels\t0\t0.01\n").expect("two lines of three parts");
        assert!(!agreement.holds());
        assert_eq!(agreement.to_string(), "**plan 1.0e0, more than 0e0**");
    }

    #[test]
    fn infinite_deviations_never_hold() {
        assert!(!Agreement::parse("measures\tinf\t1e-12").expect("a line of three parts").holds());
    }

    #[test]
    fn a_comparison_of_nothing_is_none() {
        assert_eq!(Agreement::parse(""), None);
        assert_eq!(Agreement::parse("Traceback (most recent call last):"), None);
    }
}
