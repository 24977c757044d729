//! The display matrix (ISO/IEC 14496-12, 6.2.2): how a track's pictures are turned, and then the whole movie.

use super::Refusal;
use crate::source::ORIENTATION_FIX;
use millrace_frame::Orientation;
use mp4_atom::Matrix;

/// What the matrices of a track and of its movie do to pictures. Their scales and shifts are left out: a picture is shown in
/// its own size.
pub(super) fn orientation(track: &Matrix, movie: Option<&Matrix>) -> Result<Orientation, Refusal> {
    let none = [[1.0, 0.0], [0.0, 1.0]];
    let (track, movie) = (linear(track), movie.map_or(Some(none), linear));
    let (Some(track), Some(movie)) = (track, movie) else {
        return Err(refused("shows the pictures in perspective"));
    };
    let along = |[x, y]: [f64; 2]| [x * movie[0][0] + y * movie[1][0], x * movie[0][1] + y * movie[1][1]];
    let [right, down] = track.map(along);
    Orientation::from_steps(right, down).ok_or_else(|| {
        let [a, b] = right;
        let [c, d] = down;
        refused(&format!("({a:.3} {b:.3}, {c:.3} {d:.3}) turns the pictures by no multiple of 90 degrees"))
    })
}

fn refused(what: &str) -> Refusal {
    Refusal { reason: format!("its display matrix {what}"), fix: ORIENTATION_FIX }
}

/// Where one step to the right, and one step down, lead. Without a scale of its own, a matrix says nothing. `None` for what
/// is no linear map.
fn linear(matrix: &Matrix) -> Option<[[f64; 2]; 2]> {
    let &Matrix { a, b, u, c, d, v, .. } = matrix;
    if [a, b, c, d] == [0; 4] {
        return Some([[1.0, 0.0], [0.0, 1.0]]);
    }
    let fixed = |value: i32| f64::from(value) / 65536.0;
    (u == 0 && v == 0).then(|| [[fixed(a), fixed(b)], [fixed(c), fixed(d)]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(steps: [i32; 4]) -> Matrix {
        let [a, b, c, d] = steps.map(|step| step * 0x1_0000);
        Matrix { a, b, u: 0, c, d, v: 0, x: 7 << 16, y: 0, w: 0x4000_0000 }
    }

    #[test]
    fn the_movie_turns_what_the_track_has_turned() {
        let quarter = matrix([0, 1, -1, 0]);
        let flipped = matrix([1, 0, 0, -1]);
        assert_eq!(orientation(&quarter, None).ok(), Some(Orientation::Turn90));
        assert_eq!(orientation(&quarter, Some(&quarter)).ok(), Some(Orientation::Turn180));
        // right leads down, then up; down leads left
        assert_eq!(orientation(&quarter, Some(&flipped)).ok(), Some(Orientation::Mirror90));
        // right leads down; down leads up, then right
        assert_eq!(orientation(&flipped, Some(&quarter)).ok(), Some(Orientation::Mirror270));
        let nothing = matrix([0; 4]);
        assert_eq!(orientation(&nothing, Some(&nothing)).ok(), Some(Orientation::Upright));
    }

    #[test]
    fn what_is_no_quarter_turn_is_named() {
        let reason = |matrix: &Matrix| orientation(matrix, None).err().map(|why| why.reason).unwrap_or_default();
        let skewed = reason(&matrix([1, 1, -1, 1]));
        assert_eq!(
            skewed,
            "its display matrix (1.000 1.000, -1.000 1.000) turns the pictures by no multiple of 90 degrees"
        );
        let perspective = Matrix { u: 1, ..matrix([1, 0, 0, 1]) };
        assert_eq!(reason(&perspective), "its display matrix shows the pictures in perspective");
    }
}
