//! The position of the source's picture in the model's input, and how the model's boxes lead back to the source.

use millrace_frame::{ImageDesc, Letterbox, Rect, Size};

/// The position of a letterboxed picture in the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anchor {
    /// In the top left corner; padding on the right or at the bottom (YOLOX).
    TopLeft,
    /// In the middle; an odd pixel of padding goes to the right or to the bottom (YOLOv5 and later).
    Centre,
}

/// How the size of the scaled picture becomes whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Towards zero, as `int(width * scale)` does in YOLOX.
    Down,
    /// To the nearest, halves to the even number, as Python's `round` does in YOLOv5 and later.
    Nearest,
}

/// How a picture of one shape is fitted into an input of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fit {
    /// Scaled by one factor so that all of it fits; the rest is padding.
    Letterbox {
        /// The picture's position.
        anchor: Anchor,
        /// How its size is rounded.
        rounding: Rounding,
    },
    /// Scaled by a factor of its own along each axis, so that it fills the input.
    Stretch,
    /// Scaled by one factor, so that the input's shorter side would be `resize_px` of the picture's; of that the middle fills
    /// the input, and the rest is not shown. With a square input this is torchvision's `Resize` and `CenterCrop`.
    Crop {
        /// At least the shorter side of the input.
        resize_px: u32,
    },
}

/// The picture in the model's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The model pixels that show the picture; the others are padding. Never empty.
    pub placed: Rect,
    /// The part of the source's picture that they show, in its display pixels. Never empty.
    pub shown: Rect,
    /// From edge coordinates of the model's input to edge coordinates of the source.
    pub source_from_model: Letterbox,
}

impl Placement {
    /// What it shows of an image, in the pixels that are stored.
    pub(crate) fn shown_of(&self, source: &ImageDesc) -> Rect {
        // of a description that cannot be, which its check refuses, the sums are of no use
        let Rect { x_px, y_px, .. } = source.display;
        Rect { x_px: x_px.saturating_add(self.shown.x_px), y_px: y_px.saturating_add(self.shown.y_px), ..self.shown }
    }

    /// A number that no other place of a picture in an input has, and never 0: what a pool's slot says of its padding.
    pub fn id(&self) -> u64 {
        let Rect { x_px, y_px, width_px, height_px } = self.placed;
        // 16 bits each: an input is at most 16384 pixels wide and high
        [x_px, y_px, width_px, height_px].into_iter().fold(0, |id, extent| id << 16 | u64::from(extent))
    }
}

/// Fits a picture of `source` size into an input of `model` size.
///
/// The letterbox scale is `min(model_h / source_h, model_w / source_w)` in `f64`, and the placed size is each source extent times it,
/// rounded: the same operations in the same order as the training code of the detectors, so that the size is theirs
/// also where the product comes out just below a whole number. A picture is at least one pixel in each direction.
///
/// Boxes lead back by the scale itself, not by the ratio of the rounded sizes: that is what the detectors' own
/// post-processing does. The pixels, on the other hand, are resampled by the ratio of the sizes (as OpenCV does when it is given a size),
/// so that the placed picture shows all of the source. The two differ by less than one model pixel at the far edge.
///
/// ```
/// use millrace_frame::Size;
/// use millrace_kernels::{place, Anchor, Fit, Rounding};
/// let fit = Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down };
/// let found = place(Size::new(1920, 1080), Size::new(416, 416), fit);
/// assert_eq!((found.placed.width_px, found.placed.height_px), (416, 234));
/// assert_eq!(found.source_from_model.scale_x, 1920.0 / 416.0);
/// ```
pub fn place(source: Size, model: Size, fit: Fit) -> Placement {
    let whole = |of: Size| Rect { x_px: 0, y_px: 0, width_px: of.width_px.max(1), height_px: of.height_px.max(1) };
    let (sw, sh) = (f64::from(source.width_px.max(1)), f64::from(source.height_px.max(1)));
    let (mw, mh) = (f64::from(model.width_px), f64::from(model.height_px));
    // all of `shown` fills the input
    let filled = |shown: Rect| Placement {
        placed: Rect { x_px: 0, y_px: 0, width_px: model.width_px, height_px: model.height_px },
        shown,
        source_from_model: Letterbox {
            scale_x: f64::from(shown.width_px) / mw,
            scale_y: f64::from(shown.height_px) / mh,
            offset_x: f64::from(shown.x_px),
            offset_y: f64::from(shown.y_px),
        },
    };
    match fit {
        Fit::Stretch => filled(whole(source)),
        Fit::Crop { resize_px } => {
            // whole numbers, so that a half is a half
            let [source_w, source_h] = [source.width_px, source.height_px].map(|extent| u64::from(extent.max(1)));
            let [model_w, model_h] = [model.width_px, model.height_px].map(|extent| u64::from(extent.max(1)));
            let across = source_w * model_h <= source_h * model_w;
            let (of_source, of_model) = if across { (source_w, model_w) } else { (source_h, model_h) };
            let side = model_w.min(model_h);
            let whole = of_model * u64::from(resize_px).max(side);
            let middle = |extent: u64, shown: u64| {
                let len = ((2 * shown * of_source * side + whole) / (2 * whole)).clamp(1, extent);
                (((extent - len) / 2) as u32, len as u32)
            };
            let ((x_px, width_px), (y_px, height_px)) = (middle(source_w, model_w), middle(source_h, model_h));
            filled(Rect { x_px, y_px, width_px, height_px })
        }
        Fit::Letterbox { anchor, rounding } => {
            let scale = (mh / sh).min(mw / sw);
            let scaled = |extent: f64, limit: u32| {
                let scaled = extent * scale;
                let rounded = match rounding {
                    Rounding::Down => scaled.trunc(),
                    Rounding::Nearest => scaled.round_ties_even(),
                };
                (rounded as u32).clamp(1, limit.max(1))
            };
            let (width_px, height_px) = (scaled(sw, model.width_px), scaled(sh, model.height_px));
            let (x_px, y_px) = match anchor {
                Anchor::TopLeft => (0, 0),
                Anchor::Centre => {
                    (model.width_px.saturating_sub(width_px) / 2, model.height_px.saturating_sub(height_px) / 2)
                }
            };
            Placement {
                placed: Rect { x_px, y_px, width_px, height_px },
                shown: whole(source),
                source_from_model: Letterbox {
                    scale_x: 1.0 / scale,
                    scale_y: 1.0 / scale,
                    // no "-0": it would read oddly in a description
                    offset_x: 0.0 - f64::from(x_px) / scale,
                    offset_y: 0.0 - f64::from(y_px) / scale,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YOLOX: Fit = Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down };
    const CENTRED: Fit = Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest };

    fn rect(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Rect {
        Rect { x_px, y_px, width_px, height_px }
    }

    #[test]
    fn sizes_are_those_of_the_training_code() {
        // computed by Python: s = min(mh / h, mw / w); int(w * s), int(h * s)
        for (source, model, w, h) in [
            ((1920, 1080), (640, 640), 640, 360),
            ((1280, 720), (416, 416), 416, 234),
            ((641, 481), (416, 416), 416, 312),
            // 432 * (416 / 768) is 233.99999999999997, 154 * (320 / 154) is 319.99999999999994
            ((768, 432), (416, 416), 416, 233),
            ((154, 86), (320, 320), 319, 178),
        ] {
            let found = place(Size::new(source.0, source.1), Size::new(model.0, model.1), YOLOX);
            assert_eq!(found.placed, rect(0, 0, w, h), "{source:?} in {model:?}");
        }
    }

    #[test]
    fn centred_padding_is_halved_and_the_odd_pixel_goes_right_and_down() {
        let found = place(Size::new(768, 431), Size::new(320, 192), CENTRED);
        // scale 320 / 768; 431 * scale = 179.58 -> 180, 12 rows of padding
        assert_eq!(found.placed, rect(0, 6, 320, 180));
        assert_eq!(found.source_from_model.offset_y, -6.0 * 2.4);
        let found = place(Size::new(100, 39), Size::new(100, 50), CENTRED);
        assert_eq!(found.placed, rect(0, 5, 100, 39), "11 rows of padding: 5 above, 6 below");
    }

    #[test]
    fn stretching_fills_the_input_and_scales_each_axis() {
        let found = place(Size::new(1000, 500), Size::new(250, 250), Fit::Stretch);
        assert_eq!(found.placed, rect(0, 0, 250, 250));
        let back = found.source_from_model;
        assert_eq!((back.scale_x, back.scale_y, back.offset_x, back.offset_y), (4.0, 2.0, 0.0, 0.0));
    }

    #[test]
    fn a_crop_shows_the_middle_as_classifiers_are_trained() {
        // torchvision: Resize(256) makes 455x256 of 1920x1080, CenterCrop(224) keeps columns 116 to 340 and rows 16 to 240;
        // in pixels of the source, by 1080 / 256: 945x945 from 487.5, 67.5
        let found = place(Size::new(1920, 1080), Size::new(224, 224), Fit::Crop { resize_px: 256 });
        assert_eq!((found.placed, found.shown), (rect(0, 0, 224, 224), rect(487, 67, 945, 945)));
        let back = found.source_from_model;
        assert_eq!((back.scale_x, back.offset_x, back.offset_y), (945.0 / 224.0, 487.0, 67.0));
        // the whole of the short side, and a standing picture
        let all = |source| place(source, Size::new(224, 224), Fit::Crop { resize_px: 224 }).shown;
        assert_eq!(all(Size::new(640, 360)), rect(140, 0, 360, 360));
        assert_eq!(all(Size::new(360, 640)), rect(0, 140, 360, 360));
        // an input that is no square: its proportions
        let wide = place(Size::new(1000, 1000), Size::new(320, 160), Fit::Crop { resize_px: 160 });
        assert_eq!(wide.shown, rect(0, 250, 1000, 500));
        // a picture smaller than the input, and slivers
        assert_eq!(all(Size::new(3, 2)), rect(0, 0, 2, 2));
        assert_eq!(all(Size::new(5000, 1)), rect(2499, 0, 1, 1));
    }

    #[test]
    fn a_sliver_keeps_one_pixel() {
        assert_eq!(place(Size::new(5000, 1), Size::new(64, 64), YOLOX).placed, rect(0, 0, 64, 1));
        assert_eq!(place(Size::new(1, 5000), Size::new(64, 64), CENTRED).placed, rect(31, 0, 1, 64));
    }

    proptest! {
        #[test]
        fn the_picture_lies_inside_and_its_corners_lead_back_to_the_source(
            sw in 1u32..5000, sh in 1u32..5000, mw in 1u32..2000, mh in 1u32..2000,
            fit in prop::sample::select(vec![YOLOX, CENTRED, Fit::Stretch]),
        ) {
            let Placement { placed: p, source_from_model: back, .. } = place(Size::new(sw, sh), Size::new(mw, mh), fit);
            prop_assert!(p.width_px >= 1 && p.height_px >= 1);
            prop_assert!(p.x_px + p.width_px <= mw && p.y_px + p.height_px <= mh);
            let x = |v: u32| f64::from(v) * back.scale_x + back.offset_x;
            let y = |v: u32| f64::from(v) * back.scale_y + back.offset_y;
            prop_assert!(x(p.x_px).abs() < 1e-6 && y(p.y_px).abs() < 1e-6);
            // the far corner, within the rounding of the size to one whole model pixel
            prop_assert!((x(p.x_px + p.width_px) - f64::from(sw)).abs() <= back.scale_x * (1.0 + 1e-9));
            prop_assert!((y(p.y_px + p.height_px) - f64::from(sh)).abs() <= back.scale_y * (1.0 + 1e-9));
        }
    }
}
