//! What is committed is what the generators make, and every example is admitted.

use saatkond_xtask::{examples, generated};

#[test]
fn generated_files_are_fresh() {
    let stale = generated::stale(&generated::repository_root(), &generated::all().unwrap()).unwrap();
    assert!(stale.is_empty(), "run `cargo xtask gen`: {stale:?}");
}

#[test]
fn examples_are_admitted() {
    let folder = generated::repository_root().join("examples");
    let wrong = examples::check(&folder).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(examples::files(&folder).unwrap().len() >= 5, "the examples have gone somewhere else");
}
