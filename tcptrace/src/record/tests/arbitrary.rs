//! Events of every kind, with anything in them.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use crate::event::{
    Accept, AcceptFail, Acceptor, AckDrop, AckDropCause, BindFail, BindStage, CalledAddress, CgroupFacts,
    Connect, ConnectResult, ConnectSample, ConnectTotals, ConntrackFacts, CounterSample, Coverage,
    DestinationUse, Device, Distribution, DropFacts, Endpoints, Enqueue, EnqueuedBy, Family, Found,
    FoundRule, HandshakeDrop, Holder, HolderReport, How, Ipv6Off, Kind, KnobSample, Listen, ListenerClosed,
    ListenerRef, ListenerReport, ListenerSample, ListenerTotals, LossPlace, Lost, NeighbourFacts,
    NetfilterQueue, NoListener, NoPort, Owner, OwnerConfidence, Packet, PortHolders, PortRange, PortReleased,
    PortSurvey, PortTaken, PortUse, PrefixSample, ProcessDetails, ProcessInfo, ProcessState, ReportedHolder,
    ReportedListener, RequestEnd, RequestEnding, RetransmitCause, RuleDeed, RuleFacts, SampleSource,
    SocketOptions, SocketOwner, SocketState, Syn, SynAckRetransmit, SynAnswer, SynDrop, SynDropCause, Task,
    Timestamp, UnusableAddress, Watch,
};

prop_compose! {
    fn any_endpoints()(
        netns: u32, v6: bool, local: (IpAddr, u16), remote: Option<(IpAddr, u16)>, device: u32
    ) -> Endpoints {
        Endpoints {
            netns,
            family: if v6 { Family::V6 } else { Family::V4 },
            local: local.into(),
            remote: remote.map(SocketAddr::from),
            device,
        }
    }
}

/// All values distinct, so that none can be taken for another.
fn any_facts(seed: u64) -> DropFacts {
    let rule = |handle: u64, deed, queue| FoundRule {
        place: format!("handle {handle}"),
        deed,
        queue,
        open: seed.is_multiple_of(2).then(|| "ct state".to_owned()),
    };
    DropFacts {
        device: Some(format!("dev{seed}")),
        next_hop: Some([10, 1, 2, 3].into()),
        conntrack: Some(ConntrackFacts {
            count: seed,
            max: 1 ^ seed,
            dropped: true,
            invalid: false,
            drops: 2 ^ seed,
            counted: true,
        }),
        queues: Some(vec![NetfilterQueue { number: 3, reader: 4, waiting: 5, dropped: 6, unread: 7 }]),
        rules: Some(RuleFacts {
            rule: Some(rule(seed, RuleDeed::Queue, Some(9))),
            candidates: vec![rule(8, RuleDeed::Reject, None)],
            unread: vec!["set bad".to_owned()],
        }),
        neighbours: Some(NeighbourFacts { entries: 11, limit: Some(12), overflowed: true }),
        cgroup: Some(CgroupFacts {
            path: "/a/b".to_owned(),
            attached_to: Some("/a".to_owned()),
            programs: vec!["sd_fw".to_owned()],
            asked: true,
        }),
        netdev_max_backlog: Some(13),
    }
}

prop_compose! {
    fn any_listener()(sk: u64, inode: u64, depth: u32, limit: u32, syn_queue: u32) -> ListenerRef {
        ListenerRef { sk, inode, depth, limit, syn_queue }
    }
}

prop_compose! {
    fn any_task()(pid: u32, tid: u32, uid: u32, cgroup: u64, comm in ".{0,16}") -> Task {
        Task { pid, tid, uid, cgroup, comm: comm.into() }
    }
}

prop_compose! {
    fn any_totals()(
        counts in prop::collection::vec(any::<Option<u64>>(), 64),
        maxima: (Option<u32>, Option<u32>),
        times: (Option<u64>, Option<u64>, Option<u64>),
        acceptor: Option<(u32, u32)>,
    ) -> ListenerTotals {
        let mut counts = counts.into_iter();
        macro_rules! totals {
            ($($(#[$doc:meta])* $count:ident,)*) => {
                ListenerTotals {
                    $($count: counts.next().unwrap(),)*
                    retransmits_unknown: counts.next().unwrap(),
                    socket_drops: counts.next().unwrap(),
                    wait_max_ns: counts.next().unwrap(),
                    depth_max: maxima.0,
                    syn_queue_max: maxima.1,
                    last_retransmit: times.0.map(Timestamp::from_nanos),
                    last_accept: times.1.map(Timestamp::from_nanos),
                    last_enqueue: times.2.map(Timestamp::from_nanos),
                    last_acceptor: acceptor.map(|(pid, tid)| Acceptor { pid, tid }),
                }
            };
        }
        tcptrace_common::listener_counters!(totals)
    }
}

fn any_distribution() -> impl Strategy<Value = Option<Distribution>> {
    prop::option::of(
        prop::collection::vec((any::<u64>(), 1..1_u64 << 40), 0..20).prop_map(Distribution::from_buckets),
    )
}

prop_compose! {
    fn any_connects()(since: u64, counts in prop::collection::vec(any::<u64>(), 8)) -> ConnectTotals {
        ConnectTotals {
            since: Timestamp::from_nanos(since),
            syns_again: counts[0],
            unanswered: counts[1],
            established: counts[2],
            refused: counts[3],
            unreachable: counts[4],
            timed_out: counts[5],
            cancelled: counts[6],
            errors: counts[7],
        }
    }
}

fn any_how() -> impl Strategy<Value = How> {
    prop::sample::select(vec![How::Unknown, How::Bind, How::BindAny, How::Connect, How::ListenAny])
}

fn any_holder(endpoints: Endpoints, sk: u64) -> Holder {
    Holder {
        endpoints,
        taker: None,
        sk,
        inode: 3,
        uid: None,
        state: SocketState::Listen,
        options: Some(SocketOptions::NONE),
        found: Found::BindHash,
    }
}

pub(crate) fn any_kind() -> impl Strategy<Value = Kind> {
    let answers = vec![SynAnswer::Request, SynAnswer::Cookie, SynAnswer::FastOpen];
    let syn_causes = vec![
        SynDropCause::AcceptQueue,
        SynDropCause::SynQueue,
        SynDropCause::MaxSynBacklog,
        SynDropCause::NoRoute,
        SynDropCause::Other,
    ];
    let retransmits = vec![RetransmitCause::Timer, RetransmitCause::DuplicateSyn, RetransmitCause::Unknown];
    let ends = || (any_endpoints(), any_listener());
    prop_oneof![
        Just(Kind::Tick),
        Just(Kind::End),
        (ends(), prop::sample::select(syn_causes), any::<(u32, u64)>()).prop_map(
            |((endpoints, listener), cause, (syncookies, total))| Kind::SynDrop(SynDrop {
                endpoints,
                listener,
                cause,
                syncookies,
                total
            })
        ),
        (ends(), prop::sample::select(answers)).prop_map(|((endpoints, listener), answer)| Kind::Syn(Syn {
            endpoints,
            listener,
            answer
        })),
        (ends(), any::<(bool, u64)>()).prop_map(|((endpoints, listener), (full, total))| {
            let cause = if full { AckDropCause::AcceptQueue } else { AckDropCause::Other };
            Kind::AckDrop(AckDrop { endpoints, listener, cause, total })
        }),
        (ends(), any::<(u64, bool, Option<u64>)>()).prop_map(
            |((endpoints, listener), (child, cookie, handshake_ns))| {
                let how = if cookie { EnqueuedBy::Cookie } else { EnqueuedBy::FastOpen };
                Kind::Enqueue(Enqueue { endpoints, listener, child, how, handshake_ns })
            }
        ),
        (ends(), any_task(), any::<(Option<u64>, u64)>()).prop_map(
            |((endpoints, listener), task, (wait_ns, child))| {
                Kind::Accept(Box::new(Accept { endpoints, listener, task, wait_ns, child }))
            }
        ),
        (any_endpoints(), any_task(), any::<u64>(), any_how(), any::<u8>()).prop_map(
            |(endpoints, task, sk, how, options)| {
                let options = SocketOptions::from_bits(options);
                Kind::PortTaken(Box::new(PortTaken { endpoints, task, sk, how, options }))
            }
        ),
        (any_endpoints(), any::<(u64, u64, u32, bool)>(), ".{0,16}", any_how()).prop_map(
            |(endpoints, (sk, held_ns, pid, time_wait), comm, how)| {
                let released =
                    PortReleased { endpoints, sk, held_ns, pid, comm: comm.into(), how, time_wait };
                Kind::PortReleased(Box::new(released))
            }
        ),
        (ends(), prop::sample::select(retransmits), any::<(Option<u64>, u32, u64, bool, bool)>()).prop_map(
            |((endpoints, listener), cause, (age_ns, timeouts, total, acked, deferred))| {
                Kind::SynAckRetransmit(SynAckRetransmit {
                    endpoints,
                    listener,
                    age_ns,
                    cause,
                    timeouts,
                    total,
                    acked,
                    deferred,
                })
            }
        ),
        (ends(), any::<(bool, Option<u64>, u32, u64, bool, Option<(u8, u8)>)>()).prop_map(
            |((endpoints, listener), (expired, age_ns, timeouts, total, acked, icmp))| {
                let how = if expired { RequestEnding::Expired } else { RequestEnding::Icmp };
                Kind::RequestEnd(RequestEnd {
                    endpoints,
                    listener,
                    age_ns,
                    how,
                    timeouts,
                    total,
                    acked,
                    deferred: !acked,
                    icmp,
                })
            }
        ),
        (
            any_endpoints(),
            prop::option::of(any_task()),
            any::<(u64, u64, Option<u64>, bool, Option<u32>, u32)>(),
            any_connects()
        )
            .prop_map(|(endpoints, task, (sk, inode, age_ns, failed, errno, syns_again), totals)| {
                let result = if failed { ConnectResult::TimedOut } else { ConnectResult::SynAgain };
                Kind::Connect(Box::new(Connect {
                    endpoints,
                    task,
                    sk,
                    inode,
                    age_ns,
                    result,
                    errno,
                    syns_again,
                    totals,
                }))
            }),
        (any::<(u32, u32, (IpAddr, u16))>(), any_connects()).prop_map(|((netns, pid, remote), totals)| {
            Kind::ConnectSample(Box::new(ConnectSample { netns, pid, remote: remote.into(), totals }))
        }),
        (ends(), any::<bool>(), any_totals(), any_distribution(), any_distribution()).prop_map(
            |((endpoints, listener), polled, totals, waits, handshakes)| {
                let source = if polled { SampleSource::Polled } else { SampleSource::Observed };
                let sample = ListenerSample { endpoints, listener, source, totals, waits, handshakes };
                Kind::ListenerSample(Box::new(sample))
            }
        ),
        (ends(), any_task(), any::<(Option<u32>, Option<u32>, bool)>()).prop_map(
            |((endpoints, listener), task, (backlog, somaxconn, again))| {
                let options = SocketOptions::NONE;
                Kind::Listen(Box::new(Listen {
                    endpoints,
                    listener,
                    task,
                    backlog,
                    somaxconn,
                    options,
                    again,
                }))
            }
        ),
        (any_endpoints(), any_task(), any::<(u64, u32)>()).prop_map(|(endpoints, task, (sk, errno))| {
            Kind::BindFail(Box::new(BindFail {
                endpoints,
                task,
                sk,
                errno,
                stage: BindStage::Listen,
                options: SocketOptions::NONE,
                holders_met: 1,
                reuse_state: None,
                own_range: Some(PortRange { first: 40000, last: 40009 }),
                holders: vec![any_holder(endpoints, sk ^ 1)],
                addresses: Some(vec![[127, 0, 0, 1].into()]),
                unusable: Some(UnusableAddress { device: "eth0".into(), prefix: 64, duplicate: true }),
                ipv6_off: Some(Ipv6Off { devices: vec!["lo".into()], everywhere: true }),
            }))
        }),
        (ends(), any_task(), any::<(u32, Option<u64>, u64)>()).prop_map(
            |((endpoints, listener), task, (errno, open_files_limit, total))| {
                Kind::AcceptFail(Box::new(AcceptFail {
                    endpoints,
                    listener,
                    task,
                    errno,
                    open_files_limit,
                    total,
                    accepted: 12,
                    host_files_limit: Some(9),
                    host_files: Some(10),
                }))
            }
        ),
        (ends(), any_task(), any_totals()).prop_map(|((endpoints, listener), task, last)| {
            Kind::ListenerClosed(Box::new(ListenerClosed {
                endpoints,
                listener,
                task,
                exiting: Some(true),
                by_kernel: true,
                last: Some(last),
            }))
        }),
        any::<(u32, u64, IpAddr, u8, u64)>().prop_map(|(netns, sk, network, bits, completed)| {
            Kind::PrefixSample(PrefixSample { netns, sk, network, bits, completed })
        }),
        any::<(u32, Option<u32>)>().prop_map(|(netns, somaxconn)| Kind::KnobSample(Box::new(KnobSample {
            netns,
            name: somaxconn.map(|number| format!("blue{number}")),
            somaxconn,
            ..KnobSample::default()
        }))),
        (any::<(u32, u32, Option<u32>)>(), ".{0,15}", any::<Option<String>>()).prop_map(
            |((netns, index, master), name, kind)| {
                Kind::Device(Box::new(Device { netns, index, name, kind, master }))
            }
        ),
        (any::<(u32, Option<u32>)>(), ".{0,40}", ".{0,40}").prop_map(|((pid, uid), comm, text)| {
            Kind::ProcessInfo(Box::new(ProcessInfo {
                pid,
                comm,
                command: Some(text.clone()),
                uid,
                container: Some(text.clone()),
                netns: None,
                details: ProcessDetails {
                    exe: Some(text),
                    pod: None,
                    namespace: Some("shop".to_owned()),
                    unit: Some("a.service".to_owned()),
                },
            }))
        }),
        (any_endpoints(), any::<(u64, u64, u32)>(), ".{0,16}").prop_map(
            |(endpoints, (sk, inode, pid), comm)| {
                Kind::SocketOwner(Box::new(SocketOwner {
                    sk,
                    inode,
                    endpoints,
                    owners: vec![Owner { pid, comm }],
                    port_by_number: true,
                    confidence: OwnerConfidence::Likely,
                }))
            }
        ),
        (".{0,20}", ".{0,8}").prop_map(|(kernel, architecture)| {
            Kind::Coverage(Box::new(Coverage { kernel, architecture, ..Coverage::default() }))
        }),
        (".{0,20}", any::<u64>()).prop_map(|(what, count)| Kind::Lost(Box::new(Lost {
            what,
            count,
            place: LossPlace::Output,
            from: Timestamp::default(),
            to: Timestamp::default(),
        }))),
        (any_endpoints(), any_task(), any::<(u64, u64, u8)>()).prop_map(
            |(endpoints, task, (sk, total, bits))| {
                let options = SocketOptions::from_bits(bits);
                Kind::NoPort(Box::new(NoPort {
                    endpoints,
                    task,
                    sk,
                    total,
                    options,
                    own_range: Some(PortRange { first: 1, last: 9 }),
                }))
            }
        ),
        (any::<(u32, u32, u64)>(), ".{0,16}", prop::collection::vec(any::<u64>(), 6)).prop_map(
            |((netns, pid, since), comm, counts)| Kind::PortUse(Box::new(PortUse {
                netns,
                pid,
                comm,
                since: Timestamp::from_nanos(since),
                by_connect: counts[0],
                by_bind: counts[1],
                bound_connects: counts[2],
                released: counts[3],
                time_wait: counts[4],
                refused: counts[5],
                late: counts[4],
                own_range: counts[3],
            }))
        ),
        any_survey(),
        (any_endpoints(), prop::option::of(any_task()), any::<(bool, bool, u32, u64)>(), ".{0,20}").prop_map(
            |(endpoints, task, (outgoing, handshake, reason, total), name)| {
                Kind::HandshakeDrop(Box::new(HandshakeDrop {
                    endpoints,
                    task,
                    packet: if outgoing { Packet::SynAck } else { Packet::Ack },
                    outgoing,
                    handshake,
                    reason,
                    reason_name: Some(name.clone()),
                    location: total,
                    function: Some(name),
                    input: 0,
                    input_name: None,
                    total,
                    facts: (total % 2 == 0).then(|| Box::new(any_facts(total))),
                }))
            }
        ),
        (any_endpoints(), any::<u64>())
            .prop_map(|(endpoints, total)| Kind::NoListener(NoListener { endpoints, total })),
        (any::<(u32, u16, (IpAddr, u16), u64)>(), ".{0,20}").prop_map(
            |((netns, port, local, inode), text)| Kind::ListenerReport(Box::new(ListenerReport {
                netns,
                port,
                asked: Timestamp::from_nanos(inode),
                listeners: vec![ReportedListener {
                    device: 0,
                    netns,
                    local: local.into(),
                    v6only: Some(true),
                    inode,
                    owners: vec![Owner { pid: 1, comm: text.clone() }],
                }],
                incomplete: Some(text),
                called: vec![CalledAddress { address: local.0, held_by: vec![netns, 7] }],
            }))
        ),
        any::<(u32, Option<u64>)>().prop_map(|(netns, listen_overflows)| {
            Kind::CounterSample(Box::new(CounterSample {
                netns,
                listen_overflows,
                ..CounterSample::default()
            }))
        }),
        any::<(u32, u32, u32, Option<u64>)>().prop_map(|(pid, threads, running, open_files)| {
            Kind::ProcessState(ProcessState {
                pid,
                threads,
                running,
                sleeping: 1,
                blocked: 2,
                stopped: 3,
                open_files,
                open_files_limit: None,
                accepting: 4,
                in_epoll: 5,
                in_poll: 6,
                in_futex: 7,
                calls_known: true,
                acceptors: 9,
                acceptors_in_epoll: 10,
                acceptors_waiting: 11,
                listener: 8,
                watches: Some(Watch::Edge),
            })
        }),
        (any::<(u32, u16, u32)>(), any::<((IpAddr, u16), u64, Option<u64>)>(), ".{0,20}").prop_map(
            |((netns, port, requester), (local, inode, time_wait_left_ms), text)| {
                Kind::HolderReport(Box::new(HolderReport {
                    netns,
                    port,
                    requester,
                    conflict: Timestamp::from_nanos(inode),
                    holders: vec![ReportedHolder {
                        device: 0,
                        retransmits: 0,
                        local: local.into(),
                        remote: None,
                        state: SocketState::TimeWait,
                        inode,
                        uid: None,
                        v6only: None,
                        time_wait_left_ms,
                        owners: vec![Owner { pid: 1, comm: text.clone() }],
                    }],
                    incomplete: Some(text),
                }))
            }
        ),
    ]
}

fn any_survey() -> impl Strategy<Value = Kind> {
    (
        any::<(u32, u16, u16)>(),
        prop::collection::vec(any::<u32>(), 6),
        prop::option::of(any::<(u32, u16)>()),
        any::<(IpAddr, (IpAddr, u16))>(),
        ".{0,16}",
    )
        .prop_map(|((netns, first, last), counts, owner, (source, remote), comm)| {
            let owner = owner.map(|(pid, _)| Owner { pid, comm: comm.clone() });
            let ports = counts[5];
            Kind::PortSurvey(Box::new(PortSurvey {
                netns,
                range: PortRange { first, last },
                capacity: counts[0],
                in_use: counts[1],
                time_wait: counts[2],
                blocked: counts[3],
                in_use_connect_half: counts[4],
                processes: vec![PortHolders {
                    owner: owner.clone(),
                    ports,
                    established: 1,
                    close_wait: 2,
                    bound: 3,
                    time_wait: 4,
                    most_to: Some((remote.into(), ports)),
                }],
                processes_total: 1,
                destinations: vec![DestinationUse {
                    source,
                    remote: remote.into(),
                    ports,
                    time_wait: 0,
                    owner,
                }],
                destinations_total: 1,
                incomplete: Some(comm),
            }))
        })
}

macro_rules! kinds {
    ($($kind:ident)+) => {
        /// Every kind of event.
        pub(super) const KINDS: &[&str] = &[$( stringify!($kind) ),+];

        /// Its name among [`KINDS`]. A new kind does not compile before it is there.
        pub(super) fn name_of(kind: &Kind) -> &'static str {
            match kind {
                $( Kind::$kind { .. } => stringify!($kind), )+
            }
        }
    };
}

kinds! {
    Listen Syn SynDrop AckDrop Enqueue Accept AcceptFail BindFail PortTaken PortReleased ListenerClosed SynAckRetransmit RequestEnd
    PrefixSample ListenerSample Connect ConnectSample HandshakeDrop NoListener ListenerReport CounterSample KnobSample
    Device ProcessInfo ProcessState SocketOwner HolderReport NoPort PortUse PortSurvey Coverage Lost Tick End
}
