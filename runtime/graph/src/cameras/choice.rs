//! Which cameras of a file a decoder serves: those of its `GROUP`, and of these its `PART`.

use super::Camera;
use md5::{Digest, Md5};
use std::fmt;
use std::str::FromStr;

/// One of so many parts of a cameras file: `1/2`.
///
/// A camera's part follows from its id and the number of parts alone. So a camera that is added, removed or changed moves
/// no other, and decoders that read the file at different times agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Part {
    /// The camera with this id is in it: the first eight bytes of the id's MD5, as a number, leave the part's number less one
    /// when they are divided by the number of parts.
    pub fn has(self, id: &str) -> bool {
        let digest = Md5::digest(id.as_bytes());
        let (first, _) = digest.split_at(8);
        let number = first.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        number % u64::from(self.of) == u64::from(self.number - 1)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.trim().split_once('/');
        let numbers = numbers.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("PART is '{text}', and a part of the cameras file is expected: 1/2, 2/2")),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// Which cameras of a file a decoder serves; all of them, where neither is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those of this group.
    pub group: Option<String>,
    /// Of these, those of this part.
    pub part: Option<Part>,
}

impl Choice {
    /// It serves this camera.
    pub fn serves(&self, camera: &Camera) -> bool {
        let in_group = self.group.is_none() || self.group == camera.group;
        in_group && self.part.is_none_or(|part| part.has(&camera.id.value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_are_read_and_written() {
        for (text, number, of) in [("1/1", 1, 1), (" 2/3 ", 2, 3), ("16/16", 16, 16)] {
            let part: Part = text.parse().unwrap();
            assert_eq!((part, part.to_string().as_str()), (Part { number, of }, text.trim()));
        }
        for text in ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2", "1/4294967296"] {
            let error = text.parse::<Part>().unwrap_err();
            assert!(error.contains(&format!("PART is '{text}'")) && error.contains("1/2, 2/2"), "{error}");
        }
    }

    /// By Python: `int.from_bytes(hashlib.md5(id.encode()).digest()[:8], "big") % n + 1`.
    #[test]
    fn a_cameras_part_is_what_another_program_makes_of_its_id() {
        let known = [
            ("gate", 2, 1),
            ("yard", 2, 2),
            ("cam-1", 2, 3),
            ("cam-2", 2, 2),
            ("10.0.0.7", 2, 3),
            ("Küche", 1, 3),
            ("a", 1, 1),
        ];
        for (id, of_two, of_three) in known {
            for (of, number) in [(2, of_two), (3, of_three)] {
                let has: Vec<u32> = (1..=of).filter(|n| Part { number: *n, of }.has(id)).collect();
                assert_eq!(has, [number], "{id}, {of} parts");
            }
        }
    }

    #[test]
    fn parts_are_about_equal_whatever_the_ids_have_in_common() {
        // all numbers, even numbers, addresses of a subnet
        let ids: [&dyn Fn(u32) -> String; 3] =
            [&|n| format!("cam-{n:03}"), &|n| format!("cam-{}", 2 * n), &|n| format!("10.0.0.{n}")];
        for id in ids {
            for of in [2, 4, 8] {
                let count = |number| (1..=240).filter(|n| Part { number, of }.has(&id(*n))).count();
                let counts: Vec<usize> = (1..=of).map(count).collect();
                assert_eq!(counts.iter().sum::<usize>(), 240);
                // five standard deviations of a fair assignment
                let (mean, sigma) =
                    (240.0 / f64::from(of), (240.0 / f64::from(of) * (1.0 - 1.0 / f64::from(of))).sqrt());
                assert!(counts.iter().all(|n| (*n as f64 - mean).abs() < 5.0 * sigma), "{counts:?}");
            }
        }
    }
}
