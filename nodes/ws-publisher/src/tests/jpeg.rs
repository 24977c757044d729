use crate::jpeg::{JpegError, encode, interleaved};
use millrace_frame::{Colour, ImageDesc, Matrix, PixelFormat, Range, Rect, Size, Tagged};

/// One pixel by the definition of H.273, in f64.
fn rgb_of(matrix: Matrix, range: Range, [y, cb, cr]: [u8; 3]) -> [f64; 3] {
    let (kr, kb) = matrix.kr_kb();
    let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
    let (y, cb, cr) = match range {
        Range::Full => (y, cb, cr),
        Range::Limited => ((y - 16.0) * 255.0 / 219.0, cb * 255.0 / 224.0, cr * 255.0 / 224.0),
    };
    let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
    let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
    [r, g, b].map(|v| v.clamp(0.0, 255.0))
}

fn flat(format: PixelFormat, size: Size, matrix: Matrix, range: Range, ycc: [u8; 3]) -> (ImageDesc, Vec<u8>) {
    let mut colour = Colour::assumed_for_height(size.height_px);
    colour.matrix = Tagged::setting(matrix);
    colour.range = Tagged::setting(range);
    let (image, bytes) = ImageDesc::packed(format, size, colour, 32);
    // the padding is another colour, and is not to be seen
    let mut data = vec![0xee; bytes as usize];
    for (n, (plane, (row, rows))) in image.planes.iter().zip(format.plane_shapes(size)).enumerate() {
        for y in 0..rows {
            let start = (plane.offset_bytes + y * u64::from(plane.pitch_bytes)) as usize;
            for (x, sample) in data[start..start + row as usize].iter_mut().enumerate() {
                *sample = match format {
                    PixelFormat::Nv12 => {
                        if n == 0 {
                            ycc[0]
                        } else {
                            ycc[1 + x % 2]
                        }
                    }
                    PixelFormat::P016 if x % 2 == 0 => 0x80,
                    PixelFormat::P016 => {
                        if n == 0 {
                            ycc[0]
                        } else {
                            ycc[1 + x / 2 % 2]
                        }
                    }
                    PixelFormat::I420 => ycc[n],
                    PixelFormat::Rgb24 | PixelFormat::Bgr24 => ycc[x % 3],
                };
            }
        }
    }
    (image, data)
}

#[test]
fn every_matrix_range_format_and_odd_size_against_the_formula() {
    for format in [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::P016] {
        for &matrix in Matrix::ALL {
            for &range in Range::ALL {
                for size in [Size::new(1, 1), Size::new(5, 3), Size::new(33, 18), Size::new(64, 7)] {
                    for ycc in [[16, 128, 128], [235, 128, 128], [81, 90, 240], [145, 54, 34], [120, 200, 90]] {
                        let (image, data) = flat(format, size, matrix, range, ycc);
                        let (rgb, _) = interleaved(&image, &data);
                        let want = rgb_of(matrix, range, ycc);
                        assert_eq!(rgb.len() as u32, 3 * size.width_px * size.height_px);
                        for (at, (&got, want)) in rgb.iter().zip(want.iter().cycle()).enumerate() {
                            assert!(
                                (f64::from(got) - want).abs() <= 0.51,
                                "{format} {matrix} {range} {size} {ycc:?}: byte {at} is {got}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn packed_colour_passes_unchanged() {
    for format in [PixelFormat::Rgb24, PixelFormat::Bgr24] {
        let (image, data) = flat(format, Size::new(7, 3), Matrix::Bt709, Range::Full, [1, 2, 3]);
        assert_eq!(interleaved(&image, &data).0, [1, 2, 3].repeat(21));
    }
}

#[test]
fn the_jpeg_has_the_display_size() {
    let (mut image, data) = flat(PixelFormat::Nv12, Size::new(48, 32), Matrix::Bt709, Range::Limited, [90, 100, 200]);
    image.display = Rect { x_px: 3, y_px: 1, width_px: 41, height_px: 27 };
    let jpeg = encode(&image, &data, 80).unwrap();
    assert_eq!((&jpeg[..2], &jpeg[jpeg.len() - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
    // the baseline frame header: length 17, 8 bits, then rows and columns
    let sof = jpeg.windows(5).position(|w| w == [0xff, 0xc0, 0, 17, 8]).unwrap() + 5;
    assert_eq!(jpeg[sof..sof + 4], [0, 27, 0, 41]);
}

#[test]
fn a_description_that_lies_is_an_error() {
    let (image, data) = flat(PixelFormat::Nv12, Size::new(48, 32), Matrix::Bt709, Range::Limited, [0, 0, 0]);
    let error = encode(&image, &data[..data.len() - 64], 80).unwrap_err();
    assert!(matches!(error, JpegError::Layout { .. }), "{error}");
}
