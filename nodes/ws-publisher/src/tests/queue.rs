use super::*;
use crate::queue::{ClientQueue, SendStep, Video, VideoConfig};
use axum::body::Bytes;
use millrace_frame::Size;
use proptest::prelude::*;
use std::collections::VecDeque;

fn config(version: u32) -> VideoConfig {
    VideoConfig { version, codec: "avc1.64001f".into(), view: Size::new(2, 2).into() }
}

#[derive(Clone, Debug)]
enum Step {
    Detections(usize),
    Packet { camera: u8, key: bool, len: usize },
    Pop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1usize..200).prop_map(Step::Detections),
        (0u8..3, prop::bool::weighted(0.2), 1usize..400).prop_map(|(camera, key, len)| Step::Packet {
            camera,
            key,
            len
        }),
        (0usize..8).prop_map(Step::Pop),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever is pushed and popped: nothing is reordered, nothing vanishes uncounted, a loss is told before what
    /// follows it, and pictures go on with a key frame.
    #[test]
    fn what_was_pushed_was_popped_or_counted(steps in steps()) {
        let limits = Limits { detections: 5, detections_bytes: 400, video_bytes: 1000, ..Limits::default() };
        let queue = ClientQueue::new(Video::Auto, limits);
        let source: Arc<str> = "cam".into();
        let mut texts: VecDeque<String> = VecDeque::new();
        let mut pictures: [VecDeque<(u64, bool)>; 3] = Default::default();
        let (mut lost_texts, mut lost_pictures, mut reported, mut number) = (0u64, 0u64, 0u64, 0u64);
        let mut begun = [false; 3];
        for step in steps.into_iter().chain([Step::Pop(usize::MAX)]) {
            number += 1;
            match step {
                Step::Detections(len) => {
                    let text = format!("{number}:{}", "x".repeat(len));
                    texts.push_back(text.clone());
                    lost_texts += queue.push_detections(0, &source, text.into());
                }
                Step::Packet { camera, key, len } => {
                    // a camera's first picture is a key frame: the hub has it so
                    if !key && !begun[usize::from(camera)] { continue }
                    begun[usize::from(camera)] = true;
                    let mut bytes = number.to_le_bytes().to_vec();
                    bytes.resize(8 + len, 0);
                    bytes[7] = camera;
                    pictures[usize::from(camera)].push_back((number, key));
                    lost_pictures += queue.push_packet(camera, &source, &config(0), key, &bytes.into());
                }
                Step::Pop(times) => for _ in 0..times {
                    match queue.try_next() {
                        None => break,
                        Some(SendStep::Text(text)) if text.starts_with("{\"type\":\"gap\"") => {
                            let gap: Value = serde_json::from_str(&text).unwrap();
                            reported += gap["detections"].as_u64().unwrap() + gap["packets"].as_u64().unwrap();
                        }
                        Some(SendStep::Text(text)) if text.starts_with('{') => {}
                        Some(SendStep::Text(text)) => {
                            // those before it are the lost ones
                            while let Some(pushed) = texts.pop_front() {
                                if pushed == text.as_str() { break }
                                prop_assert!(lost_texts > 0 && reported > 0, "a loss that was not counted and told first");
                                lost_texts -= 1;
                                reported -= 1;
                            }
                        }
                        Some(SendStep::Binary(bytes)) => {
                            let camera = usize::from(bytes[7]);
                            let mut head: [u8; 8] = bytes[..8].try_into().unwrap();
                            head[7] = 0;
                            let got = u64::from_le_bytes(head);
                            let mut skipped = false;
                            while let Some((pushed, key)) = pictures[camera].pop_front() {
                                if pushed == got {
                                    prop_assert!(key || !skipped, "picture {got} needs one that was lost");
                                    break;
                                }
                                skipped = true;
                                prop_assert!(lost_pictures > 0 && reported > 0, "a loss that was not counted and told first");
                                lost_pictures -= 1;
                                reported -= 1;
                            }
                        }
                        Some(other) => prop_assert!(false, "{:?}", other),
                    }
                },
            }
        }
        // what is left over is the tail that was lost and has nothing behind it
        prop_assert_eq!(texts.len() as u64, lost_texts);
        prop_assert_eq!(pictures.iter().map(|p| p.len() as u64).sum::<u64>(), lost_pictures);
    }
}

#[test]
fn a_change_of_stream_is_told_before_its_first_picture_also_after_a_loss() {
    let queue = ClientQueue::new(Video::Auto, Limits { video_bytes: 100, ..Limits::default() });
    let source: Arc<str> = "cam".into();
    let data = Bytes::from(vec![0; 60]);
    assert_eq!(queue.push_packet(0, &source, &config(0), true, &data), 0);
    // does not fit: the first one and its configuration go, and this one is no key frame
    assert_eq!(queue.push_packet(0, &source, &config(0), false, &data), 2);
    assert_eq!(queue.push_packet(0, &source, &config(0), true, &data), 0);
    let texts: Vec<String> = std::iter::from_fn(|| queue.try_next())
        .map(|n| match n {
            SendStep::Text(text) => text.as_str().split('"').nth(3).unwrap().to_owned(),
            _ => "picture".into(),
        })
        .collect();
    assert_eq!(texts, ["video", "gap", "picture"]);
    queue.push_packet(0, &source, &config(2), true, &data);
    assert!(matches!(queue.try_next(), Some(SendStep::Text(t)) if t.contains("\"video\"")));
}

#[test]
fn pictures_that_have_grown_old_are_passed_over() {
    let queue = ClientQueue::new(Video::Auto, Limits { video_age: Duration::from_millis(30), ..Limits::default() });
    let source: Arc<str> = "cam".into();
    let data = Bytes::from_static(b"x");
    queue.push_packet(0, &source, &config(0), true, &data);
    queue.push_packet(0, &source, &config(0), false, &data);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(queue.push_packet(0, &source, &config(0), true, &data), 2);
    assert_eq!(queue.lost().dropped_packets, 2);
}

#[test]
fn of_jpeg_pictures_only_the_newest_waits() {
    let queue = ClientQueue::new(Video::Jpeg, Limits::default());
    let source: Arc<str> = "cam".into();
    for n in 0..10u8 {
        assert_eq!(queue.push_jpeg(0, &source, &config(1), &Bytes::from(vec![n; 10])), u64::from(n > 0));
    }
    let all: Vec<SendStep> = std::iter::from_fn(|| queue.try_next()).collect();
    assert!(matches!(&all[..], [SendStep::Text(_), SendStep::Text(_), SendStep::Binary(b)] if b[0] == 9), "{all:?}");
}

#[test]
fn an_abort_comes_before_everything_and_an_end_after_everything() {
    let source: Arc<str> = "cam".into();
    let queue = ClientQueue::new(Video::None, Limits::default());
    queue.end(1001, "over");
    queue.push_detections(0, &source, "a".into());
    assert_eq!(queue.try_next(), Some(SendStep::Text("a".into())));
    assert!(matches!(queue.try_next(), Some(SendStep::Text(t)) if t.contains("\"end\"")));
    assert_eq!(queue.try_next(), Some(SendStep::Close(1001, "over".into())));
    queue.push_detections(0, &source, "b".into());
    queue.abort(1002, "broken");
    queue.abort(1003, "later");
    assert_eq!(queue.try_next(), Some(SendStep::Close(1002, "broken".into())));
    assert_eq!(queue.try_next(), Some(SendStep::Hangup));
}
