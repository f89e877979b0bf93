//! Which process has which TCP socket: one pass of the kernel's `task_file` iterator, instead of a `readlink` for each
//! descriptor of each process. Shows sockets that are bound and nothing else, too, which sock_diag hides before 6.8.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::RangeInclusive,
};

use aya::{
    Ebpf,
    programs::{Iter, ProgramError, links::LinkError},
};
use tcptrace_common::{
    TraceConfig,
    open_socket::{OpenSocket as Row, OpenSocketQuery},
};
use zerocopy::IntoBytes as _;

use super::{
    attach::explain,
    btf::{self, Btf},
    coverage::{Observed, Status},
    error::ProbeError,
    object,
    plan::Kind,
};
use crate::event::{OpenSocket, SocketState, decode_open_sockets, observation};

const PROGRAM: &str = "iter_open_sockets";
const ITERATOR: &str = "task_file";

/// What the program cannot do without.
const NEEDED: [&str; 10] = [
    "file_inode",
    "inode_mode",
    "inode_ino",
    "file_private",
    "socket_sk",
    "task_tgid",
    "sk_protocol",
    "sk_type",
    "skc_num",
    "skc_family",
];

/// Hands over every descriptor of every process for a TCP socket with a local port in `ports`, in all namespaces.
///
/// # Errors
/// When BPF programs may not be loaded, or this kernel has no such iterator.
pub fn read(ports: &RangeInclusive<u16>, each: impl FnMut(OpenSocket)) -> Result<(), ProbeError> {
    load(ports, None)?.read(each)
}

/// The iterator, ready to run: loading it takes as long as its pass over some ten thousand sockets.
pub struct Loaded {
    ebpf: Ebpf,
    btf: aya::Btf,
    missing: Vec<&'static str>,
}

impl Loaded {
    /// What [`read`] does. The kernel walks the processes of the caller's pid namespace.
    ///
    /// # Errors
    /// When BPF programs may not be loaded, or this kernel has no such iterator.
    pub fn read(mut self, each: impl FnMut(OpenSocket)) -> Result<(), ProbeError> {
        read_with(&mut self.ebpf, &self.btf, &self.missing, each)
    }
}

/// Loads nothing but the iterator, for sockets with a local port in `ports`, and in `state` if there is one.
///
/// # Errors
/// When BPF programs may not be loaded, or this kernel has no such iterator.
pub fn load(ports: &RangeInclusive<u16>, state: Option<SocketState>) -> Result<Loaded, ProbeError> {
    object::raise_memlock();
    let btf = Btf::load()?;
    let resolution = btf::resolve(&btf);
    let aya_btf = btf.extract_function(&format!("bpf_iter_{ITERATOR}")).ok_or_else(|| {
        ProbeError::NothingAttached(format!("iter {ITERATOR}: this kernel has no such iterator"))
    })?;
    let config = TraceConfig::default();
    let state = state.map_or(0, |state| state as u16);
    let query = OpenSocketQuery { first: *ports.start(), last: *ports.end(), remember: 0, state };
    let mut loader = object::quick_loader();
    loader
        .override_global("LAYOUT", resolution.layout.as_bytes(), true)
        .override_global("CONFIG", config.as_bytes(), true)
        .override_global("OPEN_SOCKETS", query.as_bytes(), true)
        .override_global("AYA_LOG_LEVEL", &0_u8, true);
    let ebpf = loader.load(object::OBJECT).map_err(|error| ProbeError::load(&error))?;
    Ok(Loaded { ebpf, btf: aya_btf, missing: resolution.missing })
}

/// The same with an object that is loaded already, and as its globals ask.
pub(super) fn read_with(
    ebpf: &mut Ebpf,
    aya_btf: &aya::Btf,
    missing: &[&str],
    each: impl FnMut(OpenSocket),
) -> Result<(), ProbeError> {
    if let Some(lacking) = NEEDED.iter().find(|needed| missing.contains(needed)) {
        return Err(ProbeError::NothingAttached(format!("iter {ITERATOR}: this kernel has no {lacking}")));
    }
    let program = ebpf
        .program_mut(PROGRAM)
        .ok_or_else(|| ProbeError::Object(format!("it has no program {PROGRAM}")))?;
    let program: &mut Iter = program.try_into().map_err(|error| refused(&error))?;
    let mut open = || -> Result<File, ProgramError> {
        program.load(ITERATOR, aya_btf)?;
        let link = program.attach()?;
        program.take_link(link)?.into_file().map_err(|error| match error {
            LinkError::SyscallError(error) => ProgramError::SyscallError(error),
            _ => ProgramError::NotAttached,
        })
    };
    let file = open().map_err(|error| refused(&error))?;
    let done = rows(file, each);
    // It has served; its memory need not wait for the tracer's end.
    program.unload().map_err(|error| refused(&error))?;
    done
}

/// Decodes what the iterator writes while it writes, so that a host with a million sockets costs no more memory than one with
/// ten.
fn rows(mut file: File, mut each: impl FnMut(OpenSocket)) -> Result<(), ProbeError> {
    // As much as the kernel hands over at once (bpf_seq_read() has a buffer of eight pages).
    let mut buffer = vec![0; 32 << 10];
    let mut kept = 0;
    loop {
        let free = buffer.get_mut(kept..).unwrap_or_default();
        let count = match file.read(free) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ProbeError::NothingAttached(format!("iter {ITERATOR}: {error}"))),
        };
        let filled = kept + count;
        // A read may end within a row; at the end of all, that is an error.
        let whole = if count == 0 { filled } else { filled - filled % size_of::<Row>() };
        let sockets = decode_open_sockets(buffer.get(..whole).unwrap_or_default());
        sockets.map_err(|error| ProbeError::Object(error.to_string()))?.into_iter().for_each(&mut each);
        if count == 0 {
            return Ok(());
        }
        buffer.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
}

/// What the coverage says about owners of sockets that are older than the tracer.
pub(super) fn observed(error: Option<&ProbeError>) -> Observed {
    Observed {
        name: observation::SOCKET_OWNERS,
        status: if error.is_none() { Status::Attached } else { Status::Polled },
        back_end: None,
        via: if error.is_none() { format!("iter {ITERATOR}") } else { "sock_diag, procfs".to_owned() },
        reason: error.map(ToString::to_string),
    }
}

fn refused(error: &ProgramError) -> ProbeError {
    let why = format!("iter {ITERATOR}: {}", explain(error, Kind::BtfTracepoint));
    if why.contains("not permitted") {
        ProbeError::NotPermitted { what: why, hint: String::new() }
    } else {
        ProbeError::NothingAttached(why)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    #[test]
    fn finds_this_process_s_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut sockets = Vec::new();
        if let Err(error) = read(&(port..=port), |socket| sockets.push(socket)) {
            return println!("skipped: {error}");
        }
        let mine: Vec<_> = sockets.iter().filter(|socket| socket.pid == std::process::id()).collect();
        let [socket] = mine.as_slice() else { panic!("{sockets:?}") };
        assert_eq!(socket.endpoints.local, SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(socket.state, SocketState::Listen);
    }

    #[test]
    fn only_listeners_if_they_are_what_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ports = [&listener.local_addr(), &client.local_addr()].map(|at| at.as_ref().unwrap().port());
        let (first, last) = (ports[0].min(ports[1]), ports[0].max(ports[1]));
        let of = |state| {
            let mut found = Vec::new();
            load(&(first..=last), state)?
                .read(|socket| found.push((socket.pid, socket.endpoints.local.port())))?;
            found.retain(|(pid, port)| *pid == std::process::id() && ports.contains(port));
            Ok::<_, ProbeError>(found.len())
        };
        match (of(None), of(Some(SocketState::Listen))) {
            (Ok(all), Ok(listening)) => assert_eq!((all, listening), (2, 1)),
            (Err(error), _) | (_, Err(error)) => println!("skipped: {error}"),
        }
    }

    #[test]
    fn rows_may_be_cut_between_reads_but_not_at_the_end() {
        let write = |length: usize| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![0; length]).unwrap();
            file.rewind().unwrap();
            file
        };
        // Longer than the buffer, which is no multiple of a row.
        let many = 1000;
        let mut seen = 0;
        rows(write(many * size_of::<Row>()), |_| seen += 1).unwrap();
        assert_eq!(seen, many);
        assert!(rows(write(many * size_of::<Row>() + 1), |_| ()).is_err());
    }
}
