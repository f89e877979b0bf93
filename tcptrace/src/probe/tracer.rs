//! The loaded eBPF object: attached programs, ring buffer, maps.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
};
use aya_log::EbpfLogger;
use tcptrace_common::{
    TraceConfig,
    config::{SERVE_ALL, STREAM_ALL},
    connect::{ConnectKey, ConnectTotals},
    listener::{HISTOGRAM_BUCKETS, ListenerState, PrefixKey},
    open_socket::OpenSocketQuery,
    port::{PortUse, PortUseKey},
    record::KINDS,
    stand_in::Attended,
};
use zerocopy::{IntoBytes as _, transmute, transmute_ref};

use super::{
    attach::{self, Attached, Outcome, Tier},
    batch::BatchMap,
    btf::{self, Btf},
    cost::ProgramCosts,
    coverage::Coverage,
    error::ProbeError,
    misses, object, open_sockets,
    plan::STAND_INS,
    tracefs,
};
use crate::event::OpenSocket;

/// Bytes of the ring buffer unless said otherwise.
pub const RING_BYTES: u32 = 4 << 20;

/// A listener's counters, the way they come out of the map.
type ListenerBytes = [u8; size_of::<ListenerState>()];
/// Key and value of what a process did with ephemeral ports.
type PortUseKeyBytes = [u8; size_of::<PortUseKey>()];
/// See [`PortUseKeyBytes`].
type PortUseBytes = [u8; size_of::<PortUse>()];
/// Key and value of the counts of a process's connects to one destination.
type ConnectKeyBytes = [u8; size_of::<ConnectKey>()];
/// See [`ConnectKeyBytes`].
type ConnectBytes = [u8; size_of::<ConnectTotals>()];

/// A listener's distribution of times as the kernel side keeps it.
type HistogramBytes = [u32; HISTOGRAM_BUCKETS];

/// What stand-ins did, as the kernel side keeps it.
type AttendedWords = [u64; size_of::<Attended>() / size_of::<u64>()];

/// How to trace.
#[derive(Clone, Debug)]
pub struct Options {
    /// In-kernel filters and streaming.
    pub config: TraceConfig,
    /// Which tiers may be used.
    pub tier: Tier,
    /// Size of the ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Pass on the kernel side's own log, for debugging it.
    pub kernel_log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { config: TraceConfig::default(), tier: Tier::Auto, ring_bytes: RING_BYTES, kernel_log: false }
    }
}

/// A running trace. Everything detaches when it is dropped.
pub struct Tracer {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    /// `None` where a kprobe is attached: see [`batch`](super::batch).
    listeners: Option<BatchMap<{ size_of::<ListenerState>() }>>,
    listener: HashMap<MapData, u64, ListenerBytes>,
    waits: HashMap<MapData, u64, HistogramBytes>,
    handshakes: HashMap<MapData, u64, HistogramBytes>,
    prefixes: HashMap<MapData, [u8; size_of::<PrefixKey>()], u64>,
    connects: HashMap<MapData, ConnectKeyBytes, ConnectBytes>,
    lost: Array<MapData, [u64; KINDS]>,
    attended: PerCpuArray<MapData, AttendedWords>,
    drop_reasons: BTreeMap<u32, String>,
    port_use: HashMap<MapData, PortUseKeyBytes, PortUseBytes>,
    served: Array<MapData, [u64; 1024]>,
    coverage: Coverage,
    attached: Vec<Attached>,
    kernel_log: Option<EbpfLogger<&'static dyn log::Log>>,
    streams_all: bool,
    open_sockets: Option<Vec<OpenSocket>>,
}

impl Tracer {
    /// Loads the eBPF object for the running kernel and attaches what can be attached.
    ///
    /// # Errors
    ///
    /// [`ProbeError`] when nothing can be traced at all: no BTF, no permission to load BPF programs, or no attachment
    /// that works. A part that cannot be had is not an error but a gap in [`Self::coverage`].
    pub fn start(options: &Options) -> Result<Self, ProbeError> {
        let tracer = Self::start_in_full_memory(options);
        // The types of a kernel are some ten megabytes, which are not needed any more.
        give_memory_back();
        tracer
    }

    fn start_in_full_memory(options: &Options) -> Result<Self, ProbeError> {
        object::raise_memlock();
        tracefs::mount_privately();
        let mut phases = Phases::default();
        let (mut loader, types) = object::loader_beside(|| {
            let btf = Btf::load()?;
            let resolution = btf::resolve(&btf);
            let aya_btf = aya::Btf::parse_file(Path::new(btf::VMLINUX), aya::Endianness::default());
            Ok::<_, ProbeError>((btf, resolution, aya_btf))
        });
        let (btf, resolution, aya_btf) = types?;
        let aya_btf = aya_btf.map_err(|error| ProbeError::Object(error.to_string()))?;
        phases.end("read the kernel's types");
        log::debug!("this kernel has no {:?}", resolution.missing);
        if !resolution.ambiguous.is_empty() {
            log::warn!("this kernel's BTF is ambiguous about {:?}", resolution.ambiguous);
        }
        let query = OpenSocketQuery { first: 0, last: u16::MAX, remember: 1, state: 0 };
        // 0: the log statements are pruned from the programs.
        let log_level = if options.kernel_log { aya_log::Level::Debug as u8 } else { 0 };
        let mut ebpf = loader
            .override_global("LAYOUT", resolution.layout.as_bytes(), true)
            .override_global("CONFIG", options.config.as_bytes(), true)
            .override_global("OPEN_SOCKETS", query.as_bytes(), true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .map_max_entries("EVENTS", options.ring_bytes)
            .load(object::OBJECT)
            .map_err(|error| ProbeError::load(&error))?;
        drop(loader);
        phases.end("load the object and its maps");
        let streams_all = options.config.flags & STREAM_ALL != 0;
        let Outcome { mut coverage, attached, serves } =
            attach::attach(&mut ebpf, &btf, &aya_btf, &resolution.missing, options.tier, streams_all);
        phases.end("load and attach the programs");
        if attached.is_empty() {
            return Err(ProbeError::nothing_attached(&coverage));
        }
        // From here on all of them count, and nothing new is missed.
        let mut map: Array<MapData, u32> = Array::try_from(take(&mut ebpf, "SERVES")?)?;
        map.set(0, serves | SERVE_ALL, 0)?;
        // Who has what was there before.
        let mut open_sockets = Some(Vec::new());
        let outcome = open_sockets::read_with(&mut ebpf, &aya_btf, &resolution.missing, |socket| {
            if !socket.state.is_connected() {
                open_sockets.get_or_insert_default().push(socket);
            }
        });
        coverage.observations.push(open_sockets::observed(outcome.as_ref().err()));
        if outcome.is_err() {
            open_sockets = None;
        }
        let kernel_log = options.kernel_log.then(|| EbpfLogger::init(&mut ebpf)).transpose();
        let kernel_log = kernel_log.map_err(|error| ProbeError::Object(format!("its log: {error}")))?;
        let Map::HashMap(listeners) = take(&mut ebpf, "LISTENERS")? else {
            return Err(ProbeError::Object("its map LISTENERS is no hash map".to_owned()));
        };
        let kprobes = attached.iter().any(Attached::is_kprobe);
        Ok(Self {
            ring: RingBuf::try_from(take(&mut ebpf, "EVENTS")?)?,
            listeners: (!kprobes).then(|| BatchMap::new(listeners.fd().as_fd())).transpose()?,
            listener: HashMap::try_from(Map::HashMap(listeners))?,
            waits: HashMap::try_from(take(&mut ebpf, "WAITS")?)?,
            handshakes: HashMap::try_from(take(&mut ebpf, "HANDSHAKES")?)?,
            prefixes: HashMap::try_from(take(&mut ebpf, "PREFIXES")?)?,
            connects: HashMap::try_from(take(&mut ebpf, "CONNECTS")?)?,
            lost: Array::try_from(take(&mut ebpf, "LOST")?)?,
            attended: PerCpuArray::try_from(take(&mut ebpf, "ATTENDED")?)?,
            port_use: HashMap::try_from(take(&mut ebpf, "PORT_USE")?)?,
            served: Array::try_from(take(&mut ebpf, "SERVED")?)?,
            kernel_log,
            drop_reasons: btf.enum_names("skb_drop_reason", "SKB_DROP_REASON_"),
            streams_all,
            open_sockets,
            ebpf,
            coverage,
            attached,
        })
    }

    /// What is observed and what is not.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Whether every step of every connection is streamed. Then nobody is woken: the ring buffer must be emptied often.
    #[must_use]
    pub fn streams_all(&self) -> bool {
        self.streams_all
    }

    /// The attachments that stand.
    #[must_use]
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// Sockets that processes had open when all was attached, connections left out: those the kernel side remembers. `None` if
    /// the kernel has no iterator to tell, and the second time.
    pub fn take_open_sockets(&mut self) -> Option<Vec<OpenSocket>> {
        self.open_sockets.take()
    }

    /// Hands every record that waits in the ring buffer to `each`, and says how many there were. Does not block.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
        let mut records = 0;
        while let Some(record) = self.ring.next() {
            each(&record);
            records += 1;
        }
        records
    }

    /// Hands the counters of every listener that had traffic or began since the start to `each`, by key: the listener's address in the kernel;
    /// in the tracepoint tier namespace and port.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn listeners(&self, mut each: impl FnMut(u64, &ListenerState)) -> Result<(), ProbeError> {
        match &self.listeners {
            Some(map) => Ok(map.read(|key, bytes| each(key, &transmute!(*bytes)))?),
            None => each_entry(&self.listener, |key, bytes| each(key, &transmute!(bytes))),
        }
    }

    /// The same of one listener; `None` if it is gone.
    #[must_use]
    pub fn listener(&self, key: u64) -> Option<ListenerState> {
        self.listener.get(&key, 0).ok().map(|bytes| transmute!(bytes))
    }

    /// How long connections of the listener with this key waited to be accepted, by bucket; `None` if none did.
    #[must_use]
    pub fn waits(&self, key: u64) -> Option<HistogramBytes> {
        self.waits.get(&key, 0).ok()
    }

    /// How long its handshakes took, likewise.
    #[must_use]
    pub fn handshakes(&self, key: u64) -> Option<HistogramBytes> {
        self.handshakes.get(&key, 0).ok()
    }

    /// Connections completed, by listener and remote network; empty unless SYN-ACKs go unanswered.
    #[must_use]
    pub fn prefixes(&self) -> Vec<(PrefixKey, u64)> {
        let entries = self.prefixes.iter().filter_map(Result::ok);
        entries.map(|(key, completed)| (transmute!(key), completed)).collect()
    }

    /// What each process did with ephemeral ports.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn port_use(&self) -> Result<Vec<(PortUseKey, PortUse)>, ProbeError> {
        let mut uses = Vec::new();
        each_entry(&self.port_use, |key: PortUseKeyBytes, counts: PortUseBytes| {
            uses.push((transmute!(key), transmute!(counts)));
        })?;
        Ok(uses)
    }

    /// Forgets the counts of a process: it holds no port.
    pub fn forget_port_use(&mut self, key: &PortUseKey) {
        // An error means that it is gone already.
        let _ = self.port_use.remove(transmute_ref!(key));
    }

    /// Tells the kernel side which ports servers have or had (bit n of the 65536 is port n): a client that is given one of
    /// them is reported.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn watch_ports(&mut self, served: [u64; 1024]) -> Result<(), ProbeError> {
        Ok(self.served.set(0, served, 0)?)
    }

    /// The counts of connects that were not answered at once, by process and destination.
    #[must_use]
    pub fn connects(&self) -> Vec<(ConnectKey, ConnectTotals)> {
        let entries = self.connects.iter().filter_map(Result::ok);
        entries.map(|(key, totals)| (transmute!(key), transmute!(totals))).collect()
    }

    /// This kernel's name for a reason to drop a packet; `None` if it has none for that number.
    #[must_use]
    pub fn drop_reason(&self, number: u32) -> Option<&str> {
        self.drop_reasons.get(&number).map(String::as_str)
    }

    /// Records lost so far, by kind: those that found no room in the ring buffer; slot 0 counts listeners that found no
    /// room in their map.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn lost(&self) -> Result<[u64; KINDS], ProbeError> {
        Ok(self.lost.get(&0, 0)?)
    }

    /// How often each attached program has run, since BPF statistics were switched on (`aya::sys::enable_stats`).
    #[must_use]
    pub fn run_counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for attached in &self.attached {
            if let Some(info) = self.ebpf.program(attached.program).and_then(|program| program.info().ok()) {
                counts.insert(attached.program, info.run_count());
            }
        }
        counts
    }

    /// The attached programs, for what the kernel says that they cost.
    #[must_use]
    pub fn costs(&self) -> ProgramCosts {
        let mut names: Vec<&'static str> = self.attached.iter().map(|attached| attached.program).collect();
        names.sort_unstable();
        names.dedup();
        let programs = names.into_iter().filter_map(|name| self.ebpf.program(name)?.fd().ok());
        ProgramCosts(programs.filter_map(|fd| fd.as_fd().try_clone_to_owned().ok()).collect())
    }

    /// How often the kernel skipped a run of each attached program, because it would have interrupted itself, and nobody made up
    /// for it. Without those of which nothing is lost
    /// ([`Skip::Harmless`](super::plan::Skip::Harmless)), unless everything is streamed.
    #[must_use]
    pub fn misses(&self) -> BTreeMap<&'static str, u64> {
        let missed = self.skipped();
        if STAND_INS.iter().any(|(program, _)| missed.get(program).is_some_and(|missed| *missed > 0)) {
            // A stand-in runs right after the one that was skipped, but that may be just now.
            thread::sleep(Duration::from_millis(1));
        }
        misses::worth_telling(missed, |index| self.stood_in(index), self.streams_all)
    }

    /// Programs whose stand-in did more than the kernel had skipped: something was counted twice. For self-tests.
    #[must_use]
    pub fn done_twice(&self) -> Vec<&'static str> {
        // In this order: what is skipped in between is in neither, or in the second.
        let done: Vec<_> =
            STAND_INS.iter().map(|(program, index)| (*program, self.stood_in(*index))).collect();
        let skipped = self.skipped();
        let twice = |(program, done): &(_, u64)| *done > skipped.get(program).copied().unwrap_or(0);
        done.into_iter().filter(twice).map(|(program, _)| program).collect()
    }

    /// How many instructions the kernel's verifier went through for this program; `None` before 5.16.
    #[must_use]
    pub fn verified_instructions(&self, program: &str) -> Option<u64> {
        misses::verified_of_program(self.ebpf.program(program)?.fd().ok()?.as_fd())
    }

    /// How often the kernel skipped a run of each attached program.
    fn skipped(&self) -> BTreeMap<&'static str, u64> {
        let program = |name| self.ebpf.program(name).and_then(|program| program.fd().ok());
        let skipped = |a: &Attached| Some((a.program, misses::of_program(program(a.program)?.as_fd())));
        self.attached.iter().filter_map(skipped).collect()
    }

    /// How often a stand-in did another program's work.
    fn stood_in(&self, index: u32) -> u64 {
        let per_cpu =
            self.attended.get(&index, 0).inspect_err(|error| log::error!("the map ATTENDED: {error}"));
        per_cpu.map_or(0, |cpus| cpus.iter().filter_map(|words| words.last()).sum())
    }
}

impl AsFd for Tracer {
    /// Readable when the kernel side found it worth waking us: [`Self::drain`] at intervals all the same.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Hands every entry of `map` to `each`, in no order; what is deleted meanwhile is left out.
fn each_entry<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    mut each: impl FnMut(K, V),
) -> Result<(), ProbeError> {
    for entry in map {
        match entry {
            Ok((key, value)) => each(key, value),
            Err(aya::maps::MapError::KeyNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, ProbeError> {
    ebpf.take_map(name).ok_or_else(|| ProbeError::Object(format!("it has no map {name}")))
}

/// How long the phases of the start take, for those who wonder why it does.
struct Phases(Instant);

impl Default for Phases {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Phases {
    fn end(&mut self, what: &str) {
        log::debug!("{what}: {:.1} ms", self.0.elapsed().as_secs_f64() * 1e3);
        self.0 = Instant::now();
    }
}

/// Gives freed memory back to the kernel, which glibc does by itself only at the heap's end.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: needs nothing, and changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
