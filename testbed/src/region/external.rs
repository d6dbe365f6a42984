//! Clusters that exist already, in the place of regions of the testbed's own. Their API is used; they are never started
//! or ended, and nothing reaches into their nodes.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{check_name, no_region};
use crate::{Error, Layout, Result, layout::remove_folder};

/// The variable that names them: `home=/path,lux=/path`. Empty is as good as not set.
pub const KUBECONFIGS: &str = "SAATKOND_REGION_KUBECONFIGS";

/// How the image of an archive gets to nodes that the testbed cannot reach into.
pub const LOADING: &str = "`kind load image-archive FILE`, `minikube image load FILE`, or on each node \
                           `ctr --namespace k8s.io images import FILE`";

/// By name, the path of each one's kubeconfig.
pub(super) type Clusters = Vec<(String, PathBuf)>;

/// The clusters that the variable names; None where regions are the testbed's own.
pub(super) fn named() -> Result<Option<Clusters>> {
    let text = match env::var(KUBECONFIGS) {
        Ok(text) => text,
        Err(env::VarError::NotPresent) => String::new(),
        Err(env::VarError::NotUnicode(_)) => return Err(Error::Preflight(format!("{KUBECONFIGS} is not UTF-8"))),
    };
    if text.is_empty() { Ok(None) } else { parse(&text).map(Some) }
}

fn parse(text: &str) -> Result<Clusters> {
    let mut clusters = Clusters::new();
    for entry in text.split(',') {
        let refused = |why: &str| Error::Preflight(format!("{KUBECONFIGS}: {entry:?}: {why}"));
        let (name, path) = entry.split_once('=').ok_or_else(|| refused("is not NAME=/path/to/kubeconfig"))?;
        check_name(name).map_err(|error| refused(&error.to_string()))?;
        // Tests and Helm run in folders of their own, where another path would lead elsewhere.
        if !Path::new(path).is_absolute() {
            return Err(refused("the path does not begin with /"));
        }
        if clusters.iter().any(|(other, _)| other == name) {
            return Err(refused("that name is there twice"));
        }
        clusters.push((name.to_owned(), path.into()));
    }
    Ok(clusters)
}

/// The kubeconfig of that cluster.
pub(super) fn find<'a>(clusters: &'a [(String, PathBuf)], name: &str) -> Result<&'a Path> {
    let found = clusters.iter().find(|(other, _)| other == name).map(|(_, path)| path.as_path());
    found.ok_or_else(|| {
        let names: Vec<&str> = clusters.iter().map(|(other, _)| other.as_str()).collect();
        no_region(name, &format!("is not in {KUBECONFIGS}, which names {}", names.join(", ")))
    })
}

/// Refuses what is done to regions from the outside, before any of it is written down.
pub(crate) fn none_for(what: &str) -> Result<()> {
    if named()?.is_none() {
        return Ok(());
    }
    Err(Error::Preflight(format!(
        "{what} need regions of the testbed's own, and {KUBECONFIGS} is set: the testbed cannot reach into the nodes \
         of other clusters"
    )))
}

/// Whether a region of this checkout was configured in that folder.
pub(super) fn is_ours(folder: &Path) -> bool {
    folder.join("region.json").exists()
}

/// Whether both lead to one file that is there.
pub(super) fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Removes what stands in this checkout of a cluster, its kubeconfig's copy. A region of ours that bears the same name
/// stays, and so does a kubeconfig that is no copy.
pub(super) fn forget(layout: &Layout, name: &str, kubeconfig: &Path) -> Result<()> {
    let folder = layout.regions().join(name);
    if is_ours(&folder) || same_file(kubeconfig, &folder.join("kubeconfig")) {
        return Ok(());
    }
    remove_folder(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_and_several_are_read() {
        let cluster = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
        assert_eq!(parse("home=/a").unwrap(), [cluster("home", "/a")]);
        // A path may hold what separates a name from its path.
        let several = parse("home=/a/config,lux=/b=c/config,fin2=/d e").unwrap();
        assert_eq!(several, [cluster("home", "/a/config"), cluster("lux", "/b=c/config"), cluster("fin2", "/d e")]);
        assert_eq!(find(&several, "lux").unwrap(), Path::new("/b=c/config"));
    }

    #[test]
    fn what_is_refused_is_named() {
        for (text, entry, why) in [
            ("/home/me/kubeconfig", "\"/home/me/kubeconfig\"", "is not NAME=/path/to/kubeconfig"),
            ("home=/a,", "\"\"", "is not NAME=/path/to/kubeconfig"),
            ("home=/a, lux=/b", "\" lux=/b\"", "lower-case letters and digits"),
            ("home=/a,Lux=/b", "\"Lux=/b\"", "lower-case letters and digits"),
            ("=/a", "\"=/a\"", "lower-case letters and digits"),
            ("home=/a,lux=", "\"lux=\"", "the path does not begin with /"),
            ("home=.kube/config", "\"home=.kube/config\"", "the path does not begin with /"),
            ("home=~/.kube/config", "\"home=~/.kube/config\"", "the path does not begin with /"),
            ("home=/a,lux=/b,home=/c", "\"home=/c\"", "that name is there twice"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            for part in [KUBECONFIGS, entry, why] {
                assert!(said.contains(part), "{text:?}: {part:?} is not in {said}");
            }
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_told_which_are() {
        let clusters = parse("home=/a,lux=/b").unwrap();
        let said = find(&clusters, "fin").unwrap_err().to_string();
        assert_eq!(said, "region \"fin\": is not in SAATKOND_REGION_KUBECONFIGS, which names home, lux");
    }

    #[test]
    fn only_a_copy_is_forgotten() {
        let checkout = tempfile::tempdir().unwrap();
        let layout = Layout::at(checkout.path());
        let folder = layout.regions().join("home");
        let here = folder.join("kubeconfig");
        fs::create_dir_all(&folder).unwrap();
        fs::write(&here, "text").unwrap();
        fs::write(folder.join("region.json"), "{}").unwrap();
        forget(&layout, "home", Path::new("/nowhere")).unwrap();
        assert!(here.exists(), "a region of ours stays");
        fs::remove_file(folder.join("region.json")).unwrap();
        forget(&layout, "home", &here).unwrap();
        assert!(here.exists(), "what the variable names stays");
        forget(&layout, "home", Path::new("/nowhere")).unwrap();
        assert!(!folder.exists(), "a copy goes");
        forget(&layout, "home", Path::new("/nowhere")).unwrap();
    }
}
