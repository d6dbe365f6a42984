//! The one binary: saatkond operator, gateway and crds. Arguments, wiring and signals; no logic.

fn main() {}
