//! The visitors: wrk, h2load and curl.

pub(crate) mod curl;
pub(crate) mod h2load;
pub(crate) mod run;
pub(crate) mod wrk;
