//! What users get, told over real sockets.

mod routing;
