//! `tcptrace why` gives each cause its verdict, in namespaces made here. Needs root and iproute2; without them a test says so.

#[path = "common/checked.rs"]
mod checked;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Runs `test` on a thread in a namespace of its own with `lo` up, or says why it cannot.
fn in_private_namespace(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let run = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("skipped: no private network namespace here ({errno}); run as root");
            return Ok(());
        }
        if !ip("link set lo up") {
            println!("skipped: no iproute2");
            return Ok(());
        }
        test()
    });
    run.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

/// The verdict, from the calling thread's namespace (a child inherits it).
fn why(target: &str, arguments: &[&str]) -> Result<(String, bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["why", target, "--json"])
        .args(arguments)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let lines = checked::lines(&text)?;
    let last = lines.last().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let summary = last.get("answer").context("an answer")?;
    let healthy = summary.get("healthy") == Some(&Value::Bool(true));
    ensure!(output.status.code() == Some(i32::from(!healthy)), "{:?}: {text}", output.status);
    Ok((summary.get("verdict").and_then(Value::as_str).context("a verdict")?.to_owned(), healthy, text))
}

fn expect(target: &str, arguments: &[&str], verdict: &str) -> Result<String> {
    let (found, healthy, text) = why(target, arguments)?;
    ensure!(found == verdict, "{target}: {verdict} was expected: {text}");
    ensure!(healthy == (verdict == "answers"), "{text}");
    Ok(text)
}

/// Accepts whatever comes until the test's process ends.
fn serve(listener: &TcpListener) -> Result<()> {
    let accepting = listener.try_clone()?;
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = accepting.accept() {
            kept.push(connection);
        }
    });
    Ok(())
}

struct Server(Child);

impl Server {
    /// A server that binds, listens and then does nothing.
    fn new(python: &str) -> Option<Self> {
        Self::within(&[], python)
    }

    /// The same, started by a command.
    fn within(command: &[&str], python: &str) -> Option<Self> {
        let script = format!("import socket,time\n{python}\nprint('up',flush=True)\ntime.sleep(60)");
        let words: Vec<&str> = command.iter().copied().chain(["python3", "-c", &script]).collect();
        let (program, arguments) = words.split_first()?;
        let mut child =
            Command::new(program).args(arguments).stdout(std::process::Stdio::piped()).spawn().ok()?;
        let mut up = [0; 2];
        std::io::Read::read_exact(child.stdout.as_mut()?, &mut up).ok()?;
        Some(Self(child))
    }

    fn stop(&self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGSTOP)?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const STATIC: &[&str] = &["--for", "0s"];
const PROBE: &[&str] = &["--probe", "--timeout", "1500ms"];

#[test]
fn who_listens_where() -> Result<()> {
    in_private_namespace(|| {
        ensure!(ip("addr add 10.9.9.1/24 dev lo") && ip("addr add fd99::1/64 dev lo nodad"));
        expect("127.0.0.1:5391", STATIC, "no-listener")?;
        expect("127.0.0.1:5391", PROBE, "no-listener")?;

        let v4 = TcpListener::bind("127.0.0.1:5391")?;
        expect("10.9.9.1:5391", STATIC, "wrong-address")?;
        expect("[fd99::1]:5391", STATIC, "other-family")?;
        // The kernel completes the handshake; no program has accepted it.
        expect("127.0.0.1:5391", PROBE, "not-accepting")?;
        drop(v4);

        let v6 = TcpListener::bind("[fd99::1]:5391")?;
        expect("10.9.9.1:5391", STATIC, "other-family")?;
        expect("[::1]:5391", STATIC, "wrong-address")?;
        drop(v6);

        let both = TcpListener::bind("[::]:5391")?;
        let ours = std::thread::scope(|threads| {
            let accepting = threads.spawn(|| both.accept());
            expect("10.9.9.1:5391", PROBE, "answers")?;
            accepting.join().map_err(|_| anyhow::anyhow!("panicked"))?.context("accept")
        })?;
        drop(ours);
        // Something did listen until lately: its connections are left.
        let client = TcpStream::connect("127.0.0.1:5391")?;
        let (accepted, _) = both.accept()?;
        drop(both);
        expect("127.0.0.1:5391", STATIC, "listener-exited")?;
        drop((client, accepted));
        Ok(())
    })
}

#[test]
fn bound_v6only_and_elsewhere() -> Result<()> {
    in_private_namespace(|| {
        let v6only = Server::new(
            "s=socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,1); s.bind(('::',5392)); s.listen(5)",
        );
        let Some(v6only) = v6only else {
            println!("skipped: no python3");
            return Ok(());
        };
        let text = expect("127.0.0.1:5392", STATIC, "other-family")?;
        ensure!(text.contains("IPV6_V6ONLY"), "{text}");
        // Another namespace: what listens here is not there.
        let (from_elsewhere, ours) = (
            std::thread::spawn(|| -> Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                ensure!(ip("link set lo up"));
                expect("127.0.0.1:5392", STATIC, "other-netns")?;
                Ok(())
            }),
            v6only,
        );
        from_elsewhere.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        drop(ours);
        let bound = Server::new("s=socket.socket(); s.bind(('127.0.0.1',5393))").context("python3")?;
        let (verdict, ..) = why("127.0.0.1:5393", STATIC)?;
        // Kernels before 6.8 do not list it.
        ensure!(["bound-not-listening", "no-listener"].contains(&verdict.as_str()), "{verdict}");
        drop(bound);
        Ok(())
    })
}

#[test]
fn full_and_stopped() -> Result<()> {
    in_private_namespace(|| {
        let Some(server) = Server::new("s=socket.socket(); s.bind(('127.0.0.1',5394)); s.listen(2)") else {
            println!("skipped: no python3");
            return Ok(());
        };
        let waiting: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect("127.0.0.1:5394")).collect::<Result<_, _>>()?;
        let text = expect("127.0.0.1:5394", STATIC, "accept-queue-full")?;
        ensure!(text.contains("listen() argument"), "{text}");
        expect("127.0.0.1:5394", PROBE, "accept-queue-full")?;
        server.stop()?;
        let text = expect("127.0.0.1:5394", STATIC, "process-stopped")?;
        ensure!(text.contains(&format!("kill -CONT {}", server.0.id())), "{text}");
        drop(waiting);
        Ok(())
    })
}

#[test]
fn routes_and_names() -> Result<()> {
    in_private_namespace(|| {
        expect("192.0.2.1:80", STATIC, "no-route")?;
        expect("[2001:db8::1]:80", STATIC, "no-route")?;
        ensure!(ip("route add blackhole 192.0.2.2") && ip("route add prohibit 192.0.2.3"));
        ensure!(ip("route add unreachable 192.0.2.4"));
        expect("192.0.2.2:80", STATIC, "blackhole-route")?;
        expect("192.0.2.3:80", STATIC, "prohibit-route")?;
        expect("192.0.2.4:80", STATIC, "unreachable-route")?;
        expect("no-such-host.invalid:80", STATIC, "no-address")?;
        let usage = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(["why", "localhost"]).output()?;
        ensure!(usage.status.code() == Some(2), "{usage:?}");
        Ok(())
    })
}

/// A device behind which nobody has the address: SYNs are lost outside, as far as this host can tell.
#[test]
fn unanswered_outside() -> Result<()> {
    in_private_namespace(|| {
        // What goes out of v0 comes in by v1, where the address is not ours: dropped.
        if !ip("link add v0 type veth peer name v1") {
            println!("skipped: no veth devices here");
            return Ok(());
        }
        ensure!(ip("addr add 10.9.8.1/24 dev v0") && ip("link set v0 up") && ip("link set v1 up"));
        ensure!(ip("neigh add 10.9.8.2 lladdr 02:00:00:00:00:09 dev v0"));
        expect("10.9.8.2:5395", STATIC, "no-fault-found")?;
        let start = Instant::now();
        expect("10.9.8.2:5395", PROBE, "no-answer")?;
        ensure!(start.elapsed() >= Duration::from_millis(1500));
        // Somebody else's connection says the same without one of our own, as soon as its SYN was sent again.
        let client = std::thread::spawn(|| {
            TcpStream::connect_timeout(&"10.9.8.2:5395".parse().unwrap(), Duration::from_secs(8)).is_ok()
        });
        std::thread::sleep(Duration::from_millis(2500));
        expect("10.9.8.2:5395", STATIC, "no-answer")?;
        ensure!(!client.join().map_err(|_| anyhow::anyhow!("panicked"))?);
        Ok(())
    })
}

/// A queue discipline or rule on this host that drops what goes to a listener with room.
#[test]
fn dropped_or_rejected_by_a_firewall() -> Result<()> {
    in_private_namespace(|| {
        let nft = |rule: &str| Command::new("nft").arg(rule).status().is_ok_and(|status| status.success());
        let base = "table inet t { chain c { type filter hook input priority 0; }; }";
        if !nft(&format!("add {base}")) {
            println!("skipped: no nft here");
            return Ok(());
        }
        let server = TcpListener::bind("127.0.0.1:5396")?;
        serve(&server)?;
        expect("127.0.0.1:5396", PROBE, "answers")?;
        ensure!(nft("add rule inet t c tcp dport 5396 drop"));
        let (verdict, healthy, text) = why("127.0.0.1:5396", PROBE)?;
        ensure!(
            ["dropped-on-this-host", "handshake-dropped"].contains(&verdict.as_str()) && !healthy,
            "{text}"
        );
        ensure!(nft("flush chain inet t c") && nft("add rule inet t c tcp dport 5396 reject with tcp reset"));
        let (verdict, _, text) = why("127.0.0.1:5396", PROBE)?;
        ensure!(["rejected", "handshake-dropped"].contains(&verdict.as_str()), "{text}");
        drop(server);
        Ok(())
    })
}

/// Clients whose SYN-ACKs are lost, and a server without cookies.
#[test]
fn a_full_syn_queue() -> Result<()> {
    in_private_namespace(|| {
        let nft = |rule: &str| Command::new("nft").arg(rule).status().is_ok_and(|status| status.success());
        if !nft("add table inet t { chain c { type filter hook output priority 0; }; }") {
            println!("skipped: no nft here");
            return Ok(());
        }
        ensure!(nft("add rule inet t c tcp sport 5398 drop"));
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0")?;
        let Some(_server) = Server::new("s=socket.socket(); s.bind(('127.0.0.1',5398)); s.listen(2)") else {
            println!("skipped: no python3");
            return Ok(());
        };
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let to = "127.0.0.1:5398".parse();
                std::thread::spawn(move || {
                    to.map(|to| TcpStream::connect_timeout(&to, Duration::from_secs(8)))
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(1500));
        let text = expect("127.0.0.1:5398", STATIC, "syn-queue-full")?;
        ensure!(text.contains("tcp_syncookies=0"), "{text}");
        // With cookies a full SYN queue is no reason.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "1")?;
        let (verdict, ..) = why("127.0.0.1:5398", STATIC)?;
        ensure!(verdict != "syn-queue-full", "{verdict}");
        for client in clients {
            let _ = client.join();
        }
        Ok(())
    })
}

/// Two namespaces of one host: the server's filters by reverse path what comes from an address that it would answer elsewhere.
#[test]
fn filtered_by_reverse_path() -> Result<()> {
    in_private_namespace(|| {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            ensure!(ip("link set lo up"));
            let mut inhabitant = Command::new("sleep").arg("60").spawn()?;
            tell.send(inhabitant.id())?;
            // The veth end has been moved here.
            while !ip("link set vb up") {
                std::thread::sleep(Duration::from_millis(50));
            }
            ensure!(ip("addr add 10.9.7.2/32 dev vb"));
            let listener = TcpListener::bind("0.0.0.0:5397")?;
            serve(&listener)?;
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0")?;
            std::fs::write("/proc/sys/net/ipv4/conf/vb/rp_filter", "0")?;
            ensure!(ip("route add 10.9.7.1/32 dev vb"));
            tell.send(0)?;
            let _ = ended.recv();
            // From now on its answers would go another way.
            ensure!(ip("route del 10.9.7.1/32 dev vb") && ip("route add 10.9.7.1/32 dev lo"));
            std::fs::write("/proc/sys/net/ipv4/conf/vb/rp_filter", "1")?;
            tell.send(0)?;
            let _ = ended.recv();
            drop(listener);
            inhabitant.kill()?;
            inhabitant.wait()?;
            Ok(())
        });
        let pid = told.recv()?;
        ensure!(ip(&format!("link add va type veth peer name vb netns {pid}")), "veth");
        ensure!(
            ip("addr add 10.9.7.1/32 dev va") && ip("link set va up") && ip("route add 10.9.7.2/32 dev va")
        );
        told.recv()?;
        let text = expect("10.9.7.2:5397", PROBE, "answers")?;
        ensure!(text.contains("it is an address of network namespace"), "{text}");
        end.send(())?;
        told.recv()?;
        let (verdict, healthy, text) = why("10.9.7.2:5397", PROBE)?;
        end.send(())?;
        ensure!(["rp-filter", "handshake-dropped"].contains(&verdict.as_str()) && !healthy, "{text}");
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    })
}

/// A second namespace behind a veth, 10.9.6.1 here and 10.9.6.2 there, whose python server runs there.
struct Container {
    name: String,
    server: Option<Server>,
}

impl Container {
    fn new(name: &str, server: &str) -> Result<Option<Self>> {
        if !ip(&format!("netns add {name}")) {
            println!("skipped: no named network namespaces here");
            return Ok(None);
        }
        let mut made = Self { name: name.to_owned(), server: None };
        if !ip(&format!("link add tt-h type veth peer name tt-c netns {name}")) {
            println!("skipped: no veth devices here");
            return Ok(None);
        }
        ensure!(ip("addr add 10.9.6.1/24 dev tt-h") && ip("link set tt-h up"));
        for command in ["link set lo up", "addr add 10.9.6.2/24 dev tt-c", "link set tt-c up"] {
            ensure!(ip(&format!("-n {name} {command}")));
        }
        made.server = Server::within(&["ip", "netns", "exec", name], server);
        if made.server.is_none() {
            println!("skipped: no python3");
            return Ok(None);
        }
        Ok(Some(made))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.server.take();
        ip(&format!("netns del {}", self.name));
    }
}

/// Accepts, and keeps what it accepted.
const ACCEPTS: &str = "
import threading
kept=[]
def serve(s):
  while True: kept.append(s.accept()[0])
def start(port,address='0.0.0.0',prepare=lambda s: None):
  s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); prepare(s); s.bind((address,port)); s.listen(16)
  threading.Thread(target=serve,args=(s,),daemon=True).start()
  return s
";

fn nft(rule: &str) -> bool {
    Command::new("nft").arg(rule).status().is_ok_and(|status| status.success())
}

/// A port that exists only as a translation to a container; later the server there is gone, and then the container.
#[test]
fn translated_to_another_namespace() -> Result<()> {
    in_private_namespace(|| {
        let name = format!("tt-why-{}", std::process::id());
        let Some(mut container) = Container::new(&name, &format!("{ACCEPTS}\nstart(80)"))? else {
            return Ok(());
        };
        if !nft("add table ip n { chain out { type nat hook output priority -100; }; }") {
            println!("skipped: no nft here");
            return Ok(());
        }
        ensure!(ip("addr add 10.9.5.1/32 dev lo"));
        // Contrasts: without the rule no process listens, certainly; nor with a rule for another port, or another address.
        let closed = |target: &str| -> Result<()> {
            let text = expect(target, PROBE, "no-listener")?;
            ensure!(text.contains("\"certain\""), "{text}");
            Ok(())
        };
        closed("10.9.5.1:5401")?;
        ensure!(nft("add rule ip n out ip daddr 10.9.5.1 tcp dport 5401 dnat to 10.9.6.2:80"));
        closed("10.9.5.1:5402")?;
        closed("10.9.6.1:5401")?;

        // The container's answers have no way back: the translation is right, and this is another fault.
        expect("10.9.5.1:5401", PROBE, "no-route-back")?;
        ensure!(ip(&format!("-n {name} route add default via 10.9.6.1")));

        let text = expect("10.9.5.1:5401", PROBE, "answers")?;
        ensure!(text.contains("10.9.6.2:80") && text.contains("python3["), "{text}");
        ensure!(text.contains("DNAT by table ip n, chain out"), "{text}");
        // Without a connection of our own, the one before is still tracked: nothing false is said.
        let (verdict, ..) = why("10.9.5.1:5401", STATIC)?;
        ensure!(verdict == "no-fault-found" || verdict == "answers", "{verdict}");

        container.server.take();
        let (verdict, healthy, text) = why("10.9.5.1:5401", PROBE)?;
        ensure!(["no-listener", "listener-exited"].contains(&verdict.as_str()) && !healthy, "{text}");
        ensure!(text.contains("10.9.6.2:80") && text.contains("still leads connections"), "{text}");

        ensure!(ip(&format!("-n {name} addr del 10.9.6.2/24 dev tt-c")));
        let (verdict, _, text) = why("10.9.5.1:5401", PROBE)?;
        ensure!(verdict == "translation-target-gone", "{text}");
        Ok(())
    })
}

/// The same port redirected to another one of this host, by nft and by both kinds of iptables.
#[test]
fn redirected_to_another_port() -> Result<()> {
    in_private_namespace(|| {
        let Some(server) = Server::new(&format!("{ACCEPTS}\nstart(5404)")) else {
            println!("skipped: no python3");
            return Ok(());
        };
        let run = |command: &str| {
            let mut words = command.split(' ');
            let program = words.next().unwrap_or_default();
            Command::new(program).args(words).status().is_ok_and(|status| status.success())
        };
        let rule = "-t nat -A OUTPUT -p tcp --dport 5403 -j REDIRECT --to-ports 5404";
        let makers: [(&str, String, &str); 3] = [
            ("nft", "nft add table ip r { chain o { type nat hook output priority -100; tcp dport 5403 redirect to :5404; }; }".to_owned(), "nft delete table ip r"),
            ("iptables-nft", format!("iptables-nft {rule}"), "iptables-nft -t nat -F"),
            ("iptables-legacy", format!("iptables-legacy {rule}"), "iptables-legacy -t nat -F"),
        ];
        for (maker, make, undo) in makers {
            if !run(&make) {
                println!("skipped: no {maker} here");
                continue;
            }
            let text = expect("127.0.0.1:5403", PROBE, "answers")?;
            ensure!(text.contains("127.0.0.1:5404") && text.contains("REDIRECT"), "{maker}: {text}");
            // What the rule says is enough to look at the right listener without a connection.
            let text = why("127.0.0.1:5403", STATIC)?.2;
            ensure!(text.contains("python3[") && !text.contains("no-listener"), "{maker}: {text}");
            ensure!(run(undo));
        }
        drop(server);
        Ok(())
    })
}

/// A transparent proxy's socket is chosen by a TPROXY rule of the namespace that packets come to.
#[test]
fn taken_by_a_transparent_proxy() -> Result<()> {
    in_private_namespace(|| {
        let name = format!("tt-tpx-{}", std::process::id());
        let proxy = format!("{ACCEPTS}\nstart(5406,prepare=lambda s: s.setsockopt(0,19,1))");
        let Some(container) = Container::new(&name, &proxy)? else { return Ok(()) };
        let there = |command: &str| {
            let words = ["netns", "exec", &name].into_iter().chain(command.split(' '));
            Command::new("ip").args(words).status().is_ok_and(|status| status.success())
        };
        let rule = "nft add table ip p { chain c { type filter hook prerouting priority -150; tcp dport 5405 tproxy to :5406 meta mark set 1 accept; }; }";
        if !there(rule) {
            println!("skipped: no TPROXY here");
            return Ok(());
        }
        ensure!(ip(&format!("-n {name} rule add fwmark 1 lookup 100")));
        ensure!(ip(&format!("-n {name} route add local default dev lo table 100")));
        let text = expect("10.9.6.2:5405", PROBE, "answers")?;
        ensure!(text.contains("python3[") && text.contains("TPROXY"), "{text}");
        drop(container);
        Ok(())
    })
}

/// A BPF program steers a port to a listener of another one.
#[test]
fn steered_by_a_socket_lookup_program() -> Result<()> {
    in_private_namespace(|| {
        let Some(server) = Server::new(&format!("{ACCEPTS}{SK_LOOKUP}")) else {
            println!("skipped: no python3, or no sk_lookup programs here");
            return Ok(());
        };
        let text = expect("127.0.0.1:5407", PROBE, "answers")?;
        ensure!(text.contains("accepted by python3["), "{text}");
        ensure!(text.contains("sk_lookup"), "{text}");
        // Without a connection the absence of a listener shows nothing: at most possible.
        let text = why("127.0.0.1:5407", STATIC)?.2;
        ensure!(!text.contains("\"certain\",\"text\":\"no process"), "{text}");
        drop(server);
        Ok(())
    })
}

/// Listens on 5408, and has connections to 5407 steered there.
const SK_LOOKUP: &str = "
import ctypes,struct,platform,os,sys
libc=ctypes.CDLL(None,use_errno=True)
NR={'x86_64':321,'aarch64':280}[platform.machine()]
def bpf(cmd,attr):
  buffer=ctypes.create_string_buffer(attr.ljust(120,b'\\0'),120)
  result=libc.syscall(NR,cmd,buffer,120)
  if result<0: sys.exit(os.strerror(ctypes.get_errno()))
  return result
def pointer(buffer): return ctypes.addressof(buffer)
def I(c,d,s,o,i): return struct.pack('<BBhi',c,d|s<<4,o,i)
s=start(5408,'127.0.0.1')
m=bpf(0,struct.pack('<IIII',15,4,8,1))
key=ctypes.create_string_buffer(struct.pack('<I',0),4); value=ctypes.create_string_buffer(struct.pack('<Q',s.fileno()),8)
bpf(2,struct.pack('<IIQQQ',m,0,pointer(key),pointer(value),0))
code=b''.join([I(0xbf,6,1,0,0),I(0x61,2,1,60,0),I(0x55,2,0,16,5407),I(0x62,10,0,-4,0),I(0xbf,2,10,0,0),I(0x07,2,0,0,-4),
  I(0x18,1,1,0,m),I(0,0,0,0,0),I(0x85,0,0,0,1),I(0x15,0,0,9,0),I(0xbf,7,0,0,0),I(0xbf,1,6,0,0),I(0xbf,2,0,0,0),I(0xb7,3,0,0,0),
  I(0x85,0,0,0,124),I(0xbf,8,0,0,0),I(0xbf,1,7,0,0),I(0x85,0,0,0,86),I(0xb7,0,0,0,1),I(0xb7,0,0,0,1),I(0x95,0,0,0,0)])
instructions=ctypes.create_string_buffer(code,len(code)); licence=ctypes.create_string_buffer(b'GPL')
p=bpf(5,struct.pack('<IIQQIIQII16sII',30,len(code)//8,pointer(instructions),pointer(licence),0,0,0,0,0,b'',0,36))
ns=os.open('/proc/self/ns/net',os.O_RDONLY)
l=bpf(28,struct.pack('<IIII',p,ns,36,0))
";

/// A program whose accept() once failed for want of descriptors, and that gave up its loop; they are free again. Its siblings: one
/// that never accepts, and one that accepts but slowly. The contrast: one that accepts.
#[test]
fn a_program_that_gave_up_accepting() -> Result<()> {
    in_private_namespace(|| {
        // It has met EMFILE, and given its descriptors back.
        let gave_up = "
import resource,os
s=socket.socket(); s.bind(('127.0.0.1',5409)); s.listen(64)
c=socket.create_connection(('127.0.0.1',5409))
resource.setrlimit(resource.RLIMIT_NOFILE,(s.fileno()+2,64))
try: s.accept(); raise SystemExit('accepted')
except OSError as e: assert e.errno==24, e
resource.setrlimit(resource.RLIMIT_NOFILE,(64,64))
c.close()
";
        let Some(server) = Server::new(gave_up) else {
            println!("skipped: no python3");
            return Ok(());
        };
        let waiting: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect("127.0.0.1:5409")).collect::<Result<_, _>>()?;
        std::thread::sleep(Duration::from_millis(1200));
        // At one look it can be likely at most; with a connection of our own, and a queue that never became shorter, it is certain.
        let text = expect("127.0.0.1:5409", STATIC, "not-accepting")?;
        ensure!(text.contains("\"likely\""), "{text}");
        let (verdict, healthy, text) = why("127.0.0.1:5409", PROBE)?;
        ensure!(["not-accepting", "accept-stall"].contains(&verdict.as_str()) && !healthy, "{text}");
        drop((waiting, server));

        let server = TcpListener::bind("127.0.0.1:5410")?;
        expect("127.0.0.1:5410", PROBE, "not-accepting")?;
        // What waited before is accepted now, and so is our own.
        serve(&server)?;
        expect("127.0.0.1:5410", PROBE, "answers")?;
        Ok(())
    })
}

/// What stands at a device may rewrite packets: then the absence of a listener is likely at most, and that is said.
#[test]
fn a_filter_at_the_device_leaves_a_missing_listener_likely() -> Result<()> {
    in_private_namespace(|| {
        let tc = |arguments: &str| {
            Command::new("tc").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
        };
        let text = expect("127.0.0.1:5411", STATIC, "no-listener")?;
        ensure!(text.contains("\"certain\""), "{text}");
        if !tc("qdisc add dev lo clsact") || !tc("filter add dev lo ingress matchall action pass") {
            println!("skipped: no traffic control here");
            return Ok(());
        }
        let text = expect("127.0.0.1:5411", STATIC, "no-listener")?;
        ensure!(!text.contains("\"certain\"") && text.contains("matchall"), "{text}");
        Ok(())
    })
}

/// A namespace that has the called address is the server only if the client's neighbour entry says so.
#[test]
fn a_namespace_with_the_address_may_not_be_the_one_that_is_called() -> Result<()> {
    in_private_namespace(|| {
        let name = format!("tt-own-{}", std::process::id());
        let Some(container) = Container::new(&name, "pass")? else { return Ok(()) };
        let text = expect("10.9.6.2:5412", STATIC, "no-listener")?;
        ensure!(!text.contains("\"certain\"") && text.contains("another host may have"), "{text}");
        // Its answer, an RST, came with its link-layer address.
        let text = expect("10.9.6.2:5412", PROBE, "no-listener")?;
        ensure!(text.contains("\"certain\""), "{text}");
        drop(container);
        Ok(())
    })
}

/// A program at its limits accepts and closes; one that greets is another matter.
#[test]
fn closed_at_once_is_not_served() -> Result<()> {
    in_private_namespace(|| {
        let serve = |port: u16, does: &str| {
            Server::new(&format!(
                "
import threading
def serve(s):
  while True:
    c=s.accept()[0]; {does}
    c.close()
s=socket.socket(); s.bind(('127.0.0.1',{port})); s.listen(16)
threading.Thread(target=serve,args=(s,),daemon=True).start()
"
            ))
        };
        let (Some(closes), Some(greets)) = (serve(5413, "pass"), serve(5414, "c.send(b'220 hello')")) else {
            println!("skipped: no python3");
            return Ok(());
        };
        expect("127.0.0.1:5413", PROBE, "closed-at-once")?;
        expect("127.0.0.1:5414", PROBE, "answers")?;
        drop((closes, greets));
        Ok(())
    })
}

/// A link-local address with its zone.
#[test]
fn a_link_local_address_is_called_by_its_device() -> Result<()> {
    in_private_namespace(|| {
        let name = format!("tt-ll-{}", std::process::id());
        let server = format!(
            "{ACCEPTS}
s=socket.socket(socket.AF_INET6); s.bind(('::',5415)); s.listen(16)
threading.Thread(target=serve,args=(s,),daemon=True).start()"
        );
        let Some(container) = Container::new(&name, &server)? else { return Ok(()) };
        // Until no other has the address, it cannot be called.
        std::thread::sleep(Duration::from_millis(2500));
        let listed =
            Command::new("ip").args(["-n", &name, "-6", "-o", "addr", "show", "dev", "tt-c"]).output()?;
        let listed = String::from_utf8(listed.stdout)?;
        let address =
            listed.split_whitespace().find(|word| word.starts_with("fe80")).context("no address")?;
        let address = address.split('/').next().context("no address")?;
        let text = expect(&format!("[{address}%tt-h]:5415"), PROBE, "answers")?;
        ensure!(text.contains("python3["), "{text}");
        let target = format!("[{address}]:5415");
        let usage = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(["why", &target]).output()?;
        ensure!(usage.status.code() == Some(2), "{usage:?}");
        drop(container);
        Ok(())
    })
}
