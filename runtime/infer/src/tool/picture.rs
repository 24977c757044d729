//! A picture in a file, and boxes drawn on it.

use super::replace;
use jpeg_encoder::{ColorType, Encoder};
use millrace_detect::open_file;
use millrace_frame::{Colour, DetBox, ImageDesc, PixelFormat, Size};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const QUALITY: u8 = 92;
pub(super) const PNG_START: &[u8] = b"\x89PNG\r\n";
/// Of memory that a PNG picture is decoded with.
const PNG_BYTES: usize = 1 << 30;
/// Of a line that ends far outside the picture not every pixel is drawn.
const MOST_DOTS: f32 = 65_536.0;

/// A picture of red, green and blue bytes.
pub(crate) struct Picture {
    pub(crate) size: Size,
    pub(crate) rgb: Vec<u8>,
}

/// The picture in the file, or one of noise and squares where there is none.
pub(crate) fn load(path: Option<&Path>) -> Result<Picture, String> {
    let Some(path) = path else { return Ok(made()) };
    let failed = |e: &dyn std::fmt::Display| {
        format!("'{}' cannot be read as a picture: {e}; give a JPEG or a PNG", path.display())
    };
    let mut file = BufReader::new(open_file(path).map_err(|e| failed(&e))?);
    if file.fill_buf().map_err(|e| failed(&e))?.starts_with(PNG_START) {
        return png(file).map_err(|e| failed(&e));
    }
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(file, options);
    let rgb = decoder.decode().map_err(|e| failed(&e))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| failed(&"it states no size"))?;
    let side = |n: usize| u32::try_from(n).map_err(|e| failed(&e));
    Ok(Picture { size: Size::new(side(width)?, side(height)?), rgb })
}

fn png(file: BufReader<File>) -> Result<Picture, png::DecodingError> {
    let mut decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: PNG_BYTES });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or(png::DecodingError::LimitsExceeded)?];
    let frame = reader.next_frame(&mut pixels)?;
    let samples = frame.color_type.samples();
    // grey, grey and alpha, colour, colour and alpha
    let colour = |pixel: &[u8]| if samples < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] };
    let rgb = pixels[..frame.buffer_size()].chunks_exact(samples).flat_map(colour).collect();
    Ok(Picture { size: Size::new(frame.width, frame.height), rgb })
}

/// Noise, slopes and squares: numbers of all kinds, and no object.
fn made() -> Picture {
    let size = Size::new(768, 432);
    let mut noise = 1u32;
    let pixel = |n: u32| {
        let (x, y) = (n % size.width_px, n / size.width_px);
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let square = if (x / 60 + y / 45).is_multiple_of(2) { 120 } else { 30 };
        [0, 1, 2].map(|c| (square + x / 8 + 20 * c + (noise >> 27)).min(255) as u8)
    };
    Picture { size, rgb: (0..size.width_px * size.height_px).flat_map(pixel).collect() }
}

impl Picture {
    /// As the frames of a camera are described.
    pub(crate) fn describe(&self) -> ImageDesc {
        ImageDesc::packed(PixelFormat::Rgb24, self.size, Colour::assumed_for_height(self.size.height_px), 1).0
    }

    /// Draws the boxes, the best last: their edges, upright or turned, outlines and key points.
    pub(crate) fn draw(&mut self, boxes: &[DetBox]) {
        for found in boxes.iter().rev() {
            let (rgb, _) = colour(found.class_id);
            let upright = [[found.x1, found.y1], [found.x2, found.y1], [found.x2, found.y2], [found.x1, found.y2]];
            self.ring(&found.oriented.map_or(upright, |turned| turned.corners()), rgb);
            for ring in &found.mask {
                self.ring(ring.as_chunks().0, rgb);
            }
            for point in &found.keypoints {
                let reach = 2.0 * self.thick();
                let across = |dx, dy| [[point.x - dx, point.y - dy], [point.x + dx, point.y + dy]];
                self.ring(&across(reach, reach), rgb);
                self.ring(&across(reach, -reach), rgb);
            }
        }
    }

    /// How thick a line is.
    fn thick(&self) -> f32 {
        (self.size.width_px.max(self.size.height_px) / 400).max(1) as f32
    }

    /// A closed line through the points.
    fn ring(&mut self, points: &[[f32; 2]], rgb: [u8; 3]) {
        for (from, to) in points.iter().zip(points.iter().cycle().skip(1)) {
            let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).ceil().clamp(1.0, MOST_DOTS);
            for step in 0..=steps as u32 {
                let part = step as f32 / steps;
                self.dot([0, 1].map(|axis| from[axis] + part * (to[axis] - from[axis])), rgb);
            }
        }
    }

    /// A square of a line's thickness, as far as it is in the picture.
    fn dot(&mut self, at: [f32; 2], rgb: [u8; 3]) {
        let Size { width_px, height_px } = self.size;
        let (thick, half) = (self.thick(), self.thick() / 2.0);
        let range = |at: f32, end: u32| {
            let end = end as f32;
            // a line on the picture's edge is seen
            let at = if (0.0..=end).contains(&at) { at.max(half).min(end - half) } else { at };
            let first = (at - half).round();
            first.clamp(0.0, end) as usize..(first + thick).clamp(0.0, end) as usize
        };
        let (xs, ys) = (range(at[0], width_px), range(at[1], height_px));
        for y in ys {
            for pixel in self.rgb[3 * y * width_px as usize..][3 * xs.start..3 * xs.end].chunks_exact_mut(3) {
                pixel.copy_from_slice(&rgb);
            }
        }
    }

    /// Writes it as a JPEG.
    pub(crate) fn save(&self, path: &Path) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Display| format!("'{}' cannot be written: {e}", path.display());
        let side = |n: u32| u16::try_from(n).map_err(|e| failed(&e));
        let mut encoder = Encoder::new_file(path, QUALITY).map_err(|e| failed(&e))?;
        encoder.add_app_segment(replace::SEGMENT, replace::MARK.to_vec()).map_err(|e| failed(&e))?;
        encoder
            .encode(&self.rgb, side(self.size.width_px)?, side(self.size.height_px)?, ColorType::Rgb)
            .map_err(|e| failed(&e))
    }
}

/// A colour for each class, far from its neighbours'.
pub(crate) fn colour(class_id: u32) -> ([u8; 3], &'static str) {
    const COLOURS: [([u8; 3], &str); 6] = [
        ([255, 60, 60], "red"),
        ([60, 220, 60], "green"),
        ([80, 140, 255], "blue"),
        ([255, 210, 40], "yellow"),
        ([240, 80, 240], "magenta"),
        ([60, 230, 230], "cyan"),
    ];
    COLOURS[class_id as usize % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};

    #[test]
    fn a_png_of_any_kind_has_its_colours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let two = |kind, depth, bytes: &[u8]| {
            let mut encoder = png::Encoder::new(File::create(&path).unwrap(), 2, 1);
            encoder.set_color(kind);
            encoder.set_depth(depth);
            if kind == Indexed {
                encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
            }
            encoder.write_header().unwrap().write_image_data(bytes).unwrap();
            let read = load(Some(&path)).unwrap();
            assert_eq!(read.size, Size::new(2, 1));
            read.rgb
        };
        let (one, sixteen) = (png::BitDepth::One, png::BitDepth::Sixteen);
        let eight = png::BitDepth::Eight;
        assert_eq!(two(Grayscale, eight, &[7, 9]), [7, 7, 7, 9, 9, 9]);
        assert_eq!(two(Grayscale, one, &[0b0100_0000]), [0, 0, 0, 255, 255, 255]);
        assert_eq!(two(GrayscaleAlpha, eight, &[7, 0, 9, 255]), [7, 7, 7, 9, 9, 9]);
        assert_eq!(two(Rgb, eight, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(two(Rgb, sixteen, &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(two(Rgba, eight, &[1, 2, 3, 0, 4, 5, 6, 9]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(two(Indexed, one, &[0b0100_0000]), [1, 2, 3, 4, 5, 6]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..40]).unwrap();
        assert!(load(Some(&path)).err().unwrap().contains("a.png' cannot be read as a picture"));
    }
}
