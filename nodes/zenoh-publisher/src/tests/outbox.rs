use super::*;
use crate::outbox::{Lost, Outbox, Sink};
use millrace_frame::{CameraState, CameraStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// A subscriber that takes a put only when the test lets it.
struct Gate {
    taken: Sender<Put>,
    go: Receiver<()>,
}

impl Sink for Gate {
    fn put(&mut self, put: Put) -> Result<(), String> {
        self.go.recv().map_err(|e| e.to_string())?;
        self.taken.send(put).map_err(|e| e.to_string())
    }

    /// A state is seen as a put without payloads.
    fn state(&mut self, status: &CameraStatus) -> Result<(), String> {
        self.go.recv().map_err(|e| e.to_string())?;
        let put =
            Put { source: format!("{} is {}", status.source, status.state.as_str()).into(), payloads: Vec::new() };
        self.taken.send(put).map_err(|e| e.to_string())
    }
}

fn gated(capacity: usize, reliable: bool) -> (Outbox, Receiver<Put>, Sender<()>) {
    let ((taken, puts), (open, go)) = (channel(), channel());
    let outbox = Outbox::start(capacity, reliable, SOON, move || Ok(Gate { taken, go }), |_, _| {}).unwrap();
    (outbox, puts, open)
}

#[test]
fn the_oldest_frames_go_when_nobody_takes_them() {
    let (outbox, puts, open) = gated(2, false);
    outbox.push(put(0), || false);
    // the thread holds the first one
    while !outbox.is_idle() {
        std::thread::yield_now();
    }
    let lost: Vec<_> = (1..6).map(|n| outbox.push(put(n), || false)).collect();
    assert_eq!(lost, [None, None, Some(1), Some(2), Some(3)].map(|n| n.map(|n: u8| Lost { source: put(n).source })));
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    assert_eq!(outbox.finish(SOON), []);
    assert_eq!(puts.iter().collect::<Vec<_>>(), [put(0), put(4), put(5)]);
}

#[test]
fn reliable_waits_for_room_and_a_stop_ends_the_wait() {
    let (outbox, puts, open) = gated(1, true);
    let pusher = std::thread::spawn(move || {
        let lost = (0..5).filter_map(|n| outbox.push(put(n), || false)).count();
        (outbox, lost)
    });
    for n in 0..5 {
        open.send(()).unwrap();
        assert_eq!(puts.recv_timeout(SOON), Ok(put(n)));
    }
    let (outbox, lost) = pusher.join().unwrap();
    assert_eq!(lost, 0);
    // one that the thread holds, one that waits, and one that finds no room
    outbox.push(put(5), || false);
    while !outbox.is_idle() {
        std::thread::yield_now();
    }
    outbox.push(put(6), || false);
    assert_eq!(outbox.push(put(7), || true), Some(Lost { source: "cam7".into() }));
}

#[test]
fn a_stuck_subscriber_does_not_hold_up_the_end() {
    let (outbox, _puts, _open) = gated(4, false);
    outbox.push(put(0), || false);
    while !outbox.is_idle() {
        std::thread::yield_now();
    }
    outbox.push(put(1), || false);
    let begun = Instant::now();
    assert_eq!(outbox.finish(Duration::from_millis(200)), [Lost { source: "cam1".into() }]);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_sink_that_does_not_open_is_an_error() {
    let slow = || {
        std::thread::sleep(SOON);
        Ok(Never)
    };
    let never = Outbox::start(1, false, Duration::from_millis(100), slow, |_, _| {});
    assert_eq!(never.unwrap_err(), "the session did not open within 0 s");
    let refused = Outbox::start::<Never>(1, false, SOON, || Err("no".into()), |_, _| {});
    assert_eq!(refused.unwrap_err(), "no");
}

struct Never;
impl Sink for Never {
    fn put(&mut self, _: Put) -> Result<(), String> {
        Ok(())
    }
    fn state(&mut self, _: &CameraStatus) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn when_it_is_dropped_the_session_is_closed() {
    let (outbox, puts, _open) = gated(2, false);
    drop(outbox);
    assert_eq!(puts.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
}

#[test]
fn the_newest_state_of_a_camera_goes_before_all_frames() {
    let (outbox, puts, open) = gated(2, false);
    outbox.push(put(0), || false);
    while !outbox.is_idle() {
        std::thread::yield_now();
    }
    outbox.push(put(1), || false);
    for state in [CameraState::Live, CameraState::Stalled] {
        outbox.push_state(&CameraStatus { state, ..CameraStatus::new("door") });
    }
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    assert_eq!(outbox.finish(SOON), []);
    let order: Vec<String> = puts.iter().map(|put| put.source.to_string()).collect();
    assert_eq!(order, ["cam0", "door is stalled", "cam1"]);
}
