//! One peer: SDP, ICE, DTLS, SCTP. See [`api`] for what goes in and out.
pub mod api;
