//! Races: two accesses to the same bytes, one of them a write, that nothing orders.
//!
//! Each word of memory remembers its last write and reads since then, with their times ([`Shadow`]). Time goes on when
//! threads synchronise; [`Order`] knows whether what happened at a time is before what a thread does now. Barriers
//! order a block's threads, operations of a warp its lanes, and fences with atomics around them one block before
//! another.

mod accessor;
mod order;
mod release;
mod shadow;

pub(crate) use accessor::{Accessor, Kind};
pub(crate) use order::Order;
pub(crate) use release::StrongAccess;
pub(crate) use shadow::{Conflict, Shadow};
