//! A file of test data as a camera sends it.
#![allow(clippy::unwrap_used, dead_code)]

use super::common::{own_data, reference};
use super::odd_server::{Answer, Marking, Packetizer, Sent, Show, Then, sdp};
use base64::Engine;
use millrace_ingest::{AccessUnit, Event, Ingest, IngestOptions, annexb_nals};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const TICKS: u32 = 3600; // 40 ms

/// A stream's pictures in decoding order, each with its place in presentation order.
pub(crate) struct Clip {
    pub(crate) h265: bool,
    pub(crate) units: Vec<(AccessUnit, u32)>,
    /// FFmpeg's checksums in presentation order.
    pub(crate) md5s: Vec<String>,
}

impl Clip {
    pub(crate) fn read(name: &str) -> Self {
        let path = own_data(name);
        let mut ingest = Ingest::open(path.to_str().unwrap(), &IngestOptions::default()).unwrap();
        let mut units = Vec::new();
        loop {
            match ingest.next_event().unwrap() {
                Event::Unit(unit) => units.push(*unit),
                Event::End => break,
                other => panic!("{other:?}"),
            }
        }
        let mut order: Vec<i64> = units.iter().map(|u| u.timing.pts_ns).collect();
        order.sort_unstable();
        let place = |u: &AccessUnit| order.iter().position(|pts| *pts == u.timing.pts_ns).unwrap() as u32;
        let units = units.iter().map(|u| (u.clone(), place(u))).collect();
        let md5s = reference(&own_data(&format!("{name}.framemd5"))).1.into_iter().map(|f| f.md5).collect();
        Self { h265: name.ends_with(".265"), units, md5s }
    }

    /// The NAL units of a picture without parameter sets.
    pub(crate) fn nals<'a>(&self, unit: &'a AccessUnit) -> Vec<&'a [u8]> {
        annexb_nals(&unit.data).filter(|nal| !self.is_set(nal)).collect()
    }

    pub(crate) fn is_set(&self, nal: &[u8]) -> bool {
        if self.h265 { matches!(nal[0] >> 1 & 63, 32..=34) } else { matches!(nal[0] & 31, 7 | 8) }
    }

    pub(crate) fn sets(&self) -> Vec<&[u8]> {
        annexb_nals(&self.units[0].0.data).filter(|nal| self.is_set(nal)).collect()
    }

    /// The session description, with or without the parameter sets.
    pub(crate) fn sdp(&self, with_sets: bool) -> String {
        let encode = |nal: &[u8]| base64::engine::general_purpose::STANDARD.encode(nal);
        let sets: Vec<String> = self.sets().into_iter().map(encode).collect();
        let format = match (with_sets, self.h265) {
            (false, false) => "packetization-mode=1".into(),
            (false, true) => "tx-mode=SRST".into(),
            (true, false) => format!("packetization-mode=1;sprop-parameter-sets={}", sets.join(",")),
            (true, true) => format!("sprop-vps={};sprop-sps={};sprop-pps={}", sets[0], sets[1], sets[2]),
        };
        sdp(if self.h265 { "H265" } else { "H264" }, &format)
    }

    /// Pictures from one on, with an RTP clock that begins somewhere, as whole access units, at 25 a second times `speed`.
    pub(crate) fn sent(&self, from: usize, sets: bool, marking: Marking, speed: u32) -> Vec<Sent> {
        let mut packetizer = Packetizer { marking, ..Packetizer::new(self.h265) };
        let mut sent = Vec::new();
        for (unit, place) in &self.units[from..] {
            let nals = if sets { annexb_nals(&unit.data).collect() } else { self.nals(unit) };
            let ticks = 4_294_960_000u32.wrapping_add(place * TICKS);
            for (n, bytes) in packetizer.picture(&nals, ticks).into_iter().enumerate() {
                let after = if n == 0 { Duration::from_millis(40) / speed } else { Duration::ZERO };
                sent.push(Sent { after, channel: 0, bytes });
            }
        }
        sent
    }

    pub(crate) fn show(&self, sent: Vec<Sent>, then: Then) -> Answer {
        Answer::Play(Arc::new(Show { sdp: self.sdp(true), sent, then }))
    }
}
