#!/bin/sh
# `tcptrace why` about nginx, redis and sshd as the distribution has them. Runs as root in a network namespace or guest of its own:
#   servers.sh TREE ATTACH   (the unpacked packages; the tier to attach by). tcptrace is on the PATH.
# One line a question, "ok" or "FAIL"; the exit status counts the failures.
tree=$1 attach=$2
failed=0

ask() { # NAME VERDICT ARGUMENTS: `why` must come to the verdict
    name=$1 wanted=$2
    shift 2
    said=$(tcptrace why "$@" --attach "$attach" --json 2>&1)
    code=$?
    last=$(echo "$said" | tail -n 1)
    verdict=$(echo "$last" | sed -n 's/.*"verdict":"\([^"]*\)".*/\1/p')
    healthy=1
    [ "$wanted" = answers ] && healthy=0
    if [ "$verdict" = "$wanted" ] && [ "$code" = "$healthy" ]; then
        echo "ok   $attach $name: $verdict"
    else
        echo "FAIL $attach $name: $verdict (exit status $code), not $wanted: $last"
        failed=$((failed + 1))
    fi
}

inside() { chroot "$tree" "$@"; }

pids() { # NAME: of the processes that go by it
    for stat in /proc/[0-9]*/stat; do
        read -r pid comm _ 2>/dev/null < "$stat" && [ "$comm" = "($1)" ] && echo "$pid"
    done
}

all() { # SIGNAL NAME
    for pid in $(pids "$2"); do kill "-$1" "$pid"; done
}

probe="--probe --timeout 2s"
mkdir -p "$tree/proc" "$tree/dev" "$tree/run/sshd" "$tree/tmp" "$tree/var/log/nginx" "$tree/var/lib/nginx" "$tree/etc"
[ -e "$tree/dev/null" ] || mknod "$tree/dev/null" c 1 3
[ -e "$tree/dev/urandom" ] || mknod "$tree/dev/urandom" c 1 9
chmod 755 "$tree" "$tree/run/sshd"
printf 'root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n' > "$tree/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$tree/etc/group"

# nginx, with hardly any backlog
cat > "$tree/etc/nginx.conf" <<'END'
user root root;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/null;
events { worker_connections 64; }
http { access_log off; server { listen 127.0.0.1:8080 backlog=1; location / { return 200 "hello\n"; } } }
END
inside /usr/sbin/nginx -c /etc/nginx.conf || echo "nginx does not start"
ask "nginx, healthy" answers 127.0.0.1:8080 $probe
ask "nginx, another address" wrong-address 127.0.0.2:8080 --for 0s
# A burst of connects, again and again, for as long as it is watched.
(while :; do inside /usr/bin/redis-benchmark -h 127.0.0.1 -p 8080 -c 50 -n 50 -t ping_inline >/dev/null 2>&1; done) &
load=$!
sleep 1
ask "nginx, backlog 1 under load" accept-queue-overflow 127.0.0.1:8080 --for 8s
kill $load
all KILL redis-benchmark
all STOP nginx
ask "nginx, stopped" process-stopped 127.0.0.1:8080 $probe
all CONT nginx
ask "nginx, continued" answers 127.0.0.1:8080 $probe
for hook in INPUT OUTPUT; do
    if inside /usr/sbin/iptables-nft -A $hook -p tcp --dport 8080 -j DROP; then
        # In the lowest tier, too, the kernel says that netfilter drops it.
        ask "nginx, iptables $hook" handshake-dropped 127.0.0.1:8080 --probe --timeout 5s
        inside /usr/sbin/iptables-nft -D $hook -p tcp --dport 8080 -j DROP
    fi
done
all TERM nginx
sleep 1
# Its connections are left in TIME_WAIT.
ask "nginx, ended" listener-exited 127.0.0.1:8080 --for 0s

# redis
inside /usr/bin/redis-server --port 6379 --bind 127.0.0.1 --save "" --daemonize yes >/dev/null
sleep 1
ask "redis, healthy" answers 127.0.0.1:6379 $probe
ask "redis, the other family" other-family "[::1]:6379" --for 0s
all STOP redis-server
ask "redis, stopped" process-stopped 127.0.0.1:6379 $probe
all CONT redis-server
(sleep 4; all TERM redis-server) &
ask "redis, ended while watched" listener-exited 127.0.0.1:6379 --for 12s

# sshd
rm -f "$tree/etc/ssh/key" "$tree/etc/ssh/key.pub"
inside /usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/key >/dev/null
printf 'Port 2222\nListenAddress 127.0.0.1\nHostKey /etc/ssh/key\nUsePAM no\n' > "$tree/etc/ssh/test_config"
inside /usr/sbin/sshd -f /etc/ssh/test_config
sleep 1
ask "sshd, healthy" answers 127.0.0.1:2222 $probe
all STOP sshd
ask "sshd, stopped" process-stopped 127.0.0.1:2222 $probe
all CONT sshd
all TERM sshd
exit $failed
