//! Losses on the device.

mod learners;
mod logits;
