//! From an event to its row.

use crate::event::{
    Accept, AckDrop, Connect, ConnectSample, ConnectTotals, Distribution, Endpoints, Enqueue, Event, Family,
    Kind, ListenerRef, ListenerSample, ListenerTotals, PortReleased, PortTaken, RequestEnd, Syn,
    SynAckRetransmit, SynDrop, Task, Timestamp,
};
use crate::output::try_json_text;

use super::column::Lists;
use super::names::Named as _;
use super::schema::{Builders, for_each_count};

/// Writes `event` into row `row`, which is the next.
///
/// Every field of a kind that is read back from its columns is taken apart by name, so that a new one does not compile before
/// it has a column. A new kind does not compile before it is said here how it is kept: typed, or as `detail`.
///
/// # Errors
/// When an event cannot be put into words (JSON).
pub(super) fn put(columns: &mut Builders, row: usize, event: &Event) -> Result<(), serde_json::Error> {
    columns.time.put(row, event.time.nanos());
    columns.event.put(row, event.kind.name());
    match &event.kind {
        Kind::Tick | Kind::End => {}
        Kind::SynDrop(drop) => {
            let SynDrop { endpoints: ends, listener: of, cause, syncookies, total } = drop;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            columns.cause.put(row, cause.word());
            columns.syncookies.put(row, *syncookies);
            columns.total.put(row, *total);
        }
        Kind::Syn(syn) => {
            let Syn { endpoints: ends, listener: of, answer } = syn;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            columns.how.put(row, answer.word());
        }
        Kind::AckDrop(drop) => {
            let AckDrop { endpoints: ends, listener: of, cause, total } = drop;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            columns.cause.put(row, cause.word());
            columns.total.put(row, *total);
        }
        Kind::Enqueue(enqueue) => {
            let Enqueue { endpoints: ends, listener: of, child, how, handshake_ns } = enqueue;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            columns.child.put(row, *child);
            columns.how.put(row, how.word());
            columns.duration_ns.put(row, *handshake_ns);
        }
        Kind::Accept(accept) => {
            let Accept { endpoints: ends, listener: of, task: by, wait_ns, child } = &**accept;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            task(columns, row, by);
            columns.duration_ns.put(row, *wait_ns);
            columns.child.put(row, *child);
        }
        Kind::PortTaken(taken) => {
            let PortTaken { endpoints: ends, task: by, sk, how, options } = &**taken;
            endpoints(columns, row, ends);
            task(columns, row, by);
            columns.sk.put(row, *sk);
            columns.how.put(row, how.word());
            columns.options.put(row, options.bits());
        }
        Kind::PortReleased(released) => {
            let PortReleased { endpoints: ends, sk, held_ns, pid, comm, how, time_wait } = &**released;
            endpoints(columns, row, ends);
            columns.sk.put(row, *sk);
            columns.duration_ns.put(row, *held_ns);
            columns.pid.put(row, *pid);
            columns.comm.put(row, comm.as_str());
            columns.how.put(row, how.word());
            columns.time_wait.put(row, *time_wait);
        }
        Kind::SynAckRetransmit(again) => {
            let SynAckRetransmit {
                endpoints: ends,
                listener: of,
                age_ns,
                cause,
                timeouts,
                total,
                acked,
                deferred,
            } = again;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            columns.duration_ns.put(row, *age_ns);
            columns.cause.put(row, cause.word());
            columns.timeouts.put(row, *timeouts);
            columns.total.put(row, *total);
            columns.acked.put(row, *acked);
            columns.defers_accept.put(row, *deferred);
        }
        Kind::RequestEnd(end) => {
            let RequestEnd {
                endpoints: ends,
                listener: of,
                age_ns,
                how,
                timeouts,
                total,
                acked,
                deferred,
                icmp,
            } = end;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            columns.duration_ns.put(row, *age_ns);
            columns.how.put(row, how.word());
            columns.timeouts.put(row, *timeouts);
            columns.total.put(row, *total);
            columns.acked.put(row, *acked);
            columns.defers_accept.put(row, *deferred);
            columns.icmp.put(row, icmp.map(|(kind, code)| u16::from_be_bytes([kind, code])));
        }
        Kind::ListenerSample(sample) => {
            let ListenerSample { endpoints: ends, listener: of, source, totals: counts, waits, handshakes } =
                &**sample;
            endpoints(columns, row, ends);
            listener(columns, row, of);
            columns.how.put(row, source.word());
            totals(columns, row, counts);
            let Builders { wait_bucket_ns, wait_bucket_count, .. } = columns;
            distribution(wait_bucket_ns, wait_bucket_count, row, waits.as_ref());
            let Builders { handshake_bucket_ns, handshake_bucket_count, .. } = columns;
            distribution(handshake_bucket_ns, handshake_bucket_count, row, handshakes.as_ref());
        }
        Kind::Connect(connect) => {
            let Connect { endpoints: ends, task: by, sk, inode, age_ns, result, errno, syns_again, totals } =
                &**connect;
            endpoints(columns, row, ends);
            if let Some(by) = by {
                task(columns, row, by);
            }
            columns.sk.put(row, *sk);
            columns.inode.put(row, *inode);
            columns.duration_ns.put(row, *age_ns);
            columns.how.put(row, result.word());
            columns.errno.put(row, *errno);
            columns.timeouts.put(row, *syns_again);
            connects(columns, row, totals);
        }
        Kind::ConnectSample(sample) => {
            let ConnectSample { netns, pid, remote, totals } = &**sample;
            columns.netns.put(row, *netns);
            columns.pid.put(row, *pid);
            columns.remote_ip.put(row, remote.ip());
            columns.remote_port.put(row, remote.port());
            connects(columns, row, totals);
        }
        Kind::Listen(_)
        | Kind::NoPort(_)
        | Kind::PortUse(_)
        | Kind::PortSurvey(_)
        | Kind::AcceptFail(_)
        | Kind::BindFail(_)
        | Kind::ListenerClosed(_)
        | Kind::PrefixSample(_)
        | Kind::CounterSample(_)
        | Kind::KnobSample(_)
        | Kind::Device(_)
        | Kind::ProcessInfo(_)
        | Kind::ProcessState(_)
        | Kind::SocketOwner(_)
        | Kind::HolderReport(_)
        | Kind::HandshakeDrop(_)
        | Kind::NoListener(_)
        | Kind::ListenerReport(_)
        | Kind::Coverage(_)
        | Kind::Lost(_) => {
            columns.detail.put(row, try_json_text(&event.kind)?);
            for_queries(columns, row, &event.kind);
        }
    }
    Ok(())
}

/// What of a rare event people search for: its columns are not read back.
fn for_queries(columns: &mut Builders, row: usize, kind: &Kind) {
    match kind {
        Kind::Listen(listen) => {
            endpoints(columns, row, &listen.endpoints);
            listener(columns, row, &listen.listener);
            task(columns, row, &listen.task);
            columns.backlog.put(row, listen.backlog);
            columns.options.put(row, listen.options.bits());
        }
        Kind::AcceptFail(fail) => {
            endpoints(columns, row, &fail.endpoints);
            listener(columns, row, &fail.listener);
            task(columns, row, &fail.task);
            columns.errno.put(row, fail.errno);
            columns.total.put(row, fail.total);
        }
        Kind::BindFail(fail) => {
            endpoints(columns, row, &fail.endpoints);
            task(columns, row, &fail.task);
            columns.sk.put(row, fail.sk);
            columns.errno.put(row, fail.errno);
            columns.how.put(row, fail.stage.name());
            columns.options.put(row, fail.options.bits());
        }
        Kind::NoPort(none) => {
            endpoints(columns, row, &none.endpoints);
            task(columns, row, &none.task);
            columns.sk.put(row, none.sk);
            columns.total.put(row, none.total);
            columns.options.put(row, none.options.bits());
        }
        Kind::PortUse(usage) => {
            columns.netns.put(row, usage.netns);
            columns.pid.put(row, usage.pid);
            columns.comm.put(row, usage.comm.as_str());
        }
        Kind::PortSurvey(survey) => {
            columns.netns.put(row, survey.netns);
            columns.total.put(row, u64::from(survey.in_use));
        }
        Kind::ListenerClosed(closed) => {
            endpoints(columns, row, &closed.endpoints);
            listener(columns, row, &closed.listener);
            task(columns, row, &closed.task);
        }
        Kind::PrefixSample(sample) => {
            columns.netns.put(row, sample.netns);
            columns.sk.put(row, sample.sk);
            columns.remote_ip.put(row, sample.network);
            columns.total.put(row, sample.completed);
        }
        Kind::CounterSample(sample) => columns.netns.put(row, sample.netns),
        Kind::KnobSample(sample) => columns.netns.put(row, sample.netns),
        Kind::Device(device) => {
            columns.netns.put(row, device.netns);
            columns.device.put(row, device.index);
        }
        Kind::ProcessInfo(info) => {
            columns.pid.put(row, info.pid);
            columns.comm.put(row, info.comm.as_str());
            columns.uid.put(row, info.uid);
            columns.netns.put(row, info.netns);
        }
        Kind::ProcessState(state) => columns.pid.put(row, state.pid),
        Kind::SocketOwner(found) => {
            endpoints(columns, row, &found.endpoints);
            columns.sk.put(row, found.sk);
            columns.inode.put(row, found.inode);
            if let Some(owner) = found.owners.first() {
                columns.pid.put(row, owner.pid);
                columns.comm.put(row, owner.comm.as_str());
            }
        }
        Kind::HandshakeDrop(drop) => {
            endpoints(columns, row, &drop.endpoints);
            if let Some(by) = &drop.task {
                task(columns, row, by);
            }
            columns.total.put(row, drop.total);
        }
        Kind::NoListener(absent) => {
            endpoints(columns, row, &absent.endpoints);
            columns.total.put(row, absent.total);
        }
        Kind::ListenerReport(report) => {
            columns.netns.put(row, report.netns);
            columns.local_port.put(row, report.port);
        }
        Kind::HolderReport(report) => {
            columns.netns.put(row, report.netns);
            columns.local_port.put(row, report.port);
            columns.pid.put(row, report.requester);
        }
        Kind::Lost(lost) => {
            columns.how.put(row, lost.place.name());
            columns.total.put(row, lost.count);
        }
        // Nothing to search for, or typed.
        _ => {}
    }
}

fn endpoints(columns: &mut Builders, row: usize, ends: &Endpoints) {
    let Endpoints { netns, family, local, remote, device } = ends;
    columns.netns.put(row, *netns);
    let family = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    columns.family.put(row, family);
    columns.local_ip.put(row, local.ip());
    columns.local_port.put(row, local.port());
    if let Some(remote) = remote {
        columns.remote_ip.put(row, remote.ip());
        columns.remote_port.put(row, remote.port());
    }
    columns.device.put(row, *device);
}

fn listener(columns: &mut Builders, row: usize, of: &ListenerRef) {
    let ListenerRef { sk, inode, depth, limit, syn_queue } = of;
    columns.sk.put(row, *sk);
    columns.inode.put(row, *inode);
    columns.queue.put(row, *depth);
    columns.queue_limit.put(row, *limit);
    columns.syn_queue.put(row, *syn_queue);
}

fn task(columns: &mut Builders, row: usize, by: &Task) {
    let Task { pid, tid, uid, cgroup, comm } = by;
    columns.pid.put(row, *pid);
    columns.tid.put(row, *tid);
    columns.uid.put(row, *uid);
    columns.cgroup.put(row, *cgroup);
    columns.comm.put(row, comm.as_str());
}

fn connects(columns: &mut Builders, row: usize, counts: &ConnectTotals) {
    let ConnectTotals {
        since,
        syns_again,
        unanswered,
        established,
        refused,
        unreachable,
        timed_out,
        cancelled,
        errors,
    } = counts;
    columns.connects_since.put(row, since.nanos());
    columns.connects_syns_again.put(row, *syns_again);
    columns.connects_unanswered.put(row, *unanswered);
    columns.connects_established.put(row, *established);
    columns.connects_refused.put(row, *refused);
    columns.connects_unreachable.put(row, *unreachable);
    columns.connects_timed_out.put(row, *timed_out);
    columns.connects_cancelled.put(row, *cancelled);
    columns.connects_errors.put(row, *errors);
}

fn totals(columns: &mut Builders, row: usize, counts: &ListenerTotals) {
    // Taken apart by name, so that a new count does not compile before it has a column.
    macro_rules! put {
        ($($field:ident)+) => {{
            let ListenerTotals { $($field,)+ last_retransmit, last_accept, last_enqueue, last_acceptor } =
                counts;
            $( columns.$field.put(row, *$field); )+
            columns.last_retransmit.put(row, last_retransmit.map(Timestamp::nanos));
            columns.last_accept.put(row, last_accept.map(Timestamp::nanos));
            columns.last_enqueue.put(row, last_enqueue.map(Timestamp::nanos));
            columns.last_acceptor_pid.put(row, last_acceptor.map(|acceptor| acceptor.pid));
            columns.last_acceptor_tid.put(row, last_acceptor.map(|acceptor| acceptor.tid));
        }};
    }
    for_each_count!(put);
}

fn distribution(starts: &mut Lists, counts: &mut Lists, row: usize, of: Option<&Distribution>) {
    if let Some(of) = of {
        starts.put(row, of.buckets().map(|(start, _)| start));
        counts.put(row, of.buckets().map(|(_, count)| count));
    }
}
