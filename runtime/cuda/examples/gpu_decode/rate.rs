//! How many frames a second so many sessions decode, and what that costs the CPU.

use crate::player::{Player, lock};
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Starts when all sessions are under way: making them is not measured.
#[derive(Default)]
struct Start {
    ready: AtomicUsize,
    broken: AtomicBool,
    at: Mutex<Option<(Instant, f64)>>,
}

impl Start {
    fn wait(&self, sessions: usize) {
        if self.ready.fetch_add(1, Ordering::SeqCst) + 1 == sessions {
            *lock(&self.at) = Some((Instant::now(), cpu_s()));
        }
        while lock(&self.at).is_none() && !self.broken.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Seconds that all threads of the process have computed.
fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

pub(crate) fn measure(player: &Player, clip: &str, sessions: usize, seconds: Option<f64>) -> Result<bool, String> {
    let start = Start::default();
    let (start, frames) = (Arc::new(start), Arc::new(AtomicU64::new(0)));
    let until = seconds.map(|s| Instant::now() + Duration::from_secs_f64(s));
    let results: Vec<Result<_, String>> = std::thread::scope(|scope| {
        let one = |_| {
            let (start, frames) = (start.clone(), frames.clone());
            scope.spawn(move || {
                let at_start = start.clone();
                let mut under_way = false;
                let played = player.play(
                    clip,
                    until,
                    // a surface that is only mapped and given back, as the other arm's are
                    Box::new(move |_, mapped, _| {
                        drop(mapped);
                        if !std::mem::replace(&mut under_way, true) {
                            at_start.wait(sessions);
                        } else {
                            frames.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    }),
                );
                if played.is_err() {
                    start.broken.store(true, Ordering::SeqCst);
                }
                played
            })
        };
        let threads: Vec<_> = (0..sessions).map(one).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a session panicked".to_owned()))).collect()
    });
    let ended = (Instant::now(), cpu_s());
    for result in results {
        let played = result?;
        if !played.lost.is_empty() {
            return Err(format!("frames were lost: {:?}", played.lost));
        }
    }
    let Some((began, cpu_began)) = *lock(&start.at) else {
        return Err("a session gave no frame".to_owned());
    };
    let frames = frames.load(Ordering::Relaxed);
    let seconds = (ended.0 - began).as_secs_f64();
    let cpu = ended.1 - cpu_began;
    println!(
        "{}",
        serde_json::json!({
            "sessions": sessions,
            "frames": frames,
            "seconds": seconds,
            "fps": frames as f64 / seconds,
            "cpu_seconds": cpu,
            "cpu_us_per_frame": cpu * 1e6 / frames.max(1) as f64,
            "mapped_on": player.mapping(),
        })
    );
    Ok(frames > 0)
}
