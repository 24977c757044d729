//! The pools of the output ports: one for each camera, made when its first frame comes, and replaced where a frame needs
//! more room, a setting changes, or a consumer that does not move holds every slot.

use super::Outputs;
use crate::directory::{Directory, Entry};
use crate::error::NodeError;
use crate::settings::CommonSettings;
use millrace_frame::PayloadKind;
use millrace_pool::{Flow, MemorySpec, Pool, PoolSpec};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets and detections are small and come in bursts.
const RECORD_SLOTS: u32 = 16;
const DETECTIONS_BYTES: u64 = 4 * 1024;
const PACKET_BYTES: u64 = 32 * 1024;
/// The fewest slots of a camera, where the port's budget has no room for more: one that is written, one that is read, and
/// one that waits.
const FEWEST_SLOTS: u32 = 3;
/// How long a closed pool in live flow is kept for consumers that have not opened it.
pub(super) const LIVE_DRAIN: Duration = Duration::from_secs(3);

/// A camera's pools on one port.
pub(super) struct CameraPools {
    /// The pool that frames are published in; `None` once the camera has been removed.
    pub(super) pool: Option<Pool>,
    /// Closed pools that somebody still reads, the oldest first, and when they were closed.
    pub(super) retired: Vec<(Pool, Instant)>,
    /// Where the pool's slots are allocated.
    memory: MemorySpec,
    /// Since when every slot is leased, and what consumers had done by then.
    full: Option<(Instant, u32)>,
}

impl CameraPools {
    /// No more is published; consumers read what there is.
    pub(super) fn close(&mut self) {
        if let Some(mut pool) = self.pool.take() {
            pool.close();
            self.retired.push((pool, Instant::now()));
        }
    }

    pub(super) fn entries(&self, source: &Arc<str>) -> Vec<Entry> {
        let pools = self.retired.iter().map(|(pool, _)| pool).chain(&self.pool);
        pools.map(|pool| Entry { source: source.to_string(), at: pool.locator() }).collect()
    }

    fn bytes(&self) -> u64 {
        self.retired.iter().map(|(pool, _)| pool).chain(&self.pool).map(|p| p.slot_bytes() * u64::from(p.slots())).sum()
    }

    /// Every slot is leased. `true` when the consumers that lease them have not moved for `limit`.
    pub(super) fn is_stuck(&mut self, limit: Duration) -> bool {
        let Some(activity) = self.pool.as_ref().map(Pool::activity) else { return false };
        match self.full {
            Some((since, then)) if then == activity => since.elapsed() >= limit,
            _ => {
                self.full = Some((Instant::now(), activity));
                false
            }
        }
    }
}

impl Outputs {
    /// Makes sure that the camera has a pool with room for `bytes`, and returns the camera's name. `None`: the port's budget
    /// has no room for the pool.
    pub(super) fn ensure_pool(
        &mut self,
        port_index: usize,
        source: &str,
        bytes: u64,
        memory: &MemorySpec,
    ) -> Result<Option<Arc<str>>, NodeError> {
        let known = self.ports[port_index].cameras.get_key_value(source);
        let fits = known.and_then(|(name, camera)| Some((name, camera.pool.as_ref()?)));
        if let Some((name, pool)) = fits
            && pool.slot_bytes() >= bytes
            && pool.is_in(memory)
        {
            return Ok(Some(name.clone()));
        }
        let name: Arc<str> = known.map_or_else(|| source.into(), |(name, _)| name.clone());
        Ok(self.replace_pool(port_index, &name, bytes, memory)?.then_some(name))
    }

    /// Puts a new pool in the place of a camera's, whose consumers read it to its end first. `false`: the port's budget has
    /// no room for it.
    pub(super) fn replace_pool(
        &mut self,
        port_index: usize,
        name: &Arc<str>,
        bytes: u64,
        memory: &MemorySpec,
    ) -> Result<bool, NodeError> {
        self.let_go();
        let Some(pool) = self.new_pool(port_index, bytes, memory, self.flow())? else { return Ok(false) };
        self.put_in_place(port_index, name, pool, memory);
        self.list(port_index)?;
        Ok(true)
    }

    fn put_in_place(&mut self, port_index: usize, name: &Arc<str>, pool: Pool, memory: &MemorySpec) {
        let port = &mut self.ports[port_index];
        let empty = || CameraPools { pool: None, retired: Vec::new(), memory: memory.clone(), full: None };
        let camera = port.cameras.entry(name.clone()).or_insert_with(empty);
        camera.close();
        port.retiring |= !camera.retired.is_empty();
        camera.pool = Some(pool);
        camera.memory = memory.clone();
        camera.full = None;
        port.unlisted = true;
    }

    fn new_pool(
        &mut self,
        port_index: usize,
        bytes: u64,
        memory: &MemorySpec,
        flow: Flow,
    ) -> Result<Option<Pool>, NodeError> {
        let port = &self.ports[port_index];
        // records vary in size: room to grow, so that a pool lasts
        let record = |least: u64| (RECORD_SLOTS, bytes.next_power_of_two().max(least));
        let (mut slots, slot_bytes) = match port.spec.carries {
            PayloadKind::Packet => record(PACKET_BYTES),
            PayloadKind::Detections => record(DETECTIONS_BYTES),
            PayloadKind::Image | PayloadKind::Tensor => (self.common.slots, bytes),
        };
        if let Some(budget_mib) = self.common.pool_mib {
            let used: u64 = port.cameras.values().map(CameraPools::bytes).sum();
            let room = (budget_mib << 20).saturating_sub(used) / slot_bytes.max(1);
            if room < u64::from(FEWEST_SLOTS) {
                return Ok(None);
            }
            slots = slots.min(u32::try_from(room).unwrap_or(u32::MAX));
        }
        self.pools_made += 1;
        let spec = PoolSpec {
            name: format!("{}/{}", self.node, port.spec.name),
            slots,
            slot_bytes,
            flow,
            incarnation: self.restarts << 32 | self.pools_made,
            consumers: port.consumers.clone(),
            memory: memory.clone(),
        };
        Pool::create(&spec).map(Some).map_err(NodeError::fatal)
    }

    /// Drops closed pools that nobody reads any more. Slots on a GPU are not freed while a consumer has them mapped: it leaves
    /// when it has read the pool to its end and given the last lease back. In live flow a consumer that has not opened a
    /// closed pool within [`LIVE_DRAIN`] has lost what is in it.
    pub(super) fn let_go(&mut self) {
        let live = self.flow() == Flow::Live;
        for port in &mut self.ports {
            let Some(directory) = &port.directory else { continue };
            if !port.retiring {
                continue;
            }
            // a consumer that never attached to the port reads by dora messages, or not at all
            let missing = directory.missing();
            for (source, camera) in &mut port.cameras {
                camera.retired.retain(|(pool, closed)| {
                    let behind = pool.behind();
                    if behind.is_empty() {
                        return pool.is_mapped() && pool.is_on_gpu();
                    }
                    let overdue = live && closed.elapsed() >= LIVE_DRAIN;
                    if overdue && !(pool.is_mapped() && pool.is_on_gpu()) {
                        for (consumer, tickets, attached) in behind {
                            if !attached && !missing.contains(&consumer) {
                                self.metrics.drop_port("unread_at_end", port.spec.name, source, tickets);
                            }
                        }
                        return false;
                    }
                    true
                });
            }
            let before = port.cameras.len();
            port.cameras.retain(|_, camera| camera.pool.is_some() || !camera.retired.is_empty());
            port.unlisted |= port.cameras.len() != before;
            port.retiring = port.cameras.values().any(|camera| !camera.retired.is_empty());
        }
    }

    /// From the next publication on, these settings count.
    ///
    /// `FLOW` is written in a pool's control block, where consumers have read it, so that a pool has one for its life. Another
    /// one needs new pools: consumers read what is in the old ones to its end, under the flow that it was published with.
    /// Between two items no slot of the old ones is being written.
    ///
    /// # Errors
    /// Why it cannot be; nothing has changed then.
    pub(crate) fn change(&mut self, common: CommonSettings) -> Result<(), String> {
        if common.flow != self.common.flow {
            self.replace_all_pools(common.flow.into())?;
        }
        self.common = common;
        Ok(())
    }

    fn replace_all_pools(&mut self, flow: Flow) -> Result<(), String> {
        // each change keeps a pool until it is read: they must not pile up before a consumer that does not move
        for port in &mut self.ports {
            port.cameras
                .values_mut()
                .flat_map(|camera| &mut camera.retired)
                .for_each(|(pool, _)| drop(pool.reap(false)));
        }
        self.let_go();
        let mut pools = Vec::new();
        for port_index in 0..self.ports.len() {
            let port = &self.ports[port_index];
            let retired = port.cameras.values().flat_map(|camera| &camera.retired);
            if let Some((consumer, ..)) = retired.flat_map(|(pool, _)| pool.behind()).next() {
                let name = port.spec.name;
                return Err(format!(
                    "{consumer} has yet to read what output '{name}' published before its last change; try again"
                ));
            }
            let cameras = port.cameras.iter().filter_map(|(name, camera)| {
                Some((name.clone(), camera.pool.as_ref()?.slot_bytes(), camera.memory.clone()))
            });
            for (name, bytes, memory) in cameras.collect::<Vec<_>>() {
                let pool = self.new_pool(port_index, bytes, &memory, flow).map_err(|e| e.to_string())?;
                pools.extend(pool.map(|pool| (port_index, name, memory, pool)));
            }
        }
        for (port_index, name, memory, pool) in pools {
            self.put_in_place(port_index, &name, pool, &memory);
            self.list(port_index).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Makes the directory of each port that the graph has a consumer for, and waits until these have attached. A node takes
    /// no input before: so a graph starts from its sinks, and no frame is lost or gets old while a model is opened.
    pub(crate) fn open_ports(&mut self) -> Result<(), NodeError> {
        self.make_directories()?;
        (0..self.ports.len()).try_for_each(|port_index| self.await_consumers(port_index))
    }

    pub(crate) fn make_directories(&mut self) -> Result<(), NodeError> {
        for port_index in 0..self.ports.len() {
            let port = &mut self.ports[port_index];
            if port.consumers.is_empty() {
                continue;
            }
            let name = format!("{}/{}", self.node, port.spec.name);
            port.directory = Some(Directory::create(name, port.consumers.clone(), self.restarts << 32)?);
            port.unlisted = true;
            self.list(port_index)?;
            self.announce(port_index);
        }
        Ok(())
    }

    /// No port publishes any more; what is in the pools can still be read.
    pub(crate) fn close_pools(&mut self) {
        for port in &mut self.ports {
            port.cameras.values_mut().for_each(CameraPools::close);
            port.retiring = true;
            port.directory.as_mut().map(Directory::wake);
        }
    }

    /// No consumer will find anything more: their last look shows the end.
    pub(crate) fn close_directories(&mut self) {
        self.ports.iter_mut().filter_map(|port| port.directory.as_mut()).for_each(Directory::close);
    }
}
