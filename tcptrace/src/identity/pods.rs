//! Which Kubernetes namespace a pod is in. Control groups name a pod by its uid alone; the kubelet keeps the logs of its containers in
//! `/var/log/pods/NAMESPACE_POD_UID`, whatever runtime there is. (Neither a namespace nor a pod may have `_` in its name.)

use std::os::unix::ffi::OsStrExt as _;

use crate::host::procfs::Procfs;

/// Where the kubelet keeps them, unless its `podLogsDir` says otherwise, as seen by pid 1: the tracer may be in a container itself.
const LOGS: &str = "1/root/var/log/pods";

/// The namespace of the pod with this uid; `None` where the kubelet has no such pod, or its logs may not be looked at.
pub(super) fn namespace_of(procfs: &Procfs, uid: &str) -> Option<String> {
    std::fs::read_dir(procfs.root().join(LOGS)).ok()?.find_map(|entry| {
        let name = entry.ok()?.file_name();
        let mut parts = std::str::from_utf8(name.as_bytes()).ok()?.split('_');
        let (namespace, _pod, of) = (parts.next()?, parts.next()?, parts.next()?);
        (of == uid && parts.next().is_none() && !namespace.is_empty()).then(|| namespace.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0aa5ee3b-2d5c-4b9b-8d0e-3f1c2b4a5d6e";

    #[test]
    fn the_kubelet_s_directory_names_it() {
        let root = tempfile::tempdir().unwrap();
        let procfs = Procfs::at(root.path());
        assert_eq!(namespace_of(&procfs, UID), None, "there is no kubelet");
        let logs = root.path().join(LOGS);
        for name in
            ["kube-system_etcd-node1_4b9d", &format!("shop_web-7c9f_{UID}"), "odd", &format!("a_b_c_{UID}")]
        {
            std::fs::create_dir_all(logs.join(name)).unwrap();
        }
        assert_eq!(namespace_of(&procfs, UID).as_deref(), Some("shop"));
        assert_eq!(
            namespace_of(&procfs, "4b9d").as_deref(),
            Some("kube-system"),
            "a static pod's uid is a digest"
        );
        assert_eq!(namespace_of(&procfs, "4b9"), None);
    }
}
