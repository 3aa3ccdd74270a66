//! Which of the allowed images are compared with.

use std::cmp::Reverse;

/// Images compared with at a time: the assigned one, the one before, and room for a hurried third.
const COMPARED: usize = 4;

/// The newest of them by `age`, and how many others there are.
pub(super) fn newest<T, A: Ord>(mut allowed: Vec<T>, age: impl Fn(&T) -> A) -> (Vec<T>, usize) {
    allowed.sort_by_key(|it| Reverse(age(it)));
    let others = allowed.len().saturating_sub(COMPARED);
    allowed.truncate(COMPARED);
    (allowed, others)
}

/// The standing limit that `others` are: a node that is as one of them is told as differing from the newer ones.
pub(super) fn limit(others: usize) -> Option<String> {
    (others > 0).then(|| {
        format!("more images are allowed than the {COMPARED} newest, which are compared with: {others} are not")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_four_are_compared_with_and_the_others_are_told() {
        let (compared, others) = newest(vec![3, 1, 6, 2, 5, 4], |epoch| *epoch);
        assert_eq!((compared, others), (vec![6, 5, 4, 3], 2));
        let limit = limit(others).unwrap_or_default();
        assert!(limit.contains("the 4 newest") && limit.ends_with("2 are not"));
    }

    #[test]
    fn where_all_are_compared_with_there_is_no_limit() {
        let (compared, others) = newest(vec![1, 2], |epoch| *epoch);
        assert_eq!((compared, others), (vec![2, 1], 0));
        assert_eq!(limit(others), None);
    }
}
