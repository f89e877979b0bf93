//! Every kind from bytes that a test encoder makes of the wire structs; and no bytes at all make decoding panic.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tcptrace_common::listener::ListenerState;
use tcptrace_common::record::Header;
use tcptrace_common::{connect, drop, port};

use super::parts::endpoints;
use super::*;
use crate::event::*;

/// Writes the members of wire structs as `repr(C)` lays them out.
#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn endpoints(self, it: &wire::Endpoints) -> Self {
        self.bytes(&it.local)
            .bytes(&it.remote)
            .u16(it.local_port)
            .u16(it.remote_port)
            .u16(it.family)
            .u16(it.pad)
            .u32(it.netns)
            .u32(it.device)
    }
    fn listener(self, it: &record::ListenerRef) -> Self {
        self.u64(it.sk).u64(it.ino).u32(it.depth).u32(it.limit).u32(it.syn_queue).u32(it.pad)
    }
    fn task(self, it: &wire::Task) -> Self {
        self.u32(it.tgid).u32(it.tid).u32(it.uid).u32(it.flags).u64(it.cgroup).bytes(&it.comm)
    }
    fn state(self, it: &ListenerState) -> Self {
        self.u64(it.syns)
            .u64(it.syn_drops_accept_queue)
            .u64(it.syn_drops_syn_queue)
            .u64(it.syn_drops_max_syn_backlog)
            .u64(it.syn_drops_no_route)
            .u64(it.cookies_sent)
            .u64(it.retransmits_timer)
            .u64(it.retransmits_duplicate_syn)
            .u64(it.expired)
            .u64(it.resets)
            .u64(it.aborts)
            .u64(it.icmp_ends)
            .u64(it.joins)
            .u64(it.deferred)
            .u64(it.cookies_accepted)
            .u64(it.cookies_valid)
            .u64(it.cookies_invalid)
            .u64(it.fast_opens)
            .u64(it.orphans)
            .u64(it.cookies_dropped)
            .u64(it.cookies_dropped_at_limit)
            .u64(it.cookies_at_limit)
            .u64(it.ack_drops)
            .u64(it.ack_drops_other)
            .u64(it.enqueued)
            .u64(it.accepted)
            .u64(it.wait_total_ns)
            .u64(it.waits)
            .u64(it.wait_max_ns)
            .u64(it.last_accept_ns)
            .u64(it.last_enqueue_ns)
            .u64(it.last_retransmit_ns)
            .u32(it.depth_max)
            .u32(it.depth)
            .u32(it.limit)
            .u32(it.last_acceptor_tid)
            .u32(it.last_acceptor_tgid)
            .u32(it.syn_queue_max)
            .endpoints(&it.endpoints)
            .u64(it.ino)
            .bytes(&it.acceptors.iter().flat_map(|slot| slot.to_ne_bytes()).collect::<Vec<u8>>())
    }
    fn holder(self, it: &port::Holder) -> Self {
        self.endpoints(&it.endpoints)
            .task(&it.taker.task)
            .u64(it.taker.since_ns)
            .u64(it.taker.released_ns)
            .u8(it.taker.how)
            .u8(it.taker.bootstrapped)
            .u8(it.taker.syns_again)
            .u8(it.taker.told)
            .bytes(&it.taker.pad)
            .u64(it.sk)
            .u64(it.ino)
            .u32(it.uid)
            .u8(it.state)
            .u8(it.options)
            .u8(it.found)
            .u8(it.pad)
    }
}

/// A record with a header in front of the body that `body` writes.
fn encode(kind: u16, time_ns: u64, body: impl FnOnce(Encoder) -> Encoder) -> Vec<u8> {
    let body = body(Encoder::default()).0;
    let len = u16::try_from(body.len() + size_of::<Header>()).unwrap();
    Encoder::default().u64(time_ns).u16(kind).u16(len).u32(3).bytes(&body).0
}

fn ends() -> wire::Endpoints {
    wire::Endpoints {
        local: Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets(),
        remote: Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets(),
        local_port: 1080,
        remote_port: 40000,
        family: wire::AF_INET,
        pad: 0,
        netns: 77,
        device: 5,
    }
}

fn ends_decoded() -> Endpoints {
    Endpoints {
        netns: 77,
        family: Family::V4,
        local: "10.0.0.1:1080".parse().unwrap(),
        remote: Some("10.0.0.2:40000".parse().unwrap()),
        device: 5,
    }
}

fn listener() -> record::ListenerRef {
    record::ListenerRef { sk: 0xffff_8880_0000_1000, ino: 4711, depth: 21, limit: 20, syn_queue: 3, pad: 0 }
}

fn listener_decoded() -> ListenerRef {
    ListenerRef { sk: 0xffff_8880_0000_1000, inode: 4711, depth: 21, limit: 20, syn_queue: 3 }
}

fn some_task() -> wire::Task {
    wire::Task { tgid: 6039, tid: 6040, uid: 1000, flags: 0, cgroup: 12, comm: *b"delegated\0junk\0\0" }
}

fn task_decoded() -> Task {
    Task { pid: 6039, tid: 6040, uid: 1000, cgroup: 12, comm: "delegated".into() }
}

fn some_state() -> ListenerState {
    ListenerState {
        syns: 1,
        syn_drops_accept_queue: 2,
        syn_drops_syn_queue: 3,
        syn_drops_max_syn_backlog: 31,
        syn_drops_no_route: 33,
        cookies_sent: 32,
        retransmits_timer: 33,
        retransmits_duplicate_syn: 34,
        expired: 35,
        resets: 40,
        aborts: 41,
        icmp_ends: 42,
        joins: 43,
        deferred: 44,
        cookies_accepted: 45,
        cookies_valid: 46,
        cookies_invalid: 47,
        fast_opens: 48,
        orphans: 49,
        cookies_dropped: 50,
        cookies_dropped_at_limit: 51,
        cookies_at_limit: 52,
        ack_drops: 4,
        ack_drops_other: 5,
        enqueued: 6,
        accepted: 7,
        wait_total_ns: 8,
        waits: 9,
        wait_max_ns: 10,
        last_accept_ns: 11,
        last_enqueue_ns: 0,
        last_retransmit_ns: 36,
        depth_max: 13,
        depth: 14,
        limit: 15,
        last_acceptor_tid: 16,
        last_acceptor_tgid: 17,
        syn_queue_max: 37,
        endpoints: ends(),
        ino: 18,
        acceptors: [60; 8],
    }
}

fn clock() -> ClockOffset {
    ClockOffset::from_readings(1_000_000, 0)
}

fn kind_of(bytes: &[u8]) -> Kind {
    let event = decode_record(bytes, clock()).unwrap();
    assert_eq!(event.time, Timestamp::from_nanos(1_000_042));
    event.kind
}

#[test]
fn the_encoder_writes_as_many_bytes_as_the_structs_have() {
    assert_eq!(Encoder::default().endpoints(&ends()).0.len(), size_of::<wire::Endpoints>());
    assert_eq!(Encoder::default().state(&some_state()).0.len(), size_of::<ListenerState>());
    assert_eq!(Encoder::default().holder(&port::Holder::default()).0.len(), size_of::<port::Holder>());
}

#[test]
fn listen() {
    let record = |backlog: u32, somaxconn: u32, flags: u32| {
        encode(record::LISTEN, 42, |to| {
            to.endpoints(&ends())
                .listener(&listener())
                .task(&some_task())
                .u32(backlog)
                .u32(somaxconn)
                .u32(0b11)
                .u32(flags)
        })
    };
    assert_eq!(record(0, 0, 0).len(), size_of::<record::Listen>());
    let Kind::Listen(listen) = kind_of(&record(20, 4096, 0b11)) else { panic!() };
    let expected = Listen {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        task: task_decoded(),
        backlog: Some(20),
        somaxconn: Some(4096),
        options: SocketOptions::from_bits(3),
        again: true,
    };
    assert_eq!(*listen, expected);
    let Kind::Listen(listen) = kind_of(&record(0, 0, 0)) else { panic!() };
    assert_eq!((listen.backlog, listen.somaxconn, listen.again), (None, None, false));
    // listen(fd, -1) is as good as any.
    let Kind::Listen(listen) = kind_of(&record(u32::MAX, 0, record::LISTEN_BACKLOG_SEEN)) else { panic!() };
    assert_eq!(listen.backlog, Some(u32::MAX));
}

#[test]
fn half_open_requests() {
    let body = |kind, how: u32, age: u64| {
        encode(kind, 42, |to| {
            let to = to.endpoints(&ends()).listener(&listener()).u64(age).u32(how).u32(2).u64(9);
            to.u32(record::REQUEST_ACKED).u32(0x0301)
        })
    };
    let Kind::SynAckRetransmit(again) =
        kind_of(&body(record::SYNACK_RETRANSMIT, record::RETRANSMIT_DUPLICATE_SYN, 7))
    else {
        panic!()
    };
    assert_eq!((again.cause, again.age_ns), (RetransmitCause::DuplicateSyn, Some(7)));
    assert_eq!((again.endpoints, again.timeouts, again.total), (ends_decoded(), 2, 9));
    let Kind::RequestEnd(end) = kind_of(&body(record::REQUEST_END, record::END_EXPIRED, record::AGE_UNKNOWN))
    else {
        panic!()
    };
    assert_eq!((end.how, end.age_ns, end.listener), (RequestEnding::Expired, None, listener_decoded()));
    assert_eq!((end.acked, end.deferred, end.icmp), (true, false, None));
    let Kind::RequestEnd(end) = kind_of(&body(record::REQUEST_END, record::END_ICMP, 7)) else { panic!() };
    assert_eq!((end.how, end.icmp), (RequestEnding::Icmp, Some((3, 1))));
}

#[test]
fn connects() {
    let totals = |to: Encoder| {
        // since, then the eight counts, then what is the kernel side's own.
        (1..=9_u64).fold(to, Encoder::u64).u64(77).u64(78)
    };
    let record = |task: wire::Task, age: u64, result: u32| {
        encode(record::CONNECT, 42, |to| {
            totals(
                to.endpoints(&ends()).task(&task).u64(5).u64(6).u64(age).u32(result).u32(111).u32(2).u32(0),
            )
        })
    };
    let refused = record(some_task(), 9, connect::CONNECT_REFUSED);
    assert_eq!(refused.len(), size_of::<record::Connect>());
    let Kind::Connect(connect) = kind_of(&refused) else { panic!() };
    assert_eq!((connect.endpoints, connect.task.clone()), (ends_decoded(), Some(task_decoded())));
    assert_eq!((connect.result, connect.errno, connect.syns_again), (ConnectResult::Refused, Some(111), 2));
    assert_eq!((connect.sk, connect.inode, connect.age_ns), (5, 6, Some(9)));
    let counts = connect.totals;
    assert_eq!(counts.since, Timestamp::from_nanos(1_000_001));
    assert_eq!((counts.syns_again, counts.refused, counts.timed_out, counts.errors), (2, 5, 7, 9));

    let strange = record(wire::Task::default(), record::CONNECT_AGE_UNKNOWN, connect::CONNECT_SYN_AGAIN);
    let Kind::Connect(connect) = kind_of(&strange) else { panic!() };
    assert_eq!((connect.task, connect.age_ns, connect.result), (None, None, ConnectResult::SynAgain));

    let key = connect::ConnectKey { peer: ends().remote, netns: 77, tgid: 8, port: 80, pad: [0; 3] };
    let sample = decode_connect_sample(&key, &totals(Encoder::default()).0, clock()).unwrap();
    assert_eq!((sample.pid, sample.remote.to_string()), (8, "10.0.0.2:80".to_owned()));
    assert_eq!(sample.totals, counts);
    assert!(decode_connect_sample(&key, &[0; 7], clock()).is_err());
}

#[test]
fn packets_dropped_on_their_way() {
    let record = encode(record::HANDSHAKE_DROP, 42, |to| {
        let to = to.endpoints(&ends()).task(&some_task()).u64(0xff01).u64(0xff02).u64(3).u32(8);
        to.u32(u32::from(drop::PACKET_SYN_ACK))
            .u32(u32::from(drop::DIRECTION_OUT))
            .u32(drop::HANDSHAKE)
            .u64(5)
    });
    assert_eq!(record.len(), size_of::<record::HandshakeDrop>());
    let Kind::HandshakeDrop(dropped) = kind_of(&record) else { panic!() };
    assert_eq!((dropped.endpoints, dropped.task.clone()), (ends_decoded(), Some(task_decoded())));
    assert_eq!((dropped.packet, dropped.outgoing, dropped.handshake), (Packet::SynAck, true, true));
    assert_eq!((dropped.location, dropped.input, dropped.reason, dropped.total), (0xff01, 0xff02, 8, 5));

    let Kind::NoListener(absent) =
        kind_of(&encode(record::NO_LISTENER, 42, |to| to.endpoints(&ends()).u64(9)))
    else {
        panic!()
    };
    assert_eq!(absent, NoListener { endpoints: ends_decoded(), total: 9 });
}

#[test]
fn drops() {
    let record = encode(record::SYN_DROP, 42, |to| {
        to.endpoints(&ends()).listener(&listener()).u32(record::SYN_DROP_SYN_QUEUE).u32(1).u64(9)
    });
    assert_eq!(record.len(), size_of::<record::SynDrop>());
    let expected = SynDrop {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        cause: SynDropCause::SynQueue,
        syncookies: 1,
        total: 9,
    };
    assert_eq!(kind_of(&record), Kind::SynDrop(expected));

    let record = encode(record::ACK_DROP, 42, |to| {
        to.endpoints(&ends()).listener(&listener()).u32(record::ACK_DROP_ACCEPT_QUEUE).u32(0).u64(10)
    });
    assert_eq!(record.len(), size_of::<record::AckDrop>());
    let expected = AckDrop {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        cause: AckDropCause::AcceptQueue,
        total: 10,
    };
    assert_eq!(kind_of(&record), Kind::AckDrop(expected));
}

#[test]
fn established() {
    let record = encode(record::ESTABLISHED, 42, |to| {
        to.endpoints(&ends()).task(&some_task()).u64(9).u64(8).u64(record::CONNECT_AGE_UNKNOWN)
    });
    assert_eq!(record.len(), size_of::<record::Established>());
    let Kind::Connect(connect) = kind_of(&record) else { panic!("it is a connect") };
    assert_eq!((connect.result, connect.sk, connect.inode), (ConnectResult::Established, 9, 8));
    assert_eq!((connect.age_ns, connect.totals), (None, ConnectTotals::default()));
    assert_eq!(connect.endpoints, ends_decoded());
}

#[test]
fn syn() {
    let record = encode(record::SYN, 42, |to| {
        to.endpoints(&ends()).listener(&listener()).u32(record::SYN_COOKIE).u32(0)
    });
    assert_eq!(record.len(), size_of::<record::Syn>());
    let expected = Syn { endpoints: ends_decoded(), listener: listener_decoded(), answer: SynAnswer::Cookie };
    assert_eq!(kind_of(&record), Kind::Syn(expected));
}

#[test]
fn enqueue_and_accept() {
    let record = encode(record::ENQUEUE, 42, |to| {
        to.endpoints(&ends()).listener(&listener()).u64(99).u64(5).u32(2).u32(0)
    });
    assert_eq!(record.len(), size_of::<record::Enqueue>());
    let expected = Enqueue {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        child: 99,
        how: EnqueuedBy::Cookie,
        handshake_ns: Some(5),
    };
    assert_eq!(kind_of(&record), Kind::Enqueue(expected));

    let record = |wait: u64| {
        encode(record::ACCEPT, 42, |to| {
            to.endpoints(&ends()).listener(&listener()).task(&some_task()).u64(wait).u64(99)
        })
    };
    assert_eq!(record(0).len(), size_of::<record::Accept>());
    for (wait, decoded) in [(5, Some(5)), (0, Some(0)), (record::WAIT_UNKNOWN, None)] {
        let Kind::Accept(accept) = kind_of(&record(wait)) else { panic!() };
        assert_eq!((accept.wait_ns, accept.child, accept.task), (decoded, 99, task_decoded()));
    }
}

#[test]
fn bind_fail() {
    let held = port::Holder {
        endpoints: ends(),
        taker: port::Taker {
            task: some_task(),
            since_ns: 30,
            released_ns: 0,
            how: port::HOW_CONNECT,
            syns_again: 0,
            told: 0,
            bootstrapped: 0,
            pad: [0; 4],
        },
        sk: 8,
        ino: 9,
        uid: 1000,
        state: 1,
        options: port::OPT_REUSEADDR,
        found: port::FOUND_BIND_HASH,
        pad: 0,
    };
    let remnant = port::Holder { endpoints: ends(), state: 6, uid: u32::MAX, found: 1, ..Default::default() };
    let record = encode(record::BIND_FAIL, 42, |to| {
        let to = to.endpoints(&ends()).task(&some_task()).u64(7).u32(98).u32(record::STAGE_LISTEN).u32(1);
        let state = u32::from_ne_bytes([0xff, 2, 0, 0]);
        let to = to.u32(300).u32(2).u32(state).u32(40009 << 16 | 40000).u32(0).holder(&held).holder(&remnant);
        (2..record::HOLDERS).fold(to, |to, _| to.holder(&port::Holder::default()))
    });
    assert_eq!(record.len(), size_of::<record::BindFail>());
    let Kind::BindFail(fail) = kind_of(&record) else { panic!() };
    assert_eq!((fail.errno, fail.stage, fail.holders_met, fail.sk), (98, BindStage::Listen, 300, 7));
    assert_eq!(fail.reuse_state, Some(ReuseState { fastreuse: -1, fastreuseport: 2 }));
    assert_eq!(fail.own_range, Some(PortRange { first: 40000, last: 40009 }));
    let [first, second] = fail.holders.as_slice() else { panic!("{:?}", fail.holders) };
    let taker = first.taker.as_ref().unwrap();
    assert_eq!(
        (taker.how, taker.since, taker.released),
        (How::Connect, Timestamp::from_nanos(1_000_030), None)
    );
    assert_eq!((first.state, first.uid, first.inode), (SocketState::Established, Some(1000), 9));
    assert_eq!((second.state, second.uid, &second.taker), (SocketState::TimeWait, None, &None));
}

#[test]
fn ports_taken_and_released() {
    let record = encode(record::PORT_TAKEN, 42, |to| {
        to.endpoints(&ends()).task(&some_task()).u64(7).u32(u32::from(port::HOW_BIND_ANY)).u32(2)
    });
    assert_eq!(record.len(), size_of::<record::PortTaken>());
    let Kind::PortTaken(taken) = kind_of(&record) else { panic!() };
    assert_eq!((taken.how, taken.sk, taken.options.reuseport()), (How::BindAny, 7, true));

    let record = encode(record::PORT_RELEASED, 42, |to| {
        to.endpoints(&ends()).u64(7).u64(1234).u32(6039).u16(3).u16(1).bytes(b"abcdefghijklmno\0")
    });
    assert_eq!(record.len(), size_of::<record::PortReleased>());
    let Kind::PortReleased(released) = kind_of(&record) else { panic!() };
    assert_eq!((released.how, released.held_ns, released.time_wait), (How::Connect, 1234, true));
    assert_eq!((released.pid, released.comm.as_str()), (6039, "abcdefghijklmno"));
}

#[test]
fn connects_without_a_port_and_what_processes_do_with_ports() {
    let record = encode(record::NO_PORT, 42, |to| {
        to.endpoints(&ends()).task(&some_task()).u64(7).u64(3).u32(1).u32(0)
    });
    assert_eq!(record.len(), size_of::<record::NoPort>());
    let Kind::NoPort(refused) = kind_of(&record) else { panic!() };
    assert_eq!((refused.endpoints, refused.task), (ends_decoded(), task_decoded()));
    assert_eq!((refused.sk, refused.total, refused.options.reuseaddr()), (7, 3, true));

    let key = Encoder::default().u32(4).u32(6039).0;
    let counts = (1..=11).fold(Encoder::default(), Encoder::u64).bytes(b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0").0;
    assert_eq!((key.len(), counts.len()), (size_of::<port::PortUseKey>(), size_of::<port::PortUse>()));
    let uses = decode_port_use(&key, &counts, clock()).unwrap();
    assert_eq!((uses.netns, uses.pid, uses.comm.as_str()), (4, 6039, "abc"));
    assert_eq!((uses.since, uses.taken(), uses.held()), (Timestamp::from_nanos(1_000_001), 5, 0));
    assert_eq!((uses.bound_connects, uses.released, uses.time_wait, uses.refused), (4, 5, 6, 7));
    assert_eq!((uses.late, uses.own_range), (8, 9));
    assert!(decode_port_use(&key, &counts[1..], clock()).is_err());
}

#[test]
fn accept_failures() {
    let record = |limit: u64| {
        encode(record::ACCEPT_FAIL, 42, |to| {
            to.endpoints(&ends())
                .listener(&listener())
                .task(&some_task())
                .u32(24)
                .u32(0)
                .u64(limit)
                .u64(59)
                .u64(7)
        })
    };
    assert_eq!(record(40).len(), size_of::<record::AcceptFail>());
    let Kind::AcceptFail(fail) = kind_of(&record(40)) else { panic!() };
    assert_eq!((fail.endpoints, &fail.task), (ends_decoded(), &task_decoded()));
    assert_eq!((fail.errno, fail.open_files_limit, fail.total), (24, Some(40), 59));
    assert_eq!(fail.accepted, 7);
    let Kind::AcceptFail(fail) = kind_of(&record(record::LIMIT_UNKNOWN)) else { panic!() };
    assert_eq!(fail.open_files_limit, None);
}

#[test]
fn who_closes_a_listener_may_be_the_kernel() {
    let closed = |flags: u32| {
        let task = wire::Task { flags, ..some_task() };
        let record = encode(record::LISTENER_CLOSED, 42, |to| {
            to.endpoints(&ends()).listener(&listener()).task(&task).state(&some_state())
        });
        let Kind::ListenerClosed(closed) = kind_of(&record) else { panic!() };
        (closed.exiting, closed.by_kernel)
    };
    assert_eq!(closed(0), (None, false));
    assert_eq!(closed(wire::TASK_FLAGS_SEEN | wire::TASK_KERNEL), (Some(false), true));
    assert_eq!(closed(wire::TASK_FLAGS_SEEN | wire::TASK_EXITING), (Some(true), false));
}

#[test]
fn listener_closed_and_its_state() {
    let record = |state: &ListenerState| {
        encode(record::LISTENER_CLOSED, 42, |to| {
            to.endpoints(&ends()).listener(&listener()).task(&some_task()).state(state)
        })
    };
    assert_eq!(record(&some_state()).len(), size_of::<record::ListenerClosed>());
    let Kind::ListenerClosed(closed) = kind_of(&record(&some_state())) else { panic!() };
    let last = closed.last.unwrap();
    assert_eq!((last.syns, last.ack_drops_accept_queue, last.depth_max), (Some(1), Some(4), Some(13)));
    assert_eq!((last.last_accept, last.last_enqueue), (Some(Timestamp::from_nanos(1_000_011)), None));
    assert_eq!(last.last_acceptor, Some(Acceptor { pid: 17, tid: 16 }));
    let Kind::ListenerClosed(closed) = kind_of(&record(&ListenerState::default())) else { panic!() };
    assert_eq!(closed.last, None);

    let sample = decode_listener_state(5, &Encoder::default().state(&some_state()).0, clock()).unwrap();
    let totals = sample.totals;
    assert_eq!((totals.expired, totals.resets, totals.cookies_at_limit), (Some(35), Some(40), Some(52)));
    assert_eq!((totals.fast_opens, totals.wait_max_ns, totals.syn_queue_max), (Some(48), Some(10), Some(37)));
    assert_eq!((sample.listener.sk, sample.listener.inode, sample.listener.depth), (5, 18, 14));
    assert_eq!((sample.totals, sample.endpoints), (last, ends_decoded()));
}

#[test]
fn addresses_are_what_users_call_them() {
    let mut wire = ends();
    wire.family = wire::AF_INET6;
    assert_eq!(endpoints(&wire).local, "10.0.0.1:1080".parse().unwrap());
    wire.local = [0; 16];
    wire.remote = [0; 16];
    wire.remote_port = 0;
    let decoded = endpoints(&wire);
    assert_eq!((decoded.local, decoded.remote), ("[::]:1080".parse().unwrap(), None));
    wire.family = wire::AF_INET;
    wire.remote = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets();
    assert_eq!((endpoints(&wire).local, endpoints(&wire).remote), ("0.0.0.0:1080".parse().unwrap(), None));
    wire.local = Ipv6Addr::LOCALHOST.octets();
    assert_eq!(endpoints(&wire).local.to_string(), "[::1]:1080");
}

#[test]
fn hostile_names_become_text() {
    assert_eq!(comm(b"\xffa\xc3\xa4\0b"), "\\xffaä");
    assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
    assert_eq!(comm(b"\x1b[2J\0"), "\u{1b}[2J");
}

#[test]
fn damage_is_reported_by_kind() {
    let good = encode(record::ENQUEUE, 42, |to| {
        to.endpoints(&ends()).listener(&listener()).u64(99).u64(5).u32(2).u32(0)
    });
    let decode = |bytes: &[u8]| decode_record(bytes, clock()).unwrap_err();
    assert_eq!(decode(&[]), DecodeError::Short { kind: 0, len: 0 });
    let cut = &good[..good.len() - 1];
    assert!(matches!(decode(cut), DecodeError::Length { kind: record::ENQUEUE, .. }));
    let cut = encode(record::ENQUEUE, 42, |to| to.endpoints(&ends()));
    assert_eq!(decode(&cut), DecodeError::Short { kind: record::ENQUEUE, len: 64 });
    let long = encode(record::ENQUEUE, 42, |to| {
        to.endpoints(&ends()).listener(&listener()).u64(99).u64(5).u32(2).u32(0).u8(0)
    });
    assert_eq!(decode(&long), DecodeError::Trailing { kind: record::ENQUEUE, extra: 1 });
    assert_eq!(decode(&encode(77, 42, |to| to)), DecodeError::UnknownKind { kind: 77 });
    assert!(decode_listener_state(1, &[0; 7], clock()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400), offset in any::<u64>()) {
        let clock = ClockOffset::from_readings(offset, 0);
        let _ = decode_record(&bytes, clock);
        let _ = decode_listener_state(1, &bytes, clock);
    }

    #[test]
    fn any_body_of_the_right_length_decodes(
        kind in 1..u16::try_from(record::KINDS).unwrap(),
        noise in proptest::collection::vec(any::<u8>(), 1400),
        time in any::<u64>(),
    ) {
        let len = match kind {
            record::LISTEN => size_of::<record::Listen>(),
            record::SYN => size_of::<record::Syn>(),
            record::SYN_DROP => size_of::<record::SynDrop>(),
            record::ACK_DROP => size_of::<record::AckDrop>(),
            record::ENQUEUE => size_of::<record::Enqueue>(),
            record::ACCEPT => size_of::<record::Accept>(),
            record::BIND_FAIL => size_of::<record::BindFail>(),
            record::PORT_TAKEN => size_of::<record::PortTaken>(),
            record::PORT_RELEASED => size_of::<record::PortReleased>(),
            record::SYNACK_RETRANSMIT => size_of::<record::SynAckRetransmit>(),
            record::REQUEST_END => size_of::<record::RequestEnd>(),
            record::NO_PORT => size_of::<record::NoPort>(),
            record::CONNECT => size_of::<record::Connect>(),
            record::ESTABLISHED => size_of::<record::Established>(),
            record::HANDSHAKE_DROP => size_of::<record::HandshakeDrop>(),
            record::NO_LISTENER => size_of::<record::NoListener>(),
            record::ACCEPT_FAIL => size_of::<record::AcceptFail>(),
            _ => size_of::<record::ListenerClosed>(),
        };
        let bytes = encode(kind, time, |to| to.bytes(&noise[..len - size_of::<Header>()]));
        let event = decode_record(&bytes, ClockOffset::default()).unwrap();
        prop_assert_eq!(event.kind.name(), record_name(kind));
        // What was decoded goes through serde unchanged, whatever it is.
        let json = crate::output::json_text(&event);
        prop_assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
