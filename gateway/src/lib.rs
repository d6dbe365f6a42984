//! The embedded security server: X-Road REST in, signed messages between gateways, access rights, information systems out.
