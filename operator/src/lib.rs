//! The operator's I/O: observe, apply, status writer, the link, metrics, events and the lease.
