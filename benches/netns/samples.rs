//! All numbers of a run, and the statistics taken of them.

use crate::workload::Metric;

/// Every number measured, in the order it was measured.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    all: Vec<(String, Metric, f64)>,
}

impl Samples {
    pub(crate) fn push(&mut self, subject: &str, metric: Metric, value: f64) {
        self.all.push((subject.to_owned(), metric, value));
    }

    pub(crate) fn of(&self, subject: &str, metric: Metric) -> Vec<f64> {
        let of_it = |(name, kind, _): &&(String, Metric, f64)| name == subject && *kind == metric;
        self.all.iter().filter(of_it).map(|(_, _, value)| *value).collect()
    }

    pub(crate) fn summary(&self, subject: &str, metric: Metric) -> Option<Summary> {
        Summary::of(&self.of(subject, metric))
    }

    /// The median of one subject over the median of another.
    pub(crate) fn ratio(&self, metric: Metric, subject: &str, to: &str) -> Option<f64> {
        let (ours, theirs) = (self.summary(subject, metric)?.median, self.summary(to, metric)?.median);
        (theirs > 0.0).then_some(ours / theirs)
    }
}

/// Middle and spread of some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }

    /// Half the range as a fraction of the median; `None` where there is no range or nothing to relate it to.
    pub(crate) fn spread(&self) -> Option<f64> {
        (self.max > self.min && self.median > 0.0).then(|| (self.max - self.min) / (2.0 * self.median))
    }
}
