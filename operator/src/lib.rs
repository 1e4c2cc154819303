//! The control plane of Plenum: the controller, which acts on objects, and the gateway, which
//! clients connect to. One binary, a subcommand each; neither touches media. A third, the probe,
//! joins as a client would.

pub mod controller;
pub mod gateway;
pub mod pki;
pub mod probe;
