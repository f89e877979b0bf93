//! What people read.

use jiff::tz::Offset;

use super::*;
use crate::event::{How, LossPlace, ObservationStatus, SocketState, Tier};
use crate::finding::State;
use crate::finding::testing::{Play, Server, address, bind_fail, coverage, holder, ms, task};

fn text(screen: Screen, write: impl FnOnce(&mut TextWriter<Vec<u8>>)) -> String {
    let look = Look { zone: TimeZone::fixed(Offset::constant(9)), screen, counters: false };
    let mut writer = TextWriter::new(Vec::new(), look);
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
        text(Screen::plain(100), |to| drop(to.finding(play.only()))),
        "\
19:40:05.999 CRITICAL accept-queue-overflow #1  delegated[6039] 0.0.0.0:1080
    21 waiting, limit 20; 297 SYNs and 41 final ACKs dropped in 5.0 s (kernel: ListenOverflows +338)
    arrivals 71/s (repeated SYNs included), accepts 8/s, longest wait 2.6 s; 1 thread accepts
  cause  backlog-argument: the application's backlog: listen(fd, 20); somaxconn is 4096. Accepts are
         too slow for any backlog
  do     raise the listen backlog of DeleGate: `MAXIMA=listen:1024` on its command line or in its
         configuration file, then restart it (default: 20); somaxconn (4096) needs no change
         give DeleGate more workers: `MAXIMA=delegated:N` on its command line or in its
         configuration file, then restart it (default: 64; N: more than now): 1 thread accepts 8/s
         against 71/s arriving
  not    net.ipv4.tcp_max_syn_backlog (512) is not the limit either
  see    tcptrace explain accept-queue-overflow
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
        text(Screen::plain(100), |to| drop(to.finding(play.only()))),
        "\
19:40:00.100 CRITICAL bind-conflict #1  server[500] cannot bind 0.0.0.0:35010: cli\\x1b[2Jent[400]
    was given the port by connect() (connection to 127.0.0.1:9000)
    held by cli\\x1b[2Jent[400] 127.0.0.1:35010: established, taken by connect 99 ms before, peer
      127.0.0.1:9000; 1 attempt by uid 1000, options SO_REUSEADDR, at bind()
  cause  ephemeral-grab: 0.0.0.0:35010 covers 127.0.0.1:35010; they could share the port with
         SO_REUSEADDR on both sides, which the holder lacks
  do     reserve the port, so that the kernel does not hand it out; what is reserved already stays
         so
           sh -c 'sysctl -w net.ipv4.ip_local_reserved_ports=\"35010,$(sysctl -n net.ipv4.ip_local_reserved_ports)\"'
         or move the ephemeral range (32768-60999) away from it
           sysctl -w net.ipv4.ip_local_port_range=\"35011 60999\"
         until then: start again once cli\\x1b[2Jent[400] has closed its socket
  see    tcptrace explain bind-conflict
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
    let out = |screen: Screen, counters: bool| {
        let look = Look { zone: TimeZone::fixed(Offset::constant(9)), screen, counters };
        let mut to = TextWriter::new(Vec::new(), look);
        let _ = to.opening("tcptrace on here: attaching");
        to.coverage(&coverage);
        let _ = to.watching(Some(play.engine.world()), true);
        let _ = to.event(&listen, play.engine.world());
        let _ = to.lost(&lost);
        let _ = to.summary(&Summary::of(&play.engine));
        String::from_utf8(to.into_inner()).unwrap()
    };
    assert_eq!(
        out(Screen::plain(100), false),
        "\
tcptrace on here: attaching
watching 1 listener in 1 namespace, tier kprobe, 10 of 11; polled: syn-drop; only --netns blue
    --port 1080; Ctrl-C ends
19:40:00.004 syn-drop 0.0.0.0:80 <-> 10.0.0.0:40000 queue=0 queue_limit=5 syn_queue=0
    cause=accept-queue syncookies=1 total=0
19:40:00.010 lost 7 accept: the ring buffer was full
6.0 s traced; 2 findings: 1 accept-queue-overflow, 1 events-lost
kernel counters: 2 equal
lost: 7 accept
"
    );
    assert!(
        out(Screen::plain(100), true)
            .contains("  ListenOverflows +338 in netns 4026531840, observed 338: exact\n  ListenDrops +338")
    );
}

/// On a terminal only our own colours and our own moves of the cursor are there, and they come from nothing foreign.
#[test]
fn colours_only_if_asked_for() {
    let play = overflow();
    let coloured = text(Screen::terminal(100), |to| drop(to.finding(play.only())));
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31mCRITICAL\u{1b}[0m"), "{coloured}");
    assert!(!text(Screen::plain(100), |to| drop(to.finding(play.only()))).contains('\u{1b}'));
}

/// A finding that was told, updated and closed, with nothing between: on a terminal the last line is the only one below it.
#[test]
fn a_line_takes_the_place_of_the_one_before_it_on_a_terminal_only() {
    let play = overflow();
    let first = &play.findings[0];
    let later = |state: State, seconds: u64| {
        let numbers = vec![format!("{seconds} waiting")];
        let time = first.time.after(Duration::from_secs(seconds));
        Finding { state, time, numbers, ..first.clone() }
    };
    let course = [first.clone(), later(State::Updated, 1), later(State::Updated, 5), later(State::Closed, 6)];
    let told = |screen: Screen| {
        text(screen, |to| {
            for finding in &course {
                let _ = to.finding(finding);
                let _ = to.flush();
            }
        })
    };
    let plain = told(Screen::plain(80));
    let lines = |of: &str| plain.lines().filter(|line| line.contains(of)).count();
    assert_eq!((lines("CRITICAL"), lines("closed #1")), (1, 1), "{plain}");
    assert_eq!(lines("update #1"), 2, "{plain}");
    assert!(!plain.contains('\u{1b}'));
    let terminal = told(Screen::terminal(80));
    assert_eq!(terminal.matches("\u{1b}[1A\u{1b}[K").count(), 2, "{terminal:?}");
}

#[test]
fn a_heartbeat_is_for_terminals_and_leaves_nothing_behind() {
    let play = overflow();
    let beats = |screen: Screen| {
        text(screen, |to| {
            let _ = to.heartbeat(play.engine.world());
            let _ = to.note("and on");
        })
    };
    assert_eq!(beats(Screen::plain(80)), "and on\n");
    let terminal = beats(Screen::terminal(80));
    assert!(terminal.contains("watching for") && terminal.ends_with("\r\u{1b}[Kand on\n"), "{terminal:?}");
}

/// Where something is, is said unless it is the host's own place.
#[test]
fn a_headline_names_container_and_namespace_where_they_are_not_the_host_s_own() {
    let play = overflow();
    let mut finding = play.only().clone();
    finding.subject.process.as_mut().unwrap().container = Some("docker:4c01db0b339c".into());
    let mut coverage = coverage(Tier::Fexit, ObservationStatus::Attached);
    let headline = |coverage: &Coverage, finding: &Finding| {
        let said = text(Screen::plain(100), |to| {
            to.coverage(coverage);
            let _ = to.finding(finding);
        });
        said.lines().next().unwrap().to_owned()
    };
    coverage.host_netns = finding.subject.netns;
    assert!(headline(&coverage, &finding).ends_with("0.0.0.0:1080 in docker:4c01db0b339c"));
    coverage.host_netns = Some(1);
    finding.subject.process.as_mut().unwrap().container = None;
    assert!(headline(&coverage, &finding).ends_with("0.0.0.0:1080 in netns 4026531840"));
}

/// Of several findings with the same news one line is enough, and numbers that differ stand beside their findings.
#[test]
fn the_same_news_is_said_once() {
    let first = overflow().only().clone();
    let with = |id: u64, state: State, numbers: &str| Finding {
        id,
        state,
        time: if state == State::Opened { first.time } else { first.time.after(Duration::from_secs(2)) },
        numbers: vec![numbers.to_owned()],
        ..first.clone()
    };
    let news = |of: &[(u64, &str)]| {
        let said = text(Screen::plain(80), |to| {
            for (id, _) in of {
                let _ = to.finding(&with(*id, State::Opened, "0 SYNs dropped"));
            }
            for (id, numbers) in of {
                let _ = to.finding(&with(*id, State::Updated, numbers));
            }
        });
        let news = said.lines().skip_while(|line| !line.contains("update"));
        news.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        news(&[(7, "5 SYNs dropped"), (8, "5 SYNs dropped")]),
        ["19:40:07.999 update #7, #8 accept-queue-overflow: 5 SYNs dropped"]
    );
    assert_eq!(
        news(&[(1, "5 SYNs"), (2, "6 SYNs"), (3, "5 SYNs"), (4, "9 ACKs"), (5, "7 SYNs")]),
        ["19:40:07.999 update: #1, #3 5, #2 6, #5 7 SYNs; #4 9 ACKs"]
    );
}

/// Advice that was given is named, with its command, which is about another process.
#[test]
fn advice_that_was_given_is_named_in_one_line() {
    let first = overflow().only().clone();
    let with = |id: u64, pid: u32| {
        let words = "if it is not meant so, accept these packets before this rule, or delete it";
        let mut what = crate::finding::Remedy::text(words);
        what.command = Some(format!("nsenter -t {pid} -n nft list ruleset"));
        let mut not = crate::finding::Remedy::text("x ".repeat(60));
        not.not = true;
        Finding { id, remedy: vec![what, not], ..first.clone() }
    };
    let said = |screen: Screen| {
        text(screen, |to| {
            let _ = to.finding(&with(1, 10));
            let _ = to.finding(&with(2, 20));
        })
    };
    let wide = said(Screen::plain(80));
    assert!(
        wide.ends_with("  do     as for #1: nsenter -t 20 -n nft list ruleset\n  not    as for #1\n"),
        "{wide}"
    );
    let narrow = said(Screen::plain(50));
    let apart = "  do     as for #1\n           nsenter -t 20 -n nft list ruleset\n  not    as for #1\n";
    assert!(narrow.ends_with(apart), "{narrow}");
}
