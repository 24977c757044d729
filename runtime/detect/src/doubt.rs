//! Whether a model's boxes can be those of a picture. A head that is not the model's often fits by shape; its numbers show it.

use millrace_frame::Size;

/// Boxes of one picture, and how many of them cannot be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Places of the output that could hold a box.
    pub places: u64,
    /// Candidates with a number that is NaN or infinite.
    pub not_finite: u64,
    /// Boxes of at least the score, before suppression.
    pub boxes: u64,
    /// Those whose right edge is left of the left one, or bottom above top.
    pub inverted: u64,
    /// Those within the first two pixels of the input.
    pub in_corner: u64,
    /// Those that reach outside the input by more than a quarter of it.
    pub outside: u64,
    /// By how many boxes of one picture those that are nearly the same outnumber the others; see [`Alike`].
    pub alike: u64,
}

/// Finds whether most boxes of a picture are one and the same: a vote of boxes that come one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alike {
    like: [f32; 4],
    votes: u64,
}

/// Edges that differ by at most this share of the input's extent are nearly the same.
const NEARLY: f32 = 0.01;

impl Alike {
    pub(crate) fn add(&mut self, edges: [f32; 4], input: Size) {
        let near = NEARLY * input.width_px.max(input.height_px) as f32;
        if self.votes == 0 {
            self.like = edges;
        }
        let is_alike = self.like.iter().zip(edges).all(|(a, b)| (a - b).abs() <= near);
        self.votes = if is_alike { self.votes + 1 } else { self.votes.saturating_sub(1) };
    }

    pub(crate) fn outnumber(&self) -> u64 {
        self.votes
    }
}

/// A box reaches outside the input by at most this share of its extent.
const BEYOND: f32 = 0.25;
/// Fractions and offsets in cells, which are no pixels, stay within this.
const CORNER_PX: f32 = 2.0;
/// A smaller input has a corner of its own size.
const LEAST_INPUT_PX: u32 = 32;

impl Tally {
    pub(crate) fn add(&mut self, [x1, y1, x2, y2]: [f32; 4], input: Size) {
        let (w, h) = (input.width_px as f32, input.height_px as f32);
        let out = |low: f32, high: f32, extent: f32| low < -BEYOND * extent || high > (1.0 + BEYOND) * extent;
        let in_corner = input.width_px.min(input.height_px) >= LEAST_INPUT_PX
            && x1.abs().max(y1.abs()).max(x2.abs()).max(y2.abs()) <= CORNER_PX;
        self.boxes += 1;
        if x2 < x1 || y2 < y1 {
            self.inverted += 1;
        } else if in_corner {
            self.in_corner += 1;
        } else if out(x1, x2, w) || out(y1, y2, h) {
            self.outside += 1;
        }
    }

    /// Boxes that no picture has.
    pub fn impossible(&self) -> u64 {
        self.inverted + self.in_corner + self.outside
    }

    fn plus(&mut self, other: &Self) {
        self.places += other.places;
        self.not_finite += other.not_finite;
        self.boxes += other.boxes;
        self.inverted += other.inverted;
        self.in_corner += other.in_corner;
        self.outside += other.outside;
    }
}

/// What the boxes of a stream say against the head that read them.
#[derive(Debug, Default)]
pub struct Doubt {
    sum: Tally,
    said: bool,
}

/// So many impossible boxes are no chance, ...
const FEW: u64 = 5;
/// ... and of so many boxes one.
const ONE_IN: u64 = 5;
/// A grid of at least this many places of which more than a quarter hold an object is no grid of objects.
const MANY_PLACES: u64 = 100;
/// No object is found in so many places; nine boxes of ten that are alike outnumber the others by eight.
const MANY_ALIKE: u64 = 100;
const ALIKE_OF_TEN: u64 = 8;
/// Below this score a box at every place is what was asked for.
const LEAST_SCORE: f32 = 0.2;

impl Doubt {
    /// Adds the boxes of one picture, of at least `score`; `grid` where each place of a picture has one. The answer is a
    /// sentence, once.
    pub fn add(&mut self, tally: &Tally, score: f32, grid: bool) -> Option<String> {
        self.sum.plus(tally);
        let text = if self.said { None } else { self.sum.text(tally, score, grid) };
        self.said |= text.is_some();
        text
    }
}

impl Tally {
    fn text(&self, last: &Self, score: f32, grid: bool) -> Option<String> {
        let of = self.boxes;
        let many = |n: u64| n >= FEW && n * ONE_IN >= of;
        let why = if many(self.in_corner) {
            let n = self.in_corner;
            format!(
                "{n} of {of} boxes are within the first two pixels of the model's input, so the model gives fractions or cells \
                 where the head reads pixels"
            )
        } else if many(self.inverted) {
            let n = self.inverted;
            format!(
                "{n} of {of} boxes end before they begin, so the model gives centre and size where the head reads corners, or \
                 sizes that the head has yet to compute"
            )
        } else if many(self.impossible()) {
            let n = self.impossible();
            format!(
                "{n} of {of} boxes reach far outside the model's input, so the model gives corners where the head reads centre \
                 and size, or pixels where it reads fractions or cells"
            )
        } else if self.not_finite >= FEW && self.not_finite * ONE_IN >= of + self.not_finite {
            format!("{} of {} boxes are NaN or infinite", self.not_finite, of + self.not_finite)
        } else if grid && score >= LEAST_SCORE && last.places >= MANY_PLACES && last.boxes * 4 > last.places {
            let Self { boxes, places, .. } = last;
            format!(
                "{boxes} of the {places} places of one picture hold a box of at least the score {score}, so these are not the \
                 scores of objects"
            )
        } else if score >= LEAST_SCORE && last.boxes >= MANY_ALIKE && last.alike * 10 >= last.boxes * ALIKE_OF_TEN {
            let boxes = last.boxes;
            return Some(format!(
                "the boxes are most likely wrong: nearly all of the {boxes} boxes of one picture are the same box. 'head' or \
                 'input' in model.yml is not that of the model, or the model was not exported whole"
            ));
        } else {
            return None;
        };
        Some(format!("the boxes are most likely wrong: {why}. 'head' in model.yml is not that of the model"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: Size = Size::new(640, 480);

    fn tally(boxes: &[[f32; 4]]) -> Tally {
        let mut tally = Tally { places: 8400, ..Tally::default() };
        boxes.iter().for_each(|b| tally.add(*b, INPUT));
        tally
    }

    #[test]
    fn boxes_that_a_picture_has_raise_no_doubt() {
        let mut doubt = Doubt::default();
        let good =
            [[0.0, 0.0, 640.0, 480.0], [-40.0, 10.0, 60.0, 90.0], [600.0, 300.0, 700.0, 520.0], [3.0, 3.0, 5.0, 5.0]];
        for _ in 0..100 {
            assert_eq!(doubt.add(&tally(&good), 0.3, true), None);
        }
        // a few wild ones among many
        assert_eq!(doubt.add(&tally(&[[-900.0, 0.0, 5.0, 5.0]; 20]), 0.3, true), None);
        assert_eq!(tally(&good).impossible(), 0);
    }

    #[test]
    fn each_kind_of_impossible_box_is_said_once_in_its_own_words() {
        for (box_, words) in [
            ([0.1, 0.2, 0.4, 0.9], "fractions or cells"),
            ([300.0, 200.0, 40.0, 30.0], "end before they begin"),
            ([64_000.0, 10.0, 65_000.0, 20.0], "far outside"),
            ([90.0, -160.0, 810.0, 180.0], "far outside"),
        ] {
            let mut doubt = Doubt::default();
            assert_eq!(doubt.add(&tally(&[box_; 4]), 0.3, true), None, "four may be chance");
            let text = doubt.add(&tally(&[box_]), 0.3, true).unwrap_or_default();
            assert!(text.contains(words) && text.contains("5 of 5"), "{text}");
            assert_eq!(doubt.add(&tally(&[box_; 50]), 0.3, true), None, "once");
        }
    }

    #[test]
    fn numbers_that_are_none_are_said() {
        let nan = Tally { places: 300, not_finite: 300, ..Tally::default() };
        assert!(Doubt::default().add(&nan, 0.3, false).is_some_and(|text| text.contains("300 of 300 boxes are NaN")));
    }

    #[test]
    fn boxes_that_are_nearly_all_the_same_are_a_doubt() {
        let picture = |n: u64, box_of: fn(u64) -> [f32; 4]| {
            let (mut tally, mut alike) = (Tally::default(), Alike::default());
            (0..n).for_each(|i| {
                tally.add(box_of(i), INPUT);
                alike.add(box_of(i), INPUT);
            });
            Tally { alike: alike.outnumber(), ..tally }
        };
        let said = |tally: Tally, score: f32| Doubt::default().add(&tally, score, false);
        let jitter = |i: u64| [100.0, 100.0, 200.0, 200.0].map(|edge| edge + (i % 4) as f32);
        let one_in_twelve = |i: u64| {
            if i.is_multiple_of(12) { [i as f32, 9.0, i as f32 + 50.0, 90.0] } else { [100.0, 100.0, 200.0, 200.0] }
        };
        let two_objects =
            |i: u64| if i.is_multiple_of(2) { [10.0, 10.0, 90.0, 90.0] } else { [300.0, 100.0, 400.0, 200.0] };
        for alike in [picture(300, jitter), picture(400, one_in_twelve), picture(100, jitter)] {
            let text = said(alike, 0.3).unwrap_or_default();
            assert!(
                text.contains(&format!("nearly all of the {} boxes of one picture are the same box", alike.boxes)),
                "{text}"
            );
            assert_eq!(said(alike, 0.05), None, "so few a score finds much");
        }
        // an object in the middle of many cells, and a crowd of two
        assert_eq!(said(picture(60, jitter), 0.3), None);
        assert_eq!(said(picture(400, two_objects), 0.3), None);
    }

    #[test]
    fn a_box_in_a_quarter_of_all_places_is_a_doubt_of_grids_alone() {
        let many = Tally { places: 2704, boxes: 1146, ..Tally::default() };
        assert!(Doubt::default().add(&many, 0.3, true).is_some_and(|text| text.contains("1146 of the 2704 places")));
        assert_eq!(Doubt::default().add(&many, 0.3, false), None);
        assert_eq!(Doubt::default().add(&many, 0.01, true), None, "asked for");
        let crowd = Tally { places: 8400, boxes: 2000, ..Tally::default() };
        assert_eq!(Doubt::default().add(&crowd, 0.3, true), None);
    }
}
