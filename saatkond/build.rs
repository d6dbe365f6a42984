//! How the binary is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A static binary that may be loaded anywhere relocates itself at its start, and the table of that is read whole: a megabyte
    // that stays in memory in every process. This form of it is a twentieth (DT_RELR; glibc 2.36 and later).
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
