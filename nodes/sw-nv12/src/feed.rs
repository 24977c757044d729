//! A source and the software decoder as one row of steps: what to publish next, when, and what was lost.

use crate::config::Settings;
use millrace_ingest::{
    AccessUnit, Decoded, FeedError, FeedStep, IngestError, Loss, Next, Picture, ReorderPolicy, SoftwareDecoder,
};
use std::sync::Arc;
use std::time::Duration;

/// What comes next.
pub(crate) enum Step {
    /// An access unit, before it is decoded.
    Packet(Arc<AccessUnit>),
    /// A picture, in presentation order.
    Picture(Box<Picture>),
    /// Something was lost.
    Loss(Loss),
    /// Nothing before this time has passed.
    Wait(Duration),
    /// The file is over, and everything has come out.
    End,
}

pub(crate) struct Feed {
    feed: millrace_ingest::Feed,
    decoder: SoftwareDecoder,
    /// Decoded and waiting for its time: a decoder gives out its pictures in bursts, a camera does not.
    shown_next: Option<Box<Picture>>,
    /// Given out as a packet, not yet decoded.
    next: Option<Arc<AccessUnit>>,
    ended: bool,
}

impl Feed {
    pub(crate) fn open(settings: &Settings, policy: ReorderPolicy) -> Result<Self, IngestError> {
        Ok(Self {
            feed: millrace_ingest::Feed::open(&settings.source, &settings.feed)?,
            decoder: SoftwareDecoder::new(policy),
            shown_next: None,
            next: None,
            ended: false,
        })
    }

    /// The next step.
    pub(crate) fn step(&mut self) -> Result<Step, FeedError> {
        loop {
            if let Some(picture) = self.shown_next.take() {
                let wait = self.feed.until_shown(picture.timing.pts_ns);
                if wait > Duration::ZERO {
                    self.shown_next = Some(picture);
                    return Ok(Step::Wait(wait));
                }
                return Ok(Step::Picture(picture));
            }
            match self.decoder.take() {
                Some(Decoded::Picture(picture)) => {
                    self.feed.shown(1);
                    self.shown_next = Some(picture);
                    continue;
                }
                Some(Decoded::Loss(loss)) => {
                    self.feed.lost(&loss);
                    return Ok(Step::Loss(loss));
                }
                None => {}
            }
            if let Some(unit) = self.next.take() {
                self.decoder.push(&unit)?;
                continue;
            }
            if std::mem::take(&mut self.ended) {
                match self.feed.end()? {
                    Next::Again => return Ok(Step::Wait(Duration::ZERO)),
                    Next::Over => {
                        self.ended = true;
                        return Ok(Step::End);
                    }
                }
            }
            match self.feed.step()? {
                FeedStep::Unit(unit) => {
                    self.next = Some(unit.clone());
                    return Ok(Step::Packet(unit));
                }
                FeedStep::Loss(loss) => return Ok(Step::Loss(loss)),
                FeedStep::Flush => self.decoder.flush(),
                FeedStep::Wait(wait) => return Ok(Step::Wait(wait)),
                FeedStep::End => {
                    self.decoder.flush();
                    self.ended = true;
                }
            }
        }
    }
}
