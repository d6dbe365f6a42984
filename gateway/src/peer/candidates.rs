//! Which of a provider's servers to try, in which order (gateway.md 12). Pure.

/// Orders candidates: each call begins with the next one, so that load is spread; those that failed lately come last.
///
/// `turn` rises with each call. `is_healthy` says of each candidate whether it may come first.
pub fn order<T>(candidates: Vec<T>, turn: usize, is_healthy: impl Fn(&T) -> bool) -> Vec<T> {
    let mut rotated = candidates;
    if !rotated.is_empty() {
        let by = turn % rotated.len();
        rotated.rotate_left(by);
    }
    let (mut healthy, failed): (Vec<T>, Vec<T>) = rotated.into_iter().partition(|candidate| is_healthy(candidate));
    healthy.extend(failed);
    healthy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t161_load_is_spread_and_the_unhealthy_come_last() {
        let all = vec!["a", "b", "c"];
        assert_eq!(order(all.clone(), 0, |_| true), ["a", "b", "c"]);
        assert_eq!(order(all.clone(), 4, |_| true), ["b", "c", "a"]);
        assert_eq!(order(all.clone(), 0, |c| *c != "a"), ["b", "c", "a"]);
        assert_eq!(order(all, 1, |_| false), ["b", "c", "a"], "when all have failed, all are tried");
        assert!(order(Vec::<u8>::new(), 3, |_| true).is_empty());
    }
}
