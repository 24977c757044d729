//! Non-maximum suppression: of boxes of one class that overlap, the one that scores best stays.

/// What a head found, before it is reported: a box with its edges in model pixels, before it is turned about its centre; or a
/// class of the whole picture, without edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
    /// How far the box is turned, clockwise; 0 of an upright one.
    pub angle_rad: f32,
    /// Score, 0 to 1.
    pub score: f32,
    /// Class.
    pub class_id: u32,
    /// Where in the output it stood: decides between equal scores, so that the order never depends on the sort.
    pub index: u32,
}

/// Area of the intersection over area of the union; 0 for boxes that do not touch or have no area.
pub fn iou(a: &Candidate, b: &Candidate) -> f64 {
    // in f64 no finite f32 box overflows
    let edges = |c: &Candidate| [f64::from(c.x1), f64::from(c.y1), f64::from(c.x2), f64::from(c.y2)];
    let ([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) = (edges(a), edges(b));
    let (w, h) = (ax2.min(bx2) - ax1.max(bx1), ay2.min(by2) - ay1.max(by1));
    if !(w > 0.0 && h > 0.0) {
        return 0.0;
    }
    let shared = w * h;
    let whole = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared;
    if whole > 0.0 { shared / whole } else { 0.0 }
}

/// How alike two turned boxes are, 0 to 1: 1 less the Hellinger distance of the normal distributions that have the boxes' centres
/// and covariances (ProbIoU: Llerena et al., "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union", 2021).
pub fn prob_iou(a: &Candidate, b: &Candidate) -> f64 {
    // the centre, and the entries xx, yy, xy of the covariance of a uniform density over the rectangle
    let normal = |c: &Candidate| {
        let [x1, y1, x2, y2] = [c.x1, c.y1, c.x2, c.y2].map(f64::from);
        let (sin, cos) = f64::from(c.angle_rad).sin_cos();
        let (along, across) = ((x2 - x1).powi(2) / 12.0, (y2 - y1).powi(2) / 12.0);
        let covariance = [
            along * cos * cos + across * sin * sin,
            along * sin * sin + across * cos * cos,
            (along - across) * sin * cos,
        ];
        ([(x1 + x2) / 2.0, (y1 + y2) / 2.0], covariance)
    };
    let determinant = |[xx, yy, xy]: [f64; 3]| (xx * yy - xy * xy).max(f64::MIN_POSITIVE);
    let ((p, s), (q, t)) = (normal(a), normal(b));
    let mean = [0, 1, 2].map(|i| (s[i] + t[i]) / 2.0);
    let (dx, dy) = (p[0] - q[0], p[1] - q[1]);
    let apart = (mean[1] * dx * dx + mean[0] * dy * dy - 2.0 * mean[2] * dx * dy) / determinant(mean);
    let unlike = determinant(mean).ln() - (determinant(s).ln() + determinant(t).ln()) / 2.0;
    let bhattacharyya = (apart / 8.0 + unlike / 2.0).max(0.0);
    1.0 - (1.0 - (-bhattacharyya).exp()).max(0.0).sqrt()
}

/// Sorts by falling score (equal scores by rising index) and keeps the first `max`. Returns how many were dropped.
///
/// O(n) for what is dropped, O(max log max) for the rest.
pub fn keep_best(found: &mut Vec<Candidate>, max: usize) -> u64 {
    let order = |a: &Candidate, b: &Candidate| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index));
    let over = found.len().saturating_sub(max);
    if over > 0 {
        if max > 0 {
            found.select_nth_unstable_by(max - 1, order);
        }
        found.truncate(max);
    }
    found.sort_unstable_by(order);
    over as u64
}

/// Greedy suppression by class: goes down the list, which is in the order of [`keep_best`], and drops each box whose
/// `overlap` with a kept box of its class is above `limit`: [`iou`], or [`prob_iou`] for turned ones.
///
/// O(n x kept), in place, no allocation.
pub fn suppress(found: &mut Vec<Candidate>, limit: f32, overlap: fn(&Candidate, &Candidate) -> f64) {
    let limit = f64::from(limit);
    let mut kept = 0;
    for i in 0..found.len() {
        let one = found[i];
        if found[..kept].iter().all(|k| k.class_id != one.class_id || overlap(k, &one) <= limit) {
            found[kept] = one;
            kept += 1;
        }
    }
    found.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Boxes with small integer corners, so that areas and overlaps are exact integers.
    #[derive(Clone, Copy, Debug)]
    struct Whole {
        corners: [i64; 4],
        score: u8,
        class_id: u32,
    }

    fn boxes() -> impl Strategy<Value = Vec<Whole>> {
        let one = (0i64..40, 0i64..40, 1i64..30, 1i64..30, any::<u8>(), 0u32..3)
            .prop_map(|(x, y, w, h, score, class_id)| Whole { corners: [x, y, x + w, y + h], score, class_id });
        prop::collection::vec(one, 0..60)
    }

    fn candidates(boxes: &[Whole]) -> Vec<Candidate> {
        let one = |(index, b): (usize, &Whole)| {
            let [x1, y1, x2, y2] = b.corners.map(|v| v as f32);
            Candidate {
                x1,
                y1,
                x2,
                y2,
                angle_rad: 0.0,
                score: f32::from(b.score) / 255.0,
                class_id: b.class_id,
                index: index as u32,
            }
        };
        boxes.iter().enumerate().map(one).collect()
    }

    /// Whether intersection / union > num / den, in integers.
    fn overlaps_more(a: &Whole, b: &Whole, num: i64, den: i64) -> bool {
        // counts the unit squares that are in both
        let inside =
            |b: &Whole, x: i64, y: i64| b.corners[0] <= x && x < b.corners[2] && b.corners[1] <= y && y < b.corners[3];
        let (mut shared, mut whole) = (0, 0);
        for y in 0..70 {
            for x in 0..70 {
                let (p, q) = (inside(a, x, y), inside(b, x, y));
                shared += i64::from(p && q);
                whole += i64::from(p || q);
            }
        }
        shared * den > whole * num
    }

    /// The definition, class by class: take the best that is left, strike out all that overlap it, repeat.
    fn by_definition(boxes: &[Whole], num: i64, den: i64) -> Vec<usize> {
        let mut answer = Vec::new();
        for class_id in 0..3 {
            let mut left: Vec<usize> = (0..boxes.len()).filter(|&i| boxes[i].class_id == class_id).collect();
            while let Some(&best) = left.iter().max_by_key(|&&i| (boxes[i].score, std::cmp::Reverse(i))) {
                answer.push(best);
                left.retain(|&i| i != best && !overlaps_more(&boxes[best], &boxes[i], num, den));
            }
        }
        answer.sort_by_key(|&i| (std::cmp::Reverse(boxes[i].score), i));
        answer
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        // 1/2 and 1/4 are exact in f32, so equality at the limit is the same on both sides
        #[test]
        fn it_keeps_what_the_definition_keeps(boxes in boxes(), den in prop::sample::select(vec![2i64, 4])) {
            let mut found = candidates(&boxes);
            keep_best(&mut found, usize::MAX);
            suppress(&mut found, 1.0 / den as f32, iou);
            let kept: Vec<usize> = found.iter().map(|c| c.index as usize).collect();
            prop_assert_eq!(kept, by_definition(&boxes, 1, den));
        }

        #[test]
        fn the_best_are_kept_in_order(boxes in boxes(), max in 0usize..70) {
            let mut found = candidates(&boxes);
            let dropped = keep_best(&mut found, max);
            let mut order: Vec<usize> = (0..boxes.len()).collect();
            order.sort_by_key(|&i| std::cmp::Reverse(boxes[i].score));
            order.truncate(max);
            prop_assert_eq!(found.iter().map(|c| c.index as usize).collect::<Vec<_>>(), order);
            prop_assert_eq!(dropped as usize, boxes.len().saturating_sub(max));
        }

        #[test]
        fn no_numbers_panic(values in prop::collection::vec(any::<[f32; 5]>(), 0..40), limit in any::<f32>()) {
            let one = |(i, v): (usize, &[f32; 5])| Candidate {
                x1: v[0], y1: v[1], x2: v[2], y2: v[3], angle_rad: 0.0, score: v[4], class_id: 0, index: i as u32,
            };
            let mut found: Vec<Candidate> = values.iter().enumerate().map(one).collect();
            keep_best(&mut found, 20);
            suppress(&mut found, limit, [iou, prob_iou][values.len() % 2]);
            prop_assert!(found.len() <= 20);
        }
    }

    #[test]
    fn a_quarter_shifted_square_overlaps_by_three_fifths() {
        let at = |x1: f32| Candidate {
            x1,
            y1: 0.0,
            x2: x1 + 4.0,
            y2: 4.0,
            angle_rad: 0.0,
            score: 1.0,
            class_id: 0,
            index: 0,
        };
        assert!((iou(&at(0.0), &at(1.0)) - 0.6).abs() < 1e-12);
        assert_eq!(iou(&at(0.0), &at(4.0)), 0.0);
        assert_eq!(iou(&at(2.0), &at(2.0)), 1.0);
        let wide =
            |x2| Candidate { x1: -3e38, y1: -3e38, x2, y2: 3e38, angle_rad: 0.0, score: 1.0, class_id: 0, index: 0 };
        assert!((iou(&wide(3e38), &wide(0.0)) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn turned_boxes_are_as_alike_as_the_paper_says() {
        let turned = |x: f32, y: f32, w: f32, h: f32, angle_rad: f32| {
            let (x1, y1, x2, y2) = (x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0);
            Candidate { x1, y1, x2, y2, angle_rad, score: 1.0, class_id: 0, index: 0 }
        };
        let alike = |a, b| prob_iou(&a, &b);
        // computed with numpy from the formulas of the paper
        for (a, b, want) in [
            (turned(10., 10., 8., 2., 0.), turned(10., 10., 8., 2., 0.), 1.0),
            (turned(10., 10., 8., 2., 0.3), turned(11., 10.5, 8., 2., 0.35), 0.797_204),
            (turned(10., 10., 8., 2., 0.), turned(10., 10., 8., 2., std::f32::consts::FRAC_PI_2), 0.272_393),
            (turned(10., 10., 8., 2., 0.), turned(18., 10., 8., 2., 0.), 0.118_598),
        ] {
            assert!((alike(a, b) - want).abs() < 1e-5, "{a:?} {b:?}: {} and not {want}", alike(a, b));
        }
        // a quarter turn with width and height exchanged is the same rectangle
        let same = alike(turned(5., 5., 8., 2., 0.2), turned(5., 5., 2., 8., 0.2 + std::f32::consts::FRAC_PI_2));
        assert!(same > 0.999, "{same}");
    }
}
