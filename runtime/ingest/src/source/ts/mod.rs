//! MPEG transport streams (ISO/IEC 13818-1): the first video stream of the first program that has one.
//!
//! Its times count from the first picture: where a transport stream's clock begins means nothing.

mod clock;
mod packets;
mod pes;
mod tables;

use super::ahead::Ahead;
use super::split::{Placed, Splitter};
use super::{Source, SourceEvent};
use crate::syntax::contained;
use crate::{Counted, IngestError, Loss, LossOf};
use clock::{Clock, TIMEBASE};
use millrace_frame::PacketCodec;
use packets::Packets;
use pes::{Pes, Stamps, Step};
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use tables::{Programs, Stream, Tables, kind_name};

pub(crate) use packets::Layout;

/// Tables come several times a second; a stream that has none in so many bytes has none.
const TABLES_WITHIN_BYTES: u64 = 32 << 20;

/// The times of a PES packet, which are those of the first picture that begins in it.
struct Mark {
    /// Where in the elementary stream it begins.
    at: u64,
    stamps: Option<Stamps>,
}

pub(crate) struct Ts<R = File> {
    packets: Packets<R>,
    tables: Tables,
    program: u16,
    stream: Stream,
    pes: Pes,
    splitter: Splitter,
    marks: VecDeque<Mark>,
    clock: Clock,
    /// The stream has said that its clock changes with the next picture.
    may_change: bool,
    after_loss: bool,
    scrambled: u64,
    events: VecDeque<SourceEvent>,
    ahead: Ahead,
    earliest_next_pts_ns: Option<i64>,
    ended: bool,
}

impl<R: Read + Seek> Ts<R> {
    pub(crate) fn open(mut reader: R, path: &Path, layout: Layout) -> Result<Self, IngestError> {
        let mut tables = Tables::default();
        let mut packets = Packets::new(&mut reader, path, layout);
        while packets.read_bytes() < TABLES_WITHIN_BYTES && !tables.programs.are_complete() {
            let Some(packet) = packets.next()? else { break };
            // a parser from elsewhere, on bytes that may be damaged
            let _ = contained(|| Ok::<_, String>(tables.packet(&packet)));
        }
        let (program, stream) = choose(&tables.programs, path)?;
        reader.rewind().map_err(|cause| IngestError::Read { path: path.into(), offset_bytes: 0, cause })?;
        Ok(Self {
            packets: Packets::new(reader, path, layout),
            tables,
            program,
            stream,
            pes: Pes::new(),
            splitter: Splitter::new(codec(stream)),
            marks: VecDeque::new(),
            clock: Clock::default(),
            may_change: false,
            after_loss: false,
            scrambled: 0,
            events: VecDeque::new(),
            ahead: Ahead::new(TIMEBASE, None, 0),
            earliest_next_pts_ns: None,
            ended: false,
        })
    }

    fn read_packet(&mut self) -> Result<(), IngestError> {
        let packet = self.packets.next()?;
        let mut step = None;
        let mut of_tables = false;
        if let Some(packet) = &packet {
            if u16::from(packet.pid()) == self.stream.pid {
                let pes = &mut self.pes;
                step = contained(|| Ok::<_, String>(pes.packet(packet))).ok();
            } else {
                let tables = &mut self.tables;
                of_tables = contained(|| Ok::<_, String>(tables.packet(packet))).unwrap_or_default();
            }
        }
        let ended = packet.is_none();
        let skipped = self.packets.take_skipped();
        if skipped > 0 {
            let detail = format!("{skipped} bytes that belong to no packet");
            self.lose(Loss::of(LossOf::Parts, if ended { "truncated" } else { "ts_sync_lost" }, 1, detail));
        }
        if let Some(step) = step {
            self.step(step);
        }
        if of_tables {
            self.follow_tables();
        }
        if ended {
            self.report_scrambled();
            self.splitter.finish();
            self.ended = true;
        }
        self.take_units();
        Ok(())
    }

    fn step(&mut self, step: Step) {
        if step.scrambled {
            self.scrambled += 1;
            self.cut();
            return;
        }
        // recordings that were joined do not continue each other's counters, and nothing is missing
        let is_cut = step.lost > 0;
        let is_joined = step.begins.flatten().is_some_and(|stamps| self.clock.is_elsewhere(stamps, is_cut));
        if is_joined {
            self.splitter.finish();
            self.take_units();
            // the second may begin with pictures that refer to what is not in it
            self.after_loss |= is_cut;
        } else if step.lost > 0 {
            let detail = "packets that are missing by the continuity counter, or marked as damaged";
            self.lose(Loss::of(LossOf::Packets, "ts_loss", u64::from(step.lost), detail));
        }
        self.may_change |= step.clock_changes;
        if let Some(stamps) = step.begins {
            self.report_scrambled();
            self.marks.push_back(Mark { at: self.splitter.end(), stamps });
        }
        self.splitter.push(&step.bytes);
    }

    fn report_scrambled(&mut self) {
        let scrambled = std::mem::take(&mut self.scrambled);
        if scrambled > 0 {
            let detail = "packets that are scrambled; record the stream without scrambling";
            self.events.push_back(SourceEvent::Loss(Loss::of(LossOf::Packets, "scrambled", scrambled, detail)));
        }
    }

    /// Something is missing here.
    fn lose(&mut self, loss: Loss) {
        self.events.push_back(SourceEvent::Loss(loss));
        self.cut();
    }

    fn cut(&mut self) {
        self.take_units();
        if self.splitter.cut() {
            let detail = "a picture of which a part is missing";
            self.events.push_back(SourceEvent::Loss(Loss::new("damaged_sample", 1, detail)));
        }
        self.after_loss = true;
    }

    /// A program may change its streams.
    fn follow_tables(&mut self) {
        let Some((_, streams)) = self.tables.programs.known().find(|(number, _)| *number == self.program) else {
            return;
        };
        if streams.contains(&self.stream) {
            return;
        }
        let Some(&stream) = streams.iter().find(|stream| is_video(stream)) else { return };
        self.splitter.finish();
        self.take_units();
        (self.stream, self.pes, self.splitter) = (stream, Pes::new(), Splitter::new(codec(stream)));
        self.marks.clear();
        (self.may_change, self.after_loss) = (true, true);
    }

    /// Hands on what the splitter has, with its times.
    fn take_units(&mut self) {
        while let Some(Placed { unit, at }) = self.splitter.next() {
            while self.marks.get(1).is_some_and(|mark| mark.at <= at) {
                self.marks.pop_front();
            }
            let own = self.marks.front_mut().filter(|mark| mark.at <= at).and_then(|mark| mark.stamps.take());
            let facts = &unit.facts;
            let pts = match own {
                Some(stamps) => {
                    let may_change = std::mem::take(&mut self.may_change);
                    let begins = facts.first_shown || self.after_loss && facts.key;
                    let (pts, changed) = self.clock.place(stamps, facts.order, may_change, begins);
                    if changed {
                        let detail = "the stream's times begin anew; they go on where they were".to_owned();
                        let counted = Counted { name: "ts_clock_changes", count: 1, detail };
                        self.events.push_back(SourceEvent::Counted(counted));
                    }
                    pts
                }
                None => self.clock.guess(facts.order, facts.info.codec, facts.info.frame_rate),
            };
            self.ahead.push(unit, pts, std::mem::take(&mut self.after_loss));
        }
        self.events.extend(std::iter::from_fn(|| self.splitter.take_loss()).map(SourceEvent::Loss));
    }
}

impl<R: Read + Seek + Send> Source for Ts<R> {
    fn earliest_next_pts_ns(&self) -> Option<i64> {
        self.earliest_next_pts_ns
    }

    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some((event, earliest_next_pts_ns)) = self.ahead.next(self.ended) {
                self.earliest_next_pts_ns = earliest_next_pts_ns;
                return Ok(event);
            }
            if self.ended {
                return Ok(SourceEvent::End);
            }
            self.read_packet()?;
        }
    }
}

fn is_video(stream: &Stream) -> bool {
    matches!(stream.kind, 0x1b | 0x24)
}

fn codec(stream: Stream) -> PacketCodec {
    if stream.kind == 0x24 { PacketCodec::H265 } else { PacketCodec::H264 }
}

/// The first video stream of the first program that has one that is known here.
fn choose(programs: &Programs, path: &Path) -> Result<(u16, Stream), IngestError> {
    let refused = |reason: String, fix| {
        Err(IngestError::Refused { container: "MPEG transport stream", path: path.into(), reason, fix })
    };
    let videos: Vec<(u16, Stream)> = programs
        .known()
        .flat_map(|(number, streams)| streams.iter().filter(|s| is_video(s)).map(move |s| (number, *s)))
        .collect();
    if let Some(&(program, stream)) = videos.first() {
        if videos.len() > 1 {
            let others: Vec<String> = videos[1..].iter().map(|(p, s)| format!("program {p}, PID {}", s.pid)).collect();
            let (path, others) = (path.display(), others.join("; "));
            tracing::warn!(%path, program, pid = stream.pid, others, "of several video streams the first is read");
        }
        return Ok((program, stream));
    }
    let kinds: BTreeSet<u8> = programs.known().flat_map(|(_, streams)| streams.iter().map(|s| s.kind)).collect();
    if kinds.is_empty() {
        let fix = "the recording has to hold its tables (PAT and PMT); remux it to MP4 with another tool";
        return refused("it does not say which streams it carries".into(), fix);
    }
    let names: Vec<String> = kinds.into_iter().map(kind_name).collect();
    let fix = "H.264 or H.265 is expected; transcode the video, or name another file";
    refused(format!("it carries {}", names.join(", ")), fix)
}
