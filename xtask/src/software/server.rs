//! The servers, and how each is brought into its incident.

use nix::sys::signal::Signal;

use super::load::Load;

/// All of them listen here.
pub(super) const PORT: u16 = 8080;

/// Stands in files and arguments where the setting belongs that the finding prints.
pub(super) const SETTING: &str = "@SETTING@";

/// Likewise, for settings that belong with it in another place, one a line.
pub(super) const ALSO: &str = "@ALSO@";

/// Where a server's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In the tree of Debian's packages, which is its root.
    Debian,
    /// In the environment of the Python package index; its files are in a directory of their own.
    Python,
}

/// A server and its incident.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) home: Home,
    pub(super) files: &'static [(&'static str, &'static str)],
    /// What has to be run once, before it is started.
    pub(super) before: &'static [&'static str],
    pub(super) command: &'static [&'static str],
    /// Whom it runs as.
    pub(super) user: Option<u32>,
    /// What ends it.
    pub(super) end: Signal,
    /// The setting that brings it into its incident.
    pub(super) spoilt: &'static str,
    pub(super) load: Load,
    /// What must be found; [`NOTHING`] where all is well.
    pub(super) code: &'static str,
    pub(super) cause: &'static str,
    /// How the remedy begins that is carried out.
    pub(super) remedy: &'static str,
}

/// No finding, of a server that does what it is meant to.
pub(super) const NOTHING: &str = "";

/// Nothing in particular.
const PLAIN: Server = Server {
    name: "",
    home: Home::Debian,
    files: &[],
    before: &[],
    command: &[],
    user: None,
    end: Signal::SIGTERM,
    spoilt: "",
    load: Load::BURSTS,
    code: "accept-queue-overflow",
    cause: "backlog-argument",
    remedy: "",
};

const NOBODY: u32 = 65534;

const WSGI: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'hello']
";

/// Five a second for each worker.
const SLOW_WSGI: &str = "
import time
def application(environ, start_response):
    time.sleep(0.2)
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'hello']
";

const ASGI: &str = "
async def application(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})
    await send({'type': 'http.response.body', 'body': b'hello'})
";

/// In the order in which they have their turns: the last ones are left out first where time is short.
pub(super) const SERVERS: &[Server] = &[
    Server {
        name: "nginx backlog",
        files: &[(
            "etc/nginx/nginx.conf",
            "
user nobody nogroup;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http { access_log off; server { @SETTING@ location / { return 200 'hello'; } } }
",
        )],
        command: &["/usr/sbin/nginx", "-g", "daemon off;"],
        spoilt: "listen 0.0.0.0:8080 backlog=4;",
        remedy: "raise the listen backlog of nginx",
        ..PLAIN
    },
    Server {
        name: "gunicorn workers",
        home: Home::Python,
        files: &[("slow.py", SLOW_WSGI)],
        command: &["gunicorn", "--bind", "0.0.0.0:8080", "--backlog", "128", "@SETTING@", "slow:application"],
        spoilt: "--workers 1",
        load: Load::Steady { per_s: 40, seconds: 6 },
        cause: "accept-slow",
        remedy: "give gunicorn more workers",
        ..PLAIN
    },
    Server {
        name: "nginx keepalive to its upstream",
        files: &[(
            "etc/nginx/nginx.conf",
            "
user nobody nogroup;
pid /run/nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off;
    upstream behind { server 127.0.0.1:9000; @SETTING@ }
    server {
        listen 0.0.0.0:8080;
        keepalive_requests 100000;
        location / {
            proxy_pass http://behind;
            @ALSO@
        }
    }
}
",
        )],
        command: &["/usr/sbin/nginx", "-g", "daemon off;"],
        load: Load::Proxied { requests: 600 },
        code: "port-exhaustion",
        cause: "churn",
        remedy: "let nginx use connections again",
        ..PLAIN
    },
    Server {
        name: "Python http.server backlog",
        home: Home::Python,
        files: &[(
            "server.py",
            "
import http.server
class Server(http.server.HTTPServer):
    @SETTING@
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
Server(('0.0.0.0', 8080), Handler).serve_forever()
",
        )],
        command: &["python", "server.py"],
        // Its default.
        spoilt: "request_queue_size = 5",
        remedy: "raise the listen backlog of the Python program (with socketserver or http.server)",
        ..PLAIN
    },
    Server {
        name: "Node.js descriptors",
        files: &[(
            "srv/server.js",
            "
const server = require('http').createServer((request, response) => response.end('hello'));
server.listen({ port: 8080, host: '0.0.0.0' });
",
        )],
        // What systemd does with that setting.
        command: &[
            "/bin/sh",
            "-c",
            "eval \"$0\"; ulimit -n $LimitNOFILE; exec /usr/bin/node /srv/server.js",
            "@SETTING@",
        ],
        spoilt: "LimitNOFILE=40",
        code: "accept-failed",
        cause: "fd-limit",
        remedy: "raise the limit on open files of Node.js for good",
        ..PLAIN
    },
    Server {
        name: "HAProxy health checks",
        files: &[(
            "etc/haproxy/haproxy.cfg",
            "
defaults
    mode tcp
    timeout client 5s
    timeout connect 1s
    timeout server 5s
listen web
    bind 0.0.0.0:8080
    server behind 127.0.0.1:9000 @SETTING@
",
        )],
        command: &["/usr/sbin/haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg"],
        spoilt: "check inter 100ms",
        load: Load::Idle { seconds: 8 },
        code: NOTHING,
        ..PLAIN
    },
    Server {
        name: "Apache backlog",
        files: &[(
            "etc/apache2/apache2.conf",
            "
ServerRoot /tmp
ServerName localhost
PidFile /run/apache2.pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
Listen 0.0.0.0:8080
@SETTING@
User nobody
Group nogroup
ErrorLog /dev/stderr
DocumentRoot /tmp
",
        )],
        command: &["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", "/etc/apache2/apache2.conf"],
        spoilt: "ListenBacklog 4",
        remedy: "raise the listen backlog of Apache httpd",
        ..PLAIN
    },
    Server {
        name: "HAProxy backlog",
        files: &[(
            "etc/haproxy/haproxy.cfg",
            "
global
    maxconn 1000
defaults
    mode http
    timeout client 5s
    timeout connect 1s
    timeout server 5s
frontend web
    bind 0.0.0.0:8080
    @SETTING@
    http-request return status 200
",
        )],
        command: &["/usr/sbin/haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg"],
        spoilt: "backlog 4",
        remedy: "raise the listen backlog of HAProxy",
        ..PLAIN
    },
    Server {
        name: "Redis backlog",
        files: &[(
            "etc/redis/redis.conf",
            "
bind 0.0.0.0
port 8080
protected-mode no
save \"\"
dir /tmp
@SETTING@
",
        )],
        command: &["/usr/bin/redis-server", "/etc/redis/redis.conf"],
        spoilt: "tcp-backlog 4",
        remedy: "raise the listen backlog of Redis",
        ..PLAIN
    },
    Server {
        name: "Redis and short connections",
        files: &[(
            "etc/redis/redis.conf",
            "
bind 0.0.0.0
port 8080
protected-mode no
save \"\"
dir /tmp
@SETTING@
",
        )],
        command: &["/usr/bin/redis-server", "/etc/redis/redis.conf"],
        spoilt: "tcp-backlog 511",
        load: Load::Churn { connections: 600 },
        code: NOTHING,
        ..PLAIN
    },
    Server {
        name: "memcached backlog",
        command: &["/usr/bin/memcached", "-u", "nobody", "-p", "8080", "-l", "0.0.0.0", "@SETTING@"],
        spoilt: "-b 4",
        remedy: "raise the listen backlog of memcached",
        ..PLAIN
    },
    Server {
        name: "PostgreSQL backlog",
        before: &[
            "/usr/lib/postgresql/15/bin/initdb",
            "--no-sync",
            "--locale=C",
            "--encoding=UTF8",
            "-A",
            "trust",
            "-D",
            "/tmp/data",
        ],
        files: &[(
            "etc/postgresql.conf",
            "
data_directory = '/tmp/data'
hba_file = '/tmp/data/pg_hba.conf'
ident_file = '/tmp/data/pg_ident.conf'
listen_addresses = '0.0.0.0'
port = 8080
unix_socket_directories = '/tmp'
shared_buffers = 16MB
fsync = off
autovacuum_max_workers = 1
max_worker_processes = 0
max_wal_senders = 0
superuser_reserved_connections = 1
@SETTING@
",
        )],
        command: &["/usr/lib/postgresql/15/bin/postgres", "-c", "config_file=/etc/postgresql.conf"],
        user: Some(NOBODY),
        // A fast shutdown.
        end: Signal::SIGINT,
        spoilt: "max_connections = 3",
        remedy: "raise the listen backlog of PostgreSQL",
        ..PLAIN
    },
    Server {
        name: "php-fpm backlog",
        files: &[(
            "etc/php-fpm.conf",
            "
[global]
error_log = /dev/stderr
daemonize = no
[www]
user = nobody
group = nogroup
listen = 0.0.0.0:8080
@SETTING@
pm = static
pm.max_children = 2
",
        )],
        command: &["/usr/sbin/php-fpm8.2", "-n", "-F", "-y", "/etc/php-fpm.conf"],
        spoilt: "listen.backlog = 4",
        remedy: "raise the listen backlog of php-fpm",
        ..PLAIN
    },
    Server {
        name: "uWSGI backlog",
        command: &[
            "/usr/bin/uwsgi-core",
            "--http-socket",
            "0.0.0.0:8080",
            "--master",
            "--die-on-term",
            "--disable-logging",
            "--uid",
            "65534",
            "@SETTING@",
        ],
        spoilt: "--listen 4",
        remedy: "raise the listen backlog of uWSGI",
        ..PLAIN
    },
    Server {
        name: "Node.js backlog",
        files: &[(
            "srv/server.js",
            "
const server = require('http').createServer((request, response) => response.end('hello'));
server.listen({ port: 8080, host: '0.0.0.0', @SETTING@ });
",
        )],
        command: &["/usr/bin/node", "/srv/server.js"],
        spoilt: "backlog: 4",
        remedy: "raise the listen backlog of Node.js",
        ..PLAIN
    },
    Server {
        name: "gunicorn backlog",
        home: Home::Python,
        files: &[("quick.py", WSGI)],
        command: &["gunicorn", "--bind", "0.0.0.0:8080", "@SETTING@", "quick:application"],
        spoilt: "--backlog 4",
        remedy: "raise the listen backlog of gunicorn",
        ..PLAIN
    },
    Server {
        name: "uvicorn backlog",
        home: Home::Python,
        files: &[("quick.py", ASGI)],
        command: &[
            "uvicorn",
            "--host",
            "0.0.0.0",
            "--port",
            "8080",
            "--log-level",
            "error",
            "@SETTING@",
            "quick:application",
        ],
        spoilt: "--backlog 4",
        remedy: "raise the listen backlog of uvicorn",
        ..PLAIN
    },
    Server {
        name: "lighttpd backlog",
        files: &[(
            "etc/lighttpd/lighttpd.conf",
            "
server.document-root = \"/tmp\"
server.bind = \"0.0.0.0\"
server.port = 8080
server.username = \"nobody\"
server.groupname = \"nogroup\"
@SETTING@
",
        )],
        command: &["/usr/sbin/lighttpd", "-D", "-f", "/etc/lighttpd/lighttpd.conf"],
        spoilt: "server.listen-backlog = 4",
        remedy: "raise the listen backlog of lighttpd",
        ..PLAIN
    },
    Server {
        name: "Squid backlog",
        files: &[(
            "etc/squid/squid.conf",
            "
http_port 8080
cache deny all
cache_log /dev/stderr
access_log none
pid_filename /tmp/squid.pid
coredump_dir /tmp
pinger_enable off
shutdown_lifetime 0 seconds
cache_effective_user nobody
cache_effective_group nogroup
visible_hostname localhost
@SETTING@
",
        )],
        command: &["/usr/sbin/squid", "--foreground", "-f", "/etc/squid/squid.conf"],
        spoilt: "max_filedescriptors 64",
        remedy: "raise the listen backlog of Squid",
        ..PLAIN
    },
    Server {
        name: "Puma backlog",
        files: &[
            ("srv/config.ru", "run ->(env) { [200, { 'Content-Type' => 'text/plain' }, ['hello']] }\n"),
            ("srv/puma.rb", "environment 'production'\nlog_requests false\n@SETTING@\n"),
        ],
        command: &["/usr/bin/puma", "-C", "/srv/puma.rb", "/srv/config.ru"],
        spoilt: "bind 'tcp://0.0.0.0:8080?backlog=4'",
        remedy: "raise the listen backlog of Puma",
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_place_for_what_is_printed_and_a_name_of_its_own() {
        for (at, server) in SERVERS.iter().enumerate() {
            let texts = server.files.iter().map(|(_, text)| *text).chain(server.command.iter().copied());
            let places: usize = texts.map(|text| text.matches(SETTING).count()).sum();
            assert_eq!(places, 1, "{}", server.name);
            assert!(SERVERS.iter().skip(at + 1).all(|other| other.name != server.name), "{}", server.name);
        }
    }
}
