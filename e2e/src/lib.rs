//! Whole journeys on real regions, the demo and the benchmarks.
