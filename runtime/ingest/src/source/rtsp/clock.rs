//! From a camera's RTP clock to times that go on: within a connection, across connections, and when the camera's clock is
//! set.

use crate::Order;
use std::collections::VecDeque;

/// The RTP clock may run ahead of ours by this much from one picture to the next: bursts are sent faster than they are
/// shown, and a network that was slow catches up.
const MOST_AHEAD_NS: i64 = 2_000_000_000;
/// It may part from ours by this much in all.
const MOST_APART_NS: i64 = 5_000_000_000;
/// Two clocks that part slowly are brought together again, from here on,
const DRIFT_NS: i64 = 100_000_000;
/// by this part of the time that passes. Quartz drifts by less than a tenth of it.
const DRIFT_PARTS: i64 = 1000;
/// A picture of another place in presentation order is shown later than the picture so many leaders back.
const LEADERS: usize = 4;

/// Gives pictures their presentation times. They follow the RTP clock, and our clock where the RTP clock jumps.
///
/// A *leader* is a picture that is shown later than all before it: its time never goes back. The others, B pictures, are
/// shown before the last leader.
#[derive(Debug)]
pub(super) struct MediaClock {
    /// When the first picture of all arrived: the zero of the times.
    zero_ns: Option<i64>,
    /// The latest time given so far.
    latest_ns: i64,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    /// What is added to the RTP time.
    offset_ns: i64,
    order: Order,
    arrival_ns: i64,
    /// The times of the last leaders.
    leaders: VecDeque<i64>,
    /// The latest time from before the connection, or from before the last jump: every picture since is shown later.
    floor_ns: i64,
    /// By how much the times were ahead of our clock when that was last put up with, and by how much they are on average.
    base_ns: i64,
    average_ns: i64,
}

/// A picture's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) pts_ns: i64,
    /// The RTP clock jumped here.
    pub(super) jumped: bool,
}

impl MediaClock {
    pub(super) fn new() -> Self {
        Self { zero_ns: None, latest_ns: i64::MIN, connection: None }
    }

    /// The next picture is the first of another connection.
    pub(super) fn reconnected(&mut self) {
        self.connection = None;
    }

    /// The time of a picture in decoding order, from its RTP time, its place in presentation order and its arrival.
    pub(super) fn place(&mut self, rtp_ns: i64, order: Order, arrival_ns: i64) -> Placed {
        let since_ns = arrival_ns.saturating_sub(*self.zero_ns.get_or_insert(arrival_ns));
        let Some(connection) = &mut self.connection else {
            let floor_ns = self.latest_ns;
            let pts_ns = since_ns.max(floor_ns.saturating_add(1));
            self.latest_ns = pts_ns;
            self.connection = Some(Connection {
                offset_ns: pts_ns.saturating_sub(rtp_ns),
                order,
                arrival_ns,
                leaders: VecDeque::from([pts_ns]),
                floor_ns,
                base_ns: pts_ns - since_ns,
                average_ns: 0,
            });
            return Placed { pts_ns, jumped: false };
        };
        let placed = if order < connection.order {
            connection.behind(rtp_ns, order, self.latest_ns)
        } else {
            connection.leader(rtp_ns, order, arrival_ns, since_ns, self.latest_ns)
        };
        self.latest_ns = self.latest_ns.max(placed.pts_ns);
        placed
    }
}

impl Connection {
    fn leader(&mut self, rtp_ns: i64, order: Order, arrival_ns: i64, since_ns: i64, latest_ns: i64) -> Placed {
        let mut pts_ns = rtp_ns.saturating_add(self.offset_ns);
        let passed_ns = arrival_ns.saturating_sub(self.arrival_ns).max(1);
        let step_ns = pts_ns.saturating_sub(latest_ns);
        let skew_ns = pts_ns.saturating_sub(since_ns);
        let apart_ns = skew_ns.saturating_sub(self.base_ns);
        let jumped = step_ns < 0
            || step_ns.saturating_sub(passed_ns) > MOST_AHEAD_NS
            || apart_ns.saturating_abs() > MOST_APART_NS;
        if jumped {
            self.floor_ns = latest_ns;
            pts_ns = latest_ns.saturating_add(passed_ns);
            if apart_ns < -MOST_APART_NS && step_ns >= 0 {
                pts_ns = pts_ns.max(since_ns);
            }
            self.base_ns = pts_ns.saturating_sub(since_ns);
            self.average_ns = 0;
        } else {
            // the same RTP time again
            pts_ns = pts_ns.max(latest_ns.saturating_add(1));
            self.average_ns += (apart_ns - self.average_ns) / 64;
            if self.average_ns.abs() > DRIFT_NS {
                pts_ns -= step_ns / DRIFT_PARTS * self.average_ns.signum();
            }
        }
        self.offset_ns = pts_ns.saturating_sub(rtp_ns);
        (self.order, self.arrival_ns) = (order, arrival_ns);
        if self.leaders.len() == LEADERS {
            self.leaders.pop_front();
        }
        self.leaders.push_back(pts_ns);
        Placed { pts_ns, jumped }
    }

    fn behind(&self, rtp_ns: i64, order: Order, latest_ns: i64) -> Placed {
        let pts_ns = rtp_ns.saturating_add(self.offset_ns);
        let leader_ns = self.leaders.front().copied().filter(|_| self.leaders.len() == LEADERS);
        let earliest_ns = leader_ns.map_or(self.floor_ns, |leader_ns| leader_ns.max(self.floor_ns));
        if pts_ns < latest_ns && pts_ns > earliest_ns {
            return Placed { pts_ns, jumped: false };
        }
        let before = i64::from(self.order.poc).saturating_sub(i64::from(order.poc)).max(1);
        Placed { pts_ns: latest_ns.saturating_sub(before), jumped: true }
    }
}

/// The camera's wall clock, by its sender reports (RFC 3550, 6.4.1).
#[derive(Debug, Default)]
pub(super) struct SenderClock {
    /// RTP time in nanoseconds, and what the camera's clock was then.
    report: Option<(i64, i64)>,
}

/// Seconds from 1900, where NTP's first era begins, to 1970.
const UNIX_EPOCH_NTP_S: i64 = 2_208_988_800;

impl SenderClock {
    /// Takes in a sender report: its RTP time in nanoseconds, and its NTP timestamp (32.32 bits, seconds since 1900).
    pub(super) fn report(&mut self, rtp_ns: i64, ntp: u64) {
        // 0: the camera has no clock
        if ntp == 0 {
            self.report = None;
            return;
        }
        let seconds = (ntp >> 32) as i64;
        // the first bit is set until 2036, where the second era begins
        let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
        let fraction_ns = ((ntp & 0xFFFF_FFFF) * 1_000_000_000) >> 32;
        self.report = Some((rtp_ns, (seconds + era - UNIX_EPOCH_NTP_S) * 1_000_000_000 + fraction_ns as i64));
    }

    /// The RTP clock jumped, or begins again: the last report says nothing about what follows.
    pub(super) fn forget(&mut self) {
        self.report = None;
    }

    /// The camera's wall clock at an RTP time, in nanoseconds of the Unix clock.
    pub(super) fn unix_ns_at(&self, rtp_ns: i64) -> Option<i64> {
        self.report.map(|(then_ns, wall_ns)| wall_ns.saturating_add(rtp_ns.saturating_sub(then_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: i64 = 1_000_000;
    const S: i64 = 1000 * MS;
    const START: i64 = 77 * S;

    fn order(poc: i64) -> Order {
        Order { sequence: 1, poc: poc as i32 }
    }

    /// Pictures in order at 25 a second; `rtp` is the camera's clock at each.
    fn run(clock: &mut MediaClock, rtp: impl IntoIterator<Item = i64>) -> (Vec<i64>, usize) {
        let placed: Vec<Placed> = rtp
            .into_iter()
            .enumerate()
            .map(|(n, rtp)| clock.place(rtp, order(n as i64), START + n as i64 * 40 * MS))
            .collect();
        (placed.iter().map(|p| p.pts_ns).collect(), placed.iter().filter(|p| p.jumped).count())
    }

    #[test]
    fn times_follow_the_rtp_clock_from_zero() {
        let (pts, jumps) = run(&mut MediaClock::new(), (0..50).map(|n| 5 * S + n * 40 * MS));
        assert_eq!(pts, (0..50).map(|n| n * 40 * MS).collect::<Vec<_>>());
        assert_eq!(jumps, 0);
    }

    #[test]
    fn a_clock_that_is_set_moves_nothing() {
        for jump in [3600 * S, -5 * S + 40 * MS, -100 * MS, 4 * S, -3600 * S] {
            let rtp = (0..50).map(|n| 10 * S + n * 40 * MS + if n < 25 { 0 } else { jump });
            let (pts, jumps) = run(&mut MediaClock::new(), rtp);
            assert_eq!(pts, (0..50).map(|n| n * 40 * MS).collect::<Vec<_>>(), "{jump}");
            assert_eq!(jumps, 1, "{jump}");
        }
    }

    #[test]
    fn a_late_network_and_a_burst_are_no_jump() {
        let mut clock = MediaClock::new();
        // 2.5 s late, then all at once; and a server that begins with what it has stored
        for late in [2500 * MS, 0] {
            let start = START + if late > 0 { 0 } else { 20 * S };
            for n in 0..100 {
                let arrival = if late > 0 && n >= 30 { n * 40 * MS + late - (n - 30) * 39 * MS } else { n * MS };
                let placed = clock.place(n * 40 * MS, order(n), start + arrival.max(0));
                assert!(!placed.jumped, "{late} {n}");
            }
            clock.reconnected();
        }
    }

    #[test]
    fn b_pictures_keep_their_places_when_the_clock_jumps() {
        // I0 P3 b1 b2 P6 b4 b5 ..., the clock is set behind P6's group
        for jump in [3600 * S, -5 * S] {
            let mut clock = MediaClock::new();
            let mut shown = Vec::new();
            let mut n = 0;
            for group in 0..20 {
                for poc in if group == 0 { vec![0] } else { vec![3 * group, 3 * group - 2, 3 * group - 1] } {
                    let rtp = 100 * S + poc * 40 * MS + if group < 3 { 0 } else { jump };
                    let placed = clock.place(rtp, order(2 * poc), START + n * 40 * MS);
                    shown.push((poc, placed.pts_ns));
                    n += 1;
                }
            }
            shown.sort();
            assert!(shown.windows(2).all(|w| w[0].1 < w[1].1), "{jump}: {shown:?}");
        }
    }

    #[test]
    fn b_pictures_with_times_from_before_a_jump_are_shown_after_it() {
        // I0 P3 b1 b2, the clock is set between P3 and b1, which has the old time or, by chance, one of a second earlier
        for jump in [3600 * S, -3600 * S, S, -S] {
            for groups_before in [0, 5] {
                let mut clock = MediaClock::new();
                let mut shown = Vec::new();
                let mut n = 0;
                for group in 0..=groups_before + 1 {
                    for poc in if group == 0 { vec![0] } else { vec![3 * group, 3 * group - 2, 3 * group - 1] } {
                        let set = group == groups_before + 1 && poc == 3 * group;
                        let rtp = 10_000 * S + poc * 40 * MS + if set { jump } else { 0 };
                        shown.push((poc, clock.place(rtp, order(2 * poc), START + n * 40 * MS).pts_ns));
                        n += 1;
                    }
                }
                shown.sort();
                assert!(shown.windows(2).all(|w| w[0].1 < w[1].1), "{jump} {groups_before}: {shown:?}");
            }
        }
    }

    #[test]
    fn times_go_on_after_a_reconnection_and_never_back() {
        let mut clock = MediaClock::new();
        let first = clock.place(9 * S, order(5), START);
        // sent in a burst: a second of pictures within 25 ms
        let last = (1..=25).map(|n| clock.place(9 * S + n * 40 * MS, order(5 + n), START + n * MS)).last();
        assert_eq!(first.pts_ns, 0);
        // less than a thousandth of it was taken off, since it is ahead of our clock
        let last_ns = last.map_or(0, |p| p.pts_ns);
        assert!((S - MS..=S).contains(&last_ns), "{last_ns}");
        clock.reconnected();
        let after = clock.place(0, order(0), START + 500 * MS);
        assert_eq!(after, Placed { pts_ns: last_ns + 1, jumped: false });
        clock.reconnected();
        assert_eq!(clock.place(0, order(0), START + 7 * S).pts_ns, 7 * S);
    }

    #[test]
    fn a_clock_that_drifts_is_followed_without_a_jump() {
        for parts in [-5000, 5000] {
            // 200 millionths too fast or too slow, for four hours
            let mut clock = MediaClock::new();
            let mut last = 0;
            for n in 0..4 * 3600 * 25 {
                let now = n * 40 * MS;
                let placed = clock.place(now + now / parts, order(n), START + now);
                assert!(!placed.jumped, "{n}");
                assert!(n == 0 || placed.pts_ns > last);
                assert!((placed.pts_ns - now).abs() < 200 * MS, "{n}: {}", placed.pts_ns - now);
                last = placed.pts_ns;
            }
        }
    }

    #[test]
    fn a_clock_of_another_rate_is_put_up_with() {
        // the camera counts twice as fast as its description says, or half as fast
        for (num, den) in [(2, 1), (1, 2)] {
            let mut clock = MediaClock::new();
            let placed: Vec<Placed> =
                (0..2500).map(|n| clock.place(n * 40 * MS * num / den, order(n), START + n * 40 * MS)).collect();
            assert!(placed.windows(2).all(|w| w[0].pts_ns < w[1].pts_ns));
            assert!(placed.iter().filter(|p| p.jumped).count() < 30);
        }
    }

    #[test]
    fn the_cameras_wall_clock_follows_its_last_report() {
        let mut sender = SenderClock::default();
        assert_eq!(sender.unix_ns_at(0), None);
        // 2026-11-29 00:00:00.5 UTC is 1795910400.5: NTP 4004899200
        sender.report(2 * S, 4_004_899_200 << 32 | 1 << 31);
        assert_eq!(sender.unix_ns_at(2 * S), Some(1_795_910_400_500 * MS));
        assert_eq!(sender.unix_ns_at(2 * S - 40 * MS), Some(1_795_910_400_460 * MS));
        // 2036-02-07 06:28:17 UTC is a second into NTP's second era
        sender.report(0, 1 << 32);
        assert_eq!(sender.unix_ns_at(0), Some(2_085_978_497 * S));
        sender.report(0, 0);
        assert_eq!(sender.unix_ns_at(0), None);
    }

    proptest! {
        /// Whatever the camera's clock does: leaders never go back, and no time is further ahead of ours than the bounds.
        #[test]
        fn leaders_never_go_back(steps in prop::collection::vec((any::<i32>(), 0i64..3_000), 1..100)) {
            let mut clock = MediaClock::new();
            let (mut rtp, mut arrival, mut last) = (0i64, START, i64::MIN);
            for (n, (step, passed)) in steps.into_iter().enumerate() {
                (rtp, arrival) = (rtp + i64::from(step) * 11_111, arrival + passed * MS);
                let placed = clock.place(rtp, order(n as i64), arrival);
                prop_assert!(placed.pts_ns > last);
                prop_assert!(placed.pts_ns - (arrival - START) < 100 * (MOST_AHEAD_NS + MOST_APART_NS));
                last = placed.pts_ns;
            }
        }
    }
}
