//! The golden graph: every frame through decoder, pool and sink, bit for bit FFmpeg's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, shared_data, succeed};
use std::path::Path;
use std::time::Duration;

#[test]
fn real_clips_and_streams_have_ffmpegs_checksums() {
    let Some(data) = shared_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    for source in
        ["clips/car-detection.mp4", "h264/Cisco_Men_whisper_640x320_CABAC_Bframe_9.264", "h264/Zhling_1280x720.264"]
    {
        let source = data.join(source);
        let name = source.file_name().unwrap().to_string_lossy().into_owned();
        let out = folder.path().join(&name);
        let sets = [format!("decode.SOURCE={}", source.display()), format!("checksum.PATH={}", out.display())];
        let args = ["run", "graphs/checksum.yml", "--no-build", "--set", &sets[0], "--set", &sets[1]];
        succeed(&mut millrace(&args), Duration::from_secs(120));
        let ffmpeg = data.join("refs/framemd5").join(format!("{name}.framemd5"));
        let (ours, theirs) = (checksums(&out), checksums(&ffmpeg));
        assert_eq!(ours.len(), theirs.len(), "{name}: number of frames");
        for (n, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "{name}: frame {n}");
        }
    }
}

#[test]
fn a_setting_that_changes_nothing_is_said_however_short_the_run_is() {
    let folder = tempfile::tempdir().unwrap();
    let out = format!("checksum.PATH={}", folder.path().join("out").display());
    let args = ["run", "graphs/checksum.yml", "--no-build", "--set", "decode.FRAMES=2", "--set", "decode.FRAME_RATE=5"];
    let output = finish(&mut millrace(&[&args[..], &["--set", &out]].concat()), Duration::from_secs(60));
    let said = printed(&output);
    assert!(output.status.success() && said.matches("FRAME_RATE is 5 and changes nothing").count() == 1, "{said}");
}

fn checksums(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}
