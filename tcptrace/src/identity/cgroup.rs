//! What a control group path tells: container, pod, systemd unit. Pure text; the forms are those that the container
//! runtimes and systemd use today, on cgroup v1 and v2, with their cgroupfs and systemd drivers.

use std::fmt;

/// What made a container, as far as its control group's name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd, under Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// LXC, LXD, Incus.
    Lxc,
    /// systemd-nspawn, or a virtual machine registered with systemd-machined.
    Machine,
    /// Amazon ECS.
    Ecs,
    /// Kubernetes with the cgroupfs driver, whose paths do not name the runtime.
    Kubernetes,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Docker,
        Self::Containerd,
        Self::Crio,
        Self::Podman,
        Self::Lxc,
        Self::Machine,
        Self::Ecs,
        Self::Kubernetes,
    ];

    /// Name in lower case, as in output and recordings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Machine => "machine",
            Self::Ecs => "ecs",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Container {
    /// What made it.
    pub runtime: Runtime,
    /// Its id (64 hexadecimal digits with most runtimes) or its name (LXC, nspawn).
    pub id: String,
    /// Uid of its Kubernetes pod, or id of its Podman pod.
    pub pod: Option<String>,
    /// Kubernetes namespace of that pod. No control group names it: it is added by who reads the process.
    pub namespace: Option<String>,
}

impl Container {
    /// The id as people type it: the first twelve digits of a hexadecimal id, a name in full.
    pub fn short_id(&self) -> &str {
        if is_container_id(&self.id) { self.id.get(..12).unwrap_or(&self.id) } else { &self.id }
    }
}

impl fmt::Display for Container {
    /// `docker:4c01db0b339c`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.runtime, self.short_id())
    }
}

/// Where a process runs, by its control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The path this was read from.
    pub path: String,
    /// The innermost container.
    pub container: Option<Container>,
    /// The innermost systemd service or scope that is not itself the container's; inside a container that runs systemd,
    /// the unit inside.
    pub unit: Option<String>,
}

/// Reads a whole `/proc/PID/cgroup`: the line that tells most wins. With v1 and hybrid hierarchies that may be any
/// controller's; a v2 line comes first among equals, then systemd's own v1 hierarchy.
pub fn of_process(text: &[u8]) -> Placement {
    let mut best: Option<((u8, u8), Placement)> = None;
    for line in String::from_utf8_lossy(text).lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // What the kernel adds once the group is removed while a process still dies in it.
        let placement = of_path(path.strip_suffix(" (deleted)").unwrap_or(path));
        let told = match (&placement.container, &placement.unit) {
            (Some(_), _) => 3,
            (None, Some(_)) => 2,
            (None, None) if placement.path != "/" => 1,
            (None, None) => 0,
        };
        let preference = match (hierarchy, controllers) {
            ("0", "") => 2,
            (_, "name=systemd") => 1,
            _ => 0,
        };
        if best.as_ref().is_none_or(|(rank, _)| *rank < (told, preference)) {
            best = Some(((told, preference), placement));
        }
    }
    best.map(|(_, placement)| placement).unwrap_or_default()
}

/// Reads one control group path, for example
/// `/system.slice/docker-4c01db0b339c….scope`.
pub fn of_path(path: &str) -> Placement {
    let mut container: Option<Container> = None;
    let mut pod = None;
    let mut unit = None;
    let mut parent = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if let Some(found) = pod_of(part) {
            pod = Some(found);
        }
        if let Some((runtime, id)) = container_of(part, parent, pod.is_some()) {
            container = Some(Container { runtime, id, pod: pod.clone(), namespace: None });
            // The units around a container are the runtime's, not the application's.
            unit = None;
        } else if is_unit(part) {
            unit = Some(part.to_owned());
        }
        parent = part;
    }
    Placement { path: path.to_owned(), container, unit }
}

/// The pod in `kubepods-burstable-pod1234_5678.slice`, `pod1234-5678` (cgroupfs driver) or `libpod_pod_1234.slice`.
fn pod_of(part: &str) -> Option<String> {
    if let Some((_, id)) = part.split_once("libpod_pod_") {
        return Some(id.trim_end_matches(".slice").to_owned());
    }
    // containerd without systemd's consent: `kubepods-pod1234.slice:cri-containerd:4c01…`.
    let part = part.split(':').next()?;
    let uid = match part.strip_suffix(".slice") {
        Some(slice) if slice.contains("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    // systemd's driver writes a uid's dashes as underscores, dashes being its separator.
    let uid = uid.replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

fn container_of(part: &str, parent: &str, in_pod: bool) -> Option<(Runtime, String)> {
    by_prefix(part)
        .or_else(|| by_colons(part))
        .or_else(|| by_parent(part, parent))
        .or_else(|| (in_pod && is_container_id(part)).then(|| (Runtime::Kubernetes, part.to_owned())))
}

/// `docker-4c01….scope` and the like. A `….scope` may lack with the cgroupfs driver.
fn by_prefix(part: &str) -> Option<(Runtime, String)> {
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in [
        ("docker-", Runtime::Docker),
        ("cri-containerd-", Runtime::Containerd),
        ("nerdctl-", Runtime::Containerd),
        ("crio-", Runtime::Crio),
        ("libpod-", Runtime::Podman),
    ] {
        // Not `crio-conmon-4c01…`, `libpod-conmon-4c01…`: the process that watches the container, outside of it.
        if let Some(id) = bare.strip_prefix(prefix).filter(|id| is_container_id(id)) {
            return Some((runtime, id.to_owned()));
        }
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some((Runtime::Lxc, name.to_owned()));
    }
    if let Some(name) = part.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope")) {
        return Some((Runtime::Machine, name.to_owned()));
    }
    let nspawn = part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")?;
    Some((Runtime::Machine, nspawn.to_owned()))
}

/// `kubepods-burstable-pod….slice:cri-containerd:4c01…`: a systemd-style path given to the cgroupfs driver.
fn by_colons(part: &str) -> Option<(Runtime, String)> {
    let mut fields = part.rsplit(':');
    let (id, prefix) = (fields.next()?, fields.next()?);
    let runtime = match prefix {
        "cri-containerd" | "nerdctl" => Runtime::Containerd,
        "crio" => Runtime::Crio,
        "docker" => Runtime::Docker,
        _ => return None,
    };
    is_container_id(id).then(|| (runtime, id.to_owned()))
}

/// `/docker/4c01…`, `/lxc/web1`, `/ecs/TASK/4c01…`: the parent tells.
fn by_parent(part: &str, parent: &str) -> Option<(Runtime, String)> {
    match parent {
        "docker" if is_container_id(part) => Some((Runtime::Docker, part.to_owned())),
        "libpod_parent" if is_container_id(part) => Some((Runtime::Podman, part.to_owned())),
        "lxc" | "lxc.payload" => Some((Runtime::Lxc, part.to_owned())),
        "ecs" if part.len() >= 32 => Some((Runtime::Ecs, part.to_owned())),
        _ => None,
    }
}

/// Container ids are 64 hexadecimal digits; 32 are taken, too (ECS).
fn is_container_id(text: &str) -> bool {
    matches!(text.len(), 32 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A service or scope.
fn is_unit(part: &str) -> bool {
    [".service", ".scope"].iter().any(|suffix| part.strip_suffix(suffix).is_some_and(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "4c01db0b339c4ea1dbb8d6d8ab3e2f9fb1b1f3a0c2e24d3e8a51b0d7c6f5e4d3";
    const UID: &str = "0aa5ee3b-2d5c-4b9b-8d0e-3f1c2b4a5d6e";

    fn check(path: &str, container: Option<(Runtime, &str, Option<&str>)>, unit: Option<&str>) {
        let path = path.replace("ID", ID).replace("UID", UID).replace("U_D", &UID.replace('-', "_"));
        let container = container.map(|(runtime, id, pod)| Container {
            runtime,
            id: id.replace("ID", ID),
            pod: pod.map(|pod| pod.replace("UID", UID)),
            namespace: None,
        });
        let expected = Placement { path: path.clone(), container, unit: unit.map(str::to_owned) };
        assert_eq!(of_path(&path), expected);
    }

    #[test]
    fn containers_of_every_runtime() {
        use Runtime::*;
        let ours = |runtime| Some((runtime, "ID", None));
        let pods = |runtime| Some((runtime, "ID", Some("POD")));
        for (path, container) in [
            ("/docker/ID", ours(Docker)),
            ("/system.slice/docker-ID.scope", ours(Docker)),
            ("/../docker-ID.scope", ours(Docker)),
            ("/actions_job/docker/ID", ours(Docker)),
            ("/system.slice/nerdctl-ID.scope", ours(Containerd)),
            ("/machine.slice/libpod-ID.scope", ours(Podman)),
            ("/machine.slice/libpod-ID.scope/container", ours(Podman)),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
                ours(Podman),
            ),
            ("/libpod_parent/libpod-ID", ours(Podman)),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
                pods(Containerd),
            ),
            ("/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope", pods(Crio)),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podPOD_.slice/cri-containerd-ID.scope",
                pods(Containerd),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podPOD_.slice/docker-ID.scope",
                pods(Docker),
            ),
            ("/kubepods/burstable/podPOD/ID", pods(Kubernetes)),
            ("/kubepods/podPOD/ID", pods(Kubernetes)),
            ("/kubepods/burstable/podPOD/crio-ID", pods(Crio)),
            (
                "/system.slice/containerd.service/kubepods-burstable-podPOD_.slice:cri-containerd:ID",
                pods(Containerd),
            ),
            ("/lxc/web1", Some((Lxc, "web1", None))),
            ("/lxc.payload.web1", Some((Lxc, "web1", None))),
            ("/lxc.payload/web1", Some((Lxc, "web1", None))),
            ("/machine.slice/machine-build\\x2dbox.scope", Some((Machine, "build\\x2dbox", None))),
            ("/machine.slice/systemd-nspawn@web.service", Some((Machine, "web", None))),
            (
                "/ecs/3a1d5c0b9e8f47a6b5c4d3e2f1a0b9c8/ID",
                Some((Ecs, "3a1d5c0b9e8f47a6b5c4d3e2f1a0b9c8", None)),
            ),
        ] {
            let path = path.replace("POD_", &UID.replace('-', "_")).replace("POD", UID);
            let container = container.map(|(runtime, id, pod)| (runtime, id, pod.map(|_| UID)));
            check(&path, container, None);
        }
    }

    #[test]
    fn a_podman_pod() {
        let path = format!("/machine.slice/machine-libpod_pod_{ID}.slice/libpod-{ID}.scope");
        assert_eq!(of_path(&path).container.unwrap().pod.as_deref(), Some(ID));
    }

    #[test]
    fn units() {
        for (path, unit) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            (
                "/system.slice/system-postgresql.slice/postgresql@15-main.service",
                Some("postgresql@15-main.service"),
            ),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/gnome.service", Some("gnome.service")),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some("init.scope")),
            ("/init.scope", Some("init.scope")),
            ("/system.slice/docker.service", Some("docker.service")),
            ("/system.slice/nginx.service/workers", Some("nginx.service")),
            ("/machine.slice/libpod-conmon-ID.scope", Some(&*format!("libpod-conmon-{ID}.scope"))),
            ("/lxc.monitor.web1", None),
            ("/kubepods/burstable", None),
            ("/.service", None),
            ("/", None),
            ("", None),
        ] {
            check(path, None, unit);
        }
    }

    #[test]
    fn a_unit_inside_a_container_and_a_container_in_a_container() {
        let inside = Some((Runtime::Docker, "ID", None));
        check("/docker/ID/system.slice/nginx.service", inside, Some("nginx.service"));
        check("/lxc.payload.web1/system.slice/docker-ID.scope", inside, None);
        check("/system.slice/containerd.service/docker-ID.scope", inside, None);
    }

    #[test]
    fn the_telling_line_of_a_process_wins() {
        let v1 = format!("12:pids:/\n5:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/init.scope\n0::/\n");
        assert_eq!(of_process(v1.as_bytes()).container.unwrap().runtime, Runtime::Docker);
        let hybrid =
            b"5:cpu:/user.slice\n1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n";
        assert_eq!(of_process(hybrid).unit.as_deref(), Some("b.service"));
        assert_eq!(of_process(b"0::/\n").path, "/");
        assert_eq!(of_process(b"2:cpu:/batch\n0::/\n").path, "/batch");
        assert_eq!(of_process(b"").path, "");
        assert_eq!(of_process(b"0::/system.slice/a.service (deleted)\n").unit.as_deref(), Some("a.service"));
        let colons = b"0::/odd:name:with.service/x:y.service\n";
        assert_eq!(of_process(colons).unit.as_deref(), Some("x:y.service"));
    }

    #[test]
    fn printed_short() {
        let docker = of_path(&format!("/docker/{ID}")).container.unwrap();
        assert_eq!(docker.to_string(), "docker:4c01db0b339c");
        assert_eq!(of_path("/lxc/web1").container.unwrap().to_string(), "lxc:web1");
    }

    proptest! {
        #[test]
        fn takes_any_path(path in "(/|docker|lxc|pod|kubepods|[:.-]|scope|service|slice|\\PC){0,20}") {
            let placement = of_path(&path);
            if let Some(container) = placement.container {
                let _ = container.to_string();
            }
        }

        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = of_process(&bytes);
        }
    }
}
