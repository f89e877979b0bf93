//! What happened, written once for all attachment types.

pub mod accept;
pub mod bind;
pub mod connect;
pub mod drop;
pub mod half_open;
pub mod handshake;
pub mod histogram;
pub mod listen;
pub mod listener;
pub mod open_socket;
pub mod port;
pub mod port_use;
pub mod queued;
pub mod taker;
