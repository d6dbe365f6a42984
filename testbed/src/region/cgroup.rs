//! The cgroups of a region: one folder in every hierarchy, found again by its name.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{Result, error::Doing as _, process::ProcessId, wait};

/// Controllers that kubelet does not start without.
const NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Every mounted hierarchy: one for version 2, one per controller for version 1.
fn hierarchies() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
        })
        .collect()
}

fn is_v2(hierarchy: &Path) -> bool {
    hierarchy.join("cgroup.controllers").exists()
}

/// Says what is missing for kubelet to run.
pub(crate) fn usable() -> Result<(), String> {
    let all = hierarchies();
    let v1: BTreeSet<String> = all
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .flat_map(|name| name.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let v2: BTreeSet<String> = all
        .iter()
        .filter_map(|path| fs::read_to_string(path.join("cgroup.controllers")).ok())
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    all_needed(&v1.union(&v2).map(String::as_str).collect())?;
    all.iter().try_for_each(|hierarchy| probe(hierarchy))
}

fn all_needed(there: &BTreeSet<&str>) -> Result<(), String> {
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !there.contains(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("cgroup controllers: {}", missing.join(", "))) }
}

/// Makes a group and takes it away again. A hierarchy can be there and yet be read-only, or have processes in the very
/// group that should pass its controllers on, as in a container with a cgroup namespace of its own; kubelet would end
/// over that without saying so.
fn probe(hierarchy: &Path) -> Result<(), String> {
    // Regions are started side by side, also by the threads of one process.
    static PROBES: AtomicU32 = AtomicU32::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let folder = hierarchy.join(format!("saatkond-probe-{}-{number}", std::process::id()));
    fs::create_dir(&folder)
        .map_err(|error| format!("cgroup {}: no group can be made ({error})", hierarchy.display()))?;
    let passed_on = if is_v2(hierarchy) { pass_on(hierarchy) } else { Ok(()) };
    let _ = fs::remove_dir(&folder);
    passed_on
}

/// Passes on the controllers of a group of version 2: those that kubelet does not start without, and what else there is.
fn pass_on(group: &Path) -> Result<(), String> {
    let there = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in there.split_whitespace() {
        let passed_on = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
        // Of the others some cannot be (a real-time task in the root, say); kubelet does without.
        if let (Err(error), true) = (passed_on, NEEDED.contains(&controller)) {
            return Err(format!(
                "cgroup {}: {controller} cannot be passed on ({error}); processes that stand in this very group must \
                 be moved to one of their own first",
                group.display()
            ));
        }
    }
    Ok(())
}

/// Makes the folder `name` everywhere.
pub(crate) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(name);
        fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
        if is_v2(&hierarchy) {
            for group in [&hierarchy, &folder] {
                pass_on(group).map_err(crate::Error::Preflight)?;
            }
        } else {
            // A cpuset of version 1 starts without any CPU, and no process can enter it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read(hierarchy.join(file)) {
                    let _ = fs::write(folder.join(file), all);
                }
            }
        }
    }
    Ok(())
}

/// Every cgroup folder whose name starts with `prefix`, at the top of a hierarchy.
pub(crate) fn find(prefix: &str) -> Vec<PathBuf> {
    let folders = hierarchies().into_iter().filter_map(|hierarchy| fs::read_dir(hierarchy).ok());
    folders
        .flat_map(Iterator::flatten)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

/// Ends what still runs in the cgroups of that exact name, and removes them.
pub(crate) fn remove(name: &str) -> Result<()> {
    for folder in hierarchies().into_iter().map(|hierarchy| hierarchy.join(name)) {
        wait::until(
            "a cgroup can be removed",
            Duration::from_secs(20),
            || format!("{} still has processes or children", folder.display()),
            || Ok(remove_tree(&folder)?.then_some(())),
        )?;
    }
    Ok(())
}

/// Whether the folder is gone now.
fn remove_tree(folder: &Path) -> Result<bool> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(true) };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?)) {
        process.end()?;
    }
    match fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => Ok(false),
        Err(error) => Err(error).doing(|| format!("remove {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_the_kernel_lacks_are_named() {
        assert_eq!(all_needed(&["cpu", "cpuset", "io", "memory", "pids"].into()), Ok(()));
        assert_eq!(all_needed(&["cpu", "io", "pids"].into()), Err("cgroup controllers: cpuset, memory".to_owned()));
    }

    #[test]
    fn a_needed_controller_that_stays_is_named_and_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), "io hugetlb\n").unwrap();
        // Nothing can be written to what is a folder.
        fs::create_dir(folder.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(pass_on(folder.path()), Ok(()));
        fs::write(folder.path().join("cgroup.controllers"), "io memory\n").unwrap();
        let why = pass_on(folder.path()).unwrap_err();
        assert!(why.contains("memory cannot be passed on") && why.contains("moved"), "{why}");
    }
}
