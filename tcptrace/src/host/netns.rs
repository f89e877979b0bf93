//! Network namespaces of the host: which there are, and how to look at things from inside one.
//!
//! A namespace's id is the inode of its nsfs file (`/proc/PID/ns/net`), which is also `net->ns.inum` in the kernel, and
//! so the `netns` of every event.
//!
//! The kernel uses such a number again as soon as its namespace is gone. [`cookie_here`] is the identity that it does not.
//!
//! An open handle keeps its namespace alive in the kernel (with its interfaces: the host's end of a container's veth
//! pair stays, too). [`NetnsTable::refresh`] therefore lets go of every namespace that nothing else refers to any more;
//! callers drop what they opened in those ([`Refresh::gone`]) for the same reason.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::{getsockopt_impl, sockopt_impl};

use super::procfs::{Procfs, link_inode};
use crate::command::Standpoint;

/// Why a network namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The nsfs file could not be opened.
    #[error("cannot open the network namespace {path}: {source}{}", permission_hint(source))]
    Open {
        /// The file tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `setns` was refused.
    #[error("cannot enter network namespace {id}: {source}{}", permission_hint(source))]
    Enter {
        /// The namespace.
        id: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be started for the visit.
    #[error(
        "cannot start a thread to visit network namespace {id}: {source}; is the process at its thread limit?"
    )]
    Thread {
        /// The namespace.
        id: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The processes of the host could not be listed.
    #[error("cannot list the processes in {path}: {source}; is procfs mounted there?")]
    List {
        /// The procfs root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn permission_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; other processes' namespaces need CAP_SYS_ADMIN and CAP_SYS_PTRACE (run with sudo)"
    } else {
        ""
    }
}

/// An open handle on one network namespace. Clones share the handle; the last one dropped closes it.
#[derive(Debug, Clone)]
pub struct Netns {
    id: u32,
    name: Option<Arc<str>>,
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// The calling thread's namespace.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when procfs is not mounted at `/proc`.
    pub fn current() -> Result<Self, NetnsError> {
        Self::from_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace a process is in.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when the process is gone, or not ours to look at.
    pub fn of_process(procfs: &Procfs, pid: u32) -> Result<Self, NetnsError> {
        Self::from_path(&procfs.root().join(pid.to_string()).join("ns/net"))
    }

    /// The namespace behind an nsfs file or bind mount, for example `/run/netns/blue`.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when it cannot be opened.
    pub fn from_path(path: &Path) -> Result<Self, NetnsError> {
        let open = || -> io::Result<(u32, OwnedFd)> {
            let file = File::open(path)?;
            // nsfs inodes come from the kernel's 32-bit proc inode allocator (ns_common.inum is an unsigned int).
            let id = u32::try_from(file.metadata()?.ino()).map_err(|_| not_a_namespace())?;
            Ok((id, file.into()))
        };
        let (id, fd) = open().map_err(|source| NetnsError::Open { path: path.to_owned(), source })?;
        Ok(Self { id, name: None, fd: Arc::new(fd) })
    }

    /// Inode of the namespace's nsfs file.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The name an administrator knows it by (`blue` for `/run/netns/blue`), if it is bind-mounted somewhere.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same handle under a name.
    #[must_use]
    pub fn named(mut self, name: Option<&str>) -> Self {
        self.name = name.map(Arc::from);
        self
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn not_a_namespace() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace file")
}

/// Id of the host's network namespace, that of pid 1; `None` where that may not be looked at.
#[must_use]
pub fn host_id() -> Option<u32> {
    let inode = std::fs::metadata("/proc/1/ns/net").ok()?.ino();
    u32::try_from(inode).ok()
}

/// Where commands of this process are typed.
#[must_use]
pub fn standpoint() -> Standpoint {
    Standpoint { own: current_id().ok(), host: host_id() }
}

/// Id of the calling thread's network namespace.
///
/// # Errors
/// When `/proc/thread-self/ns/net` cannot be read.
pub fn current_id() -> io::Result<u32> {
    let inode = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(inode).map_err(|_| not_a_namespace())
}

sockopt_impl!(
    /// The cookie of a socket's network namespace (`SO_NETNS_COOKIE`, since 5.14).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// Cookie of the calling thread's network namespace: a number that no other namespace is given while the host runs. `None` before
/// 5.14, or where no socket can be opened.
pub fn cookie_here() -> Option<u64> {
    let of_socket = || -> nix::Result<u64> {
        let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        getsockopt(&any, NetnsCookie)
    };
    of_socket().inspect_err(|errno| log::debug!("SO_NETNS_COOKIE: {errno}")).ok()
}

/// Runs `visit` inside the namespace, on a thread of its own: the caller's namespace never changes. File descriptors that
/// `visit` opens and returns (sockets, `/proc/thread-self/net/…`) keep showing that namespace afterwards.
///
/// Needs no rights when the caller is in that namespace already. A panic in `visit` goes on in the caller.
///
/// # Errors
/// [`NetnsError::Enter`] when the kernel refuses, [`NetnsError::Thread`] when no thread can be started.
pub fn in_netns<T: Send>(netns: &Netns, visit: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let id = netns.id;
    std::thread::scope(|scope| {
        let visitor = std::thread::Builder::new()
            .name(format!("netns-{id}"))
            .spawn_scoped(scope, || {
                if current_id().ok() != Some(id) {
                    setns(netns, CloneFlags::CLONE_NEWNET)
                        .map_err(|errno| NetnsError::Enter { id, source: errno.into() })?;
                }
                Ok(visit())
            })
            .map_err(|source| NetnsError::Thread { id, source })?;
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What changed in a [`NetnsTable`] at a refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refresh {
    /// Namespaces seen for the first time, ascending.
    pub appeared: Vec<u32>,
    /// Namespaces that no process and no bind mount refers to any more, ascending. Drop what you hold of them.
    pub gone: Vec<u32>,
    /// Processes whose namespace may not be looked at (not root): there may be namespaces that are not in the table.
    pub unreadable: u32,
    /// Namespaces that were seen and could not be opened (fd limit, or gone in between).
    pub unopened: u32,
}

/// All network namespaces of the host, each with an open handle.
///
/// Found through processes (thread group leaders) and bind mounts, in the tracer's mount namespace and in that of pid 1.
/// A namespace that is kept alive by nothing but an open file descriptor, a socket, or a single thread of a process is
/// not found.
#[derive(Debug)]
pub struct NetnsTable {
    procfs: Procfs,
    own: u32,
    known: BTreeMap<u32, Netns>,
    /// Of each, the process in it that has the lowest id.
    members: BTreeMap<u32, u32>,
    /// Whose view of the mounts is read (names in procfs).
    mount_views: Vec<String>,
}

impl NetnsTable {
    /// A table that holds the caller's own namespace only; [`NetnsTable::refresh`] finds the others.
    ///
    /// # Errors
    /// When the caller's own namespace cannot be opened.
    pub fn new(procfs: Procfs) -> Result<Self, NetnsError> {
        let own = Netns::current()?;
        Ok(Self {
            procfs,
            own: own.id,
            known: BTreeMap::from([(own.id, own)]),
            members: BTreeMap::new(),
            mount_views: vec!["self".to_owned(), "1".to_owned()],
        })
    }

    /// Id of the namespace that the table was made in.
    pub fn own(&self) -> u32 {
        self.own
    }

    /// The handle of a namespace.
    pub fn get(&self, id: u32) -> Option<&Netns> {
        self.known.get(&id)
    }

    /// A process in a namespace, through which commands can enter it: at the last refresh, that of the lowest id.
    pub fn member(&self, id: u32) -> Option<u32> {
        self.members.get(&id).copied()
    }

    /// All namespaces, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = &Netns> {
        self.known.values()
    }

    /// Looks for namespaces anew: one `readlink` a process. Handles of namespaces that are still there stay as they are.
    ///
    /// # Errors
    /// When the processes cannot be listed at all. What cannot be read of single processes is counted in the result.
    pub fn refresh(&mut self) -> Result<Refresh, NetnsError> {
        let pids = self
            .procfs
            .pids()
            .map_err(|source| NetnsError::List { path: self.procfs.root().to_owned(), source })?;
        let mut refresh = Refresh::default();
        self.members.clear();
        let mut seen = BTreeSet::from([self.own]);
        let mut unopened = BTreeSet::new();

        // Mounts first: they give the names.
        for (mount, id) in self.mounted() {
            let name = mount.file_name().map(|name| name.to_string_lossy().into_owned());
            self.admit(id, &mount, name.as_deref(), &mut seen, &mut unopened, &mut refresh);
        }
        for pid in pids {
            let path = self.procfs.root().join(pid.to_string()).join("ns/net");
            match std::fs::read_link(&path) {
                Ok(link) => {
                    let id =
                        link_inode(link.as_os_str().as_bytes(), "net").and_then(|id| u32::try_from(id).ok());
                    if let Some(id) = id {
                        self.members.entry(id).and_modify(|first| *first = pid.min(*first)).or_insert(pid);
                        self.admit(id, &path, None, &mut seen, &mut unopened, &mut refresh);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refresh.unreadable += 1,
                Err(_) => {} // exited between the listing and here
            }
        }

        self.known.retain(|id, _| {
            let stays = seen.contains(id);
            if !stays {
                refresh.gone.push(*id);
            }
            stays
        });
        refresh.appeared.sort_unstable();
        refresh.unopened = u32::try_from(unopened.difference(&seen).count()).unwrap_or(u32::MAX);
        Ok(refresh)
    }

    fn admit(
        &mut self,
        id: u32,
        path: &Path,
        name: Option<&str>,
        seen: &mut BTreeSet<u32>,
        unopened: &mut BTreeSet<u32>,
        refresh: &mut Refresh,
    ) {
        if let Some(known) = self.known.get_mut(&id) {
            seen.insert(id);
            if name.is_some() && known.name() != name {
                known.name = name.map(Arc::from);
            }
            return;
        }
        match Netns::from_path(path) {
            // The process may have moved, the mount may have been replaced: the id of what was opened counts.
            Ok(netns) => {
                if seen.insert(netns.id) && !self.known.contains_key(&netns.id) {
                    refresh.appeared.push(netns.id);
                    self.known.insert(netns.id, netns.named(name));
                }
            }
            Err(_) => {
                unopened.insert(id);
            }
        }
    }

    /// Bind-mounted network namespaces: where each can be reached from here, and its id.
    fn mounted(&self) -> Vec<(PathBuf, u32)> {
        let mut mounts = Vec::new();
        let mut namespaces_read = BTreeSet::new();
        for view in &self.mount_views {
            let process = self.procfs.root().join(view);
            // Two views of the same mount namespace show the same mounts.
            if let Ok(link) = std::fs::read_link(process.join("ns/mnt"))
                && !namespaces_read.insert(link)
            {
                continue;
            }
            let Ok(mountinfo) = std::fs::read(process.join("mountinfo")) else { continue };
            let root = process.join("root");
            for (mount_point, id) in nsfs_mounts(&mountinfo) {
                let relative = mount_point.strip_prefix("/").unwrap_or(&mount_point);
                mounts.push((root.join(relative), id));
            }
        }
        mounts
    }
}

/// The network namespaces in a `/proc/PID/mountinfo`: mount point and id of each.
fn nsfs_mounts(mountinfo: &[u8]) -> Vec<(PathBuf, u32)> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(nsfs_mount).collect()
}

/// One line, as proc(5) has it: `36 35 0:4 net:[4026532200] /run/netns/blue rw shared:1 - nsfs nsfs rw`.
fn nsfs_mount(line: &[u8]) -> Option<(PathBuf, u32)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let root = fields.next()?;
    let id = u32::try_from(link_inode(root, "net")?).ok()?;
    let mount_point = unescape_octal(fields.next()?);
    let filesystem = fields.skip_while(|field| *field != b"-").nth(1)?;
    (filesystem == b"nsfs").then(|| (PathBuf::from(OsString::from_vec(mount_point)), id))
}

/// Undoes mountinfo's escapes of blank, tab, newline and backslash (`\040`).
fn unescape_octal(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let Some((digits, after)) = tail.split_at_checked(3)
            && let Some(escaped) =
                std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            out.push(escaped);
            rest = after;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{KillOnDrop, private_netns, wait_for};
    use proptest::prelude::*;
    use std::process::{Command, Stdio};
    use std::sync::{Mutex, PoisonError};

    /// How many of this process's descriptors are handles on one of these namespaces.
    fn handles_on(ids: &[u32]) -> usize {
        let links = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let ids: Vec<u64> = ids.iter().copied().map(u64::from).collect();
        links
            .filter_map(|link| link_inode(link.as_os_str().as_bytes(), "net"))
            .filter(|id| ids.contains(id))
            .count()
    }

    #[test]
    fn own_namespace_needs_no_rights() {
        let own = Netns::current().unwrap();
        assert_eq!(own.id(), current_id().unwrap());
        assert_eq!(in_netns(&own, || current_id().unwrap()).unwrap(), own.id());
    }

    #[test]
    fn a_visit_leaves_the_caller_where_it_was() {
        let Some(netns) = private_netns() else { return };
        let before = current_id().unwrap();
        assert_ne!(netns.id(), before);
        assert_eq!(in_netns(&netns, || current_id().unwrap()).unwrap(), netns.id());
        assert_eq!(current_id().unwrap(), before);
    }

    /// Numbers are given again at once, the lowest free one first: what makes the cookie necessary.
    #[test]
    fn a_number_is_used_again_and_a_cookie_is_not() {
        let _turn = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let cookie = |netns: &Netns| in_netns(netns, cookie_here).unwrap();
        // Several, since whoever else makes namespaces on this machine may be given the number of one.
        let first: Vec<Netns> = (0..16).map_while(|_| private_netns()).collect();
        let known: Vec<(u32, Option<u64>)> = first.iter().map(|netns| (netns.id(), cookie(netns))).collect();
        match known.first() {
            None => return,
            Some((_, None)) => {
                return println!("skipped: this kernel does not tell the cookie of a namespace");
            }
            Some(of_first) => assert_eq!((first[0].id(), cookie(&first[0])), *of_first),
        }
        drop(first);
        let mut kept = Vec::new();
        let mut again = None;
        wait_for(|| {
            kept.extend(private_netns());
            let of = |netns: &Netns| known.iter().find(|(id, _)| *id == netns.id()).copied();
            again = kept.last().and_then(of);
            again.is_some()
        });
        let (_, of_first) = again.unwrap_or_else(|| panic!("none of {known:?} was used again"));
        assert_ne!(cookie(kept.last().unwrap()), of_first);
    }

    #[test]
    fn an_nsfs_file_of_another_kind_is_refused_when_entered() {
        let uts = Netns::from_path(Path::new("/proc/self/ns/uts")).unwrap();
        assert!(matches!(in_netns(&uts, || ()), Err(NetnsError::Enter { .. })));
    }

    #[test]
    fn a_vanished_process_is_an_error_that_names_the_file() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let error = Netns::of_process(&Procfs::default(), child.id()).unwrap_err();
        assert!(error.to_string().contains(&format!("/proc/{}/ns/net", child.id())), "{error}");
    }

    /// A process in a network namespace of its own, if the machine lets us make one.
    fn process_in_own_netns(own: u32) -> Option<(KillOnDrop, u32)> {
        let child = Command::new("unshare").args(["-n", "sleep", "60"]).stderr(Stdio::null()).spawn().ok()?;
        let child = KillOnDrop(child);
        let mut id = own;
        wait_for(|| {
            id = Netns::of_process(&Procfs::default(), child.0.id()).map_or(own, |netns| netns.id());
            id != own
        })
        .then_some((child, id))
    }

    /// Tests that hold or count handles on every namespace of the machine take turns.
    static TABLES: Mutex<()> = Mutex::new(());

    #[test]
    fn a_hundred_namespaces_come_and_go_without_a_leak() {
        let Some(_) = private_netns() else { return };
        let _turn = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = NetnsTable::new(Procfs::default()).unwrap();
        table.refresh().unwrap();
        let own = table.own();
        for _ in 0..5 {
            let made: Vec<_> = (0..20).filter_map(|_| process_in_own_netns(own)).collect();
            assert_eq!(made.len(), 20);
            let refresh = table.refresh().unwrap();
            for (_, id) in &made {
                assert!(refresh.appeared.contains(id));
                let netns = table.get(*id).unwrap();
                assert_eq!(in_netns(netns, || current_id().unwrap()).unwrap(), *id);
            }
            assert!(
                table.refresh().unwrap().appeared.iter().all(|id| made.iter().all(|(_, made)| made != id))
            );
            let ids: Vec<u32> = made.iter().map(|(_, id)| *id).collect();
            assert_eq!(handles_on(&ids), 20);
            drop(made);
            let refresh = table.refresh().unwrap();
            assert!(ids.iter().all(|id| refresh.gone.contains(id) && table.get(*id).is_none()));
            assert_eq!(handles_on(&ids), 0);
        }
    }

    #[test]
    fn a_namespace_that_only_a_bind_mount_holds_is_found_with_its_name() {
        let Some(_) = private_netns() else { return };
        let _turn = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("blue one");
        std::fs::write(&file, "").unwrap();
        // The mount lives in the helper's own mount namespace, so nothing can be left behind on this machine.
        let script = r#"unshare -n mount --bind /proc/self/ns/net "$0" && touch "$0.ready"; exec sleep 60"#;
        let helper = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(&file).spawn();
        let Ok(helper) = helper.map(KillOnDrop) else { return };
        let ready = directory.path().join("blue one.ready");
        if !wait_for(|| ready.exists()) {
            println!("skipped: no bind mount in a private mount namespace here");
            return;
        }
        let mut table = NetnsTable::new(Procfs::default()).unwrap();
        table.mount_views = vec![helper.0.id().to_string()];
        table.refresh().unwrap();
        let blue = table.iter().find(|netns| netns.name() == Some("blue one")).unwrap().clone();
        assert_eq!(in_netns(&blue, || current_id().unwrap()).unwrap(), blue.id());
        drop(helper);
        assert!(table.refresh().unwrap().gone.contains(&blue.id()));
    }

    #[test]
    fn mountinfo_lines() {
        let text = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            36 35 0:4 net:[4026532200] /run/netns/bl\\040ue rw shared:1 master:2 - nsfs nsfs rw\n\
            37 35 0:4 net:[4026532201] /run/docker/netns/x rw - nsfs nsfs rw\n\
            38 35 0:4 mnt:[4026532202] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n\
            39 35 0:4 net:[1] /trap rw - tmpfs tmpfs rw\n\
            40 35 0:4 net:[9";
        assert_eq!(
            nsfs_mounts(text),
            [
                (PathBuf::from("/run/netns/bl ue"), 4_026_532_200),
                (PathBuf::from("/run/docker/netns/x"), 4_026_532_201)
            ]
        );
    }

    proptest! {
        #[test]
        fn mountinfo_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = nsfs_mounts(&bytes);
        }
    }
}
