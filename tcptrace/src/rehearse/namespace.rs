//! A private network namespace, held by one thread of ours that lives in it.
//!
//! The namespace belongs to that thread alone: the caller's process stays in its own. Whatever must happen inside
//! (sysctls, `/proc/net`, starting actors, which inherit it) is run on the thread.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

use super::error::{During, Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// One private network namespace. It ends when this is dropped and the last process in it has gone.
#[derive(Debug)]
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    file: File,
    inode: u32,
}

impl Namespace {
    /// Makes a namespace; nothing in it is up yet.
    pub(super) fn new() -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, entrance) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("tt-netns".into())
            .spawn(move || {
                // /proc/self is the process, which stays outside; thread-self is what has just moved.
                let entered =
                    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| refused(errno.into())).and_then(|()| {
                        File::open("/proc/thread-self/ns/net").during("opening /proc/thread-self/ns/net")
                    });
                let go_on = entered.is_ok();
                if opened.send(entered).is_ok() && go_on {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .during("starting a thread for the network namespace")?;
        let file =
            entrance.recv().map_err(|_| Error::NotSupported("the namespace thread ended".into()))??;
        let inode = file.metadata().during("reading the namespace's inode")?.ino();
        let inode = u32::try_from(inode)
            .map_err(|_| Error::NotSupported(format!("namespace inode {inode} has more than 32 bits")))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), file, inode })
    }

    /// The namespace's number, as in `/proc/PID/ns/net` and in the kernel's `net->ns.inum`.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// For `setns(2)`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A path that opens this namespace, valid in this process for as long as `self` lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Runs `work` inside the namespace and hands back its result.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let gone = || Error::NotSupported("the namespace thread has ended".into());
        let (answer, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // The receiver is below and waits: this fails only if that thread was torn down, and then nobody asks.
            let _ = answer.send(work());
        });
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }

    /// Reads a setting of this namespace; `name` as for sysctl(8), e.g. `net.core.somaxconn`.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let (path, name) = (sysctl_path(name), name.to_owned());
        self.run(move || fs::read_to_string(&path))?
            .map(|text| text.trim().to_owned())
            .during(format!("reading {name}"))
    }

    /// Changes a setting of this namespace.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let (path, text) = (sysctl_path(name), value.to_owned());
        self.run(move || fs::write(&path, text))?.map_err(|source| {
            let what = format!("setting {name}={value} in the private namespace");
            match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Error::NotPermitted {
                    what,
                    source,
                    advice: "/proc/sys is not writable here: run as root, in a container with --privileged",
                },
                _ => Error::Io { what, source },
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It only ever panics if a job did, and that job's caller has been told.
            let _ = thread.join();
        }
    }
}

fn sysctl_path(name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/{}", name.replace('.', "/")))
}

fn refused(source: io::Error) -> Error {
    let what = "making a private network namespace".to_owned();
    match source.raw_os_error() {
        Some(libc::EINVAL) => {
            Error::NotSupported(format!("{what}: this kernel has no network namespaces (CONFIG_NET_NS)"))
        }
        Some(libc::ENOSPC) => Error::NotPermitted {
            what,
            source,
            advice: "the limit of namespaces is reached: raise user.max_net_namespaces",
        },
        Some(libc::EPERM) => Error::NotPermitted {
            what,
            source,
            advice: "it needs CAP_SYS_ADMIN: run as root; in a container add --privileged, \
                     or --cap-add SYS_ADMIN with a seccomp profile that allows unshare",
        },
        _ => Error::Io { what, source },
    }
}
