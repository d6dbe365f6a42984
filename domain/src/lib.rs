//! Every decision of the operator as a pure function: observed, plan, build, status. No client, no clock, no I/O.
