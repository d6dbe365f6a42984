//! kubectl-saatkond: admit namespaces, show status and explain what blocks.

fn main() {}
