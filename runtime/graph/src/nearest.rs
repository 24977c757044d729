//! The nearest right name, by edit distance.

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours each cost 1.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut two_up = vec![0_usize; width];
    let mut up: Vec<usize> = (0..width).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, &cb) in b.iter().enumerate() {
            let substituted = up[j] + usize::from(ca != cb);
            row[j + 1] = substituted.min(up[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && ca == b[j - 1] && a[i - 1] == cb;
            if swapped {
                row[j + 1] = row[j + 1].min(two_up[j - 1] + 1);
            }
        }
        two_up = std::mem::replace(&mut up, row);
    }
    up[width - 1]
}

/// The name among `names` that `wrong` most likely meant, or none where nothing is near.
///
/// Case does not count, nor whether words are joined by `-` or `_`. A name is near when at most a third of its
/// letters differ (and always when one does, from three letters on).
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer "names" are pasted text, and the table grows with the square of the length.
    const LONGEST: usize = 64;
    let fold = |s: &str| -> Vec<char> {
        s.chars().flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
    };
    let wrong = fold(wrong);
    if wrong.len() > LONGEST {
        return None;
    }
    names
        .into_iter()
        .filter_map(|name| {
            let folded = fold(name);
            if folded.len() > LONGEST {
                return None;
            }
            let far = distance(&wrong, &folded);
            let limit = (wrong.len().max(folded.len()) / 3).max(usize::from(folded.len() > 1));
            (far <= limit).then_some((far, name))
        })
        .min_by_key(|&(far, _)| far)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(a: &str, b: &str) -> usize {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        distance(&a, &b)
    }

    #[test]
    fn counts_edits() {
        assert_eq!(far("", ""), 0);
        assert_eq!(far("", "abc"), 3);
        assert_eq!(far("kitten", "sitting"), 3);
        assert_eq!(far("frame", "frmae"), 1);
        assert_eq!(far("ca", "abc"), 3);
    }

    #[test]
    fn finds_what_was_meant() {
        let names = ["frame", "packet", "tensor"];
        assert_eq!(nearest("frames", names), Some("frame"));
        assert_eq!(nearest("FRAME", names), Some("frame"));
        assert_eq!(nearest("detections", names), None);
        assert_eq!(nearest("queue-size", ["queue_size", "queue_policy"]), Some("queue_size"));
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("frame", []), None);
        assert_eq!(nearest(&"a".repeat(1_000_000), names), None);
    }
}
