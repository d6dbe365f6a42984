//! What a caller asks: its target, its headers, and the REST part that is signed in its name. No sockets.

pub mod hash;
pub mod headers;
pub mod rest_part;
pub mod target;
