//! What is told to the operator's own programs.

pub(crate) mod health;
