//! What people read.

use jiff::tz::Offset;

use super::*;
use crate::event::{How, LossPlace, ObservationStatus, SocketState, Tier};
use crate::finding::testing::{Play, Server, address, bind_fail, coverage, holder, ms, task};

fn text(colour: bool, write: impl FnOnce(&mut TextWriter<Vec<u8>>)) -> String {
    let mut writer = TextWriter::new(Vec::new(), TimeZone::fixed(Offset::constant(9)), colour);
    write(&mut writer);
    String::from_utf8(writer.into_inner()).unwrap()
}

fn overflow() -> Play {
    let mut play = Play::new(4096);
    let mut server = Server::new(100, "0.0.0.0:1080", 20);
    server.listen(&mut play, task(6039, "delegated"), Some(20), 4096);
    server.run(&mut play, 14, 125, 5000);
    for _ in 0..41 {
        let drop = server.ack_drop();
        play.send(5000, drop);
    }
    play.counters(server.overflows());
    play.tick(5999);
    play.tick(6000);
    play
}

#[test]
fn an_overflow() {
    let play = overflow();
    assert_eq!(
        text(false, |to| drop(to.finding(play.only()))),
        "\
19:40:05.999 CRITICAL accept-queue-overflow (updated)  delegated[6039] 0.0.0.0:1080
    21 waiting, limit 20; 297 SYNs and 41 final ACKs dropped in 5.0 s (kernel: ListenOverflows +338)
    arrivals 71/s (repeated SYNs included), accepts 8/s, longest wait 2.6 s; 1 thread accepts
  cause  backlog-argument: the application's backlog: listen(fd, 20); somaxconn is 4096. Accepts are too slow for any backlog
  do     raise the listen backlog of DeleGate: `MAXIMA=listen:1024` on its command line or in its configuration file, then restart it (default: 20); somaxconn (4096) needs no change
         give DeleGate more workers: `MAXIMA=delegated:N` on its command line or in its configuration file, then restart it (default: 64; N: more than now): 1 thread accepts 8/s against 71/s arriving
         net.ipv4.tcp_max_syn_backlog (512) is not the limit either
"
    );
}

#[test]
fn a_conflict() {
    let mut held =
        holder("127.0.0.1:35010", SocketState::Established, How::Connect, Some(task(400, "cli\u{1b}[2Jent")));
    held.endpoints.remote = Some(address("127.0.0.1:9000"));
    let mut play = Play::new(4096);
    let fail = bind_fail("0.0.0.0:35010", task(500, "server"), vec![held]);
    play.send(100, Kind::BindFail(Box::new(fail)));
    assert_eq!(
        text(false, |to| drop(to.finding(play.only()))),
        "\
19:40:00.100 CRITICAL bind-conflict  server[500] cannot bind 0.0.0.0:35010: cli\\x1b[2Jent[400] was given the port by connect() (connection to 127.0.0.1:9000)
    held by cli\\x1b[2Jent[400] 127.0.0.1:35010: established, taken by connect 99 ms before, peer 127.0.0.1:9000
    1 attempt by uid 1000, options SO_REUSEADDR, at bind()
  cause  ephemeral-grab: 0.0.0.0:35010 covers 127.0.0.1:35010; they could share the port with SO_REUSEADDR on both sides, which the holder lacks
  do     reserve the port, so that the kernel does not hand it out; what is reserved already stays so
           sh -c 'sysctl -w net.ipv4.ip_local_reserved_ports=\"35010,$(sysctl -n net.ipv4.ip_local_reserved_ports)\"'
         or move the ephemeral range (32768-60999) away from it
           sysctl -w net.ipv4.ip_local_port_range=\"35011 60999\"
         until then: start again once cli\\x1b[2Jent[400] has closed its socket
"
    );
}

#[test]
fn the_rest() {
    let mut coverage = coverage(Tier::Kprobe, ObservationStatus::Attached);
    coverage.observations[3].status = ObservationStatus::Polled;
    coverage.filters.push("--port 1080".into());
    coverage.scope.push("--netns blue".into());
    let mut play = overflow();
    play.end();
    let lost =
        Lost { what: "accept".into(), count: 7, place: LossPlace::RingBuffer, from: ms(0), to: ms(10) };
    play.send(6000, Kind::Lost(Box::new(lost.clone())));
    let listen = Event { time: ms(4), kind: Server::new(1, "0.0.0.0:80", 5).syn_drop() };
    let out = text(false, |to| {
        let _ = to.coverage(&coverage, ms(0));
        let _ = to.event(&listen, play.engine.world());
        let _ = to.lost(&lost);
        let _ = to.summary(&Summary::of(&play.engine));
    });
    assert_eq!(
        out,
        "\
tcptrace on 6.12.1, tier kprobe: 10 of 11 observations attached; polled: syn-drop; only --netns blue --port 1080; times are UTC+09:00
19:40:00.004 syn-drop 0.0.0.0:80 <-> 10.0.0.0:40000 queue=0 queue_limit=5 syn_queue=0 cause=accept-queue syncookies=1 total=0
19:40:00.010 lost 7 accept at the ring-buffer
6.0 s traced; findings: 1 accept-queue-overflow, 1 events-lost
  events: 41 ack-drop, 1 listen, 297 syn-drop; lost: 7 accept
  kernel ListenOverflows +338 in netns 4026531840, observed 338: exact
  kernel ListenDrops +338 in netns 4026531840, observed 338: exact
"
    );
}

#[test]
fn colours_only_if_asked_for() {
    let play = overflow();
    let coloured = text(true, |to| drop(to.finding(play.only())));
    assert!(coloured.contains("\u{1b}[1;31mCRITICAL\u{1b}[0m"), "{coloured}");
    assert!(!text(false, |to| drop(to.finding(play.only()))).contains('\u{1b}'));
}
