//! Ratios of what was measured in pairs.

use std::fmt;

/// How many times as long one of two takes as the other: the geometric mean of all pairs, and its standard error.
#[derive(Clone, Copy, Debug)]
pub struct Paired {
    ratio: f64,
    /// In parts of one, as the ratio is; there is none of a single pair.
    error: Option<f64>,
}

impl Paired {
    /// Of pairs of times: the one in question, and what it is compared with.
    pub fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let logs: Vec<f64> = pairs.map(|(one, other)| (one / other).ln()).collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
        let ratio = mean.exp();
        Self {
            ratio,
            error: (logs.len() > 1).then(|| ratio * (squares / (count - 1.0) / count).sqrt()),
        }
    }
}

impl fmt::Display for Paired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.ratio)?;
        match self.error {
            Some(error) => write!(f, " ±{error:.3}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_both_of_a_pair_slower_is_in_no_ratio() {
        let pairs = [(1.1, 1.0), (2.2, 2.0), (3.3, 3.0)];
        assert_eq!(Paired::of(pairs.into_iter()).to_string(), "1.100 ±0.000");
    }

    #[test]
    fn twice_and_half_as_long_are_as_long_with_an_error_of_what_they_differ_by() {
        // The logarithms are ±0.693: their deviation 0.980, by the root of two 0.693.
        let pairs = [(2.0, 1.0), (1.0, 2.0)];
        assert_eq!(Paired::of(pairs.into_iter()).to_string(), "1.000 ±0.693");
    }

    #[test]
    fn one_pair_has_no_error() {
        assert_eq!(Paired::of([(3.0, 2.0)].into_iter()).to_string(), "1.500");
    }
}
