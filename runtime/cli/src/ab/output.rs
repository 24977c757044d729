//! What an experiment leaves: a table on the terminal, a JSON file, a page, and a page for the repository.

use super::args::Args;
use super::progress::Progress;
use super::{display_path, quality, worst};
use crate::out::{colours, outln};
use crate::scratch::Scratch;
use crate::trial::launch::Launcher;
use crate::trial::plan::Plan;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use millrace_ab::model::{Experiment, Picture, Quality};
use millrace_ab::{Analysis, Report, html, json, markdown, terminal};
use std::path::Path;

/// Pictures in a report.
const PICTURES: usize = 6;

/// Adds pictures of the frames that differ most.
pub(super) fn add_pictures(
    launcher: &Launcher<'_>,
    plan: &Plan,
    quality: &mut Quality,
    analysis: &Analysis,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let frames = worst(quality, analysis, PICTURES);
    if frames.is_empty() {
        return Ok(());
    }
    progress.part("pictures of the frames that differ most");
    let scratch = Scratch::new()?;
    for (source, seq, path) in quality::pictures(launcher, plan, &frames, &scratch, progress)? {
        let jpeg = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let Some((width_px, height_px)) = size_px(&jpeg) else { continue };
        quality.pictures.push(Picture { source, seq, width_px, height_px, jpeg_base64: STANDARD.encode(jpeg) });
    }
    Ok(())
}

/// Width and height by a baseline JPEG's frame header.
fn size_px(jpeg: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let [0xff, marker, high, low] = *jpeg.get(at..at + 4)?.as_array()? else { return None };
        if (0xc0..=0xc2).contains(&marker) {
            let [h1, h0, w1, w0] = *jpeg.get(at + 5..at + 9)?.as_array()?;
            return Some((u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0]))));
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
}

/// Writes the record of an experiment that was not finished.
pub(super) fn save_json(experiment: &Experiment, out: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(experiment)?;
    save(&out.join("failed.json"), &text)
}

/// Writes the report in all its forms.
pub(super) fn write(args: &Args, report: &Report, out: &Path) -> anyhow::Result<()> {
    save(&out.join("report.json"), &json(report)?)?;
    save(&out.join("report.html"), &html(report))?;
    if let Some(page) = &args.page {
        let plot = page.with_extension("svg");
        let name = plot.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (text, svg) = markdown(report, &name);
        save(page, &text)?;
        save(&plot, &svg)?;
    }
    if args.json {
        outln!("{}", json(report)?);
        return Ok(());
    }
    outln!("{}", terminal(report, colours(&std::io::stdout())).trim_end());
    outln!("\n{}", display_path(&out.join("report.html")));
    Ok(())
}

fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_stands_in_the_frame_header() {
        // SOI, an APP0 of four bytes, SOF0 of 8x16
        let jpeg = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xc0, 0, 11, 8, 0, 8, 0, 16, 1, 1, 0x11, 0];
        assert_eq!(size_px(&jpeg), Some((16, 8)));
        assert_eq!(size_px(&jpeg[..10]), None);
        assert_eq!(size_px(b"no picture"), None);
    }
}
