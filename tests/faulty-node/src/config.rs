//! The settings: with the defaults, everything is handed on as it came.

use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of `faulty-node`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Busy for this long at each item, in microseconds.
    #[serde(default)]
    pub(crate) delay_us: u64,
    /// The tensor's rows are moved to the right by so many elements.
    #[serde(default)]
    pub(crate) shift_px: usize,
    /// Of every so many frames with boxes, one loses its best box; 0 for none.
    #[serde(default)]
    pub(crate) drop_box_every: u64,
    /// Of every so many items, one is not handed on; 0 for none.
    #[serde(default)]
    pub(crate) drop_item_every: u64,
    /// Of every so many items, one is lost by a fault of its own; 0 for none.
    #[serde(default)]
    pub(crate) lose_item_every: u64,
    /// Dies by a panic at this item, counted from 1; 0 for never.
    #[serde(default)]
    pub(crate) crash_at: u64,
    /// Does not even open.
    #[serde(default)]
    pub(crate) refuse: bool,
}
