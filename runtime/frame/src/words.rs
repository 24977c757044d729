//! Counts as sentences have them.

use std::fmt::Display;

/// `1 box`, `2 boxes`.
pub fn counted<N: Display + PartialEq + From<u8>>(n: N, one: &str, many: &str) -> String {
    let word = if n == N::from(1) { one } else { many };
    format!("{n} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        assert_eq!(counted(0_usize, "box", "boxes"), "0 boxes");
        assert_eq!(counted(1_u64, "box", "boxes"), "1 box");
        assert_eq!(counted(21_u32, "box", "boxes"), "21 boxes");
    }
}
