//! The kernels that turn planes, compiled as C++, against pictures that were turned by hand.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "runs kernels, which reach memory by address")]

use millrace_cuda::Span;
use millrace_frame::Orientation;
use millrace_kernels::cuda::TurnedPlane;
use proptest::prelude::*;

const POISON: u8 = 0xa5;

/// Rows of samples, each sample's bytes.
type Picture = Vec<Vec<Vec<u8>>>;

/// Turns a picture whose rows have so many bytes more than their samples before and after the turn.
fn turned(picture: &Picture, orientation: Orientation, from_gap: usize, to_gap: usize) -> Picture {
    let (width, height, sample) = (picture[0].len(), picture.len(), picture[0][0].len());
    let (shown_width, shown_height) = if orientation.degrees() % 180 == 90 { (height, width) } else { (width, height) };
    let (from_pitch, to_pitch) = ((width + from_gap) * sample, (shown_width + to_gap) * sample);
    // u64s: aligned for each sample
    let mut from = vec![0u64; (from_pitch * height).div_ceil(8)];
    let mut to = vec![u64::from_ne_bytes([POISON; 8]); (to_pitch * shown_height).div_ceil(8) + 1];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut from);
    for (y, row) in picture.iter().enumerate() {
        bytes[y * from_pitch..][..width * sample].copy_from_slice(&row.concat());
    }
    let (from_bytes, to_bytes) = ((from_pitch * height) as u64, (to_pitch * shown_height) as u64);
    // SAFETY: both buffers outlive the launch below, and have so many bytes.
    let (from, span) =
        unsafe { (Span::from_raw(from.as_ptr() as u64, from_bytes), Span::from_raw(to.as_mut_ptr() as u64, to_bytes)) };
    let plane = TurnedPlane {
        from,
        from_pitch_bytes: from_pitch as u64,
        stored: (width as u32, height as u32),
        sample_bytes: sample as u32,
        to: span,
        to_pitch_bytes: to_pitch as u32,
    };
    let (mut parameter, grid) = plane.launch(orientation).unwrap();
    let mut arguments = [(&raw mut parameter).cast()];
    // SAFETY: the one parameter, with addresses of the buffers above, as was checked against their spans.
    let found =
        unsafe { millrace_kernels_host::launch(&plane.kernel(), grid.blocks, grid.threads, arguments.as_mut_ptr()) };
    assert!(found, "no kernel {}", plane.kernel());
    let to: &[u8] = bytemuck::cast_slice(&to);
    let rows = to[..to_bytes as usize].chunks(to_pitch);
    assert!(rows.clone().all(|row| row[shown_width * sample..].iter().all(|&b| b == POISON)), "wrote between rows");
    assert!(to[to_bytes as usize..].iter().all(|&b| b == POISON), "wrote behind the plane");
    rows.map(|row| row[..shown_width * sample].chunks(sample).map(<[u8]>::to_vec).collect()).collect()
}

#[test]
fn each_orientation_gives_the_picture_as_drawn() {
    // EXIF's eight: the first row is what is stored
    let drawn: [(Orientation, &[&str]); 8] = [
        (Orientation::Upright, &["abc", "def"]),
        (Orientation::Turn90, &["da", "eb", "fc"]),
        (Orientation::Turn180, &["fed", "cba"]),
        (Orientation::Turn270, &["cf", "be", "ad"]),
        (Orientation::Mirror, &["cba", "fed"]),
        (Orientation::Mirror90, &["fc", "eb", "da"]),
        (Orientation::Mirror180, &["def", "abc"]),
        (Orientation::Mirror270, &["ad", "be", "cf"]),
    ];
    for sample in [1, 2, 4] {
        let of = |rows: &[&str]| -> Picture {
            let bytes = |letter: u8| (0..sample).map(|n| letter + 32 * n).collect();
            rows.iter().map(|row| row.bytes().map(bytes).collect()).collect()
        };
        for (orientation, rows) in drawn {
            assert_eq!(turned(&of(drawn[0].1), orientation, 5, 3), of(rows), "{orientation}, {sample} bytes");
        }
    }
}

#[test]
fn a_plane_that_does_not_fit_is_a_misuse() {
    let plane = |bytes, stored, sample_bytes, to_pitch_bytes| {
        // SAFETY: nothing reads or writes it; `launch` only looks at the numbers.
        let span = unsafe { Span::from_raw(4096, bytes) };
        TurnedPlane { from: span, from_pitch_bytes: 8, stored, sample_bytes, to: span, to_pitch_bytes }
    };
    assert!(plane(32, (8, 4), 1, 8).launch(Orientation::Turn90).is_err(), "8 rows of 8 bytes");
    assert!(plane(64, (8, 4), 1, 8).launch(Orientation::Turn90).is_ok());
    for wrong in [
        plane(64, (9, 4), 1, 16),
        plane(64, (0, 4), 1, 8),
        plane(64, (8, 0), 1, 8),
        plane(64, (2, 2), 3, 9),
        plane(64, (2, 2), 4, 10),
        plane(64, (8, u32::MAX), 1, 8),
    ] {
        assert!(wrong.launch(Orientation::Upright).is_err(), "{wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Turns by 90 degrees add up, and a picture that is mirrored twice is itself, at sizes beyond a block of threads.
    #[test]
    fn turns_add_up(width in 1usize..80, height in 1usize..40, sample in prop::sample::select(vec![1usize, 2, 4]), seed: u64) {
        let number = |x: usize, y: usize, n: usize| (seed.wrapping_mul(2 * (x + 80 * (y + 40 * n)) as u64 + 1) >> 37) as u8;
        let picture: Picture =
            (0..height).map(|y| (0..width).map(|x| (0..sample).map(|n| number(x, y, n)).collect()).collect()).collect();
        let by = |picture: &Picture, orientation| turned(picture, orientation, 0, 0);
        let quarter = by(&picture, Orientation::Turn90);
        let half = by(&quarter, Orientation::Turn90);
        prop_assert_eq!(&half, &by(&picture, Orientation::Turn180));
        prop_assert_eq!(&by(&half, Orientation::Turn90), &by(&picture, Orientation::Turn270));
        prop_assert_eq!(&by(&half, Orientation::Turn180), &picture);
        let mirrored = by(&picture, Orientation::Mirror);
        prop_assert_eq!(&by(&mirrored, Orientation::Turn90), &by(&picture, Orientation::Mirror90));
        prop_assert_eq!(&by(&mirrored, Orientation::Mirror), &picture);
    }
}
