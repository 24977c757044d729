//! The connection of a node's input to a producer's output: the directories of the producer, which list its pools.

use crate::directory::{DirectoryReader, Entry, Listed, Listing};
use millrace_frame::{CameraStatus, SlotRef};
use millrace_pool::{Bell, PoolError};
use std::collections::{BTreeMap, VecDeque};

/// One entry of `inputs:` in a graph. Several entries can lead to one port: `frame`, `frame.door`, `frame.yard`.
pub(super) struct InputConnection {
    /// The input's id in the graph.
    pub(super) input: String,
    /// `node/output`, as the graph has it.
    pub(super) from: String,
    /// The producer computes on what others read.
    pub(super) computes: bool,
    /// dora has said that no more will come.
    pub(super) closed: bool,
    /// The producer's directories, the oldest first. A producer that was started again has a new one.
    directories: Vec<DirectoryReader>,
    /// What the newest listing says of cameras.
    pub(super) cameras: BTreeMap<String, CameraStatus>,
    /// The directory of that listing.
    listed_by: Option<u128>,
    /// Pools and directories that were read to their end or could not be opened, the newest last.
    done_with: VecDeque<u128>,
    /// Pools and directories whose place a predecessor of this process has not left yet.
    pub(super) occupied: Vec<Occupied>,
}

/// A pool to try again.
pub(super) enum Occupied {
    Directory(SlotRef),
    Pool { entry: Entry, directory: u128 },
}

/// What a look at the directories brought.
#[derive(Default)]
pub(super) struct News {
    /// Listings that were not read before, with their directory's id.
    pub(super) listings: Vec<(u128, Listing)>,
    /// Directories whose producer is dead.
    pub(super) orphaned: Vec<u128>,
    /// The last directory was closed, or its producer is dead.
    pub(super) over: bool,
}

impl InputConnection {
    pub(super) fn new(input: String, from: String) -> Self {
        Self {
            input,
            from,
            computes: false,
            closed: false,
            directories: Vec::new(),
            cameras: BTreeMap::new(),
            listed_by: None,
            done_with: VecDeque::new(),
            occupied: Vec::new(),
        }
    }

    /// The producer's id.
    pub(super) fn node(&self) -> &str {
        self.from.split_once('/').map_or(&self.from, |(node, _)| node)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.directories.is_empty()
    }

    pub(super) fn is_done_with(&self, pool: u128) -> bool {
        self.done_with.contains(&pool)
    }

    /// The directory is open, or was.
    pub(super) fn knows(&self, directory: u128) -> bool {
        self.directories.iter().any(|d| d.pool() == directory) || self.is_done_with(directory)
    }

    pub(super) fn done_with(&mut self, pool: u128) {
        const REMEMBERED: usize = 1024;
        if self.done_with.len() == REMEMBERED {
            self.done_with.pop_front();
        }
        self.done_with.push_back(pool);
    }

    /// A directory lists these cameras now. Returns those that were listed before. `None`: a producer that was started again
    /// lists none at first, which says nothing of them.
    pub(super) fn list(
        &mut self,
        directory: u128,
        cameras: Vec<CameraStatus>,
    ) -> Option<BTreeMap<String, CameraStatus>> {
        if cameras.is_empty() && self.listed_by != Some(directory) {
            return None;
        }
        self.listed_by = Some(directory);
        let cameras = cameras.into_iter().map(|status| (status.source.clone(), status)).collect();
        Some(std::mem::replace(&mut self.cameras, cameras))
    }

    /// Opens the directory that an announcement names, where it is new.
    pub(super) fn announced(&mut self, at: &SlotRef, node: &str, bell: &Bell) -> Result<(), PoolError> {
        if self.knows(at.pool) {
            return Ok(());
        }
        self.closed = false;
        let name = format!("{node}/{}", self.input);
        self.directories.push(DirectoryReader::open(at, &name, bell)?);
        Ok(())
    }

    /// Reads the directories. `look_around`: also looks whether their producers are alive.
    pub(super) fn read(&mut self, look_around: bool) -> News {
        let mut news = News::default();
        let mut over = Vec::new();
        for directory in &mut self.directories {
            // before the read: what a producer listed until its death is not lost with it
            let orphaned = look_around && directory.is_orphaned();
            match directory.read() {
                Listed::New(listing) => news.listings.push((directory.pool(), listing)),
                Listed::Same => {}
                Listed::End => over.push(directory.pool()),
            }
            if orphaned {
                news.orphaned.push(directory.pool());
                over.push(directory.pool());
            }
        }
        self.directories.retain(|d| !over.contains(&d.pool()));
        news.over = !over.is_empty() && self.directories.is_empty();
        over.into_iter().for_each(|pool| self.done_with(pool));
        news
    }
}
