//! Frames with the boxes of both arms.

use super::Report;
use super::plots::escape;
use crate::detections::alone;
use crate::model::{FrameBoxes, Picture};
use millrace_frame::DetBox;
use std::fmt::Write;

/// The frames that differ most.
pub(super) fn pictures(report: &Report) -> String {
    let Some(quality) = &report.experiment.quality else { return String::new() };
    let mut out = String::new();
    for picture in &quality.pictures {
        let find = |frames: &[FrameBoxes]| {
            let frame = frames.iter().find(|f| f.source == picture.source && f.seq == picture.seq);
            frame.map(|f| f.boxes.clone()).unwrap_or_default()
        };
        out += &figure(picture, &find(&quality.detections_a), &find(&quality.detections_b));
    }
    out
}

fn figure(picture: &Picture, a: &[DetBox], b: &[DetBox]) -> String {
    let (width, height) = (picture.width_px.max(1), picture.height_px.max(1));
    let name = escape(&format!("{}, frame {}", picture.source, picture.seq));
    let data = picture.jpeg_base64.trim();
    // text that is not base64 must not end the attribute that contains it
    let valid = data.bytes().all(|c| c.is_ascii_alphanumeric() || b"+/=".contains(&c));
    let mut body = if valid && !data.is_empty() {
        format!("<image href=\"data:image/jpeg;base64,{data}\" width=\"{width}\" height=\"{height}\"/>\n")
    } else {
        format!("<text x=\"{}\" y=\"{}\">no picture</text>\n", width / 2, height / 2)
    };
    let size = f64::from(width) / 45.0;
    for (class, boxes, others) in [("a", a, b), ("b", b, a)] {
        let lonely = alone(boxes, others);
        for (i, found) in boxes.iter().enumerate() {
            let is_alone = lonely.contains(&i);
            let mark = if is_alone { " alone" } else { "" };
            let (x, y) = (found.x1.min(found.x2), found.y1.min(found.y2));
            let (w, h) = ((found.x2 - found.x1).abs(), (found.y2 - found.y1).abs());
            let said = escape(&format!("{} {:.2}", found.label, found.score));
            let side = class.to_uppercase();
            let _ = writeln!(
                body,
                r#"<rect class="{class}{mark}" x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}"><title>{side}: {said}</title></rect>"#
            );
            if is_alone {
                // above the box where there is room
                let at = if f64::from(y) > size * 1.3 { f64::from(y) - size * 0.3 } else { f64::from(y) + size };
                let _ = writeln!(
                    body,
                    r#"<text style="font-size:{size:.0}px" x="{x:.1}" y="{at:.1}">{side}: {said}</text>"#
                );
            }
        }
    }
    let (lost, gained) = (alone(a, b).len(), alone(b, a).len());
    format!(
        "<figure class=\"picture\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\"><title>{name}</title>\n{body}</svg>\
         <figcaption>{name}: {gained} gained, {lost} lost. <span class=\"arm arm-a\">A</span> dashed, \
         <span class=\"arm arm-b\">B</span> solid; thick: in one arm only.</figcaption></figure>\n"
    )
}
