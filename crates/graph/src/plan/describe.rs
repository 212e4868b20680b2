//! What a plan looks like, for people.
