//! How a stored picture is turned and mirrored to be shown.

use crate::{ChromaSiting, Size};
use serde::{Deserialize, Serialize};

wire_enum! {
    /// What has to be done to a stored picture so that it is shown upright: mirrored left to right first, where the name says
    /// so, then turned clockwise by so many degrees.
    #[derive(Default)]
    Orientation {
        /// It is stored as it is shown.
        #[default]
        Upright = 0, "none";
        /// Turned by 90 degrees.
        Turn90 = 1, "90";
        /// Turned by 180 degrees.
        Turn180 = 2, "180";
        /// Turned by 270 degrees.
        Turn270 = 3, "270";
        /// Mirrored.
        Mirror = 4, "mirror";
        /// Mirrored, then turned by 90 degrees.
        Mirror90 = 5, "mirror_90";
        /// Mirrored, then turned by 180 degrees: upside down.
        Mirror180 = 6, "mirror_180";
        /// Mirrored, then turned by 270 degrees.
        Mirror270 = 7, "mirror_270";
    }
}

impl Orientation {
    /// From where one step to the right, and one step down, in the stored picture lead in the shown one: `[x, y]` each, of
    /// which only the signs count. `None` where the steps do not lead along the axes, at right angles to each other.
    pub fn from_steps(right: [f64; 2], down: [f64; 2]) -> Option<Self> {
        // what is written as sines and cosines is off by a little
        let small = |step: f64, other: f64| step.abs() <= 0.001 * other.abs();
        let along = |[x, y]: [f64; 2]| match (small(x, y), small(y, x)) {
            (false, true) => Some([x.signum() as i8, 0]),
            (true, false) => Some([0, y.signum() as i8]),
            _ => None,
        };
        let (right, down) = (along(right)?, along(down)?);
        Self::ALL.iter().copied().find(|orientation| orientation.steps() == (right, down))
    }

    /// Where one step to the right, and one step down, in the stored picture lead in the shown one.
    const fn steps(self) -> ([i8; 2], [i8; 2]) {
        let sign = if self.is_mirrored() { -1 } else { 1 };
        match self.code() % 4 {
            0 => ([sign, 0], [0, 1]),
            1 => ([0, sign], [-1, 0]),
            2 => ([-sign, 0], [0, -1]),
            _ => ([0, -sign], [1, 0]),
        }
    }

    /// It is mirrored before it is turned.
    pub const fn is_mirrored(self) -> bool {
        self.code() >= 4
    }

    /// By how many degrees it is turned clockwise.
    pub const fn degrees(self) -> u32 {
        self.code() as u32 % 4 * 90
    }

    /// The size that a stored picture of this size has when it is shown.
    pub const fn shown_size(self, stored: Size) -> Size {
        match self.degrees() {
            90 | 270 => Size::new(stored.height_px, stored.width_px),
            _ => stored,
        }
    }

    /// Which sample of a stored plane of this width and height is shown at `x`, `y`.
    pub const fn stored_at(self, (width, height): (usize, usize), x: usize, y: usize) -> (usize, usize) {
        let (x, y) = match self.degrees() {
            0 => (x, y),
            90 => (y, height - 1 - x),
            180 => (width - 1 - x, height - 1 - y),
            _ => (width - 1 - y, x),
        };
        (if self.is_mirrored() { width - 1 - x } else { x }, y)
    }

    /// Where chroma samples are when a picture of even size is shown.
    pub fn shown_siting(self, stored: ChromaSiting) -> ChromaSiting {
        let (x, y) = stored.offset_luma_px();
        let (right, down) = self.steps();
        // from the middle of the square of four luma samples
        let turned = |axis: usize| (x - 0.5) * f64::from(right[axis]) + (y - 0.5) * f64::from(down[axis]) + 0.5;
        let shown = (turned(0), turned(1));
        ChromaSiting::ALL.iter().copied().find(|siting| siting.offset_luma_px() == shown).unwrap_or(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What EXIF's eight orientations do to the letter F, drawn by hand: the first row is the stored picture.
    const SHOWN: [(Orientation, &[&str]); 8] = [
        (Orientation::Upright, &["##", "#.", "#.", "..", ".x"]),
        (Orientation::Turn90, &["..###", "x...#"]),
        (Orientation::Turn180, &["x.", "..", ".#", ".#", "##"]),
        (Orientation::Turn270, &["#...x", "###.."]),
        (Orientation::Mirror, &["##", ".#", ".#", "..", "x."]),
        (Orientation::Mirror90, &["x...#", "..###"]),
        (Orientation::Mirror180, &[".x", "..", "#.", "#.", "##"]),
        (Orientation::Mirror270, &["###..", "#...x"]),
    ];

    #[test]
    fn each_orientation_shows_the_picture_as_drawn() {
        let stored = SHOWN[0].1;
        for (orientation, shown) in SHOWN {
            let size = orientation.shown_size(Size::new(2, 5));
            assert_eq!((size.width_px as usize, size.height_px as usize), (shown[0].len(), shown.len()));
            for (y, row) in shown.iter().enumerate() {
                for (x, want) in row.bytes().enumerate() {
                    let (from_x, from_y) = orientation.stored_at((2, 5), x, y);
                    assert_eq!(stored[from_y].as_bytes()[from_x], want, "{orientation} at {x},{y}");
                }
            }
            // one step to the right, and one down, in the stored picture
            let place = |x, y| {
                let (w, h) = (shown[0].len() as f64, shown.len() as f64);
                let all = (0..h as usize).flat_map(|y| (0..w as usize).map(move |x| (x, y)));
                all.into_iter().find(|&(sx, sy)| orientation.stored_at((2, 5), sx, sy) == (x, y)).unwrap_or_default()
            };
            let step = |to: (usize, usize)| {
                let from = place(0, 0);
                [to.0 as f64 - from.0 as f64, to.1 as f64 - from.1 as f64]
            };
            assert_eq!(Orientation::from_steps(step(place(1, 0)), step(place(0, 1))), Some(orientation));
        }
    }

    #[test]
    fn what_is_no_quarter_turn_is_no_orientation() {
        for (right, down) in [
            ([0.7, 0.7], [-0.7, 0.7]),
            ([1.0, 0.1], [0.0, 1.0]),
            ([0.0, 0.0], [0.0, 0.0]),
            ([1.0, 0.0], [1.0, 0.0]),
            ([1.0, 0.0], [0.0, 0.0]),
        ] {
            assert_eq!(Orientation::from_steps(right, down), None, "{right:?} {down:?}");
        }
        assert_eq!(Orientation::from_steps([0.5, 0.0], [0.0, 1.25]), Some(Orientation::Upright), "a scale is none");
    }

    #[test]
    fn chroma_turns_with_the_picture() {
        use ChromaSiting::{BottomRight, Centre, Left, Right, Top, TopLeft, TopRight};
        for (orientation, left, top_left) in [
            (Orientation::Upright, Left, TopLeft),
            (Orientation::Turn90, Top, TopRight),
            (Orientation::Turn180, Right, BottomRight),
            (Orientation::Mirror, Right, TopRight),
        ] {
            assert_eq!(orientation.shown_siting(Left), left, "{orientation}");
            assert_eq!(orientation.shown_siting(TopLeft), top_left, "{orientation}");
            assert_eq!(orientation.shown_siting(Centre), Centre, "{orientation}");
        }
    }
}
