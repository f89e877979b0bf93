//! The whole way, with sockets of this very process; and what is written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use jiff::tz::TimeZone;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use serde_json::Value;

use super::*;
use crate::event::{Family, SocketOptions, SocketState, Timestamp};
use crate::output::{JsonWriter, Lines};

fn asked(ports: &str) -> Answer {
    ask(&Question { ports: ports.parse().unwrap(), netns: None }).unwrap()
}

fn mine(answer: &Answer) -> Vec<&Holder> {
    let me = std::process::id();
    answer.holders().filter(|holder| holder.processes.iter().any(|process| process.pid == me)).collect()
}

/// A socket that is bound and nothing else.
fn bound() -> (OwnedFd, u16) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = getsockname::<SockaddrIn>(socket.as_raw_fd()).unwrap().port();
    (socket, port)
}

#[test]
fn finds_this_process_s_listener_and_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (_accepted, peer) = listener.accept().unwrap();

    let answer = asked(&port.to_string());
    let holders = mine(&answer);
    let [first, second] = holders.as_slice() else { panic!("{holders:?}") };
    assert_eq!((first.state, first.remote), (SocketState::Listen, None));
    assert_eq!((second.state, second.remote), (SocketState::Established, Some(peer)));
    assert_eq!(first.belongs, Belonging::Processes);
    assert!(first.processes.first().unwrap().command.is_some());
    if answer.owners_via != "procfs" {
        assert_eq!((first.taken, second.taken), (Some(Taken::BindAny), Some(Taken::Accepted)));
    }

    let answer = asked(&client.local_addr().unwrap().port().to_string());
    let holders = mine(&answer);
    let [holder] = holders.as_slice() else { panic!("{holders:?}") };
    assert_eq!(holder.remote, Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
}

#[test]
fn finds_what_is_bound_and_nothing_else() {
    let (_socket, port) = bound();
    let answer = asked(&port.to_string());
    let hidden = answer.gaps.iter().any(|gap| gap.why.contains("bound and nothing else"));
    let holders = mine(&answer);
    match holders.as_slice() {
        [holder] => assert_eq!(holder.state, SocketState::Bound),
        // Neither the iterator nor a sock_diag that lists them: then it must be said.
        [] => assert!(hidden, "{:?}", answer.gaps),
        more => panic!("{more:?}"),
    }
}

#[test]
fn a_port_of_nobody_has_no_holder() {
    let (socket, port) = bound();
    drop(socket);
    assert_eq!(asked(&port.to_string()).holders().filter(|h| h.local.port() == port).count(), 0);
}

/// 2026-11-22T10:00:00Z.
const NOW: Timestamp = Timestamp::from_nanos(1_795_341_600_000_000_000);

fn answer() -> Answer {
    let server = Process {
        pid: 812,
        descriptors: vec![6],
        comm: "nginx\u{1b}".to_owned(),
        command: Some("nginx -g daemon".to_owned()),
        container: None,
        details: crate::event::ProcessDetails::default(),
        started: Some(NOW.before(Duration::from_secs(3 * 3600))),
    };
    let worker = Process { pid: 813, command: None, ..server.clone() };
    let listener = Holder {
        netns: 1,
        family: Family::V4,
        local: "0.0.0.0:35010".parse().unwrap(),
        remote: None,
        state: SocketState::Listen,
        belongs: Belonging::Processes,
        taken: Some(Taken::Bind),
        processes: vec![server, worker],
        uid: Some(33),
        inode: 77,
        device: 0,
        options: Some(SocketOptions::from_bits(1)),
        v6only: false,
        queue: Some((0, 511)),
        time_wait_left: None,
        mptcp: false,
    };
    let remains = Holder {
        local: "10.0.0.1:35010".parse().unwrap(),
        remote: Some("10.0.0.2:443".parse().unwrap()),
        state: SocketState::TimeWait,
        belongs: Belonging::Nobody,
        taken: None,
        processes: Vec::new(),
        uid: None,
        inode: 0,
        options: None,
        queue: None,
        time_wait_left: Some(Duration::from_secs(43)),
        ..listener.clone()
    };
    let knobs = Knobs {
        ip_local_port_range: Some(crate::event::PortRange { first: 32768, last: 60999 }),
        ip_local_reserved_ports: Some("8080".parse().unwrap()),
        ip_unprivileged_port_start: Some(1024),
        ..Knobs::default()
    };
    let own = Place { id: 1, is_own: true, knobs, holders: vec![listener, remains], ..Place::default() };
    Answer {
        places: vec![own],
        owners_via: "iter task_file",
        standpoint: Standpoint { own: Some(1), host: None },
        gaps: vec![Gap::new("owners", "something")],
    }
}

#[test]
fn text_says_who_how_since_when_and_what_a_bind_would_meet() {
    let mut out = Lines::new(Vec::new(), false);
    let _ = answer().write_text(&[35010, 80], NOW, &TimeZone::UTC, &mut out).unwrap();
    let text = out.into_inner();
    let expected = "\
port 35010 in this network namespace: 2 sockets
  0.0.0.0:35010  listen  nginx\\x1b[812]
      runs    nginx -g daemon
      shared  with nginx\\x1b[813]
      taken   by bind() to this very port; not before 2026-11-22 07:00:00+00:00 (3 h ago), when the process was started
      socket  accept queue 0 of 512; options: SO_REUSEADDR; user 33
  10.0.0.1:35010 -> 10.0.0.2:443  time-wait  no process any more; free in 43 s
      taken   closed 17 s ago, at 2026-11-22 09:59:43+00:00
  bind 0.0.0.0:35010   would fail, SO_REUSEADDR or not: nginx\\x1b[812] listens at 0.0.0.0:35010
  bind [::]:35010      would fail, SO_REUSEADDR or not: nginx\\x1b[812] listens at 0.0.0.0:35010
  range in the ephemeral range 32768-60999 and not reserved: any client may be given it; to keep it for a server: \
sysctl -w net.ipv4.ip_local_reserved_ports=8080,35010
port 80: nobody has it in this network namespace
  bind 0.0.0.0:80      would succeed
  bind [::]:80         would succeed
  range outside of the ephemeral range 32768-60999: no client is given it; binding it takes CAP_NET_BIND_SERVICE
not looked at: something
";
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn json_has_a_line_for_each_holder_and_port() {
    let mut out = JsonWriter::new(Vec::new(), "host", "who");
    crate::output::json::who::write(&answer(), &[35010, 80], NOW, &mut out).unwrap();
    let text = out.into_inner();
    let lines: Vec<Value> =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    for line in &lines {
        assert_eq!(crate::output::json::schema::problems(line), Vec::<String>::new(), "{line}");
        assert_eq!((&line["time"], &line["host"]), (&NOW.to_string().into(), &"host".into()));
    }
    let types: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert_eq!(types, ["holder", "holder", "port", "port", "summary"]);
    let [listener, remains, held, free, summary] = lines.as_slice() else { panic!("{lines:?}") };
    let subject = &listener["subject"];
    assert_eq!(
        (&subject["process"]["pid"], &subject["how"], &subject["state"]),
        (&812.into(), &"bind".into(), &"listen".into())
    );
    assert_eq!((&subject["address"], &subject["port"]), (&"0.0.0.0".into(), &35010.into()));
    assert_eq!(listener["since_not_before"], "2026-11-22T07:00:00.000000000Z");
    assert_eq!(subject["also"][0]["pid"], 813);
    let subject = &remains["subject"];
    assert_eq!((&remains["belongs"], &subject["time_wait_left_s"]), (&"orphan".into(), &43.0.into()));
    assert_eq!(subject["since"], "2026-11-22T09:59:43.000000000Z");
    assert_eq!(
        (&subject["remote"]["address"], &subject["remote"]["port"]),
        (&"10.0.0.2".into(), &443.into())
    );
    assert_eq!((&held["binds"][0]["outlook"], &held["in_ephemeral_range"]), (&"fails".into(), &true.into()));
    assert_eq!(held["ephemeral_range"], serde_json::json!({"from": 32768, "to": 60999}));
    assert_eq!((&free["binds"][0]["outlook"], &free["privileged"]), (&"succeeds".into(), &true.into()));
    assert_eq!(
        (&summary["counts"]["holders"], &summary["missing"][0]["why"]),
        (&2.into(), &"something".into())
    );
}
