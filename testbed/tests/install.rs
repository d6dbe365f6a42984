//! `testbed/install.sh regions` where regions cannot be had, or need not: what it says and what it leaves out.
//!
//! On machines that are made up: a `PATH` of a few real programs, and scripts in the place of those that would build
//! something or say what machine this is. Nothing is built, and nothing is written outside of a folder.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::Command,
};

const KUBECONFIGS: &str = "SAATKOND_REGION_KUBECONFIGS";
const ALTERNATIVE: &str = "or use clusters that exist already: SAATKOND_REGION_KUBECONFIGS=home=/path,lux=/path";

/// What the script needs of any machine. Nothing that a Debian package of regions would bring.
const PROGRAMS: &str = "basename bash cat chmod cp cut date dirname env find flock grep head ln mkdir mktemp mv nice \
                        readlink rm sed sh sha256sum sort tail tar touch tr wc xargs";

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(system: &str, user: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        for program in PROGRAMS.split(' ') {
            symlink(found(program).expect(program), bin.join(program)).expect("a link");
        }
        let machine = Self { folder };
        machine.script("uname", &format!("echo {system}"));
        machine.script("id", &format!("echo {user}"));
        // Says yes to whatever it is to build.
        machine.script("go", "[ \"$*\" != 'env GOVERSION' ] || echo go1.99.0");
        machine.script("apt-get", &format!("touch {}; exit 1", machine.path("asked-for-packages").display()));
        // The script finds its checkout by its own path.
        symlink(env!("CARGO_MANIFEST_DIR"), machine.path("testbed")).expect("a link");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/usr/bin/env sh\n{text}\n")).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be made executable");
    }

    /// Whether it came to its end, and what it said.
    fn install(&self, clusters: Option<&str>) -> (bool, String) {
        self.install_level("regions", clusters)
    }

    fn install_level(&self, level: &str, clusters: Option<&str>) -> (bool, String) {
        let mut command = Command::new(self.path("bin/bash"));
        command.arg(self.path("testbed/install.sh")).arg(level).env_clear();
        command.env("PATH", self.path("bin")).env("HOME", self.folder.path());
        command.env("SAATKOND_CACHE", self.path("cache"));
        command.envs(clusters.map(|clusters| (KUBECONFIGS, clusters)));
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn installed(&self, name: &str) -> bool {
        self.path("target/tools/bin").join(name).is_symlink()
    }

    fn asked_for_packages(&self) -> bool {
        self.path("asked-for-packages").exists()
    }
}

fn found(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[test]
fn clusters_that_exist_take_neither_root_nor_packages() {
    let machine = Machine::new("Linux", "1000");
    for building in [true, false] {
        let (done, said) = machine.install(Some("home=/path"));
        assert!(done, "{said}");
        assert_eq!(said.contains("building"), building, "the second time all is there: {said}");
        let told: Vec<&str> = said.lines().filter(|line| line.contains(KUBECONFIGS)).collect();
        assert_eq!(told.len(), 1, "{said}");
        assert!(told[0].contains("no region is started here. Left out: containerd"), "{said}");
        assert!(machine.installed("kubectl") && machine.installed("helm"), "{said}");
        for left_out in ["containerd", "runc"] {
            assert!(!machine.installed(left_out), "{left_out}: {said}");
        }
        assert!(!machine.path("target/tools/images").exists(), "{said}");
        assert!(!machine.asked_for_packages(), "{said}");
    }
}

#[test]
fn who_is_not_root_is_told_before_anything_is_built() {
    // A variable that is empty is one that is not set.
    for clusters in [None, Some("")] {
        let machine = Machine::new("Linux", "1000");
        let (done, said) = machine.install(clusters);
        assert!(!done, "{said}");
        for expected in ["missing: ", "nftables", "Run as root, as regions must be started", ALTERNATIVE] {
            assert!(said.contains(expected), "{expected:?} is not in {said}");
        }
        assert!(!said.contains("building") && !machine.asked_for_packages(), "{said}");
    }
}

/// Packages may all be there: what `make demo` would find out after minutes of compiling is said first.
#[test]
fn who_is_not_root_is_told_before_a_demo_builds_anything() {
    let machine = Machine::new("Linux", "1000");
    let (done, said) = machine.install_level("packages", None);
    assert!(!done && said.contains("regions need root") && said.contains(ALTERNATIVE), "{said}");
    assert!(!said.contains("missing") && !machine.asked_for_packages(), "{said}");
    let (done, said) = machine.install_level("packages", Some("home=/path"));
    assert!(done, "clusters that exist need none: {said}");
}

#[test]
fn who_has_no_debian_is_told_the_packages_and_the_alternative() {
    let machine = Machine::new("Linux", "0");
    fs::remove_file(machine.path("bin/apt-get")).expect("it is there");
    let (done, said) = machine.install(None);
    assert!(!done, "{said}");
    for expected in ["missing and no apt-get to install them with: ", "nftables", ALTERNATIVE] {
        assert!(said.contains(expected), "{expected:?} is not in {said}");
    }
}

#[test]
fn another_system_is_told_that_it_takes_linux() {
    for clusters in [None, Some("home=/path")] {
        let machine = Machine::new("Darwin", "0");
        let (done, said) = machine.install(clusters);
        assert!(!done, "{said}");
        for expected in ["need Linux, and this is Darwin", "virtual machine", ALTERNATIVE] {
            assert!(said.contains(expected), "{expected:?} is not in {said}");
        }
        assert!(!said.contains("building") && !machine.path("target").exists(), "{said}");
    }
}
