//! What is recognised, what is said then, and that `docs/software.md` says what the data says.
//!
//! `TCPTRACE_BLESS=1 cargo test -p tcptrace software::` writes the page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::catalogue::Purpose;
use super::*;

/// The one that comes with tcptrace, whatever the user has.
fn embedded() -> Catalogue {
    Catalogue::parse(include_str!("software.toml")).unwrap()
}

fn name(comm: &str, command: &str) -> Option<String> {
    let catalogue = embedded();
    let command = (!command.is_empty()).then_some(command);
    catalogue.recognise(&Process::new(comm, command)).map(|software| software.name.clone())
}

fn said(software: &str, need: Need, address: &str) -> Vec<String> {
    let catalogue = embedded();
    let software = catalogue.software().iter().find(|known| known.name == software).unwrap();
    let advice = software.advice(need, Some(address.parse().unwrap()), Some(42));
    advice.into_iter().map(|advice| advice.text).collect()
}

#[test]
fn programs_are_recognised_by_what_they_are_started_as() {
    for (comm, command, wanted) in [
        ("nginx", "nginx: master process /usr/sbin/nginx -g daemon on; master_process on;", "nginx"),
        ("nginx", "nginx: worker process", "nginx"),
        ("openresty", "", "nginx"),
        ("apache2", "/usr/sbin/apache2 -k start", "Apache httpd"),
        ("haproxy", "/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg", "HAProxy"),
        ("gunicorn", "/venv/bin/python3 /venv/bin/gunicorn app:app", "gunicorn"),
        ("python3.11", "python3.11 -m gunicorn.app.wsgiapp app:app", "gunicorn"),
        ("python", "gunicorn: master [app]", "gunicorn"),
        // A worker that multiprocessing has started keeps the name of the script.
        (
            "uvicorn",
            "/usr/bin/python3 -c from multiprocessing.spawn import spawn_main; spawn_main()",
            "uvicorn",
        ),
        ("ruby", "puma 6.4.2 (tcp://0.0.0.0:9292) [shop]", "Puma"),
        ("ruby", "puma: cluster worker 0: 4242 [shop]", "Puma"),
        ("ruby3.1", "ruby3.1 /usr/bin/puma -p 9292", "Puma"),
        ("ruby", "unicorn master -c config/unicorn.rb", "Unicorn"),
        ("php-fpm8.2", "php-fpm: pool www", "php-fpm"),
        ("php-fpm8.2", "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)", "php-fpm"),
        ("uwsgi", "/usr/bin/uwsgi-core --ini shop.ini", "uWSGI"),
        ("java", "/usr/bin/java -cp a.jar:b.jar org.apache.catalina.startup.Bootstrap start", "Tomcat"),
        ("java", "java -jar shop.jar --spring.profiles.active=prod", "Spring Boot"),
        ("java", "java -Djetty.home=/opt/jetty -jar /opt/jetty/start.jar", "Jetty"),
        ("java", "java -jar shop.jar", "Java program"),
        ("dotnet", "dotnet Shop.dll", "Kestrel"),
        ("node", "node --max-old-space-size=4096 server.js", "Node.js"),
        ("redis-server", "/usr/bin/redis-server 127.0.0.1:6379", "Redis"),
        ("memcached", "/usr/bin/memcached -m 64 -p 11211", "memcached"),
        ("postgres", "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main", "PostgreSQL"),
        ("postgres", "postgres: checkpointer", "PostgreSQL"),
        (
            "beam.smp",
            "/usr/lib/erlang/erts-13.1.5/bin/beam.smp -W w -- -sname rabbit -s rabbit boot",
            "RabbitMQ",
        ),
        ("delegated", "delegated -P1080", "DeleGate"),
        ("sshd", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", "sshd"),
        ("master", "/usr/lib/postfix/sbin/master -w", "Postfix"),
        // The kernel keeps 15 bytes of a name.
        ("systemd-resolve", "", "systemd-resolved"),
        ("kube-controller", "", ""),
        ("python3", "python3 -m http.server 8000", "Python program"),
        ("squid", "(squid-1) --kid squid-1 --foreground", "Squid"),
    ] {
        assert_eq!(name(comm, command).as_deref().unwrap_or(""), wanted, "{comm}: {command}");
    }
}

#[test]
fn a_process_is_not_taken_for_what_it_only_mentions() {
    for (comm, command, not) in [
        ("ssh", "ssh rabbit", "RabbitMQ"),
        ("vim", "vim /etc/nginx/nginx.conf", "nginx"),
        ("curl", "curl http://nginx/", "nginx"),
        ("master", "./master", "Postfix"),
        ("tail", "tail -f /var/log/postfix/mail.log", "Postfix"),
        ("python3", "python3 /srv/watch.py gunicorn", "gunicorn"),
        // A name that does not fit the program: the program is what counts.
        ("nginx", "/opt/miner -q", "nginx"),
        ("sh", "sh -c nginx", "nginx"),
    ] {
        assert_ne!(name(comm, command).as_deref(), Some(not), "{comm}: {command}");
    }
    assert_eq!(name("myd", "/usr/local/bin/myd --port 80"), None);
    assert_eq!(name("", ""), None);
}

#[test]
fn a_need_is_met_in_the_program_s_own_words() {
    assert_eq!(
        said("nginx", Need::Backlog(1024), "0.0.0.0:8080"),
        [
            "raise the listen backlog of nginx: `listen 0.0.0.0:8080 backlog=1024;` in the server block, then reload it: \
          `nginx -s reload` (default: 511)"
        ]
    );
    assert_eq!(
        said("gunicorn", Need::Workers(Some(8)), "0.0.0.0:8000"),
        [
            "give gunicorn more workers: `--workers 8` on its command line (`workers` in gunicorn.conf.py), then restart it \
          (default: 1; with `--threads` each worker serves several requests)"
        ]
    );
    // One thread accepts for a pool of other ones: how many of those are needed cannot be told from it.
    assert!(said("Tomcat", Need::Workers(Some(8)), "0.0.0.0:8080")[0].contains("`maxThreads=\"N\"`"));
    assert!(said("gunicorn", Need::Workers(None), "0.0.0.0:8000")[0].contains("`--workers N`"));
    assert!(said("DeleGate", Need::Backlog(128), "0.0.0.0:1080")[0].contains("`MAXIMA=listen:128`"));
    assert!(said("systemd-resolved", Need::Release, "127.0.0.53:53")[0].contains("`DNSStubListener=no`"));
    // A program that cannot have the address that it asks for is not told to ask for it.
    assert!(said("nginx", Need::Listen, "[::]:80")[0].contains("`listen [::]:PORT;`"));
    // Its backlog is a quarter of the files that it may open, PostgreSQL's twice its connections.
    assert!(said("Squid", Need::Backlog(1024), "0.0.0.0:3128")[0].contains("`max_filedescriptors 4096`"));
    assert!(said("PostgreSQL", Need::Backlog(1023), "0.0.0.0:5432")[0].contains("`max_connections = 512`"));
    assert!(said("MySQL", Need::Backlog(1 << 20), "0.0.0.0:3306")[0].contains("`back_log = 65535`"));
    assert!(said("Unicorn", Need::Workers(Some(3)), "0.0.0.0:80")[0].contains("`kill -HUP 42`"));
    // One for each kind of Java server.
    let java = said("Java program", Need::Backlog(1024), "0.0.0.0:80");
    assert_eq!(java.len(), 3);
    assert!(java[0].starts_with(
        "raise the listen backlog of the Java program (with Spring Boot): `server.tomcat.accept-count=1024` "
    ));
    assert_eq!(
        said("sshd", Need::Backlog(1024), "0.0.0.0:22"),
        [
            "sshd has no setting to raise its listen backlog: listen(fd, 128) is compiled in; `MaxStartups` (10:30:100) limits \
          what has not logged in yet"
        ]
    );
    assert!(said("curl", Need::Backlog(1024), "0.0.0.0:22").is_empty());
}

#[test]
fn what_cannot_be_right_in_a_user_s_file_is_refused() {
    let entry = |is: &str, setting: &str| {
        Catalogue::parse(&format!("[[software]]\nname = \"x\"\n{is}\nsetting = [{{ {setting} }}]"))
    };
    let good = r#"for = "backlog", set = "queue {value}", source = "its manual""#;
    let mark = r#"is.program = ["x"]"#;
    assert!(entry(mark, good).is_ok());
    for (is, setting, reason) in [
        ("", good, "missing field `is`"),
        ("is = {}", good, "recognised by nothing"),
        (r#"is.argument = ["-x"]"#, good, "is.by"),
        (mark, r#"for = "speed", set = "x", source = "s""#, "unknown variant"),
        (mark, r#"for = "backlog", sett = "x", source = "s""#, "unknown field"),
        (mark, r#"for = "backlog", source = "s""#, "neither `set` nor `note`"),
        (mark, r#"for = "backlog", set = "x""#, "source"),
        (mark, r#"for = "backlog", set = "x", source = " ""#, "source"),
        (mark, r#"for = "backlog", set = "x {valeu}", source = "s""#, "valeu"),
        (mark, r#"for = "backlog", set = "x `y`", source = "s""#, "backtick"),
        (mark, r#"for = "backlog", set = "x\u001b[1m", source = "s""#, "do not print"),
        (mark, r#"for = "backlog", set = "x", over = 0, source = "s""#, "at least 1"),
    ] {
        let error = entry(is, setting).unwrap_err().to_string();
        assert!(error.contains(reason), "{setting}: {error}");
    }
    let twice = format!("[[software]]\nname = \"x\"\n{mark}\n[[software]]\nname = \"x\"\n{mark}\n");
    assert!(Catalogue::parse(&twice).unwrap_err().to_string().contains("two of this name"));
}

#[test]
fn an_entry_of_the_user_s_replaces_that_of_its_name() {
    let own = r#"
        [[software]]
        name = "nginx"
        is.program = ["nginx", "webd"]
        setting = [{ for = "backlog", set = "ask ops for {value}", source = "the runbook" }]
    "#;
    let catalogue = Catalogue::parse(own).unwrap().before(&embedded());
    for comm in ["nginx", "webd"] {
        let software = catalogue.recognise(&Process::new(comm, None)).unwrap();
        let advice = software.advice(Need::Backlog(9), None, None);
        assert_eq!(advice[0].setting.as_deref(), Some("ask ops for 9"));
        assert!(software.advice(Need::Reuse, None, None).is_empty());
    }
    assert_eq!(catalogue.recognise(&Process::new("redis-server", None)).unwrap().name, "Redis");
}

/// The issue's list: each is recognised by something, and says how its queue grows.
#[test]
fn every_server_of_note_says_how_its_queue_grows() {
    let catalogue = embedded();
    for name in [
        "nginx",
        "Apache httpd",
        "HAProxy",
        "Envoy",
        "Traefik",
        "Caddy",
        "Go program",
        "Node.js",
        "gunicorn",
        "uvicorn",
        "uWSGI",
        "Puma",
        "Unicorn",
        "php-fpm",
        "Tomcat",
        "Jetty",
        "Netty",
        "Spring Boot",
        "Kestrel",
        "Redis",
        "memcached",
        "PostgreSQL",
        "MySQL",
        "MariaDB",
        "MongoDB",
        "RabbitMQ",
        "Squid",
        "DeleGate",
        "sshd",
        "Postfix",
        "Dovecot",
        "systemd",
    ] {
        let software = catalogue.software().iter().find(|known| known.name == name);
        let software = software.unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        assert!(!software.advice(Need::Backlog(1024), None, None).is_empty(), "{name}");
    }
}

proptest! {
    #[test]
    fn whatever_a_process_calls_itself_is_data(comm in "\\PC{0,20}", command in "(\\PC|[ /:*{}`-]|python3|java|-m|-jar|nginx){0,40}") {
        let catalogue = embedded();
        if let Some(software) = catalogue.recognise(&Process::new(&comm, Some(&command))) {
            for need in [Need::Backlog(1), Need::Workers(None), Need::Reuse, Need::Listen, Need::Release] {
                for advice in software.advice(need, None, None) {
                    // No word of it is the process's own.
                    prop_assert!(comm.len() < 8 || !advice.text.contains(&comm) || software.name == comm);
                }
            }
        }
    }
}

fn page(catalogue: &Catalogue) -> String {
    let mut text = String::from(include_str!("page.md"));
    for software in catalogue.software() {
        let _ = write!(
            text,
            "\n## {}\n\n| for | setting | where | takes effect | default | source |\n|---|---|---|---|---|---|\n",
            software.name
        );
        for setting in software.all_settings() {
            let or = |text: &Option<String>| text.clone().unwrap_or_default();
            let set = setting.set.as_ref().map_or_else(|| "none".to_owned(), |set| format!("`{set}`"));
            let when = setting.when.as_ref().map_or_else(String::new, |when| format!(", {when}"));
            let purpose = Purpose::name(setting.purpose);
            let place =
                [&setting.place, &setting.note].into_iter().flatten().cloned().collect::<Vec<_>>().join("; ");
            let cells = [
                format!("{purpose}{when}"),
                set,
                place,
                or(&setting.then),
                or(&setting.default),
                setting.source.clone(),
            ];
            let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    text
}

#[test]
fn the_page_says_what_the_data_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/software.md");
    let wanted = page(&embedded());
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == wanted,
        "docs/software.md does not say what software.toml says: TCPTRACE_BLESS=1 cargo test -p tcptrace software::"
    );
}
