//! Every kind from the bytes of its type; and no bytes at all make decoding panic.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tcptrace_common::{connect, drop, port, wire};
use zerocopy::{Immutable, IntoBytes};

use super::parts::endpoints;
use super::*;
use crate::event::*;

/// The header of a record of type `T`.
fn header<T>(kind: u16) -> Header {
    Header { time_ns: 42, kind, len: u16::try_from(size_of::<T>()).unwrap(), cpu: 3 }
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

/// A listener's state as the kernel has it and as it is decoded: whatever is counted, each count another number.
macro_rules! some_listener {
    ($($(#[$doc:meta])* $count:ident,)*) => {
        fn some_state() -> ListenerState {
            let mut numbers = 101..;
            ListenerState {
                $($count: numbers.next().unwrap(),)*
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

        fn some_totals() -> ListenerTotals {
            let mut numbers = 101..;
            ListenerTotals {
                $($count: numbers.next(),)*
                retransmits_unknown: None,
                wait_max_ns: Some(10),
                last_accept: Some(Timestamp::from_nanos(1_000_011)),
                last_enqueue: None,
                last_retransmit: Some(Timestamp::from_nanos(1_000_036)),
                depth_max: Some(13),
                syn_queue_max: Some(37),
                last_acceptor: Some(Acceptor { pid: 17, tid: 16 }),
                socket_drops: None,
            }
        }
    };
}
tcptrace_common::listener_counters!(some_listener);

fn clock() -> ClockOffset {
    ClockOffset::from_readings(1_000_000, 0)
}

fn kind_of(record: &(impl IntoBytes + Immutable)) -> Kind {
    let event = decode_record(record.as_bytes(), clock()).unwrap();
    assert_eq!(event.time, Timestamp::from_nanos(1_000_042));
    event.kind
}

#[test]
fn listen() {
    let record = |backlog: u32, somaxconn: u32, flags: u32| record::Listen {
        header: header::<record::Listen>(record::LISTEN),
        endpoints: ends(),
        listener: listener(),
        task: some_task(),
        backlog,
        somaxconn,
        options: 0b11,
        flags,
    };
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
    let again = record::SynAckRetransmit {
        header: header::<record::SynAckRetransmit>(record::SYNACK_RETRANSMIT),
        endpoints: ends(),
        listener: listener(),
        age_ns: 7,
        cause: record::RETRANSMIT_DUPLICATE_SYN,
        timeouts: 2,
        total: 9,
        flags: record::REQUEST_DEFERRED,
        pad: 0,
    };
    let expected = SynAckRetransmit {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        cause: RetransmitCause::DuplicateSyn,
        age_ns: Some(7),
        timeouts: 2,
        total: 9,
        acked: false,
        deferred: true,
    };
    assert_eq!(kind_of(&again), Kind::SynAckRetransmit(expected));

    let end = |how: u32, age_ns: u64| record::RequestEnd {
        header: header::<record::RequestEnd>(record::REQUEST_END),
        endpoints: ends(),
        listener: listener(),
        age_ns,
        how,
        timeouts: 2,
        total: 9,
        flags: record::REQUEST_ACKED,
        icmp: 0x0301,
    };
    let expected = RequestEnd {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        how: RequestEnding::Expired,
        age_ns: None,
        timeouts: 2,
        total: 9,
        acked: true,
        deferred: false,
        icmp: None,
    };
    assert_eq!(kind_of(&end(record::END_EXPIRED, record::AGE_UNKNOWN)), Kind::RequestEnd(expected));
    let Kind::RequestEnd(end) = kind_of(&end(record::END_ICMP, 7)) else { panic!() };
    assert_eq!((end.how, end.age_ns, end.icmp), (RequestEnding::Icmp, Some(7), Some((3, 1))));
}

#[test]
fn connects() {
    let totals = connect::ConnectTotals {
        since_ns: 1,
        syns_again: 2,
        unanswered: 3,
        established: 4,
        refused: 5,
        unreachable: 6,
        timed_out: 7,
        cancelled: 8,
        errors: 9,
        window_ns: 77,
        streamed: 78,
    };
    let totals_decoded = ConnectTotals {
        since: Timestamp::from_nanos(1_000_001),
        syns_again: 2,
        unanswered: 3,
        established: 4,
        refused: 5,
        unreachable: 6,
        timed_out: 7,
        cancelled: 8,
        errors: 9,
    };
    let record = |task: wire::Task, age_ns: u64, result: u32| record::Connect {
        header: header::<record::Connect>(record::CONNECT),
        endpoints: ends(),
        task,
        sk: 5,
        ino: 6,
        age_ns,
        result,
        errno: 111,
        syns_again: 12,
        pad: 0,
        totals,
    };
    let expected = Connect {
        endpoints: ends_decoded(),
        task: Some(task_decoded()),
        sk: 5,
        inode: 6,
        age_ns: Some(9),
        result: ConnectResult::Refused,
        errno: Some(111),
        syns_again: 12,
        totals: totals_decoded,
    };
    let refused = record(some_task(), 9, connect::CONNECT_REFUSED);
    assert_eq!(kind_of(&refused), Kind::Connect(Box::new(expected)));

    let strange = record(wire::Task::default(), record::CONNECT_AGE_UNKNOWN, connect::CONNECT_SYN_AGAIN);
    let Kind::Connect(connect) = kind_of(&strange) else { panic!() };
    assert_eq!((connect.task, connect.age_ns, connect.result), (None, None, ConnectResult::SynAgain));

    let key = connect::ConnectKey { peer: ends().remote, netns: 77, tgid: 8, port: 80, pad: [0; 3] };
    let sample = connect_sample(&key, &totals, clock());
    assert_eq!((sample.netns, sample.pid, sample.remote.to_string()), (77, 8, "10.0.0.2:80".to_owned()));
    assert_eq!(sample.totals, totals_decoded);
}

#[test]
fn packets_dropped_on_their_way() {
    let record = record::HandshakeDrop {
        header: header::<record::HandshakeDrop>(record::HANDSHAKE_DROP),
        endpoints: ends(),
        task: some_task(),
        location: 0xff01,
        input: 0xff02,
        sk: 3,
        reason: 8,
        packet: drop::PACKET_SYN_ACK.into(),
        direction: drop::DIRECTION_OUT.into(),
        flags: drop::HANDSHAKE,
        total: 5,
    };
    let expected = HandshakeDrop {
        endpoints: ends_decoded(),
        task: Some(task_decoded()),
        packet: Packet::SynAck,
        outgoing: true,
        handshake: true,
        reason: 8,
        reason_name: None,
        location: 0xff01,
        function: None,
        input: 0xff02,
        input_name: None,
        total: 5,
        facts: None,
    };
    assert_eq!(kind_of(&record), Kind::HandshakeDrop(Box::new(expected)));

    let record = record::NoListener {
        header: header::<record::NoListener>(record::NO_LISTENER),
        endpoints: ends(),
        total: 9,
    };
    assert_eq!(kind_of(&record), Kind::NoListener(NoListener { endpoints: ends_decoded(), total: 9 }));
}

#[test]
fn drops() {
    let record = record::SynDrop {
        header: header::<record::SynDrop>(record::SYN_DROP),
        endpoints: ends(),
        listener: listener(),
        cause: record::SYN_DROP_SYN_QUEUE,
        syncookies: 1,
        total: 9,
    };
    let expected = SynDrop {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        cause: SynDropCause::SynQueue,
        syncookies: 1,
        total: 9,
    };
    assert_eq!(kind_of(&record), Kind::SynDrop(expected));

    let record = record::AckDrop {
        header: header::<record::AckDrop>(record::ACK_DROP),
        endpoints: ends(),
        listener: listener(),
        cause: record::ACK_DROP_ACCEPT_QUEUE,
        pad: 0,
        total: 10,
    };
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
    let record = record::Established {
        header: header::<record::Established>(record::ESTABLISHED),
        endpoints: ends(),
        task: some_task(),
        sk: 9,
        ino: 8,
        age_ns: record::CONNECT_AGE_UNKNOWN,
    };
    let expected = Connect {
        endpoints: ends_decoded(),
        task: Some(task_decoded()),
        sk: 9,
        inode: 8,
        age_ns: None,
        result: ConnectResult::Established,
        errno: None,
        syns_again: 0,
        totals: ConnectTotals::default(),
    };
    assert_eq!(kind_of(&record), Kind::Connect(Box::new(expected)));
}

#[test]
fn syn() {
    let record = record::Syn {
        header: header::<record::Syn>(record::SYN),
        endpoints: ends(),
        listener: listener(),
        answer: record::SYN_COOKIE,
        pad: 0,
    };
    let expected = Syn { endpoints: ends_decoded(), listener: listener_decoded(), answer: SynAnswer::Cookie };
    assert_eq!(kind_of(&record), Kind::Syn(expected));
}

fn enqueued() -> record::Enqueue {
    record::Enqueue {
        header: header::<record::Enqueue>(record::ENQUEUE),
        endpoints: ends(),
        listener: listener(),
        child: 99,
        handshake_ns: 5,
        how: record::ENQUEUE_COOKIE,
        pad: 0,
    }
}

#[test]
fn enqueue_and_accept() {
    let expected = Enqueue {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        child: 99,
        how: EnqueuedBy::Cookie,
        handshake_ns: Some(5),
    };
    assert_eq!(kind_of(&enqueued()), Kind::Enqueue(expected));

    for (wait_ns, decoded) in [(5, Some(5)), (0, Some(0)), (record::WAIT_UNKNOWN, None)] {
        let record = record::Accept {
            header: header::<record::Accept>(record::ACCEPT),
            endpoints: ends(),
            listener: listener(),
            task: some_task(),
            wait_ns,
            child: 99,
        };
        let expected = Accept {
            endpoints: ends_decoded(),
            listener: listener_decoded(),
            task: task_decoded(),
            wait_ns: decoded,
            child: 99,
        };
        assert_eq!(kind_of(&record), Kind::Accept(Box::new(expected)));
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
            syns_again: 3,
            told: 1,
            bootstrapped: 0,
            pad: [0; 4],
        },
        sk: 8,
        ino: 9,
        uid: 1001,
        state: 1,
        options: port::OPT_REUSEADDR,
        found: port::FOUND_HISTORY,
        pad: 0,
    };
    let remnant = port::Holder { endpoints: ends(), state: 6, uid: u32::MAX, found: 1, ..Default::default() };
    let mut record = record::BindFail {
        header: header::<record::BindFail>(record::BIND_FAIL),
        endpoints: ends(),
        task: some_task(),
        sk: 7,
        errno: 98,
        stage: record::STAGE_LISTEN,
        options: port::OPT_V6ONLY.into(),
        holders_met: 300,
        holders_len: 2,
        reuse_state: u32::from_ne_bytes([0xff, 2, 0, 0]),
        own_range: 40009 << 16 | 40000,
        pad: 0,
        holders: [port::Holder::default(); record::HOLDERS],
    };
    record.holders[..2].copy_from_slice(&[held, remnant]);
    let taker = Taker {
        task: task_decoded(),
        since: Timestamp::from_nanos(1_000_030),
        released: None,
        how: How::Connect,
        bootstrapped: false,
    };
    let expected = BindFail {
        endpoints: ends_decoded(),
        task: task_decoded(),
        sk: 7,
        errno: 98,
        stage: BindStage::Listen,
        options: SocketOptions::from_bits(port::OPT_V6ONLY),
        holders_met: 300,
        reuse_state: Some(ReuseState { fastreuse: -1, fastreuseport: 2 }),
        own_range: Some(PortRange { first: 40000, last: 40009 }),
        holders: vec![
            Holder {
                endpoints: ends_decoded(),
                taker: Some(taker),
                sk: 8,
                inode: 9,
                uid: Some(1001),
                state: SocketState::Established,
                options: Some(SocketOptions::from_bits(port::OPT_REUSEADDR)),
                found: Found::History,
            },
            Holder {
                endpoints: ends_decoded(),
                taker: None,
                sk: 0,
                inode: 0,
                uid: None,
                state: SocketState::TimeWait,
                options: Some(SocketOptions::from_bits(0)),
                found: Found::BindHash,
            },
        ],
        addresses: None,
        unusable: None,
        ipv6_off: None,
    };
    assert_eq!(kind_of(&record), Kind::BindFail(Box::new(expected.clone())));
    // More than there is room for: as many as there are.
    record.holders_len = u32::MAX;
    let Kind::BindFail(fail) = kind_of(&record) else { panic!() };
    assert_eq!((fail.holders.len(), &fail.holders[..2]), (record::HOLDERS, &expected.holders[..]));
}

#[test]
fn ports_taken_and_released() {
    let record = record::PortTaken {
        header: header::<record::PortTaken>(record::PORT_TAKEN),
        endpoints: ends(),
        task: some_task(),
        sk: 7,
        how: port::HOW_BIND_ANY.into(),
        options: port::OPT_REUSEPORT.into(),
    };
    let expected = PortTaken {
        endpoints: ends_decoded(),
        task: task_decoded(),
        sk: 7,
        how: How::BindAny,
        options: SocketOptions::from_bits(port::OPT_REUSEPORT),
    };
    assert_eq!(kind_of(&record), Kind::PortTaken(Box::new(expected)));

    let record = record::PortReleased {
        header: header::<record::PortReleased>(record::PORT_RELEASED),
        endpoints: ends(),
        sk: 7,
        held_ns: 1234,
        tgid: 6039,
        how: port::HOW_CONNECT.into(),
        time_wait: 1,
        comm: *b"abcdefghijklmno\0",
    };
    let expected = PortReleased {
        endpoints: ends_decoded(),
        sk: 7,
        held_ns: 1234,
        pid: 6039,
        comm: "abcdefghijklmno".into(),
        how: How::Connect,
        time_wait: true,
    };
    assert_eq!(kind_of(&record), Kind::PortReleased(Box::new(expected)));
}

#[test]
fn connects_without_a_port_and_what_processes_do_with_ports() {
    let record = record::NoPort {
        header: header::<record::NoPort>(record::NO_PORT),
        endpoints: ends(),
        task: some_task(),
        sk: 7,
        total: 3,
        options: port::OPT_REUSEADDR.into(),
        own_range: 50000,
    };
    let expected = NoPort {
        endpoints: ends_decoded(),
        task: task_decoded(),
        sk: 7,
        total: 3,
        options: SocketOptions::from_bits(port::OPT_REUSEADDR),
        own_range: Some(PortRange { first: 50000, last: u16::MAX }),
    };
    assert_eq!(kind_of(&record), Kind::NoPort(Box::new(expected)));

    let counts = port::PortUse {
        since_ns: 1,
        by_connect: 2,
        by_bind: 3,
        bound_connects: 4,
        released: 5,
        time_wait: 6,
        refused: 7,
        late: 8,
        own_range: 9,
        window_ns: 10,
        streamed: 11,
        comm: *b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0",
    };
    let expected = PortUse {
        netns: 4,
        pid: 6039,
        comm: "abc".into(),
        since: Timestamp::from_nanos(1_000_001),
        by_connect: 2,
        by_bind: 3,
        bound_connects: 4,
        released: 5,
        time_wait: 6,
        refused: 7,
        late: 8,
        own_range: 9,
    };
    assert_eq!(port_use(&port::PortUseKey { netns: 4, tgid: 6039 }, &counts, clock()), expected);
}

#[test]
fn accept_failures() {
    let record = |limit: u64| record::AcceptFail {
        header: header::<record::AcceptFail>(record::ACCEPT_FAIL),
        endpoints: ends(),
        listener: listener(),
        task: some_task(),
        errno: 24,
        pad: 0,
        limit,
        total: 59,
        accepted: 7,
    };
    let expected = |open_files_limit: Option<u64>| AcceptFail {
        endpoints: ends_decoded(),
        listener: listener_decoded(),
        task: task_decoded(),
        errno: 24,
        open_files_limit,
        total: 59,
        accepted: 7,
        host_files_limit: None,
        host_files: None,
    };
    assert_eq!(kind_of(&record(40)), Kind::AcceptFail(Box::new(expected(Some(40)))));
    assert_eq!(kind_of(&record(record::LIMIT_UNKNOWN)), Kind::AcceptFail(Box::new(expected(None))));
}

fn closed(task: wire::Task, last: ListenerState) -> record::ListenerClosed {
    record::ListenerClosed {
        header: header::<record::ListenerClosed>(record::LISTENER_CLOSED),
        endpoints: ends(),
        listener: listener(),
        task,
        last,
    }
}

#[test]
fn who_closes_a_listener_may_be_the_kernel() {
    let by = |flags: u32| {
        let Kind::ListenerClosed(closed) =
            kind_of(&closed(wire::Task { flags, ..some_task() }, some_state()))
        else {
            panic!()
        };
        assert_eq!((closed.endpoints, closed.listener), (ends_decoded(), listener_decoded()));
        assert_eq!(closed.task, task_decoded());
        (closed.exiting, closed.by_kernel)
    };
    assert_eq!(by(0), (None, false));
    assert_eq!(by(wire::TASK_FLAGS_SEEN | wire::TASK_KERNEL), (Some(false), true));
    assert_eq!(by(wire::TASK_FLAGS_SEEN | wire::TASK_EXITING), (Some(true), false));
}

#[test]
fn listener_closed_and_its_state() {
    let last = |state: ListenerState| {
        let Kind::ListenerClosed(closed) = kind_of(&closed(some_task(), state)) else { panic!() };
        closed.last
    };
    assert_eq!(last(some_state()), Some(some_totals()));
    assert_eq!(last(ListenerState::default()), None);

    let sample = listener_sample(5, &some_state(), clock());
    assert_eq!(sample.listener, ListenerRef { sk: 5, inode: 18, depth: 14, limit: 15, syn_queue: 0 });
    assert_eq!((sample.totals, sample.endpoints), (some_totals(), ends_decoded()));
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
    let decode = |bytes: &[u8]| decode_record(bytes, clock()).unwrap_err();
    let good = enqueued();
    assert_eq!(decode(&[]), DecodeError::Short { kind: 0, len: 0 });
    let cut = &good.as_bytes()[..119];
    assert_eq!(decode(cut), DecodeError::Length { kind: record::ENQUEUE, claimed: 120, len: 119 });
    let cut =
        record::NoListener { header: header::<record::NoListener>(record::ENQUEUE), ..Default::default() };
    assert_eq!(decode(cut.as_bytes()), DecodeError::Short { kind: record::ENQUEUE, len: 72 });
    let mut long = [good.as_bytes(), &[0]].concat();
    long[10] += 1;
    assert_eq!(decode(&long), DecodeError::Trailing { kind: record::ENQUEUE, extra: 1 });
    let unknown = header::<Header>(77);
    assert_eq!(decode(unknown.as_bytes()), DecodeError::UnknownKind { kind: 77 });
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400), offset in any::<u64>()) {
        let clock = ClockOffset::from_readings(offset, 0);
        let _ = decode_record(&bytes, clock);
        if let Ok((state, _)) = ListenerState::read_from_prefix(&bytes) {
            let _ = listener_sample(1, &state, clock);
        }
    }

    #[test]
    fn any_body_of_the_right_length_decodes(
        kind in 1..u16::try_from(record::KINDS).unwrap(),
        noise in proptest::collection::vec(any::<u8>(), 1400),
        time_ns in any::<u64>(),
    ) {
        // Which length is right, only the decoder knows.
        let decoded = (size_of::<Header>()..noise.len()).find_map(|len| {
            let header = Header { time_ns, kind, len: u16::try_from(len).unwrap(), cpu: 3 };
            let bytes = [header.as_bytes(), &noise[size_of::<Header>()..len]].concat();
            decode_record(&bytes, ClockOffset::default()).ok()
        });
        let event = decoded.unwrap();
        prop_assert_eq!(event.kind.name(), record_name(kind));
        // What was decoded goes through serde unchanged, whatever it is.
        let json = crate::output::json_text(&event);
        prop_assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
