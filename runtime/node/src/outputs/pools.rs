//! The pools of the output ports: made, outgrown, and made anew where a setting changes.

use super::Outputs;
use crate::error::NodeError;
use crate::settings::Common;
use millrace_frame::PayloadKind;
use millrace_pool::{Flow, Place, Pool, PoolSpec};

/// Packets and detections are small and come in bursts.
const RECORD_SLOTS: u32 = 32;
const RECORD_BYTES: u64 = 64 * 1024;

impl Outputs {
    pub(super) fn ensure_pool(&mut self, at: usize, bytes: u64, place: &Place) -> Result<(), NodeError> {
        let port = &self.ports[at];
        if port.pool.as_ref().is_some_and(|pool| pool.slot_bytes() >= bytes && pool.is_in(place)) {
            return Ok(());
        }
        self.make_pool(at, bytes, place)
    }

    /// Puts a new pool in the place of the port's. Its first doorbell brings the consumers.
    pub(super) fn make_pool(&mut self, at: usize, bytes: u64, place: &Place) -> Result<(), NodeError> {
        self.ports[at].let_go();
        let pool = self.new_pool(at, bytes, place, self.flow())?;
        self.ports[at].place = place.clone();
        self.put_in_place(at, pool);
        Ok(())
    }

    /// The port publishes in this pool from now on. Its consumers read the one before to its end first.
    fn put_in_place(&mut self, at: usize, pool: Pool) {
        let port = &mut self.ports[at];
        port.pools_made += 1;
        if let Some(mut outgrown) = port.pool.replace(pool) {
            outgrown.close();
            port.retired.push(outgrown);
        }
    }

    fn new_pool(&self, at: usize, bytes: u64, place: &Place, flow: Flow) -> Result<Pool, NodeError> {
        let port = &self.ports[at];
        let record = matches!(port.spec.carries, PayloadKind::Packet | PayloadKind::Detections);
        let spec = PoolSpec {
            name: format!("{}/{}", self.node, port.spec.name),
            slots: if record { RECORD_SLOTS } else { self.common.slots },
            // records vary in size: room to grow, so that a pool lasts
            slot_bytes: if record { bytes.next_power_of_two().max(RECORD_BYTES) } else { bytes },
            flow,
            incarnation: self.restarts << 32 | port.pools_made,
            consumers: port.consumers.clone(),
            place: place.clone(),
        };
        Pool::create(&spec).map_err(NodeError::fatal)
    }

    /// From the next publication on, these settings count.
    ///
    /// `FLOW` stands in a pool's control block, where consumers have read it, so that a pool has one for its life. Another
    /// one takes new pools: consumers read what stands in the old ones to its end, under the flow that it was published
    /// with, and go over, as they do when a pool is outgrown. Between two items no slot of the old ones is being written.
    ///
    /// # Errors
    /// Why it cannot be; nothing has changed then.
    pub(crate) fn change(&mut self, common: Common) -> Result<(), String> {
        if common.flow != self.common.flow {
            self.replace_pools(common.flow.into())?;
        }
        self.common = common;
        Ok(())
    }

    fn replace_pools(&mut self, flow: Flow) -> Result<(), String> {
        let mut pools: Vec<(usize, Pool)> = Vec::new();
        for at in 0..self.ports.len() {
            let port = &mut self.ports[at];
            // each change keeps a pool until it is read: they must not pile up before a consumer that stands still
            port.retired.iter_mut().for_each(|pool| drop(pool.reap(false)));
            port.let_go();
            if let Some((consumer, ..)) = port.retired.iter().flat_map(Pool::behind).next() {
                let name = port.spec.name;
                return Err(format!(
                    "{consumer} has yet to read what output '{name}' published before its last change; try again"
                ));
            }
            let port = &self.ports[at];
            let Some(pool) = &port.pool else { continue };
            let pool = self.new_pool(at, pool.slot_bytes(), &port.place, flow);
            pools.push((at, pool.map_err(|e| e.to_string())?));
        }
        for (at, pool) in pools {
            self.put_in_place(at, pool);
            self.ring_again(at);
        }
        Ok(())
    }
}
